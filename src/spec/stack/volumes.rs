//! A service's mounts: Docker's short form `[source:]target[:options]`, the long form, and `tmpfs:`.

use super::features::Feature;
use super::forms::mapping;
use super::problem::Place;
use super::reader::*;
use super::yaml::{Entry, Node, Value};

const KINDS: [&str; 5] = ["bind", "volume", "tmpfs", "cluster", "npipe"];
const RECURSIONS: [&str; 4] = ["enabled", "disabled", "writable", "readonly"];
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

const fn used(key: &'static str, read: Read) -> Field {
    Field { key, read, support: Support::Used }
}

const fn ignored(key: &'static str) -> Field {
    Field { key, read: anything, support: Support::Ignored }
}

pub(super) const LONG: &[Field] = &[
    used("type", |reader, path, node| reader.one_of(path, node, &KINDS)),
    used("source", text),
    used("target", text),
    used("read_only", boolean),
    ignored("consistency"),
    used("bind", |reader, path, node| reader.object(path, node, BIND)),
    used("volume", |reader, path, node| reader.object(path, node, VOLUME)),
    used("tmpfs", |reader, path, node| reader.object(path, node, TMPFS)),
    used("cluster", |reader, path, node| reader.object(path, node, &[])),
];
pub(super) const BIND: &[Field] = &[
    used("propagation", |reader, path, node| reader.one_of(path, node, &PROPAGATIONS)),
    used("create_host_path", boolean),
    used("recursive", |reader, path, node| reader.one_of(path, node, &RECURSIONS)),
    ignored("selinux"),
];
pub(super) const VOLUME: &[Field] = &[used("nocopy", boolean), used("subpath", text), used("labels", labels)];
pub(super) const TMPFS: &[Field] = &[used("size", size), used("mode", integer)];

/// Canonically a list of long forms, each with type and target; the source of a bind is an absolute path. As in Docker, one that
/// is absolute already stays as it is written.
pub fn mounts(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.list(path, node, |reader, path, node| match node.value {
        Value::Map(_) => long(reader, path, node),
        _ => short(reader, path, node),
    })
}

fn long(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let has_type = node.get("type").is_some();
    let mut mount = reader.object(path, node, LONG)?;
    let place = mount.place;
    let kind = match mount.get("type") {
        Some(kind) => kind.as_text().to_string(),
        None if has_type => return None,
        None => {
            reader.problem(place, path, "has no type: write bind, volume or tmpfs");
            return None;
        }
    };
    let source = mount.get("source").map(|source| source.as_text().to_string());
    if mount.get("target").is_none() {
        reader.problem(place, path, "has no target");
        return None;
    }
    check_kind(reader, path, place, &kind, source.is_some())?;
    for part in ["bind", "volume", "tmpfs", "cluster"] {
        if let (true, Some(options)) = (part != kind, mount.get(part)) {
            let (at, message) = (options.place, format!("{part} options do not fit a mount of type {kind}"));
            reader.problem(at, path, message);
        }
    }
    if let (true, Value::Map(entries)) = (kind == "bind", &mut mount.value) {
        let host = host_path(reader, &source.unwrap_or_default());
        for entry in entries.iter_mut().filter(|entry| entry.key == "source") {
            entry.value.value = Value::Text(host.clone());
        }
    }
    Some(mount)
}

fn check_kind(reader: &mut Reader<'_>, path: &str, place: Place, kind: &str, has_source: bool) -> Option<()> {
    match (kind, has_source) {
        ("npipe", _) => {
            reader.problem(place, path, "named pipes exist only on Windows");
            None
        }
        ("bind", false) => {
            reader.problem(place, path, "a bind mount needs a source");
            None
        }
        ("tmpfs", true) => {
            reader.problem(place, path, "a tmpfs mount has no source");
            None
        }
        ("cluster", _) => {
            reader.needs(Feature::ClusterVolumes, place, path);
            Some(())
        }
        _ => Some(()),
    }
}

