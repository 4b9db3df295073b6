//! From a template's parts to text.

use std::cell::Cell;

use serde_json::Value;

use super::functions::{LOOKUPS, apply, is_true, plain};
use super::{Operand, Part, PartKind, Pipeline, cut};
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
    budget: &'m Budget,
}

impl<'m> Manner<'m> {
    /// What a command prints. Deeper than `optional` fields, what is empty is often left out, and is `<no value>`.
    pub fn of_output(optional: &'m [&'m str], budget: &'m Budget) -> Manner<'m> {
        Manner { optional: Some(optional), lookup: None, budget }
    }

    /// What a task gets: what is not there is an error. `lookup` for the data of secrets and configs alone.
    pub fn of_task(lookup: Option<Lookup<'m>>, budget: &'m Budget) -> Manner<'m> {
        Manner { optional: None, lookup, budget }
    }
}

/// What may be used up before templates are given up, by one or by several together.
#[derive(Debug)]
pub struct Budget {
    /// Parts that are filled in and values that are looked at, so that loops in one another end.
    steps: Cell<usize>,
    /// Of all that is copied and made on the way, so that nothing grows without end.
    bytes: Cell<usize>,
}

impl Budget {
    fn new(steps: usize, bytes: usize) -> Budget {
        Budget { steps: Cell::new(steps), bytes: Cell::new(bytes) }
    }

    /// Of one object that a command prints.
    pub fn of_output() -> Budget {
        Budget::new(1_000_000, 256 << 20)
    }

    /// Of all of a task's container, or of one of its files.
    pub fn of_task() -> Budget {
        Budget::new(100_000, 4 << 20)
    }

    /// Of a hostname, or the tag of a log.
    pub fn of_name() -> Budget {
        Budget::new(1_000, 64 << 10)
    }

    fn step(&self) -> Result<(), String> {
        let left = self.steps.get().checked_sub(1);
        self.steps.set(left.ok_or("it has too many steps to be filled in: are its ranges in one another?")?);
        Ok(())
    }

    fn charge(&self, bytes: usize) -> Result<(), String> {
        let left = self.bytes.get().checked_sub(bytes);
        self.bytes.set(left.ok_or("what it makes has too many bytes")?);
        Ok(())
    }
}

/// Functions that stop at the first operand that is as true as this.
const DECIDED_BY: [(&str, bool); 2] = [("and", false), ("or", true)];

/// Bytes that a value takes, whatever it is.
const VALUE_BYTES: usize = 32;

type Failed = (usize, String);

/// The error with the line of the part that cannot be filled in.
pub(super) fn render(parts: &[Part], value: &Value, manner: &Manner<'_>) -> Result<String, Failed> {
    let mut filling = Filling { root: value, manner, variables: Vec::new(), line: 1, out: String::new() };
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
        self.manner.budget.step()?;
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
        self.manner.budget.charge(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    /// A value that stays for a while, and may be copied for a variable.
    fn kept(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.evaluate(pipeline, dot)?;
        self.manner.budget.charge(bytes(&value))?;
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
            if let [Operand::Function(name), operands @ ..] = call.as_slice()
                && let Some(ends_with) = DECIDED_BY.iter().find(|(known, _)| known == name).map(|(_, truth)| *truth)
            {
                last = Some(self.decided(operands, last, dot, ends_with)?);
                continue;
            }
            let mut arguments = Vec::new();
            let mut function = None;
            for (at, operand) in call.iter().enumerate() {
                self.manner.budget.step()?;
                match operand {
                    Operand::Function(name) if at == 0 => function = Some(name.as_str()),
                    operand => arguments.push(self.operand(operand, dot)?),
                }
            }
            let is_label = matches!(&call[0], Operand::Field(path) if path.last().is_some_and(|name| name == "Label"));
            arguments.extend(last.take());
            last = Some(match (function, &arguments[..]) {
                (Some(name), _) => {
                    let is_said = matches!(call.as_slice(), [_, Operand::Literal(_)]);
                    self.call(name, &arguments, is_said)?
                }
                (None, [_]) => arguments.remove(0),
                (None, [labels, Value::String(name)]) if is_label => label(labels, name),
                (None, _) => return Err("several values stand side by side: which function are they for?".into()),
            });
        }
        last.ok_or_else(|| "nothing to print".into())
    }

    /// Of `and` and `or`: the first operand whose truth decides, or else the last. Those behind it are not looked at.
    fn decided(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
        ends_with: bool,
    ) -> Result<Value, String> {
        let mut value = None;
        for operand in operands {
            self.manner.budget.step()?;
            let found = self.operand(operand, dot)?;
            if is_true(&found) == ends_with {
                return Ok(found);
            }
            value = Some(found);
        }
        piped.or(value).ok_or_else(|| "and and or take a value at least".into())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Field(path) => self.field(path, dot),
            Operand::Variable(name, path) => self.variable(name, path),
            Operand::Literal(value) => {
                self.manner.budget.charge(bytes(value))?;
                Ok(value.clone())
            }
            Operand::Nested(nested, path) => {
                let value = self.evaluate(nested, dot)?;
                self.below(&value, path)
            }
            Operand::Function(name) => Err(format!("{name} stands where a value should: use parentheses")),
        }
    }

    /// `is_said`: its only argument stands in the template, and so may stand in an error.
    fn call(&self, name: &str, arguments: &[Value], is_said: bool) -> Result<Value, String> {
        self.manner.budget.charge(most_bytes(arguments))?;
        let is_of_task = self.manner.optional.is_none();
        let value = match (self.manner.lookup, arguments) {
            // As in Docker, where `--format` has the list first.
            (_, [Value::String(separator), parts @ ..]) if is_of_task && name == "join" && are_texts(parts) => {
                parts.iter().map(plain).collect::<Vec<_>>().join(separator).into()
            }
            _ if !LOOKUPS.contains(&name) => apply(name, arguments)?,
            (Some(lookup), [Value::String(key)]) => {
                let found = lookup(name, key);
                let unsaid = || format!("{name}: there is nothing of the name that the template made for it");
                found.map_err(|why| if is_said { why } else { unsaid() })?.into()
            }
            (Some(_), _) => return Err(format!("{name} takes one name")),
            (None, _) => return Err(only_data(name)),
        };
        self.manner.budget.charge(bytes(&value))?;
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
        self.manner.budget.charge(bytes(at))?;
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
    format!("there is no variable ${}", cut(name))
}

/// Of a field that `object`, which stands at `path`, has not.
pub(super) fn unknown(path: &[String], name: &str, object: &Value, optional: &[&str]) -> String {
    let before = path.iter().map(|name| format!(".{name}")).collect::<String>();
    let (before, shown) = (cut(&before), cut(name));
    let there = object.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
    let mut known: Vec<&str> = there.chain(optional.iter().copied()).collect();
    known.sort_unstable();
    known.dedup();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no field {before}.{shown}; did you mean {before}.{near}?"),
        None if known.is_empty() => format!("there is no field {before}.{shown}: nothing stands below {before}"),
        None => format!("there is no field {before}.{shown}; there are .{}", known.join(", .")),
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
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(bytes).sum(),
            Value::Object(map) => map.iter().map(|(key, item)| VALUE_BYTES + key.len() + bytes(item)).sum(),
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
