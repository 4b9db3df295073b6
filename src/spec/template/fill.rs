//! From a template's parts to text.

use serde_json::Value;

use super::functions::{LOOKUPS, apply, is_true, plain};
use super::{Operand, Part, PartKind, Pipeline};
use crate::spec::stack::nearest;

/// Looks up `env`, `secret` or `config` by a name; an error says what is missing, and never holds data.
pub type Lookup<'a> = &'a dyn Fn(&str, &str) -> Result<String, String>;

/// How a template is filled in, and how far it may go.
#[derive(Clone, Copy)]
pub struct Manner<'m> {
    /// Fields that the object might have, and lacks. `None`: all that is asked for, however deep, must be there.
    optional: Option<&'m [&'m str]>,
    /// What `env`, `secret` and `config` find.
    lookup: Option<Lookup<'m>>,
    /// Parts that are filled in one after another, so that loops in one another end.
    max_steps: usize,
    /// Of all texts that are made on the way, so that no template grows without end.
    max_bytes: usize,
}

impl<'m> Manner<'m> {
    /// What a command prints. Deeper than `optional` fields, what is empty is often left out, and is `<no value>`.
    pub fn of_output(optional: &'m [&'m str]) -> Manner<'m> {
        Manner { optional: Some(optional), lookup: None, max_steps: 1_000_000, max_bytes: 256 << 20 }
    }

    /// What a task gets: what is not there is an error. `lookup` for the data of secrets and configs alone.
    pub fn of_task(lookup: Option<Lookup<'m>>) -> Manner<'m> {
        Manner { optional: None, lookup, max_steps: 10_000, max_bytes: 4 << 20 }
    }
}

/// Bytes that an item of a list takes, whatever it is.
const ITEM_BYTES: usize = 32;

type Failed = (usize, String);

/// The error with the line of the part that cannot be filled in.
pub(super) fn render(parts: &[Part], value: &Value, manner: &Manner<'_>) -> Result<String, Failed> {
    let mut filling =
        Filling { root: value, manner, variables: Vec::new(), steps: 0, bytes: 0, line: 1, out: String::new() };
    match filling.parts(parts, value) {
        Ok(()) => Ok(filling.out),
        Err(why) => Err((filling.line, why)),
    }
}

/// A template that is being filled in.
struct Filling<'v> {
    root: &'v Value,
    manner: &'v Manner<'v>,
    /// The newest last.
    variables: Vec<(String, Value)>,
    steps: usize,
    bytes: usize,
    line: usize,
    out: String,
}

