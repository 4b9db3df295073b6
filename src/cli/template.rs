//! Templates of `--format`: the part of Go's that Docker's users write. Pure.
//!
//! | written | means |
//! |---|---|
//! | `{{.Name}}`, `{{.Spec.Name}}` | a field, and one below it |
//! | `{{json .}}`, `{{json .Spec}}` | as JSON |
//! | `{{.Name \| upper}}` | through a function: `json`, `upper`, `lower`, `title`, `len`, `join SEPARATOR`, `truncate N`, `println` |
//! | `{{index .Labels "a.b"}}` | an entry whose key is no word, or the item of a list |
//! | `{{range .Tasks}}{{.Name}} {{else}}none{{end}}` | each item of a list or object |
//! | `{{if .Ports}}...{{else}}...{{end}}` | if it is there, and neither empty nor zero nor false |
//! | `{{if eq .Mode "global"}}` | `eq`, `ne`, `not` |
//! | `\t`, `\n` | a tab, a new line |

use serde_json::Value;

use crate::spec::stack::nearest;

/// Nesting of `range` and `if`; a longer one is a slip of the keyboard.
const MAX_DEPTH: usize = 32;
const FUNCTIONS: [&str; 12] =
    ["json", "upper", "lower", "title", "len", "join", "truncate", "println", "index", "eq", "ne", "not"];

#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Part>, otherwise: Vec<Part> },
    Range { over: Pipeline, each: Vec<Part>, otherwise: Vec<Part> },
}

/// Calls, each with the result of the one before as its last argument.
type Pipeline = Vec<Vec<Operand>>;

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// Empty: the value itself.
    Field(Vec<String>),
    Literal(Value),
    Function(String),
    Nested(Pipeline),
}

impl Template {
    pub fn parse(text: &str) -> Result<Template, String> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut reader = Reader { rest: &text };
        let (parts, end) = reader.parts(0)?;
        match end {
            Stop::Text => Ok(Template(parts)),
            Stop::Else => Err("{{else}} without {{if}} or {{range}} before it".into()),
            Stop::End => Err("{{end}} without {{if}} or {{range}} before it".into()),
        }
    }

    /// With `value` as the dot. The error names a field of the outermost value that there is not.
    pub fn render(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.0, value, value, &mut out)?;
        Ok(out)
    }
}

/// What ended a list of parts.
enum Stop {
    Text,
    Else,
    End,
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn parts(&mut self, depth: usize) -> Result<(Vec<Part>, Stop), String> {
        if depth > MAX_DEPTH {
            return Err(format!("{{{{if}}}} and {{{{range}}}} stand in one another more than {MAX_DEPTH} deep"));
        }
        let mut parts = Vec::new();
        loop {
            let Some((text, rest)) = self.rest.split_once("{{") else {
                parts.push(Part::Text(std::mem::take(&mut self.rest).to_owned()));
                return Ok((parts, Stop::Text));
            };
            parts.push(Part::Text(text.to_owned()));
            let (action, rest) = action(rest)?;
            self.rest = rest;
            match action.split_once(char::is_whitespace).unwrap_or((action, "")) {
                ("end", "") => return Ok((parts, Stop::End)),
                ("else", "") => return Ok((parts, Stop::Else)),
                ("if", condition) => {
                    let condition = pipeline(condition)?;
                    let (then, otherwise) = self.branches("if", depth)?;
                    parts.push(Part::If { condition, then, otherwise });
                }
                ("range", over) => {
                    let over = pipeline(over)?;
                    let (each, otherwise) = self.branches("range", depth)?;
                    parts.push(Part::Range { over, each, otherwise });
                }
                _ => parts.push(Part::Print(pipeline(action)?)),
            }
        }
    }

    fn branches(&mut self, what: &str, depth: usize) -> Result<(Vec<Part>, Vec<Part>), String> {
        let open = || format!("{{{{{what}}}}} is not closed by {{{{end}}}}");
        match self.parts(depth + 1)? {
            (_, Stop::Text) => Err(open()),
            (first, Stop::End) => Ok((first, Vec::new())),
            (first, Stop::Else) => match self.parts(depth + 1)? {
                (second, Stop::End) => Ok((first, second)),
                _ => Err(open()),
            },
        }
    }
}

/// The text up to `}}` that stands in no quotes, and what follows. Dashes trim nothing here: a table's rows have no blanks.
fn action(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted && text[at..].starts_with("}}") => return Ok((text[..at].trim(), &text[at + 2..])),
            _ => {}
        }
    }
    Err("{{ is not closed by }}".into())
}

fn pipeline(text: &str) -> Result<Pipeline, String> {
    let mut words = words(text)?.into_iter().peekable();
    let pipeline = calls(&mut words, 0)?;
    match words.next() {
        None => Ok(pipeline),
        Some(word) => Err(format!("{word:?} is one too many in {{{{{text}}}}}")),
    }
}

