//! What commands print: tables as Docker's, JSON lines, templates, ages.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fields::fields_of;
use crate::spec::quantity::for_people;
use crate::spec::template::{Budget, Manner, Template, plain};

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Format {
    #[default]
    Table,
    /// One object a line, with the table's columns as keys.
    Json,
    /// Filled in for each row. Given once on the command line, it lives as long as the process.
    Template(&'static Template),
    /// In columns, below their headings.
    TableTemplate(&'static Template),
}

impl Format {
    pub fn parse(text: &str) -> Result<Format, String> {
        let read = |template: &str| Template::of_format(template).map(|read| &*Box::leak(Box::new(read)));
        match (text, text.strip_prefix("table ")) {
            ("table", _) => Ok(Format::Table),
            ("json", _) => Ok(Format::Json),
            (_, Some(columns)) => read(columns).map(Format::TableTemplate),
            _ if text.contains("{{") => read(text).map(Format::Template),
            _ => Err("write table, json, or a template such as '{{.Name}}'".into()),
        }
    }

    /// One object: as a table's text, as JSON, or in a template.
    pub fn show<T>(self, value: &T, table: impl FnOnce() -> String) -> anyhow::Result<String>
    where
        T: Serialize + DeserializeOwned,
    {
        Ok(match self {
            Format::Table => table(),
            Format::Json => format!("{}\n", serde_json::to_string(value)?),
            Format::Template(template) => fill_in(template, &serde_json::to_value(value)?, fields_of::<T>())?,
            Format::TableTemplate(_) => anyhow::bail!("this is no list: write the template without table before it"),
        })
    }
}

/// One line or several. `optional` are fields that it may lack.
fn fill_in(template: &Template, value: &Value, optional: &[&str]) -> anyhow::Result<String> {
    let filled = template
        .render(value, &Manner::of_output(optional, &Budget::of_output()))
        .map_err(|why| anyhow::anyhow!("--format: {why}"))?;
    Ok(filled + "\n")
}

/// `--format`, for every command that shows something.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct FormatArg {
    /// How to print: table, json, a template such as '{{.Name}}', or a template with "table " before it
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "table", hide_default_value = true)]
    pub format: Format,
}

/// `--format`, for commands that print JSON unless they are asked for something for people.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct JsonArg {
    /// How to print: json for an object on each line, or a template such as '{{.ID}}'
    #[arg(long, short, value_name = "FORMAT", value_parser = JsonArg::parse)]
    pub format: Option<Format>,
}

impl JsonArg {
    pub fn parse(text: &str) -> Result<Format, String> {
        match Format::parse(text) {
            Ok(format @ (Format::Json | Format::Template(_))) => Ok(format),
            Ok(Format::Table | Format::TableTemplate(_)) => {
                Err("there is no table here: write json or a template".into())
            }
            Err(error) => Err(error.replace("table, ", "")),
        }
    }

    /// An indented array, or for each value a line of JSON or the template filled in.
    pub fn show<T: Serialize + DeserializeOwned>(self, values: &[T]) -> anyhow::Result<()> {
        print(&self.text(values)?)
    }

    fn text<T: Serialize + DeserializeOwned>(self, values: &[T]) -> anyhow::Result<String> {
        match self.format {
            None => Ok(serde_json::to_string_pretty(values)? + "\n"),
            Some(format) => values.iter().map(|value| format.show(value, String::new)).collect(),
        }
    }
}

/// A key for JSON and templates, and a heading for the table.
type Column = (&'static str, &'static str);

/// Rows of cells. A cell that is an object is there for templates alone: the labels that `.Label "name"` asks for.
#[derive(Debug)]
pub struct Table {
    columns: &'static [Column],
    /// Behind the others in each row, and shown where they are asked for.
    hidden: &'static [Column],
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new(columns: &'static [Column]) -> Table {
        Table::with_hidden(columns, &[])
    }

    /// `hidden` columns stand in JSON and can be named in templates.
    pub fn with_hidden(columns: &'static [Column], hidden: &'static [Column]) -> Table {
        Table { columns, hidden, rows: Vec::new() }
    }

    /// As many cells as there are columns.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.row_of(cells.map(Value::from));
    }

    /// The same, of cells that are not all texts.
    pub fn row_of<const N: usize>(&mut self, cells: [Value; N]) {
        assert_eq!(N, self.columns.len() + self.hidden.len(), "a row has a cell for each column");
        self.rows.push(cells.into());
    }

    /// The error is a template's that asks for a column which there is not.
    pub fn render(&self, format: Format) -> anyhow::Result<String> {
        Ok(match format {
            Format::Table => self.text(),
            Format::Json => self.objects().map(without_objects).map(|row| format!("{row}\n")).collect(),
            Format::Template(template) => {
                self.objects().map(|row| fill_in(template, &row, &[])).collect::<anyhow::Result<String>>()?
            }
            Format::TableTemplate(template) => {
                let rows = std::iter::once(self.headings()).chain(self.objects());
                let cells = |row| {
                    let filled = fill_in(template, &row, &[])?;
                    Ok(filled.trim_end_matches('\n').split('\t').map(str::to_owned).collect())
                };
                in_columns(&rows.map(cells).collect::<anyhow::Result<Vec<Vec<String>>>>()?)
            }
        })
    }

    /// As a table, whatever was asked for.
    pub fn text(&self) -> String {
        let heading = self.columns.iter().map(|(_, heading)| (*heading).to_string()).collect();
        let rows = self.rows.iter().map(|row| row[..self.columns.len()].iter().map(plain).collect());
        in_columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
    }

    fn all_columns(&self) -> impl Iterator<Item = &'static Column> {
        self.columns.iter().chain(self.hidden)
    }

    /// The rows by their keys.
    fn objects(&self) -> impl Iterator<Item = Value> + '_ {
        self.rows.iter().map(|row| {
            let cells = self.all_columns().zip(row);
            cells.map(|((key, _), cell)| ((*key).to_string(), cell.clone())).collect()
        })
    }

    fn headings(&self) -> Value {
        self.all_columns().map(|(key, heading)| ((*key).to_string(), Value::from(*heading))).collect()
    }
}

