//! Several files as one, in canonical form, as Docker merges them: later files win key by key, lists grow, and where a
//! list's items have a name (a mount's target, a published port, a secret's source) the later item replaces the earlier.

use super::yaml::{Entry, Node, Value};

/// How two lists, or two mappings, at the same key become one.
enum Rule {
    Replace,
    Append,
    /// Items of the same name replace one another.
    By(&'static str),
    /// Key by key, unless this key differs: then the later replaces the earlier as a whole.
    SameOnly(&'static str),
}

/// `path` names the keys from the file's root, for example `["services", "web", "ports"]`.
fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, "command" | "entrypoint"] => Rule::Replace,
        ["services", _, "healthcheck", "test"] => Rule::Replace,
        ["services", _, "ulimits", _] => Rule::Replace,
        ["services", _, "volumes"] => Rule::By("target"),
        ["services", _, "ports"] => Rule::By("published"),
        ["services", _, "secrets" | "configs"] => Rule::By("source"),
        ["services", _, "logging"] => Rule::SameOnly("driver"),
        _ => Rule::Append,
    }
}

pub fn files(base: Node, over: Node) -> Node {
    merge(&[], base, over)
}

/// A service on its base, as `extends` has it.
pub fn services(base: Node, over: Node) -> Node {
    merge(&["services", ""], base, over)
}

fn merge(path: &[&str], base: Node, over: Node) -> Node {
    let place = over.place;
    match (base.value, over.value, rule(path)) {
        (Value::Map(base), Value::Map(over), Rule::SameOnly(key)) if differ(&base, &over, key) => {
            Node::new(place, Value::Map(over))
        }
        (Value::Map(base), Value::Map(over), Rule::Append | Rule::SameOnly(_)) => {
            Node::new(place, Value::Map(merge_maps(path, base, over)))
        }
        (Value::List(mut base), Value::List(over), Rule::Append) => {
            base.extend(over);
            Node::new(place, Value::List(base))
        }
        (Value::List(mut base), Value::List(over), Rule::By(key)) => {
            for item in over {
                match base.iter_mut().find(|known| item.get(key).is_some() && name(known, key) == name(&item, key)) {
                    Some(known) => *known = item,
                    None => base.push(item),
                }
            }
            Node::new(place, Value::List(base))
        }
        // A bare key in a later file (`networks: {a: }`) takes nothing away.
        (base, Value::Null, _) => Node::new(place, base),
        (_, over, _) => Node::new(place, over),
    }
}

fn name<'n>(item: &'n Node, key: &str) -> Option<&'n Value> {
    item.get(key).map(|node| &node.value)
}

fn differ(base: &[Entry], over: &[Entry], key: &str) -> bool {
    let value =
        |entries: &[Entry]| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.value.clone());
    matches!((value(base), value(over)), (Some(base), Some(over)) if base != over)
}

fn merge_maps(path: &[&str], mut base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    for entry in over {
        let Some(known) = base.iter_mut().find(|known| known.key == entry.key) else {
            base.push(entry);
            continue;
        };
        let old = std::mem::replace(&mut known.value, Node::new(entry.place, Value::Null));
        let inner: Vec<&str> = path.iter().copied().chain([entry.key.as_str()]).collect();
        known.value = merge(&inner, old, entry.value);
        known.place = entry.place;
    }
    base
}
