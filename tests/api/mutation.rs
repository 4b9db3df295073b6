//! JSON that is nearly right: a good document with some of its values replaced, taken out, repeated or renamed.

use bolero::TypeGenerator;
use bolero::generator::{ValueGenerator, produce};
use serde_json::{Value, json};

/// One change, at some place of the document.
#[derive(Debug, Clone, TypeGenerator)]
pub struct Change {
    /// Which of its values, counted round.
    place: u16,
    mutation: Mutation,
}

#[derive(Debug, Clone, TypeGenerator)]
enum Mutation {
    Odd(u8),
    Number(i64),
    Text(#[generator(String::produce().with().len(0usize..40))] String),
    Remove,
    /// A list of so many of it.
    Repeat(u8),
    /// So many lists around it.
    Wrap(#[generator(1..100)] u8),
    /// In another case.
    Rename,
    /// By what stands at another place.
    Copy(u16),
}

pub fn changes() -> impl ValueGenerator<Output = Vec<Change>> {
    produce::<Vec<Change>>().with().len(1usize..6)
}

/// Values at which programs stumble.
fn odd(index: u8) -> Value {
    let words = [
        "",
        "\0",
        "é\u{202e}🦀\u{feff}",
        "../../../etc/shadow",
        "{{.Node.Hostname}}{{",
        "{{.Service.Labels.x}}{{index .Task.Name 9999999999}}",
        "node.labels.x==y==z",
        "10.0.0.0/0",
        "::/129",
        "127.0.0.1",
        "a/b:c@sha256:d",
        "0000000000000000000000000",
        "99999999999999999999.999999999999h",
        "NaN",
        "-9223372036854775809",
        "1-65535:1-65535",
        "none",
        "default",
    ];
    let values = [
        json!(0),
        json!(-1),
        json!(1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(u32::MAX),
        json!(65536),
        json!(1.5),
        json!(1e308),
        json!(-1e-308),
        json!("x".repeat(70_000)),
        Value::Null,
        json!(true),
        json!(false),
        json!([]),
        json!({}),
        json!([[null], {"": {"": []}}]),
    ];
    let index = usize::from(index) % (words.len() + values.len());
    words.get(index).map_or_else(|| values[index - words.len()].clone(), |word| json!(word))
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
pub fn mutated(mut document: Value, changes: &[Change]) -> Value {
    for Change { place, mutation } in changes {
        let places = pointers(&document);
        let pointer = |place: u16| places[usize::from(place) % places.len()].clone();
        let at = pointer(*place);
        let old = document.pointer(&at).cloned().unwrap_or_default();
        match mutation {
            Mutation::Odd(index) => put(&mut document, &at, odd(*index)),
            Mutation::Number(number) => put(&mut document, &at, json!(number)),
            Mutation::Text(text) => put(&mut document, &at, json!(text)),
            Mutation::Repeat(count) if old.to_string().len() < 2000 => {
                put(&mut document, &at, vec![old; usize::from(*count)].into());
            }
            Mutation::Wrap(depth) => {
                let wrapped = (0..*depth).fold(old, |inside, _| Value::Array(vec![inside]));
                put(&mut document, &at, wrapped);
            }
            Mutation::Copy(from) => {
                let value = document.pointer(&pointer(*from)).cloned().unwrap_or_default();
                if value.to_string().len() < 2000 {
                    put(&mut document, &at, value);
                }
            }
            Mutation::Remove | Mutation::Rename => {
                let Some((parent, key)) = at.rsplit_once('/') else { continue };
                let Some(Value::Object(fields)) = document.pointer_mut(parent) else { continue };
                let key = key.replace("~1", "/").replace("~0", "~");
                let value = fields.remove(&key);
                if let (Mutation::Rename, Some(value)) = (mutation, value) {
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
