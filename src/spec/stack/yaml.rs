//! YAML as a tree that remembers where each value stands. Anchors, aliases and merge keys are already followed; what
//! they may expand to is bounded, so an alias bomb ends in an error and not in a full memory. Merge keys are followed here,
//! not by the parser, whose limits do not count what they bring.

use std::collections::BTreeSet;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MergeKeyPolicy, Spanned};

use super::problem::Place;

/// Largest stack file that is read.
pub const MAX_FILE_BYTES: usize = 4 << 20;
const MAX_DEPTH: usize = 48;
const MAX_NODES: usize = 200_000;
const MERGE_KEY: &str = "<<";
/// Parser events that aliases may add in all.
const MAX_ALIAS_EVENTS: usize = 200_000;

/// A value and its place; for one that came by an alias or a merge key, the place where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

impl Node {
    pub fn new(place: Place, value: Value) -> Node {
        Node { place, value }
    }

    pub fn text(place: Place, text: impl Into<String>) -> Node {
        Node::new(place, Value::Text(text.into()))
    }

    /// The value of a key, where this is a mapping that has it and it is not null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// In the words of a message: `a list`, `a number`.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads one file. The error has a place where the parser knows one.
pub fn parse(file: usize, text: &str) -> Result<Node, (Place, String)> {
    if text.len() > MAX_FILE_BYTES {
        return Err((Place { file, ..Place::default() }, too_large(Some(text.len() as u64))));
    }
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        strict_booleans: true,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIAS_EVENTS,
            max_replay_stack_depth: MAX_DEPTH,
        },
    };
    match serde_saphyr::from_str_with_options::<Raw>(text, options) {
        Ok(raw) => raw.into_node(file),
        Err(error) => {
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            Err((Place { file, line, column }, reason(error.without_snippet())))
        }
    }
}

/// Limits in words of their own: the parser's name its counters.
fn reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            format!("its aliases stand for more than {MAX_ALIAS_EVENTS} values: write out what they repeat")
        }
        Error::Budget { .. } => {
            format!(
                "a stack file may have {MAX_NODES} values, {MAX_DEPTH} levels deep, in one document: is it a stack file?"
            )
        }
        Error::AliasError { error, .. } => reason(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} stands here a second time"),
        other => format!("invalid YAML: {}", first_line(&other.to_string())),
    }
}

/// What to say of a file of `bytes`, also before it is read.
pub fn too_large(bytes: Option<u64>) -> String {
    let has = bytes.map_or_else(|| "too many".to_owned(), |bytes| bytes.to_string());
    format!("the file has {has} bytes, a stack file may have {MAX_FILE_BYTES}: is it a stack file?")
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message)
}

/// The tree as serde hands it over, before the file's index is known.
struct Raw {
    line: u64,
    column: u64,
    value: RawValue,
}

enum RawValue {
    Scalar(Value),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    fn into_node(self, file: usize) -> Result<Node, (Place, String)> {
        let place = Place { file, line: self.line, column: self.column };
        let value = match self.value {
            RawValue::Scalar(value) => value,
            RawValue::List(items) => {
                Value::List(items.into_iter().map(|item| item.into_node(file)).collect::<Result<_, _>>()?)
            }
            RawValue::Map(entries) => {
                let entries: Result<_, _> = entries.into_iter().map(|entry| into_entry(file, entry)).collect();
                Value::Map(merged(entries?)?)
            }
        };
        Ok(Node { place, value })
    }
}

fn into_entry(file: usize, (key, value): (Spanned<String>, Raw)) -> Result<Entry, (Place, String)> {
    let place = Place { file, line: key.defined.line(), column: key.defined.column() };
    Ok(Entry { key: key.value, place, value: value.into_node(file)? })
}

