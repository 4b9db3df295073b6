//! Templates: the part of Go's that Docker's users write, in `--format`, in services, in the data of secrets and configs and
//! in the tags of logs. Pure.
//!
//! | written | means |
//! |---|---|
//! | `{{.Name}}`, `{{.Spec.Name}}`, `{{(index .Ports 0).Target}}` | a field, and one below it |
//! | `{{json .}}`, `{{.Name \| upper}}`, `{{printf "%-8s" .Name}}` | through a function, see [`functions`] |
//! | `{{.Label "a.b"}}` | one label of a list's row |
//! | `{{range .Tasks}}{{.Name}} {{else}}none{{end}}` | each item of a list or object |
//! | `{{range $key, $value := .Labels}}...{{end}}` | the same with names; `$` is the whole object |
//! | `{{$x := .Name}}`, `{{$x = .Other}}` | a variable, and another value of it |
//! | `{{if .Ports}}...{{else if .Name}}...{{else}}...{{end}}` | if it is there, and neither empty nor zero nor false |
//! | `{{with .Spec}}{{.Name}}{{end}}` | the same, and the dot is what is there |
//! | `{{- .Name -}}`, `{{/* a remark */}}` | without the blanks beside it; nothing |

mod check;
mod fill;
mod functions;
mod parse;
mod task;

use serde_json::Value;

pub use fill::{Budget, Lookup, Manner};
pub use functions::plain;
pub use task::{Context, Words, check_data, check_field, expand};

/// Nesting of actions and of parentheses; a longer one is a slip of the keyboard.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
    /// Errors say in which of its lines they are.
    has_lines: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Part {
    /// Where it begins, from 1.
    line: usize,
    kind: PartKind,
}

#[derive(Debug, Clone, PartialEq)]
enum PartKind {
    Text(String),
    Print(Pipeline),
    /// `{{$name := ...}}`.
    Declare(String, Pipeline),
    /// `{{$name = ...}}`.
    Assign(String, Pipeline),
    /// `if`, or with `is_dot` `with`.
    Branch {
        is_dot: bool,
        variable: Option<String>,
        condition: Pipeline,
        then: Vec<Part>,
        otherwise: Vec<Part>,
    },
    /// With up to two variables: the key and the item, or the item alone.
    Range {
        over: Pipeline,
        variables: Vec<String>,
        each: Vec<Part>,
        otherwise: Vec<Part>,
    },
}

/// Calls, each with the result of the one before as its last argument.
type Pipeline = Vec<Vec<Operand>>;

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// Below the dot; empty: the dot itself.
    Field(Vec<String>),
    /// Below a variable; the one without a name is the whole object.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    Nested(Pipeline, Vec<String>),
}

impl Template {
    /// The error says what is wrong, and in which line where there are several. It tells names, and no data.
    pub fn parse(text: &str) -> Result<Template, String> {
        let has_lines = text.contains('\n');
        match parse::template(text) {
            Ok(parts) => Ok(Template { parts, has_lines }),
            Err((line, why)) => Err(at_line(has_lines, line, why)),
        }
    }

    /// Of the command line, where `\t` and `\n` between the actions are a tab and a new line, as in Docker.
    pub fn of_format(text: &str) -> Result<Template, String> {
        let mut template = Template::parse(text)?;
        unescape(&mut template.parts);
        Ok(template)
    }

    /// With `value` as the dot. The error names a field that is not there, or what a function does not take.
    pub fn render(&self, value: &Value, manner: &Manner<'_>) -> Result<String, String> {
        fill::render(&self.parts, value, manner).map_err(|(line, why)| at_line(self.has_lines, line, why))
    }

    /// What cannot be right: fields that `shape` has not in any branch, or that `words` have not outside of all, and
    /// functions that only data may call where `is_data` is not set. Below an empty value there may be anything.
    pub fn check(&self, shape: &Value, words: &Value, is_data: bool) -> Result<(), String> {
        check::parts(&self.parts, shape, words, is_data).map_err(|(line, why)| at_line(self.has_lines, line, why))
    }
}

fn at_line(has_lines: bool, line: usize, why: String) -> String {
    if has_lines { format!("line {line}: {why}") } else { why }
}

/// A name as errors tell it.
fn cut(name: &str) -> String {
    const MOST: usize = 64;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

fn unescape(parts: &mut [Part]) {
    for part in parts {
        match &mut part.kind {
            PartKind::Text(text) => *text = text.replace("\\t", "\t").replace("\\n", "\n"),
            PartKind::Branch { then: first, otherwise, .. } | PartKind::Range { each: first, otherwise, .. } => {
                unescape(first);
                unescape(otherwise);
            }
            PartKind::Print(_) | PartKind::Declare(..) | PartKind::Assign(..) => {}
        }
    }
}

#[cfg(test)]
mod tests;
