//! What is wrong with the specs that the files make, told where it stands in them.

use super::super::problem::Place;
use super::super::reader::scalar_text;
use super::super::yaml::{Entry, Node, Value};
use super::{Converter, section};
use crate::spec::Fault;

/// What tells an item of a list of mappings from the others.
const NAMES: [&str; 5] = ["target", "source", "published", "spread", "subnet"];

impl Converter<'_> {
    /// What was told of the same thing before, in other words, stands alone.
    pub(super) fn report_faults(&mut self, kind: &str, entry: &Entry, faults: Vec<Fault>) {
        let located: Vec<_> = faults
            .into_iter()
            .map(|fault| (self.locate(kind, entry, &fault.at), fault.why))
            .filter(|((place, path), _)| !self.report.has_problem(*place, path))
            .collect();
        for ((place, path), why) in located {
            self.report.problem(place, &path, why);
        }
    }

    /// What no node can do is deployed, and waits.
    pub(super) fn warn_of_unmet(&mut self, kind: &str, entry: &Entry, unmet: Vec<Fault>) {
        for Fault { at, why } in unmet {
            let (place, path) = self.locate(kind, entry, &at);
            self.report.warn(place, &path, format!("{why}; tasks wait until it is changed"));
        }
    }

    /// The place of what `at` leads to below `entry`, and its path; of what is not written there, the place of what it would
    /// stand in.
    fn locate(&self, kind: &str, entry: &Entry, at: &[String]) -> (Place, String) {
        let keys: Vec<&str> = at.iter().map(String::as_str).collect();
        match keys.as_slice() {
            // What a volume is, is said in a section of its own.
            ["volumes", target, rest @ ("driver" | "driver_opts")] if kind == "services" => {
                let volume = self.volume_mounted_at(&entry.value, target);
                volume.map_or_else(|| descend(kind, entry, &keys[..2]), |volume| descend("volumes", volume, &[rest]))
            }
            ["networks", name, rest @ ..] if kind == "services" => {
                let key = self.network_key(&entry.value, name);
                descend(kind, entry, &[&["networks", key.unwrap_or(name)], rest].concat())
            }
            keys => descend(kind, entry, keys),
        }
    }

    fn volume_mounted_at(&self, service: &Node, target: &str) -> Option<&Entry> {
        let mounts = service.get("volumes").map_or(&[][..], Node::items);
        let mount = mounts.iter().find(|mount| mount.string("target").as_deref() == Some(target))?;
        let source = mount.string("source")?;
        section(self.root, "volumes").iter().find(|volume| volume.key == source)
    }

    /// As the service's networks are called in the file, by their names in the swarm.
    fn network_key<'n>(&self, service: &'n Node, name: &str) -> Option<&'n str> {
        let scoped = |key: &str| {
            let defined = section(self.root, "networks").iter().find(|network| network.key == key);
            defined.map_or_else(|| format!("{}_{key}", self.name), |network| self.scoped(key, &network.value))
        };
        let networks = service.get("networks").map_or(&[][..], Node::entries);
        networks.iter().map(|network| network.key.as_str()).find(|key| scoped(key) == name)
    }
}

fn descend(kind: &str, entry: &Entry, keys: &[&str]) -> (Place, String) {
    let (mut place, mut path, mut node) = (entry.place, format!("{kind}.{}", entry.key), &entry.value);
    for (index, key) in keys.iter().enumerate() {
        match &node.value {
            Value::Map(entries) => {
                let Some(inner) = entries.iter().find(|entry| entry.key == *key) else {
                    return (
                        place,
                        [path.as_str()].iter().chain(&keys[index..]).copied().collect::<Vec<_>>().join("."),
                    );
                };
                place = place_of(inner);
                node = &inner.value;
                path = format!("{path}.{key}");
            }
            Value::List(items) => {
                let Some(index) = items.iter().position(|item| is_called(item, key)) else { break };
                (place, node) = (items[index].place, &items[index]);
                path = format!("{path}[{index}]");
            }
            _ => break,
        }
    }
    (place, path)
}

/// A mapping or a list is told by its key, anything else by itself.
fn place_of(entry: &Entry) -> Place {
    match entry.value.value {
        Value::Map(_) | Value::List(_) | Value::Null => entry.place,
        _ => entry.value.place,
    }
}

/// Whether a fault's path means this item. Text may have more behind a colon (`name:address`, `/dev/a:/dev/b`), and a capability
/// stands for itself without its prefix.
fn is_called(item: &Node, name: &str) -> bool {
    match &item.value {
        Value::Map(_) => NAMES
            .iter()
            .any(|key| item.get(key).and_then(|value| scalar_text(&value.value)).is_some_and(|value| value == name)),
        value => scalar_text(value).is_some_and(|text| {
            let first = text.split_once(':').map_or(text.as_str(), |(first, _)| first);
            text == name
                || first == name
                || name.strip_prefix("CAP_").is_some_and(|bare| text.eq_ignore_ascii_case(bare))
        }),
    }
}