fn without_objects(mut row: Value) -> Value {
    if let Value::Object(cells) = &mut row {
        cells.retain(|_, cell| !cell.is_object());
    }
    row
}

/// Labels as one cell, in the order of their keys: `a=b,c=d`.
pub fn labels(labels: &std::collections::HashMap<String, String>) -> String {
    let mut pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(",")
}

/// Cells below one another, without blanks at the ends of lines.
fn in_columns(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let cell_width = |line: &Vec<String>, column: usize| line.get(column).map_or(0, |cell| cell.chars().count());
    let width = |column: usize| lines.iter().map(|line| cell_width(line, column)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}   "));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// Writes to standard output. A closed pipe is an error like others; [`super::run`] ends quietly on it.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// How long before `now` an RFC 3339 time was, in Docker's words: `5 seconds ago`, `About a minute ago`.
pub fn ago(now: Timestamp, time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => format!("{} ago", for_people(now.as_second().saturating_sub(time.as_second()))),
        Err(_) => String::new(),
    }
}

/// The only clock the CLI reads.
#[expect(clippy::disallowed_methods, reason = "a shell room shows ages")]
pub fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// At most `width` characters, with an ellipsis where something was cut.
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&[("ID", "ID"), ("Name", "NAME"), ("Note", "NOTE")]);
        table.row(["a".into(), "long name".into(), String::new()]);
        table.row(["bcd".into(), "é".into(), "x \"y\"".into()]);
        table
    }

    #[test]
    fn tables_line_up_and_end_without_blanks() {
        assert_eq!(
            sample().render(Format::Table).unwrap(),
            "ID    NAME        NOTE\na     long name\nbcd   é           x \"y\"\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = sample().render(Format::Json).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[1]["Name"], "é");
        assert_eq!(lines[1]["Note"], "x \"y\"");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn templates_are_filled_in_for_each_row_and_may_have_columns() {
        let shown = |format: &str| sample().render(Format::parse(format).unwrap());
        assert_eq!(shown("{{.ID}}-{{.Name}}").unwrap(), "a-long name\nbcd-é\n");
        assert_eq!(
            shown("table {{.Name}}\\t{{upper .ID}}").unwrap(),
            "NAME        ID\nlong name   A\né           BCD\n"
        );
        assert_eq!(shown("{{.Nam}}").unwrap_err().to_string(), "--format: there is no field .Nam; did you mean .Name?");
        assert!(Format::parse("yaml").unwrap_err().contains("write table, json, or a template"));
        assert!(JsonArg::parse("table").is_err());
    }

    #[test]
    fn one_object_is_no_table() {
        let value = serde_json::json!({"leader": "n1"});
        assert!(Format::parse("{{.x}}").unwrap().show(&value, String::new).is_err(), "its kind is not known");
        let shown = |format: &str| Format::parse(format).unwrap().show(&value, || "a table".into());
        assert_eq!(shown("table").unwrap(), "a table");
        assert_eq!(shown("json").unwrap(), "{\"leader\":\"n1\"}\n");
        assert_eq!(shown("{{.leader}}").unwrap(), "n1\n");
        assert!(shown("table {{.leader}}").is_err());
    }

    #[test]
    fn objects_of_a_kind_may_lack_a_field_and_no_row_may() {
        use bollard::models::Service;
        let services = [("a", None), ("b", Some(Default::default()))].map(|(id, update_status)| Service {
            id: Some(id.to_owned()),
            update_status,
            ..Service::default()
        });
        let shown = |format: &str| JsonArg { format: Some(JsonArg::parse(format).unwrap()) }.text(&services);
        assert_eq!(shown("json").unwrap(), "{\"ID\":\"a\"}\n{\"ID\":\"b\",\"UpdateStatus\":{}}\n");
        assert_eq!(shown("{{.ID}} {{.UpdateStatus.State}}").unwrap(), "a <no value>\nb <no value>\n");
        let error = shown("{{.UpdateStatusX}}").unwrap_err().to_string();
        assert!(error.contains("did you mean .UpdateStatus?"), "{error}");
        let plain: Vec<Value> = serde_json::from_str(&JsonArg::default().text(&services).unwrap()).unwrap();
        assert_eq!(plain.len(), 2);
    }

    #[test]
    fn hidden_columns_are_for_json_and_templates() {
        let mut table = Table::with_hidden(&[("Name", "NAME")], &[("Self", "SELF"), ("Label", "LABEL")]);
        table.row_of([Value::from("n1"), true.into(), serde_json::json!({"a": "b"})]);
        assert_eq!(table.text(), "NAME\nn1\n");
        let shown = |format: &str| table.render(Format::parse(format).unwrap()).unwrap();
        assert_eq!(shown("json"), "{\"Name\":\"n1\",\"Self\":true}\n");
        assert_eq!(shown("{{if .Self}}{{.Label \"a\"}}{{end}}"), "b\n");
        assert_eq!(shown("table {{.Name}}\\t{{.Label \"a\"}}"), "NAME   a\nn1     b\n");
    }

    #[test]
    fn ages_are_in_dockers_words() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3700, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(for_people(seconds), text);
        }
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        assert_eq!(ago(now, "2026-01-01T00:00:05.5Z"), "5 seconds ago");
        assert!(!ago(now, "0001-01-01T00:00:00Z").is_empty());
        assert_eq!(ago(now, "never"), "");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }
}