impl Filling<'_> {
    /// Variables that are declared among `parts` end with them.
    fn parts(&mut self, parts: &[Part], dot: &Value) -> Result<(), String> {
        let outside = self.variables.len();
        parts.iter().try_for_each(|part| self.part(part, dot))?;
        self.variables.truncate(outside);
        Ok(())
    }

    fn part(&mut self, part: &Part, dot: &Value) -> Result<(), String> {
        self.line = part.line;
        self.steps += 1;
        if self.steps > self.manner.max_steps {
            let most = self.manner.max_steps;
            return Err(format!("it has more than {most} parts to fill in: are its ranges in one another?"));
        }
        match &part.kind {
            PartKind::Text(text) => self.print(text),
            PartKind::Print(pipeline) => {
                let value = self.evaluate(pipeline, dot)?;
                self.print(&plain(&value))
            }
            PartKind::Declare(name, pipeline) => {
                let value = self.kept(pipeline, dot)?;
                self.variables.push((name.clone(), value));
                Ok(())
            }
            PartKind::Assign(name, pipeline) => {
                let value = self.kept(pipeline, dot)?;
                let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| no_variable(name))?.1 = value;
                Ok(())
            }
            PartKind::Branch { is_dot, variable, condition, then, otherwise } => {
                let value = self.kept(condition, dot)?;
                let outside = self.variables.len();
                self.variables.extend(variable.clone().map(|name| (name, value.clone())));
                match is_true(&value) {
                    true => self.parts(then, if *is_dot { &value } else { dot })?,
                    false => self.parts(otherwise, dot)?,
                }
                self.variables.truncate(outside);
                Ok(())
            }
            PartKind::Range { over, variables, each, otherwise } => {
                let items = self.items(over, dot)?;
                if items.is_empty() {
                    return self.parts(otherwise, dot);
                }
                for (key, item) in items {
                    let outside = self.variables.len();
                    let values = [item.clone(), key];
                    self.variables.extend(variables.iter().rev().cloned().zip(values));
                    self.parts(each, &item)?;
                    self.variables.truncate(outside);
                }
                Ok(())
            }
        }
    }

    fn print(&mut self, text: &str) -> Result<(), String> {
        self.charge(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > self.manner.max_bytes {
            true => Err(format!("it makes more than {} bytes", self.manner.max_bytes)),
            false => Ok(()),
        }
    }

    /// A value that stays for a while.
    fn kept(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.evaluate(pipeline, dot)?;
        self.charge(bytes(&value))?;
        Ok(value)
    }

    /// Keys or places, and what stands there; of an object in the order of its keys.
    fn items(&mut self, over: &Pipeline, dot: &Value) -> Result<Vec<(Value, Value)>, String> {
        Ok(match self.kept(over, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, item)| (key.into(), item)).collect(),
            // Above a column of a table stands its name.
            _ if self.manner.optional.is_some() => Vec::new(),
            _ => return Err("range goes through lists and maps, and this is neither".into()),
        })
    }

    fn evaluate(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
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
                    Operand::Nested(nested, path) => {
                        let value = self.evaluate(nested, dot)?;
                        arguments.push(self.below(&value, path)?);
                    }
                }
            }
            let is_label = matches!(&call[0], Operand::Field(path) if path.last().is_some_and(|name| name == "Label"));
            arguments.extend(last.take());
            last = Some(match (function, &arguments[..]) {
                (Some(name), _) => self.call(name, &arguments)?,
                (None, [_]) => arguments.remove(0),
                (None, [labels, Value::String(name)]) if is_label => label(labels, name),
                (None, _) => return Err("several values stand side by side: which function are they for?".into()),
            });
        }
        last.ok_or_else(|| "nothing to print".into())
    }

    fn call(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        self.charge(most_bytes(arguments))?;
        let is_of_task = self.manner.optional.is_none();
        let value = match (self.manner.lookup, arguments) {
            // As in Docker, where `--format` has the list first.
            (_, [Value::String(separator), parts @ ..]) if is_of_task && name == "join" && are_texts(parts) => {
                parts.iter().map(plain).collect::<Vec<_>>().join(separator).into()
            }
            _ if !LOOKUPS.contains(&name) => apply(name, arguments)?,
            (Some(lookup), [Value::String(key)]) => lookup(name, key)?.into(),
            (Some(_), _) => return Err(format!("{name} takes one name")),
            (None, _) => return Err(only_data(name)),
        };
        self.charge(bytes(&value))?;
        // As of Go's maps of texts.
        Ok(if is_of_task && value.is_null() { "".into() } else { value })
    }

    fn field(&self, path: &[String], dot: &Value) -> Result<Value, String> {
        if let (Some(optional), Some(name)) = (self.manner.optional, path.first())
            && std::ptr::eq(dot, self.root)
            && member(dot, name).is_none()
            && !optional.contains(&name.as_str())
        {
            return Err(unknown(&[], name, dot, optional));
        }
        self.below(dot, path)
    }

    fn variable(&self, name: &str, path: &[String]) -> Result<Value, String> {
        if name.is_empty() {
            return self.field(path, self.root);
        }
        let known = self.variables.iter().rev().find(|(known, _)| known == name);
        known.ok_or_else(|| no_variable(name)).and_then(|(_, value)| self.below(value, path))
    }

    fn below(&self, value: &Value, path: &[String]) -> Result<Value, String> {
        let mut at = value;
        for (depth, name) in path.iter().enumerate() {
            at = match member(at, name) {
                Some(value) => value,
                None if self.manner.optional.is_some() => return Ok(Value::Null),
                None => return Err(unknown(&path[..depth], name, at, &[])),
            };
        }
        Ok(at.clone())
    }
}

fn are_texts(values: &[Value]) -> bool {
    !values.is_empty() && values.iter().all(Value::is_string)
}

pub(super) fn only_data(function: &str) -> String {
    format!("function {function} is for the data of secrets and configs alone")
}

fn no_variable(name: &str) -> String {
    format!("there is no variable ${name}")
}

/// Of a field that `object`, which stands at `path`, has not.
pub(super) fn unknown(path: &[String], name: &str, object: &Value, optional: &[&str]) -> String {
    let before = path.iter().map(|name| format!(".{name}")).collect::<String>();
    let there = object.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
    let mut known: Vec<&str> = there.chain(optional.iter().copied()).collect();
    known.sort_unstable();
    known.dedup();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no field {before}.{name}; did you mean {before}.{near}?"),
        None if known.is_empty() => format!("there is no field {before}.{name}: nothing stands below {before}"),
        None => format!("there is no field {before}.{name}; there are .{}", known.join(", .")),
    }
}

/// Names that Docker's templates have, and what some objects write in JSON.
const OTHER_NAMES: [(&str, &str); 2] = [("ID", "Id"), ("Healthcheck", "HealthCheck")];

pub(super) fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let other = || OTHER_NAMES.iter().find(|(known, _)| *known == name).and_then(|(_, written)| value.get(written));
    value.get(name).or_else(other)
}

/// One that is not there is empty, as in Docker; above a column stands its name.
fn label(labels: &Value, name: &str) -> Value {
    if labels.is_object() { labels.get(name).cloned().unwrap_or_else(|| "".into()) } else { name.into() }
}

fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(|item| ITEM_BYTES + bytes(item)).sum(),
        Value::Object(map) => map.iter().map(|(key, item)| ITEM_BYTES + key.len() + bytes(item)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// What a function may make of them: each text may stand beside each other value, and each item of a list.
fn most_bytes(arguments: &[Value]) -> usize {
    let texts = arguments.iter().filter_map(Value::as_str).map(str::len).sum::<usize>();
    let items = arguments.iter().filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0);
    let separator = arguments.first().and_then(Value::as_str).map_or(0, str::len);
    let all = arguments.iter().map(bytes).sum::<usize>();
    all.saturating_add(texts.saturating_mul(items)).saturating_add(separator.saturating_mul(arguments.len()))
}
