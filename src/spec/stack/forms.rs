//! Short forms and their long ones: ports, volumes, the files of secrets and configs, hosts, networks, environment.

use super::dotenv;
use super::features::Feature;
use super::reader::*;
use super::yaml::{Entry, Node, Value};
use crate::spec::publish::{MAX_PUBLISHED_PORTS, ShortPorts};
use crate::spec::{NodeNetwork, Protocol};

/// Builds a canonical mapping whose values all stand at one place.
pub(super) fn mapping(place: super::problem::Place, entries: Vec<(&str, Value)>) -> Node {
    let entries =
        entries.into_iter().map(|(key, value)| Entry { key: key.into(), place, value: Node::new(place, value) });
    Node::new(place, Value::Map(entries.collect()))
}

/// `[host-ip:][published:]target[/protocol]`, ranges included, and the long form; canonically a list of long forms,
/// each with mode, target and protocol.
pub fn ports(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let Value::List(items) = node.value else {
        reader.problem(node.place, path, "must be a list");
        return None;
    };
    let mut ports = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let inner = format!("{path}[{index}]");
        match item.value {
            Value::Map(_) => ports.extend(long_port(reader, &inner, item)),
            _ => ports.extend(short_port(reader, &inner, item).unwrap_or_default()),
        }
        if ports.len() > MAX_PUBLISHED_PORTS {
            reader.problem(node.place, path, format!("publishes more than {MAX_PUBLISHED_PORTS} ports"));
            return None;
        }
    }
    Some(Node::new(node.place, Value::List(ports)))
}

