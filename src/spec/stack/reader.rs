//! Brings a value into its canonical form: the one type, the long form. A reader takes a node as written and gives the
//! canonical one, or reports what is wrong and gives nothing. Canonical trees are what is merged, printed and converted.

use super::features::{Feature, Features};
use super::interpolate::Variables;
use super::problem::{Place, Report};
use super::suggest;
use super::words;
use super::yaml::{Entry, Node, Value};
use crate::spec::quantity;

/// Reads a file that a stack file names (env_file, the data of secrets and configs), by its absolute path.
pub type ReadFile<'a> = dyn Fn(&str) -> Result<Vec<u8>, String> + 'a;

pub struct Reader<'a> {
    pub report: &'a mut Report,
    pub features: Features,
    pub variables: &'a Variables,
    /// Absolute; relative paths in stack files begin here.
    pub working_dir: &'a str,
    pub read_file: &'a ReadFile<'a>,
}

/// How one key of a mapping is treated.
pub struct Field {
    pub key: &'static str,
    pub read: Read,
    pub support: Support,
}

pub type Read = fn(&mut Reader<'_>, &str, Node) -> Option<Node>;

#[derive(Clone, Copy)]
pub enum Support {
    Used,
    /// Docker ignores it in a swarm, with a warning; so does flok.
    Ignored,
    /// It has no meaning in a swarm; the text says what does.
    Refused(&'static str),
    Needs(Feature),
}

impl Reader<'_> {
    pub fn problem(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.report.problem(place, path, message);
    }

    pub fn warn(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.report.warn(place, path, message);
    }

    /// Reports `feature` as missing unless it is there.
    pub fn needs(&mut self, feature: Feature, place: Place, path: &str) {
        if !self.features.has(feature) {
            self.problem(place, path, feature.refusal());
        }
    }

    fn mismatch(&mut self, node: &Node, path: &str, expected: &str) {
        self.problem(node.place, path, format!("must be {expected}, but it is {}", node.kind()));
    }

    /// A mapping with known keys. `x-` keys are left out; null values count as absent.
    pub fn object(&mut self, path: &str, node: Node, fields: &[Field]) -> Option<Node> {
        let Value::Map(entries) = node.value else {
            self.mismatch(&node, path, "a mapping");
            return None;
        };
        let entries = entries.into_iter().filter_map(|entry| self.field(path, entry, fields)).collect();
        Some(Node::new(node.place, Value::Map(entries)))
    }

    fn field(&mut self, path: &str, entry: Entry, fields: &[Field]) -> Option<Entry> {
        let Entry { key, place, value } = entry;
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(field) = fields.iter().find(|field| field.key == key) else {
            if !key.starts_with("x-") {
                self.unknown_key(place, path, &key, fields.iter().map(|field| field.key));
            }
            return None;
        };
        match field.support {
            Support::Used => {}
            Support::Ignored => {
                self.report.warn(place, &inner, "ignored: it has no effect in a swarm");
                return None;
            }
            Support::Refused(why) => {
                self.problem(place, &inner, why);
                return None;
            }
            Support::Needs(feature) if !self.features.has(feature) => {
                self.problem(place, &inner, feature.refusal());
                return None;
            }
            Support::Needs(_) => {}
        }
        if value.is_null() {
            return None;
        }
        (field.read)(self, &inner, value).map(|value| Entry { key, place, value })
    }

    pub fn unknown_key<'k>(&mut self, place: Place, path: &str, key: &str, known: impl Iterator<Item = &'k str>) {
        let shown: String = key.chars().take(64).collect();
        let hint = match suggest::nearest(key, known) {
            Some(near) => format!("; did you mean {near:?}?"),
            None => String::new(),
        };
        self.problem(place, path, format!("unknown key {shown:?}{hint}"));
    }

    /// A mapping of names that the user chose, each value read by `read`; null values are kept where `nulls` says so.
    pub fn named(&mut self, path: &str, node: Node, nulls: bool, read: Read) -> Option<Node> {
        let Value::Map(entries) = node.value else {
            self.mismatch(&node, path, "a mapping");
            return None;
        };
        let mut named = Vec::with_capacity(entries.len());
        for Entry { key, place, value } in entries {
            if key.starts_with("x-") {
                continue;
            }
            let inner = format!("{path}.{key}");
            let name_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if key.is_empty() || !key.chars().all(name_ok) {
                self.problem(
                    place,
                    path,
                    format!("invalid name {key:?}: letters, digits, '.', '_' and '-' may stand in it"),
                );
                continue;
            }
            let value = match value.value {
                Value::Null if nulls => Some(Node::new(place, Value::Null)),
                _ => read(self, &inner, value),
            };
            named.extend(value.map(|value| Entry { key, place, value }));
        }
        Some(Node::new(node.place, Value::Map(named)))
    }

    pub fn list(&mut self, path: &str, node: Node, read: Read) -> Option<Node> {
        let Value::List(items) = node.value else {
            self.mismatch(&node, path, "a list");
            return None;
        };
        let mut read_items = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            read_items.extend(read(self, &format!("{path}[{index}]"), item));
        }
        Some(Node::new(node.place, Value::List(read_items)))
    }

    pub fn one_of(&mut self, path: &str, node: Node, words: &[&str]) -> Option<Node> {
        let node = text(self, path, node)?;
        let word = node.as_text();
        if words.contains(&word) {
            return Some(node);
        }
        let hint = suggest::nearest(word, words.iter().copied()).map(|near| format!("; did you mean {near:?}?"));
        let message = format!("{word:?} is none of {}{}", words.join(", "), hint.unwrap_or_default());
        self.problem(node.place, path, message);
        None
    }

    /// Reports the error of a quantity and gives nothing.
    pub fn parsed<T, E: ToString>(&mut self, place: Place, path: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problem(place, path, error.to_string())).ok()
    }
}

