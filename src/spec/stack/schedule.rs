//! `x-schedule`: an expression, or a mapping with it and the rest.

use super::convert::Converter;
use super::forms::mapping;
use super::reader::*;
use super::yaml::{Node, Value};
use crate::spec::{Concurrency, Schedule, ServiceMode, ServiceSpec};

pub(super) const LONG: &[Field] = &[
    Field { key: "cron", read: text, support: Support::Used },
    Field { key: "time_zone", read: text, support: Support::Used },
    Field { key: "window", read: duration, support: Support::Used },
    Field {
        key: "concurrency",
        read: |reader, path, node| reader.one_of(path, node, &Concurrency::WORDS),
        support: Support::Used,
    },
    Field { key: "history", read: count, support: Support::Used },
    Field { key: "suspend", read: boolean, support: Support::Used },
];

/// Canonically a mapping.
pub fn schedule(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let place = node.place;
    let node = match node.value {
        Value::Text(_) => mapping(place, vec![("cron", node.value)]),
        _ => node,
    };
    let node = reader.object(path, node, LONG)?;
    if node.get("cron").is_none() {
        reader.problem(place, path, "has no cron: write for example cron: \"30 3 * * *\"");
        return None;
    }
    Some(node)
}

impl Converter<'_> {
    /// What the file says, as labels say it too: so Docker's clients see it. A service whose mode is not given becomes a
    /// job.
    pub(super) fn schedule(&mut self, path: &str, service: &Node, spec: &mut ServiceSpec) {
        let Some(node) = service.get("x-schedule") else { return };
        let read = read(node).and_then(|schedule| schedule.rule().map(|_| schedule));
        match read {
            Ok(schedule) => {
                spec.labels.extend(schedule.labels());
                spec.schedule = Some(schedule);
            }
            Err(why) => self.report.problem(node.place, &format!("{path}.x-schedule"), why),
        }
        if let (ServiceMode::Replicated { replicas }, None) = (spec.mode, given_mode(service)) {
            spec.mode = ServiceMode::ReplicatedJob { max_concurrent: replicas, total_completions: replicas };
        }
    }
}

fn given_mode(service: &Node) -> Option<&Node> {
    service.get("deploy")?.get("mode")
}

fn read(node: &Node) -> Result<Schedule, String> {
    let mut schedule = Schedule::new(&node.string("cron").unwrap_or_default());
    for field in ["time_zone", "concurrency"] {
        if let Some(text) = node.string(field) {
            schedule.set(field, &text)?;
        }
    }
    if let Some(window) = node.duration("window") {
        schedule.window = window;
    }
    if let Some(history) = node.count("history") {
        schedule.history = u32::try_from(history).unwrap_or(u32::MAX);
    }
    schedule.suspend = node.flag("suspend");
    Ok(schedule)
}
