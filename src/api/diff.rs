//! How two specs differ, field by field, for people and for scripts. Works on their JSON, so that a field that a spec gets
//! one day is compared without a word here.

use serde_json::{Map, Value};

use super::model::plan::FieldChange;
use crate::spec::quantity;
use crate::spec::volume::masked;

/// Fields that name one of several objects in a list: mounts, ports and networks by their target, the rest by name.
const IDENTITIES: [&str; 4] = ["target", "name", "container_path", "kind"];
/// Lists whose order means something: they differ as a whole.
const IN_ORDER: [&str; 3] = ["command", "args", "test"];

/// What is different in `new`, in order of the fields.
pub fn diff(old: &Value, new: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare("", &readable(old), &readable(new), &mut changes);
    changes
}

fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<FieldChange>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => compare_maps(path, old, new, false, changes),
        (Value::Array(old), Value::Array(new)) if !is_in_order(path) => match (keyed(path, old), keyed(path, new)) {
            (Some(old), Some(new)) => compare_maps(path, &old, &new, true, changes),
            _ => whole(path, old.clone().into(), new.clone().into(), changes),
        },
        _ => whole(path, old.clone(), new.clone(), changes),
    }
}

fn compare_maps(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    is_list: bool,
    changes: &mut Vec<FieldChange>,
) {
    let before = changes.len();
    let mut keys: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
    keys.sort();
    for key in keys {
        let below = match (path, is_list) {
            ("", _) => key.clone(),
            (_, true) => format!("{path}[{key}]"),
            (_, false) => format!("{path}.{key}"),
        };
        compare(&below, old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), changes);
    }
    if is_list && changes.len() == before {
        // The same in another order.
        let list = |map: &Map<String, Value>| map.values().cloned().collect::<Vec<_>>().into();
        whole(path, list(old), list(new), changes);
    }
}

fn whole(path: &str, old: Value, new: Value, changes: &mut Vec<FieldChange>) {
    let said = |value: Value| Some(value).filter(|value| !is_nothing(value));
    let (from, to) = (said(old), said(new));
    if from != to {
        // Compared in clear, shown without passwords.
        let shown = |value: Option<Value>| value.map(|value| without_passwords(path, value));
        changes.push(FieldChange { path: path.to_owned(), from: shown(from), to: shown(to) });
    }
}

/// Of the options that a volume is mounted with.
fn without_passwords(path: &str, value: Value) -> Value {
    match value {
        Value::String(text) if path.ends_with("driver_options.o") => masked(&text).into(),
        Value::Object(map) => {
            let below = |(key, value): (String, Value)| {
                let masked = without_passwords(&format!("{path}.{key}"), value);
                (key, masked)
            };
            map.into_iter().map(below).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.into_iter().map(|item| without_passwords(path, item)).collect::<Vec<_>>().into(),
        other => other,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_in_order(path: &str) -> bool {
    IN_ORDER.iter().any(|name| path.rsplit('.').next() == Some(name))
}

/// The items of a list by what tells them apart; `None` where nothing does.
fn keyed(path: &str, list: &[Value]) -> Option<Map<String, Value>> {
    let variables = path.rsplit('.').next() == Some("env");
    let of = |item: &Value, identity: Option<&str>| match (item, identity) {
        (Value::String(text), _) if variables => {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            Some((key.to_owned(), Value::from(value)))
        }
        (Value::Object(map), Some(identity)) => Some((said(map.get(identity)?), item.clone())),
        (Value::String(text), _) => Some((text.clone(), item.clone())),
        (Value::Number(number), _) => Some((number.to_string(), item.clone())),
        _ => None,
    };
    let identity = |item: &Value| IDENTITIES.into_iter().find(|identity| item.get(identity).is_some());
    let identity = list.first().and_then(identity);
    let map: Map<String, Value> = list.iter().map(|item| of(item, identity)).collect::<Option<_>>()?;
    (map.len() == list.len()).then_some(map)
}

fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.len() == 1 => said(map.values().next().unwrap_or(&Value::Null)),
        other => other.to_string(),
    }
}

/// Durations in words.
fn readable(value: &Value) -> Value {
    match value {
        Value::Object(map) => match (map.len(), map.get("secs"), map.get("nanos")) {
            (2, Some(secs), Some(nanos)) => {
                let nanos = u32::try_from(nanos.as_u64().unwrap_or(0)).unwrap_or(0);
                let duration = std::time::Duration::new(secs.as_u64().unwrap_or(0), nanos);
                quantity::format_duration(duration).into()
            }
            _ => map.iter().map(|(key, value)| (key.clone(), readable(value))).collect::<Map<_, _>>().into(),
        },
        Value::Array(list) => list.iter().map(readable).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(old: Value, new: Value) -> Vec<String> {
        let side = |value: Option<Value>| value.map_or("-".to_owned(), |value| value.to_string());
        diff(&old, &new).into_iter().map(|c| format!("{} {} {}", c.path, side(c.from), side(c.to))).collect()
    }

    #[test]
    fn what_is_the_same_is_not_named() {
        let value = json!({"a": {"b": [1, {"name": "x"}]}, "env": ["A=1"]});
        assert_eq!(lines(value.clone(), value), Vec::<String>::new());
        assert_eq!(lines(json!({"a": null}), json!({"a": []})), Vec::<String>::new(), "nothing is nothing");
    }

    #[test]
    fn variables_labels_and_durations_are_compared_each_for_itself() {
        let old = json!({"env": ["A=1", "B=2"], "labels": {"x": "1"}, "delay": {"secs": 5, "nanos": 0}});
        let new = json!({"env": ["B=3", "C=4"], "labels": {"x": "1", "y": ""}, "delay": {"secs": 90, "nanos": 0}});
        assert_eq!(
            lines(old, new),
            [r#"delay "5s" "1m30s""#, r#"env[A] "1" -"#, r#"env[B] "2" "3""#, r#"env[C] - "4""#]
        );
    }

    #[test]
    fn objects_in_lists_are_known_by_what_they_are_for() {
        let old = json!({"mounts": [{"target": "/a", "ro": false}, {"target": "/b", "ro": false}]});
        let new = json!({"mounts": [{"target": "/b", "ro": true}]});
        let expected = [r#"mounts[/a] {"ro":false,"target":"/a"} -"#.to_owned(), "mounts[/b].ro false true".to_owned()];
        assert_eq!(lines(old, new), expected);
    }

    #[test]
    fn a_changed_password_is_told_without_itself() {
        let with = |o: &str| json!({"mounts": [{"target": "/a", "volume": {"driver_options": {"o": o}}}]});
        let masked = r#"mounts[/a].volume.driver_options.o "password=********" "password=********""#;
        assert_eq!(lines(with("password=a"), with("password=b")), [masked]);
        let new = lines(json!({}), with("password=a,rw"));
        assert!(new[0].contains("********,rw") && !new[0].contains("=a"), "{new:?}");
    }

    #[test]
    fn order_counts_where_it_means_something() {
        assert_eq!(
            lines(json!({"c": {"args": ["a", "b"]}}), json!({"c": {"args": ["b", "a"]}})),
            [r#"c.args ["a","b"] ["b","a"]"#]
        );
        assert_eq!(lines(json!({"cap_add": ["A"]}), json!({"cap_add": ["A", "B"]})), [r#"cap_add[B] - "B""#]);
    }
}