fn calls(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>, depth: usize) -> Result<Pipeline, String> {
    if depth > MAX_DEPTH {
        return Err(format!("parentheses stand in one another more than {MAX_DEPTH} deep"));
    }
    let mut calls = vec![Vec::new()];
    while let Some(word) = words.next_if(|word| word != ")") {
        let call = calls.last_mut().expect("there is always one");
        match word.as_str() {
            "|" => calls.push(Vec::new()),
            "(" => {
                call.push(Operand::Nested(self::calls(words, depth + 1)?));
                words.next_if(|word| word == ")").ok_or("( is not closed by )")?;
            }
            word => call.push(operand(word)?),
        }
    }
    if calls.iter().any(Vec::is_empty) {
        return Err("there is nothing to print between {{ and }}, or beside a |".into());
    }
    Ok(calls)
}

fn operand(word: &str) -> Result<Operand, String> {
    if let Some(path) = word.strip_prefix('.') {
        return Ok(Operand::Field(path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()));
    }
    if word.starts_with('"') || word.parse::<f64>().is_ok() || matches!(word, "true" | "false") {
        let literal = serde_json::from_str(word).map_err(|_| format!("{word} is no text in quotes"))?;
        return Ok(Operand::Literal(literal));
    }
    if FUNCTIONS.contains(&word) {
        return Ok(Operand::Function(word.to_owned()));
    }
    // Fields begin with a capital, functions never do.
    let is_field = word.starts_with(char::is_uppercase);
    let hint = nearest(word, FUNCTIONS).filter(|_| !is_field).map_or_else(
        || format!("a field is written with a dot: .{word}; functions are {}", FUNCTIONS.join(", ")),
        |near| format!("did you mean {near}?"),
    );
    Err(format!("there is no function {word}: {hint}"))
}

/// Blanks separate; `|` and parentheses stand for themselves; quotes hold together.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                word.push(c);
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        '"' => break,
                        '\\' => word.extend(['\\'].into_iter().chain(chars.next())),
                        c => word.push(c),
                    }
                }
                word.push('"');
            }
            '|' | '(' | ')' => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
                words.push(c.to_string());
            }
            c if c.is_whitespace() => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    Ok(words)
}

fn render(parts: &[Part], dot: &Value, root: &Value, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Print(pipeline) => out.push_str(&plain(&evaluate(pipeline, dot, root)?)),
            Part::If { condition, then, otherwise } => {
                let branch = if is_true(&evaluate(condition, dot, root)?) { then } else { otherwise };
                render(branch, dot, root, out)?;
            }
            Part::Range { over, each, otherwise } => {
                let items: Vec<Value> = match evaluate(over, dot, root)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
                    _ => Vec::new(),
                };
                if items.is_empty() {
                    render(otherwise, dot, root, out)?;
                }
                for item in &items {
                    render(each, item, root, out)?;
                }
            }
        }
    }
    Ok(())
}

fn evaluate(pipeline: &Pipeline, dot: &Value, root: &Value) -> Result<Value, String> {
    let mut last: Option<Value> = None;
    for call in pipeline {
        let mut arguments = Vec::new();
        let mut function = None;
        for (at, operand) in call.iter().enumerate() {
            match operand {
                Operand::Function(name) if at == 0 => function = Some(name.as_str()),
                Operand::Function(name) => return Err(format!("{name} stands where a value should: use parentheses")),
                Operand::Field(path) => arguments.push(field(path, dot, root)?),
                Operand::Literal(value) => arguments.push(value.clone()),
                Operand::Nested(nested) => arguments.push(evaluate(nested, dot, root)?),
            }
        }
        arguments.extend(last.take());
        last = Some(match function {
            Some(name) => apply(name, &arguments)?,
            None if arguments.len() == 1 => arguments.remove(0),
            None => return Err("several values stand side by side: which function are they for?".into()),
        });
    }
    last.ok_or_else(|| "nothing to print".into())
}

fn field(path: &[String], dot: &Value, root: &Value) -> Result<Value, String> {
    let mut at = dot;
    for (depth, name) in path.iter().enumerate() {
        match at.get(name) {
            Some(below) => at = below,
            // Deeper down, what is empty is often left out.
            None if depth == 0 && std::ptr::eq(dot, root) => return Err(unknown(name, root)),
            None => return Ok(Value::Null),
        }
    }
    Ok(at.clone())
}

fn unknown(name: &str, root: &Value) -> String {
    let known: Vec<&str> = root.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no field .{name}; did you mean .{near}?"),
        None => format!("there is no field .{name}; there are .{}", known.join(", .")),
    }
}

