//! `depends_on`: the short form and the long one, and what it comes to for the services of a stack.

use super::convert::Converter;
use super::forms::mapping;
use super::reader::*;
use super::suggest;
use super::yaml::{Entry, Node, Value};
use crate::spec::depends_on::cycle;
use crate::spec::{DependsOn, StartCondition};

const CONDITIONS: [&str; 3] = ["service_started", "service_healthy", "service_completed_successfully"];

pub(super) const LONG: &[Field] = &[
    Field {
        key: "condition",
        read: |reader, path, node| reader.one_of(path, node, &CONDITIONS),
        support: Support::Used,
    },
    Field { key: "required", read: boolean, support: Support::Used },
    Field { key: "restart", read: boolean, support: Support::Used },
];

/// A list of names, or a mapping; canonically a mapping, with the condition and whether it is required.
pub fn depends_on(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let place = node.place;
    let node = match node.value {
        Value::List(_) => {
            let mut entries: Vec<Entry> = Vec::new();
            for name in texts(reader, path, node)?.items() {
                let key = name.as_text().to_owned();
                if entries.iter().any(|entry| entry.key == key) {
                    reader.problem(name.place, path, format!("{key:?} stands here a second time"));
                    continue;
                }
                entries.push(Entry { key, place: name.place, value: mapping(name.place, Vec::new()) });
            }
            Node::new(place, Value::Map(entries))
        }
        _ => node,
    };
    reader.named(path, node, false, |reader, path, node| {
        let mut node = reader.object(path, node, LONG)?;
        let place = node.place;
        if let Value::Map(entries) = &mut node.value {
            let defaults = [("condition", Value::Text(CONDITIONS[0].to_owned())), ("required", Value::Bool(true))];
            for (key, value) in defaults {
                if !entries.iter().any(|entry| entry.key == key) {
                    entries.push(Entry { key: key.into(), place, value: Node::new(place, value) });
                }
            }
        }
        Some(node)
    })
}

impl Converter<'_> {
    /// Of one service, by the names that the services have in the swarm.
    pub(super) fn depends_on(&mut self, path: &str, service: &Node) -> Vec<DependsOn> {
        let root = self.root;
        let services = root.get("services").map_or(&[][..], Node::entries);
        let known: Vec<&str> = services.iter().map(|entry| entry.key.as_str()).collect();
        let mut read = Vec::new();
        for entry in service.get("depends_on").map_or(&[][..], Node::entries) {
            let dropped = self.dropped.iter().find(|(name, _)| *name == entry.key);
            if dropped.is_some() && entry.value.optional_flag("required") == Some(false) {
                continue;
            }
            if let Some((name, profiles)) = dropped {
                let message = format!(
                    "service {name:?} is only there with the profile {}: give it with --profile, or write required: false",
                    profiles.join(" or ")
                );
                self.report.problem(entry.place, &format!("{path}.depends_on"), message);
                continue;
            }
            if !known.contains(&entry.key.as_str()) {
                let near = suggest::nearest(&entry.key, known.iter().copied());
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
                let message = format!("there is no service {:?} in the stack{hint}", entry.key);
                self.report.undefined(entry.place, &format!("{path}.depends_on"), ("services", &entry.key), message);
                continue;
            }
            let condition = entry.value.get("condition").and_then(|word| StartCondition::parse(word.as_text()));
            read.push(DependsOn {
                service: format!("{}_{}", self.name, entry.key),
                condition: condition.unwrap_or(StartCondition::Started),
                required: entry.value.optional_flag("required").unwrap_or(true),
                restart: entry.value.flag("restart"),
            });
        }
        read
    }

    /// Services that wait for one another would never start; each ring is told once. One that waits for itself has a bad spec.
    pub(super) fn refuse_rings(&mut self) {
        let root = self.root;
        let services = root.get("services").map_or(&[][..], Node::entries);
        let edges = |name: &str| -> Vec<String> {
            let service = services.iter().find(|entry| entry.key == name);
            let depends_on = service.and_then(|entry| entry.value.get("depends_on"));
            depends_on.map_or(&[][..], Node::entries).iter().map(|entry| entry.key.clone()).collect()
        };
        let mut told: Vec<String> = Vec::new();
        for entry in services.iter() {
            let ring = cycle(&entry.key, edges).filter(|ring| ring.len() > 2 && !told.contains(&entry.key));
            let Some(ring) = ring else { continue };
            let place = entry.value.get("depends_on").map_or(entry.place, |node| node.place);
            let message = format!("services that wait for one another would never start: {}", ring.join(" -> "));
            self.report.problem(place, &format!("services.{}.depends_on", entry.key), message);
            told.extend(ring);
        }
    }
}