fn short(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = text(reader, path, node)?;
    let place = node.place;
    let parts: Vec<&str> = node.as_text().split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => {
            reader.problem(place, path, format!("{:?} is not [source:]target[:options]", node.as_text()));
            return None;
        }
    };
    if source == Some("") {
        reader.problem(place, path, format!("{:?} has an empty source", node.as_text()));
        return None;
    }
    let is_path = |source: &str| source.starts_with(['/', '.', '~']);
    let kind = if source.is_some_and(is_path) { "bind" } else { "volume" };
    let mut entries = vec![("type", Value::Text(kind.into()))];
    if let Some(source) = source {
        let source = if kind == "bind" { host_path(reader, source) } else { source.to_string() };
        entries.push(("source", Value::Text(source)));
    }
    entries.push(("target", Value::Text(target.into())));
    for option in options.split(',').filter(|option| !option.is_empty()) {
        short_option(reader, path, place, kind, option, &mut entries)?;
    }
    Some(mapping(place, entries))
}

fn host_path(reader: &Reader<'_>, source: &str) -> String {
    if source.starts_with('/') { source.to_owned() } else { absolute(reader, source) }
}

fn short_option(
    reader: &mut Reader<'_>,
    path: &str,
    place: Place,
    kind: &str,
    option: &str,
    entries: &mut Vec<(&str, Value)>,
) -> Option<()> {
    let mut nested = |name: &'static str, key: &str, value: Value| {
        let entry = Entry { key: key.into(), place, value: Node::new(place, value) };
        match entries.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Value::Map(known))) => known.push(entry),
            _ => entries.push((name, Value::Map(vec![entry]))),
        }
    };
    match option {
        "ro" => entries.push(("read_only", Value::Bool(true))),
        "rw" => {}
        "nocopy" if kind == "volume" => nested("volume", "nocopy", Value::Bool(true)),
        option if PROPAGATIONS.contains(&option) && kind == "bind" => {
            nested("bind", "propagation", Value::Text(option.into()));
        }
        "z" | "Z" | "cached" | "delegated" | "consistent" => {
            reader.report.warn(place, path, format!("the option {option} is ignored in a swarm"));
        }
        _ => {
            reader.problem(place, path, format!("unknown option {option:?} for a {kind} mount"));
            return None;
        }
    }
    Some(())
}

/// `tmpfs:` of a service: paths with options (`/run:size=64m,mode=1777`); canonically tmpfs mounts.
pub fn tmpfs(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = text_or_texts(reader, path, node)?;
    let mut mounts = Vec::new();
    for item in node.items() {
        let (target, options) = item.as_text().split_once(':').unwrap_or((item.as_text(), ""));
        let mut parts = Vec::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            parts.extend(tmpfs_option(reader, path, item.place, option));
        }
        let kind = Value::Text("tmpfs".into());
        let mut entries = vec![("type", kind), ("target", Value::Text(target.into()))];
        if options.split(',').any(|option| option == "ro") {
            entries.push(("read_only", Value::Bool(true)));
        }
        if !parts.is_empty() {
            entries.push(("tmpfs", mapping(item.place, parts).value));
        }
        mounts.push(mapping(item.place, entries));
    }
    Some(Node::new(node.place, Value::List(mounts)))
}

fn tmpfs_option(reader: &mut Reader<'_>, path: &str, place: Place, option: &str) -> Option<(&'static str, Value)> {
    match option.split_once('=') {
        Some(("size", bytes)) => size(reader, path, Node::text(place, bytes)).map(|node| ("size", node.value)),
        Some(("mode", mode)) => {
            let mode = i64::from_str_radix(mode, 8).map_err(|_| format!("the mode {mode:?} is not octal"));
            reader.parsed(place, path, mode).map(|mode| ("mode", Value::Int(mode)))
        }
        // What a tmpfs mount in a container has anyway.
        None if matches!(option, "ro" | "rw" | "noexec" | "nosuid" | "nodev") => None,
        _ => {
            reader.problem(place, path, format!("unknown tmpfs option {option:?}"));
            None
        }
    }
}
