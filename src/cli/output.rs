//! What commands print: tables as Docker's, JSON lines, ages.

use std::io::Write;

use jiff::Timestamp;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    #[default]
    Table,
    /// One object a line, with the table's columns as keys.
    Json,
}

/// `--format`, for every command that lists.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct FormatArg {
    /// How to print: a table, or a line of JSON for each row
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `--format`, for commands that print JSON unless they are asked for something for people.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct JsonArg {
    /// How to print: as JSON, which is what is printed anyway
    #[arg(long, value_enum, conflicts_with = "pretty")]
    pub format: Option<Json>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Json {
    Json,
}

/// Columns have a key for JSON and a heading for the table.
#[derive(Debug)]
pub struct Table {
    columns: &'static [(&'static str, &'static str)],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &'static [(&'static str, &'static str)]) -> Table {
        Table { columns, rows: Vec::new() }
    }

    /// As many cells as there are columns.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells.into());
    }

    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Json => self.json(),
        }
    }

    fn table(&self) -> String {
        let heading: Vec<String> = self.columns.iter().map(|(_, heading)| (*heading).to_string()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
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

    fn json(&self) -> String {
        let object = |row: &Vec<String>| {
            let cells = self.columns.iter().zip(row);
            let object: serde_json::Map<_, _> =
                cells.map(|((key, _), cell)| ((*key).to_string(), cell.clone().into())).collect();
            format!("{}\n", serde_json::Value::Object(object))
        };
        self.rows.iter().map(object).collect()
    }
}

/// Writes to standard output. A closed pipe is an error like others; [`super::run`] ends quietly on it.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Values as an indented JSON array, for `inspect`.
pub fn print_json(values: &[impl serde::Serialize]) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(values)?))
}

/// How long before `now` an RFC 3339 time was, in Docker's words: `5 seconds ago`, `About a minute ago`.
pub fn ago(now: Timestamp, time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => format!("{} ago", for_people(now.as_second().saturating_sub(time.as_second()))),
        Err(_) => String::new(),
    }
}

/// As Docker's `HumanDuration`.
fn for_people(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
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
            sample().render(Format::Table),
            "ID    NAME        NOTE\na     long name\nbcd   é           x \"y\"\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = sample().render(Format::Json);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[1]["Name"], "é");
        assert_eq!(lines[1]["Note"], "x \"y\"");
        assert_eq!(lines.len(), 2);
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