fn apply(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let wrong = || Err(format!("{name} does not take {} values", arguments.len()));
    Ok(match (name, arguments) {
        ("json", [value]) => value.to_string().into(),
        ("upper", [value]) => plain(value).to_uppercase().into(),
        ("lower", [value]) => plain(value).to_lowercase().into(),
        ("title", [value]) => titled(&plain(value)).into(),
        ("println", [value]) => format!("{}\n", plain(value)).into(),
        ("len", [value]) => match value {
            Value::Array(list) => list.len().into(),
            Value::Object(map) => map.len().into(),
            other => plain(other).len().into(),
        },
        ("join", [Value::Array(list), Value::String(separator)] | [Value::String(separator), Value::Array(list)]) => {
            list.iter().map(plain).collect::<Vec<_>>().join(separator).into()
        }
        ("truncate", [value, Value::Number(width)] | [Value::Number(width), value]) => {
            let width = usize::try_from(width.as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
            plain(value).chars().take(width).collect::<String>().into()
        }
        ("index", [Value::Array(list), Value::Number(at)]) => {
            let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| list.get(at)).cloned().unwrap_or(Value::Null)
        }
        ("index", [map, Value::String(key)]) => map.get(key).cloned().unwrap_or(Value::Null),
        ("eq", [one, other]) => (plain(one) == plain(other)).into(),
        ("ne", [one, other]) => (plain(one) != plain(other)).into(),
        ("not", [value]) => (!is_true(value)).into(),
        _ => return wrong(),
    })
}

fn titled(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Text without quotes; nothing as Go shows it; what has parts as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(template: &str) -> Result<String, String> {
        let value = json!({
            "Name": "web", "Mode": "global", "Count": 3, "None": [], "Ports": [80, 443],
            "Spec": {"Labels": {"a.b": "c"}, "Tasks": [{"N": "x"}, {"N": "y", "Slot": 2}]},
        });
        Template::parse(template)?.render(&value)
    }

    #[test]
    fn templates_of_any_words_are_printed_or_refused() {
        let words = [
            "{{",
            "}}",
            "{{if ",
            "{{range ",
            "{{else}}",
            "{{end}}",
            "{{.}}",
            ".Name",
            ".Ports",
            ".Spec.Tasks",
            "$",
            " | ",
            "json ",
            "upper ",
            "index ",
            "(",
            ")",
            "\"",
            "`",
            "-",
            " ",
            "eq ",
            "len ",
            "printf ",
            "slice ",
            "99999999999999999999",
            "\\",
            "é",
            "table ",
            "join ",
            "truncate ",
            "pad ",
        ];
        bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
            let _ = shown(&String::from_utf8_lossy(bytes));
            let text: String = bytes.iter().map(|byte| words[usize::from(*byte) % words.len()]).collect();
            let _ = shown(&text);
        });
        assert!(shown(&"{{if (".repeat(20_000)).is_err());
        assert!(shown(&format!("{{{{{}}}}}", "(".repeat(100_000))).is_err());
    }

    #[test]
    fn templates_print_what_gos_would() {
        let cases = [
            ("plain", "plain"),
            ("{{.Name}}\\t{{ .Count }}", "web\t3"),
            ("{{json .Ports}} {{json .Name}}", "[80,443] \"web\""),
            ("{{.Name | upper}} {{upper .Name}} {{title .Mode}}", "WEB WEB Global"),
            ("{{len .Ports}} {{join .Ports \", \"}} {{index .Ports 1}}", "2 80, 443 443"),
            ("{{index .Spec.Labels \"a.b\"}}", "c"),
            ("{{range .Spec.Tasks}}{{.N}}={{.Slot}};{{end}}", "x=<no value>;y=2;"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{if .None}}a{{else}}b{{end}}{{if .Name}}c{{end}}", "bc"),
            ("{{if eq .Mode \"global\"}}g{{end}}{{if not (eq .Name \"web\")}}n{{end}}", "g"),
            ("{{\"}}\"}}{{truncate .Name 2}}", "}}we"),
            ("{{println .Name}}", "web\n"),
            ("{{.Spec.Nothing.Below}}", "<no value>"),
        ];
        for (template, expected) in cases {
            assert_eq!(shown(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("{{.Name", "{{ is not closed by }}"),
            ("{{.Nam}}", "there is no field .Nam; did you mean .Name?"),
            ("{{.Banana}}", "there is no field .Banana; there are .Count"),
            ("{{jsn .}}", "there is no function jsn: did you mean json?"),
            ("{{Name}}", "a field is written with a dot: .Name"),
            ("{{if .Name}}", "{{if}} is not closed by {{end}}"),
            ("{{range .Ports}}{{else}}", "{{range}} is not closed by {{end}}"),
            ("{{end}}", "{{end}} without"),
            ("{{}}", "there is nothing to print"),
            ("{{.Name | }}", "there is nothing to print"),
            ("{{.Name .Mode}}", "several values stand side by side"),
            ("{{join .Name}}", "join does not take 1 values"),
            ("{{(.Name}}", "( is not closed by )"),
            ("{{.Name)}}", "is one too many"),
        ];
        for (template, expected) in cases {
            let error = shown(template).expect_err(template);
            assert!(error.contains(expected), "{template}: {error}");
        }
        assert!(Template::parse(&"{{if .}}".repeat(1000)).is_err(), "and nothing overflows");
    }
}
