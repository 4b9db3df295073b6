//! JSON that is nearly right: a good document with some of its values replaced, taken out, repeated or renamed.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// One change, at some place of the document.
#[derive(Debug, Clone)]
pub enum Mutation {
    Replace(Value),
    Remove,
    /// A list of so many of it.
    Repeat(usize),
    /// So many lists around it.
    Wrap(usize),
    /// In another case.
    Rename,
    /// By what stands at another place.
    Copy(Index),
}

/// Values at which programs stumble.
fn odd() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1)),
        Just(json!(i64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(u64::MAX)),
        Just(json!(u32::MAX)),
        Just(json!(65536)),
        Just(json!(1.5)),
        Just(json!(1e308)),
        Just(json!(-1e-308)),
        any::<i64>().prop_map(|number| json!(number)),
    ];
    let words = prop_oneof![
        Just(String::new()),
        Just("\0".to_owned()),
        Just("é\u{202e}🦀\u{feff}".to_owned()),
        Just("../../../etc/shadow".to_owned()),
        Just("{{.Node.Hostname}}{{".to_owned()),
        Just("{{.Service.Labels.x}}{{index .Task.Name 9999999999}}".to_owned()),
        Just("node.labels.x==y==z".to_owned()),
        Just("10.0.0.0/0".to_owned()),
        Just("::/129".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("a/b:c@sha256:d".to_owned()),
        Just("0".repeat(25)),
        Just("x".repeat(70_000)),
        Just("NaN".to_owned()),
        Just("-9223372036854775809".to_owned()),
        Just("1-65535:1-65535".to_owned()),
        ".{0,40}",
    ];
    prop_oneof![
        numbers,
        words.prop_map(Value::String),
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[null], {"": {"": []}}])),
    ]
}

pub fn mutation() -> impl Strategy<Value = (Index, Mutation)> {
    let change = prop_oneof![
        6 => odd().prop_map(Mutation::Replace),
        2 => Just(Mutation::Remove),
        1 => (0usize..300).prop_map(Mutation::Repeat),
        1 => (1usize..100).prop_map(Mutation::Wrap),
        1 => Just(Mutation::Rename),
        2 => any::<Index>().prop_map(Mutation::Copy),
    ];
    (any::<Index>(), change)
}

/// The pointers (RFC 6901) to all values of a document, itself but for the first.
fn pointers(value: &Value) -> Vec<String> {
    fn below(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, item)| below(item, &format!("{at}/{index}"), found));
            }
            Value::Object(fields) => {
                for (key, field) in fields {
                    below(field, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    below(value, "", &mut found);
    found
}

/// The document with all of the changes, one after another.
pub fn mutated(mut document: Value, changes: &[(Index, Mutation)]) -> Value {
    for (place, change) in changes {
        let places = pointers(&document);
        let at = place.get(&places).clone();
        let old = document.pointer(&at).cloned().unwrap_or_default();
        match change {
            Mutation::Replace(value) => put(&mut document, &at, value.clone()),
            Mutation::Repeat(count) if old.to_string().len() < 2000 => {
                put(&mut document, &at, vec![old; *count].into())
            }
            Mutation::Wrap(depth) => {
                let wrapped = (0..*depth).fold(old, |inside, _| Value::Array(vec![inside]));
                put(&mut document, &at, wrapped);
            }
            Mutation::Copy(from) => {
                let value = document.pointer(&places[from.index(places.len())]).cloned().unwrap_or_default();
                if value.to_string().len() < 2000 {
                    put(&mut document, &at, value);
                }
            }
            Mutation::Remove | Mutation::Rename => {
                let Some((parent, key)) = at.rsplit_once('/') else { continue };
                let Some(Value::Object(fields)) = document.pointer_mut(parent) else { continue };
                let key = key.replace("~1", "/").replace("~0", "~");
                let value = fields.remove(&key);
                if let (Mutation::Rename, Some(value)) = (change, value) {
                    fields.insert(key.to_ascii_lowercase(), value);
                }
            }
            Mutation::Repeat(_) => {}
        }
    }
    document
}

fn put(document: &mut Value, at: &str, value: Value) {
    if let Some(old) = document.pointer_mut(at) {
        *old = value;
    }
}