/// A mapping with what its merge key brings: own keys stand over brought ones, and of a list the earlier mappings over the
/// later.
fn merged(entries: Vec<Entry>) -> Result<Vec<Entry>, (Place, String)> {
    let (brought, mut entries): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.key == MERGE_KEY);
    let mut known: BTreeSet<String> = BTreeSet::new();
    if !brought.is_empty() {
        known.extend(entries.iter().map(|entry| entry.key.clone()));
    }
    for source in brought.into_iter().map(|entry| entry.value) {
        let place = source.place;
        let sources = match source.value {
            Value::List(items) => items,
            value => vec![Node { place, value }],
        };
        for source in sources {
            let Value::Map(more) = source.value else {
                let kind = source.kind();
                return Err((source.place, format!("{MERGE_KEY} takes a mapping or a list of mappings, not {kind}")));
            };
            entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
        }
    }
    Ok(entries)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<RawValue>::deserialize(deserializer)?;
        Ok(Raw { line: spanned.defined.line(), column: spanned.defined.column(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        // Past i64 only the text matters: nothing in a stack file counts that far.
        Ok(RawValue::Scalar(i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Text(value.to_string())))
    }

    fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Text(value)))
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawValue, D::Error> {
        RawValue::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(node: &'a Node, path: &str) -> &'a Node {
        path.split('.').fold(node, |node, key| match key.parse::<usize>() {
            Ok(index) => &node.items()[index],
            Err(_) => node.get(key).unwrap_or_else(|| panic!("{key} in {path}")),
        })
    }

    fn at(node: &Node) -> (u64, u64) {
        (node.place.line, node.place.column)
    }

    #[test]
    fn values_know_their_places() {
        let tree = parse(0, "a:\n  b: [1, two]\n  c:\n    - x: 1.5\n").unwrap();
        assert_eq!(at(find(&tree, "a.b.1")), (2, 10));
        assert_eq!(find(&tree, "a.b.0").value, Value::Int(1));
        assert_eq!(at(find(&tree, "a.c.0.x")), (4, 10));
        let entry = &find(&tree, "a").entries()[1];
        assert_eq!((entry.place.line, entry.place.column), (3, 3));
    }

    #[test]
    fn scalars_get_the_types_that_docker_gives_them() {
        let tree = parse(0, "a: 0440\nb: yes\nc: true\nd:\ne: '5'\nf: 10:30\ng: 3.0\nh: ~\ni: 0x10\n").unwrap();
        let value = |key: &str| tree.entries().iter().find(|e| e.key == key).unwrap().value.value.clone();
        assert_eq!(value("a"), Value::Int(288));
        assert_eq!(value("b"), Value::Text("yes".into()));
        assert_eq!(value("c"), Value::Bool(true));
        assert_eq!(value("d"), Value::Null);
        assert_eq!(value("e"), Value::Text("5".into()));
        assert_eq!(value("f"), Value::Text("10:30".into()));
        assert_eq!(value("g"), Value::Float(3.0));
        assert_eq!(value("h"), Value::Null);
        assert_eq!(value("i"), Value::Int(16));
    }

    #[test]
    fn earlier_mappings_of_a_merge_key_stand_over_later_ones_and_own_keys_over_all() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2, z: 2}\nc: {<<: [*b, *a, {w: 0}], z: 3}\n";
        let tree = parse(0, text).unwrap();
        let value = |key: &str| find(&tree, &format!("c.{key}")).value.clone();
        assert_eq!(
            [value("x"), value("y"), value("z"), value("w")],
            [Value::Int(1), Value::Int(2), Value::Int(3), Value::Int(0)]
        );
        let (place, why) = parse(0, "a: 1\nb: {<<: [text]}\n").unwrap_err();
        assert_eq!((place.line, why.as_str()), (2, "<< takes a mapping or a list of mappings, not a string"));
    }

    #[test]
    fn a_bomb_of_merge_keys_is_refused() {
        let mut text = "a0: &a0 {k: [x, x, x, x, x, x, x, x, x]}\n".to_owned();
        for level in 1..12 {
            let sources = vec![format!("*a{}", level - 1); 9].join(", ");
            text += &format!("a{level}: &a{level} {{<<: [{sources}], k{level}: [{sources}]}}\n");
        }
        let (_, why) = parse(0, &text).unwrap_err();
        assert!(why.contains("aliases stand for more than"), "{why}");
    }

    #[test]
    fn anchors_and_merge_keys_are_followed_to_where_they_were_written() {
        let text =
            "x-base: &base\n  image: a\n  tty: true\nservices:\n  web:\n    <<: *base\n    image: b\n  db: *base\n";
        let tree = parse(0, text).unwrap();
        assert_eq!(find(&tree, "services.web.image").value, Value::Text("b".into()));
        assert_eq!(at(find(&tree, "services.web.tty")), (3, 8));
        assert_eq!(at(find(&tree, "services.db.image")), (2, 10));
    }

    #[test]
    fn several_merged_mappings_give_way_to_the_earlier() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc:\n  <<: [*a, *b]\n  y: 3\n";
        let tree = parse(0, text).unwrap();
        for (key, value) in [("c.x", 1), ("c.y", 3), ("c.z", 2)] {
            assert_eq!(find(&tree, key).value, Value::Int(value), "{key}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for level in 1..12 {
            let alias = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
        }
        let (_, message) = parse(0, &text).unwrap_err();
        assert!(message.contains("aliases stand for more than"), "{message}");
    }

    #[test]
    fn too_deep_and_too_long_files_are_refused() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(parse(0, &deep).is_err());
        let long = "a".repeat(MAX_FILE_BYTES + 1);
        assert!(parse(0, &long).unwrap_err().1.contains("may have"));
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        let (place, message) = parse(3, "a:\n  b: [1, 2\nc: d\n").unwrap_err();
        assert_eq!(place.file, 3);
        assert!(place.line >= 2, "{place:?} {message}");
        let (place, message) = parse(0, "a: 1\na: 2\n").unwrap_err();
        assert_eq!(place.line, 2, "{message}");
        assert_eq!(message, "the key \"a\" stands here a second time");
    }
}