fn short_port(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Vec<Node>> {
    let node = text(reader, path, node)?;
    let place = node.place;
    reader.needs(Feature::IngressPorts, place, path);
    let short = reader.parsed(place, path, ShortPorts::parse(node.as_text()))?;
    if let Some(ip) = short.host_ip {
        reader.report.warn(
            place,
            path,
            format!("the host address {ip} is ignored: a swarm publishes on every address"),
        );
    }
    let port = |(published, target): (Option<u16>, u16)| {
        let mut entries = vec![("mode", Value::Text("ingress".into())), ("target", Value::Int(target.into()))];
        entries.extend(published.map(|port| ("published", Value::Int(port.into()))));
        entries.push(("protocol", Value::Text(word(short.protocol).into())));
        mapping(place, entries)
    };
    Some(short.ports.into_iter().map(port).collect())
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

pub(super) const LONG_PORT: &[Field] = &[
    Field { key: "mode", read: port_mode, support: Support::Used },
    Field { key: "target", read: port_number, support: Support::Used },
    Field { key: "published", read: published_port, support: Support::Used },
    Field { key: "protocol", read: port_protocol, support: Support::Used },
    Field { key: "name", read: text, support: Support::Used },
    Field { key: "app_protocol", read: text, support: Support::Ignored },
    Field { key: "host_ip", read: text, support: Support::Ignored },
];

fn long_port(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let mut port = reader.object(path, node, LONG_PORT)?;
    if port.get("target").is_none() {
        reader.problem(port.place, path, "has no target port");
        return None;
    }
    let mode = port.get("mode").map_or("ingress", Node::as_text).to_string();
    if mode == "ingress" {
        reader.needs(Feature::IngressPorts, port.get("mode").map_or(port.place, |node| node.place), path);
    }
    let place = port.place;
    if let Value::Map(entries) = &mut port.value {
        for (key, default) in [("mode", "ingress"), ("protocol", "tcp")] {
            if !entries.iter().any(|entry| entry.key == key) {
                entries.push(Entry { key: key.into(), place, value: Node::text(place, default) });
            }
        }
    }
    Some(port)
}

fn port_mode(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.one_of(path, node, &["ingress", "host"])
}

fn port_protocol(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.one_of(path, node, &PROTOCOLS)
}

fn port_number(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = integer(reader, path, node)?;
    match node.value {
        Value::Int(1..=65535) => Some(node),
        _ => {
            reader.problem(node.place, path, "a port is a number from 1 to 65535");
            None
        }
    }
}

/// 0 leaves the choice to the swarm.
fn published_port(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    match scalar_text(&node.value).as_deref() {
        Some("0" | "") => None,
        _ => port_number(reader, path, node),
    }
}

/// `env_file` and `environment` together, as a mapping in which the second wins; a bare key takes its value from the
/// client's environment and stays bare where that has none.
pub fn resolve_environment(reader: &mut Reader<'_>, path: &str, service: &mut Node) {
    let place = service.place;
    let Value::Map(entries) = &mut service.value else { return };
    let mut take = |key: &str| entries.iter().position(|entry| entry.key == key).map(|at| entries.remove(at));
    let (files, own) = (take("env_file"), take("environment"));
    if files.is_none() && own.is_none() {
        return;
    }
    let mut resolved: Vec<Entry> = Vec::new();
    let mut set = |entry: Entry| match resolved.iter_mut().find(|known| known.key == entry.key) {
        Some(known) => known.value = entry.value,
        None => resolved.push(entry),
    };
    for file in files.iter().flat_map(|files| files.value.items()) {
        for (key, value) in env_file(reader, &format!("{path}.env_file"), file) {
            let value = value.or_else(|| reader.variables.get(&key).cloned()).map_or(Value::Null, Value::Text);
            set(Entry { key, place: file.place, value: Node::new(file.place, value) });
        }
    }
    for mut entry in own.into_iter().flat_map(|own| own.value.entries().to_vec()) {
        if let (true, Some(value)) = (entry.value.is_null(), reader.variables.get(&entry.key)) {
            entry.value.value = Value::Text(value.clone());
        }
        set(entry);
    }
    entries.push(Entry { key: "environment".into(), place, value: Node::new(place, Value::Map(resolved)) });
}

fn env_file(reader: &mut Reader<'_>, path: &str, file: &Node) -> Vec<dotenv::Variable> {
    let required = file.get("required").is_none_or(|required| required.value != Value::Bool(false));
    let written = file.get("path").map_or(file.as_text(), Node::as_text);
    let name = absolute(reader, written);
    let content = match (reader.read_file)(&name) {
        Ok(content) => content,
        Err(_) if !required => return Vec::new(),
        Err(why) => {
            reader.problem(file.place, path, format!("{written}: {why}"));
            return Vec::new();
        }
    };
    let parsed = dotenv::parse(&content).map_err(|why| format!("{written}: {why}"));
    reader.parsed(file.place, path, parsed).unwrap_or_default()
}

pub(super) const ENV_FILE: &[Field] = &[
    Field { key: "path", read: text, support: Support::Used },
    Field { key: "required", read: boolean, support: Support::Used },
];

/// A path, or a list of paths and of `{path, required}`; canonically a list.
pub fn env_files(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let place = node.place;
    let node = match node.value {
        Value::List(_) => node,
        _ => Node::new(place, Value::List(vec![node])),
    };
    reader.list(path, node, |reader, path, node| match node.value {
        Value::Map(_) => {
            let node = reader.object(path, node, ENV_FILE)?;
            if node.get("path").is_none() {
                reader.problem(node.place, path, "has no path");
                return None;
            }
            Some(node)
        }
        _ => text(reader, path, node),
    })
}

/// `host:address` or `host=address` in a list, or a mapping; canonically a list of `host:address`.
pub fn hosts(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let place = node.place;
    let mut hosts = Vec::new();
    match node.value {
        Value::Map(_) => {
            for entry in key_values(reader, path, node)?.entries() {
                let address = entry.value.as_text();
                hosts.push(Node::text(entry.place, format!("{}:{address}", entry.key)));
            }
        }
        _ => {
            for item in texts(reader, path, node)?.items() {
                let split = item.as_text().split_once(['=', ':']);
                match split.filter(|(host, address)| !host.is_empty() && !address.is_empty()) {
                    Some((host, address)) => hosts.push(Node::text(item.place, format!("{host}:{address}"))),
                    None => reader.problem(item.place, path, format!("{:?} is not host:address", item.as_text())),
                }
            }
        }
    }
    Some(Node::new(place, Value::List(hosts)))
}

/// A network of the node's own. Another container's has no meaning in a swarm.
pub fn network_mode(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let place = node.place;
    if NodeNetwork::named(node.as_text()).is_some() {
        return Some(node);
    }
    reader.warn(place, path, "ignored: only host, none and bridge have an effect in a swarm");
    None
}

pub(super) const FILE_REFERENCE: &[Field] = &[
    Field { key: "source", read: text, support: Support::Used },
    Field { key: "target", read: text, support: Support::Used },
    Field { key: "uid", read: text, support: Support::Used },
    Field { key: "gid", read: text, support: Support::Used },
    Field { key: "mode", read: integer, support: Support::Used },
];

/// A service's secrets or configs: names or long forms; canonically long forms.
pub fn file_references(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.list(path, node, |reader, path, node| match node.value {
        Value::Map(_) => {
            let node = reader.object(path, node, FILE_REFERENCE)?;
            if node.get("source").is_none() {
                reader.problem(node.place, path, "has no source");
                return None;
            }
            Some(node)
        }
        _ => {
            let node = text(reader, path, node)?;
            Some(mapping(node.place, vec![("source", node.value)]))
        }
    })
}

pub(super) const ATTACHMENT: &[Field] = &[
    Field { key: "aliases", read: texts, support: Support::Used },
    Field { key: "driver_opts", read: labels, support: Support::Used },
    Field { key: "ipv4_address", read: text, support: Support::Ignored },
    Field { key: "ipv6_address", read: text, support: Support::Ignored },
    Field { key: "link_local_ips", read: anything, support: Support::Ignored },
    Field { key: "mac_address", read: anything, support: Support::Ignored },
    Field { key: "priority", read: anything, support: Support::Ignored },
    Field { key: "gw_priority", read: anything, support: Support::Ignored },
];

/// A service's networks: a list of names, or a mapping; canonically a mapping.
pub fn attachments(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let place = node.place;
    let node = match node.value {
        Value::List(_) => {
            let names = texts(reader, path, node)?;
            let entry = |name: &Node| Entry {
                key: name.as_text().to_string(),
                place: name.place,
                value: Node::new(name.place, Value::Null),
            };
            Node::new(place, Value::Map(names.items().iter().map(entry).collect()))
        }
        _ => node,
    };
    reader.named(path, node, true, |reader, path, node| reader.object(path, node, ATTACHMENT))
}

/// `nofile: 1024` or `{soft, hard}`; canonically the latter.
pub fn ulimits(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    const BOTH: &[Field] = &[
        Field { key: "soft", read: integer, support: Support::Used },
        Field { key: "hard", read: integer, support: Support::Used },
    ];
    reader.named(path, node, false, |reader, path, node| {
        if !matches!(node.value, Value::Map(_)) {
            let node = integer(reader, path, node)?;
            return Some(mapping(node.place, vec![("soft", node.value.clone()), ("hard", node.value)]));
        }
        let node = reader.object(path, node, BOTH)?;
        if node.get("soft").is_none() || node.get("hard").is_none() {
            reader.problem(node.place, path, "needs both soft and hard");
            return None;
        }
        Some(node)
    })
}