impl Node {
    /// The text of a canonical string; empty for anything else.
    pub fn as_text(&self) -> &str {
        match &self.value {
            Value::Text(text) => text,
            _ => "",
        }
    }
}

/// A scalar as text, where a number may stand for its digits; `None` for booleans, lists and mappings.
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

pub fn text(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    match (scalar_text(&node.value), &node.value) {
        (Some(text), _) => Some(Node::text(node.place, text)),
        (None, Value::Bool(_)) => {
            reader.problem(node.place, path, "must be a string: put it in quotes");
            None
        }
        (None, _) => {
            reader.mismatch(&node, path, "a string");
            None
        }
    }
}

pub fn boolean(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let value = match &node.value {
        Value::Bool(value) => Some(*value),
        Value::Text(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "y" | "yes" | "on" => Some(true),
            "0" | "false" | "n" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    };
    if value.is_none() {
        reader.mismatch(&node, path, "true or false");
    }
    value.map(|value| Node::new(node.place, Value::Bool(value)))
}

pub fn integer(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let value = match &node.value {
        Value::Int(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => Some(*number as i64),
        _ => None,
    };
    if value.is_none() {
        let found = scalar_text(&node.value).map_or_else(|| node.kind().to_string(), |text| format!("{text:?}"));
        reader.problem(node.place, path, format!("must be a whole number, but it is {found}"));
    }
    value.map(|value| Node::new(node.place, Value::Int(value)))
}

/// A whole number from 0 on.
pub fn count(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = integer(reader, path, node)?;
    match node.value {
        Value::Int(number) if number < 0 => {
            reader.problem(node.place, path, format!("must not be negative, but it is {number}"));
            None
        }
        _ => Some(node),
    }
}

/// From 0.0 to 1.0.
pub fn ratio(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let value = scalar_text(&node.value).and_then(|text| text.trim().parse::<f64>().ok());
    match value {
        Some(value) if (0.0..=1.0).contains(&value) => Some(Node::new(node.place, Value::Float(value))),
        _ => {
            reader.problem(node.place, path, "must be a number from 0.0 to 1.0");
            None
        }
    }
}

/// Bytes, canonically as decimal text.
pub fn size(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = text(reader, path, node)?;
    let bytes = reader.parsed(node.place, path, quantity::parse_size(node.as_text()))?;
    Some(Node::text(node.place, bytes.to_string()))
}

/// Canonically as Go prints it.
pub fn duration(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = text(reader, path, node)?;
    let duration = reader.parsed(node.place, path, quantity::parse_duration(node.as_text()))?;
    Some(Node::text(node.place, quantity::format_duration(duration)))
}

pub fn cpus(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = text(reader, path, node)?;
    reader.parsed(node.place, path, quantity::parse_nano_cpus(node.as_text()))?;
    Some(node)
}

/// For what is ignored or refused anyway.
pub fn anything(_: &mut Reader<'_>, _: &str, node: Node) -> Option<Node> {
    Some(node)
}

pub fn texts(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.list(path, node, text)
}

/// One string or a list of them; canonically a list.
pub fn text_or_texts(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    match node.value {
        Value::List(_) => texts(reader, path, node),
        _ => {
            let place = node.place;
            text(reader, path, node).map(|node| Node::new(place, Value::List(vec![node])))
        }
    }
}

/// A command: a list, or a string that splits into words as in a shell; canonically a list.
pub fn command(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    if matches!(node.value, Value::List(_)) {
        return texts(reader, path, node);
    }
    let node = text(reader, path, node)?;
    let split = words::split(node.as_text()).map_err(|why| format!("the command does not split into words: {why}"));
    let words = reader.parsed(node.place, path, split)?;
    let items = words.into_iter().map(|word| Node::text(node.place, word)).collect();
    Some(Node::new(node.place, Value::List(items)))
}

/// `KEY=value` in a list, or a mapping; canonically a mapping to text, or to null for a bare key.
pub fn key_values(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let mut pairs: Vec<Entry> = Vec::new();
    let mut add = |key: String, place: Place, value: Node| match pairs.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => entry.value = value,
        None => pairs.push(Entry { key, place, value }),
    };
    match node.value {
        Value::List(items) => {
            for (index, item) in items.into_iter().enumerate() {
                let Some(item) = text(reader, &format!("{path}[{index}]"), item) else { continue };
                let (key, value) = match item.as_text().split_once('=') {
                    Some((key, value)) => (key, Value::Text(value.to_string())),
                    None => (item.as_text(), Value::Null),
                };
                if key.is_empty() {
                    reader.problem(item.place, path, format!("{:?} has no name before the =", item.as_text()));
                    continue;
                }
                add(key.to_string(), item.place, Node::new(item.place, value));
            }
        }
        Value::Map(entries) => {
            for Entry { key, place, value } in entries {
                let value = match value.value {
                    Value::Null => Some(Node::new(place, Value::Null)),
                    _ => text(reader, &format!("{path}.{key}"), value),
                };
                if let Some(value) = value {
                    add(key, place, value);
                }
            }
        }
        _ => {
            reader.mismatch(&node, path, "a mapping or a list of KEY=value");
            return None;
        }
    }
    Some(Node::new(node.place, Value::Map(pairs)))
}

/// A mapping to text; a null counts as empty.
pub fn labels(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let mut node = key_values(reader, path, node)?;
    if let Value::Map(entries) = &mut node.value {
        for entry in entries.iter_mut().filter(|entry| entry.value.is_null()) {
            entry.value.value = Value::Text(String::new());
        }
    }
    Some(node)
}

/// A relative path's absolute form below the working directory, with `~`, `.` and `..` resolved; no disk is looked at.
pub fn absolute(reader: &Reader<'_>, path: &str) -> String {
    absolute_in(reader.working_dir, reader.variables, path)
}

/// [`absolute`] below `working_dir`; `~` is what `variables` say of `HOME`.
pub fn absolute_in(working_dir: &str, variables: &Variables, path: &str) -> String {
    let joined = match path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => format!("{}{rest}", variables.get("HOME").map_or("", String::as_str)),
        None if path.starts_with('/') => path.to_string(),
        None => format!("{working_dir}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
