//! Templates of `--format`: the part of Go's that Docker's users write. Pure.
//!
//! | written | means |
//! |---|---|
//! | `{{.Name}}`, `{{.Spec.Name}}`, `{{(index .Ports 0).Target}}` | a field, and one below it |
//! | `{{json .}}`, `{{.Name \| upper}}`, `{{printf "%-8s" .Name}}` | through a function, see [`functions`] |
//! | `{{.Label "a.b"}}` | one label of a list's row |
//! | `{{range .Tasks}}{{.Name}} {{else}}none{{end}}` | each item of a list or object |
//! | `{{range $key, $value := .Labels}}...{{end}}` | the same with names; `$` is the whole object |
//! | `{{if .Ports}}...{{else if .Name}}...{{else}}...{{end}}` | if it is there, and neither empty nor zero nor false |
//! | `{{with .Spec}}{{.Name}}{{end}}` | the same, and the dot is what is there |
//! | `{{- .Name -}}`, `{{/* a remark */}}` | without the blanks beside it; nothing |
//! | `\t`, `\n` | a tab, a new line |

mod fields;
mod functions;
mod parse;

use serde_json::Value;

pub use fields::fields_of;
pub use functions::plain;
use functions::{apply, is_true};

use crate::spec::stack::nearest;

/// Nesting of actions and of parentheses; a longer one is a slip of the keyboard.
const MAX_DEPTH: usize = 32;
/// Parts that are filled in one after another, so that loops in one another end.
const MAX_STEPS: usize = 1_000_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Print(Pipeline),
    /// `{{$name := ...}}`.
    Set(String, Pipeline),
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
    pub fn parse(text: &str) -> Result<Template, String> {
        parse::template(text).map(Template)
    }

    /// With `value` as the dot. `optional` are fields that it might have, and lacks. The error names another one that it
    /// has not.
    pub fn render(&self, value: &Value, optional: &[&str]) -> Result<String, String> {
        let mut filling = Filling { root: value, optional, variables: Vec::new(), steps: 0, out: String::new() };
        filling.parts(&self.0, value)?;
        Ok(filling.out)
    }
}

/// A template that is being filled in.
struct Filling<'v> {
    root: &'v Value,
    optional: &'v [&'v str],
    /// The newest last.
    variables: Vec<(String, Value)>,
    steps: usize,
    out: String,
}

impl Filling<'_> {
    /// Variables that are set among `parts` end with them.
    fn parts(&mut self, parts: &[Part], dot: &Value) -> Result<(), String> {
        let outside = self.variables.len();
        parts.iter().try_for_each(|part| self.part(part, dot))?;
        self.variables.truncate(outside);
        Ok(())
    }

    fn part(&mut self, part: &Part, dot: &Value) -> Result<(), String> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(format!(
                "the template has more than {MAX_STEPS} parts to fill in: are its ranges in one another?"
            ));
        }
        match part {
            Part::Text(text) => self.out.push_str(text),
            Part::Print(pipeline) => {
                let value = self.evaluate(pipeline, dot)?;
                self.out.push_str(&plain(&value));
            }
            Part::Set(name, pipeline) => {
                let value = self.evaluate(pipeline, dot)?;
                self.variables.push((name.clone(), value));
            }
            Part::Branch { is_dot, variable, condition, then, otherwise } => {
                let value = self.evaluate(condition, dot)?;
                let holds = is_true(&value);
                let outside = self.variables.len();
                self.variables.extend(variable.clone().map(|name| (name, value.clone())));
                match holds {
                    true => self.parts(then, if *is_dot { &value } else { dot })?,
                    false => self.parts(otherwise, dot)?,
                }
                self.variables.truncate(outside);
            }
            Part::Range { over, variables, each, otherwise } => {
                let items = items(self.evaluate(over, dot)?);
                if items.is_empty() {
                    self.parts(otherwise, dot)?;
                }
                for (key, item) in items {
                    let outside = self.variables.len();
                    let values = [item.clone(), key];
                    self.variables.extend(variables.iter().rev().cloned().zip(values));
                    self.parts(each, &item)?;
                    self.variables.truncate(outside);
                }
            }
        }
        Ok(())
    }

    fn evaluate(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for call in pipeline {
            let mut arguments = Vec::new();
            let mut function = None;
            for (at, operand) in call.iter().enumerate() {
                match operand {
                    Operand::Function(name) if at == 0 => function = Some(name.as_str()),
                    Operand::Function(name) => {
                        return Err(format!("{name} stands where a value should: use parentheses"));
                    }
                    Operand::Field(path) => arguments.push(self.field(path, dot)?),
                    Operand::Variable(name, path) => arguments.push(self.variable(name, path)?),
                    Operand::Literal(value) => arguments.push(value.clone()),
                    Operand::Nested(nested, path) => arguments.push(below(&self.evaluate(nested, dot)?, path).clone()),
                }
            }
            let is_label = matches!(&call[0], Operand::Field(path) if path.last().is_some_and(|name| name == "Label"));
            arguments.extend(last.take());
            last = Some(match (function, &arguments[..]) {
                (Some(name), _) => apply(name, &arguments)?,
                (None, [_]) => arguments.remove(0),
                (None, [labels, Value::String(name)]) if is_label => label(labels, name),
                (None, _) => return Err("several values stand side by side: which function are they for?".into()),
            });
        }
        last.ok_or_else(|| "nothing to print".into())
    }

    fn field(&self, path: &[String], dot: &Value) -> Result<Value, String> {
        let is_known = |name: &String| member(self.root, name).is_some() || self.optional.contains(&name.as_str());
        match path.first() {
            // Deeper down, what is empty is often left out.
            Some(name) if std::ptr::eq(dot, self.root) && !is_known(name) => Err(self.unknown(name)),
            _ => Ok(below(dot, path).clone()),
        }
    }

    fn variable(&self, name: &str, path: &[String]) -> Result<Value, String> {
        if name.is_empty() {
            return self.field(path, self.root);
        }
        let known = self.variables.iter().rev().find(|(known, _)| known == name);
        known.map(|(_, value)| below(value, path).clone()).ok_or_else(|| format!("there is no variable ${name}"))
    }

    fn unknown(&self, name: &str) -> String {
        let there = self.root.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
        let mut known: Vec<&str> = there.chain(self.optional.iter().copied()).collect();
        known.sort_unstable();
        known.dedup();
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("there is no field .{name}; did you mean .{near}?"),
            None => format!("there is no field .{name}; there are .{}", known.join(", .")),
        }
    }
}

/// Keys or places, and what stands there; of an object in the order of its keys.
fn items(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
        Value::Object(map) => map.into_iter().map(|(key, item)| (key.into(), item)).collect(),
        _ => Vec::new(),
    }
}

/// Names that Docker's templates have, and what some objects write in JSON.
const OTHER_NAMES: [(&str, &str); 2] = [("ID", "Id"), ("Healthcheck", "HealthCheck")];

fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let other = || OTHER_NAMES.iter().find(|(known, _)| *known == name).and_then(|(_, written)| value.get(written));
    value.get(name).or_else(other)
}

fn below<'v>(value: &'v Value, path: &[String]) -> &'v Value {
    path.iter().fold(value, |at, name| member(at, name).unwrap_or(&Value::Null))
}

/// One that is not there is empty, as in Docker; above a column stands its name.
fn label(labels: &Value, name: &str) -> Value {
    if labels.is_object() { labels.get(name).cloned().unwrap_or_else(|| "".into()) } else { name.into() }
}

#[cfg(test)]
mod tests;
