//! What is wrong with this node's network: what the plan wants beside what the kernel was found to have, in words. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use super::names::{OVERLAY, TABLE, overlay};
use super::plan::LocalTask;
use super::plane::SwarmView;
use super::state::*;
use crate::spec::{Concern, Condition, Finding, Protocol, Subnet, TaskId, Way};

/// Differences named of each kind; the rest are counted.
const NAMED: usize = 3;

/// Everything, as it was at one moment.
pub struct Examined {
    pub swarm: SwarmView,
    /// Whether an interface has the address that the overlay's datagrams are sent from.
    pub has_own_address: bool,
    pub wanted: KernelState,
    pub found: KernelState,
    /// Whether the base chains are as they were installed.
    pub chains: bool,
    /// The host's interfaces, and which of them are up.
    pub links: BTreeMap<Interface, bool>,
    pub tasks: BTreeMap<TaskId, LocalTask>,
    pub published: BTreeSet<(Protocol, u16)>,
    pub taken: BTreeSet<(Protocol, u16)>,
    /// What the kernel would not do, in its words.
    pub refused: Vec<String>,
}

/// The node as a whole.
pub fn node(seen: &Examined, conditions: &[Condition]) -> Vec<Finding> {
    let mut findings = vec![device(seen), own_address(seen)];
    findings.push(match seen.chains {
        true => Finding::ok("nftables", format!("the chains of the table {TABLE} are in force")),
        false => Finding::broken("nftables", format!("the table {TABLE} is missing, or its chains were changed")),
    });
    let Examined { wanted, found, .. } = seen;
    let changes = Changes::between(found, wanted);
    let address = |address: &IpAddr| address.to_string();
    findings.extend([
        compared("addresses", wanted.addresses.len(), &changes.addresses, address),
        compared("routes", wanted.routes.len(), &changes.routes, |(table, to)| format!("{to} in table {table}")),
        compared("rules", wanted.rules.len(), &changes.rules, |rule| {
            format!("{} at {}", if rule.ipv6 { "IPv6" } else { "IPv4" }, rule.priority)
        }),
        compared("neighbours", wanted.neighbours.len(), &changes.neighbours, |(on, at)| format!("{at} on {on}")),
        compared("forwarding", wanted.remotes.len(), &changes.remotes, |mac| format!("{mac} on {OVERLAY}")),
        compared("elements", wanted.elements.len(), &changes.elements, |(set, key)| element(*set, key)),
        compared("balance", wanted.balancers.len(), &changes.balancers, |chain| format!("chain {chain}")),
    ]);
    findings.extend(seen.refused.iter().map(|what| Finding::broken("kernel", format!("refuses: {what}"))));
    findings.push(interfaces(seen));
    findings.extend(ports(seen, conditions));
    findings
}

/// One half of the way between two tasks: all that this node has to have for it, of either direction.
pub fn way(seen: &Examined, way: &Way) -> Vec<Finding> {
    let Some(task) = seen.tasks.get(&way.own) else {
        return vec![Finding::broken("task", format!("this node has made no network for task {}", way.own))];
    };
    let mut findings = vec![match seen.links.get(&task.interface) {
        Some(true) => Finding::ok("interface", format!("{} is up", task.interface)),
        Some(false) => Finding::broken("interface", format!("{} is down", task.interface)),
        None => Finding::broken("interface", format!("{} is gone", task.interface)),
    }];
    let remote = seen.swarm.overlay.is_none_or(|overlay| overlay.node != way.other_node);
    if remote {
        findings.push(device(seen));
        findings.push(member(seen, way));
    }
    for (own, other) in &way.pairs {
        findings.extend(own_end(seen, task, *own));
        findings.push(same_network(seen, way, *own, *other));
        findings.push(endpoint(seen, way, *other));
        findings.extend(if remote { over_there(seen, way, *other) } else { beside(seen, way, *other) });
    }
    findings
}

fn device(seen: &Examined) -> Finding {
    const WHAT: &str = "overlay device";
    let Some(overlay_at) = seen.swarm.overlay else {
        return Finding::broken(
            WHAT,
            "this node was told nothing of the swarm yet: it needs a manager that it reaches",
        );
    };
    let port = overlay_at.port;
    match (seen.found.vxlan, seen.links.get(&overlay())) {
        (Some(found), Some(true)) if Some(found) == seen.wanted.vxlan => {
            Finding::ok(WHAT, format!("{OVERLAY} is up, UDP port {port}, MTU {}", found.mtu))
        }
        (None, None) => Finding::broken(WHAT, format!("{OVERLAY} is missing")),
        (None, _) => Finding::broken(WHAT, format!("{OVERLAY} is another program's: flok needs the name")),
        (_, Some(true)) => Finding::broken(WHAT, format!("{OVERLAY} is not as it was made")),
        _ => Finding::broken(WHAT, format!("{OVERLAY} is down: does another program have UDP port {port}?")),
    }
}

fn own_address(seen: &Examined) -> Finding {
    const WHAT: &str = "own address";
    match seen.swarm.overlay {
        Some(overlay) if seen.has_own_address => Finding::ok(WHAT, overlay.address.to_string()),
        Some(overlay) => Finding::broken(
            WHAT,
            format!("no interface has {}, where the other nodes send to: see --advertise-addr", overlay.address),
        ),
        None => Finding::broken(WHAT, "not known yet"),
    }
}

/// What of one kind differs from the plan.
fn compared<K, V>(what: &str, wanted: usize, difference: &Difference<K, V>, name: impl Fn(&K) -> String) -> Finding {
    let of = |which: fn(&Change<K, V>) -> bool| -> Vec<String> {
        difference.list.iter().filter(|change| which(change)).map(|change| name(&change.key)).collect()
    };
    let lacks = of(|change| change.old.is_none());
    let differ = of(|change| change.old.is_some() && change.new.is_some());
    let more = of(|change| change.new.is_none());
    let parts: Vec<String> = [("lacks", lacks), ("differs in", differ), ("has too much", more)]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(word, list)| format!("{word} {}", named(&list)))
        .collect();
    match parts.is_empty() {
        true => Finding::ok(what, format!("{wanted} as planned")),
        false => Finding::broken(what, format!("the kernel {}", parts.join("; "))),
    }
}

fn named(list: &[String]) -> String {
    let rest = list.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", list[..list.len() - rest].join(", "))
}

fn interfaces(seen: &Examined) -> Finding {
    let of_tasks = || seen.tasks.values().map(|task| task.interface);
    let away: Vec<String> =
        of_tasks().filter(|name| seen.links.get(name) != Some(&true)).map(|name| name.to_string()).collect();
    match away.is_empty() {
        true => Finding::ok("interfaces", format!("{} of tasks are up", of_tasks().count())),
        false => Finding::broken("interfaces", format!("gone or down: {}", named(&away))),
    }
}

/// Who has those that are another's is among the conditions.
fn ports(seen: &Examined, conditions: &[Condition]) -> Vec<Finding> {
    const WHAT: &str = "published ports";
    let held =
        (seen.taken.is_empty()).then(|| Finding::ok(WHAT, format!("{} held for the swarm", seen.published.len())));
    let told = conditions.iter().filter_map(|condition| match condition.concern {
        Concern::Port { .. } => Some(Finding::broken(WHAT, &condition.detail)),
        Concern::DataPathPort => Some(Finding::broken("overlay port", &condition.detail)),
        Concern::Firewall => Some(Finding::broken("firewall", &condition.detail)),
        // Its refusals stand in the report already.
        Concern::Kernel => None,
    });
    held.into_iter().chain(told).collect()
}

fn member(seen: &Examined, way: &Way) -> Finding {
    let Some(host) = seen.swarm.members.get(&way.other_node) else {
        return Finding::broken("member", format!("this node does not know node {}", way.other_node));
    };
    let set = if host.is_ipv6() { Set::Members6 } else { Set::Members4 };
    has_element(seen, "member", set, Key::Address(*host), &format!("datagrams of {host} are let in"))
}

/// The task's own end: it may send from its address, and what is for it reaches it.
fn own_end(seen: &Examined, task: &LocalTask, own: IpAddr) -> Vec<Finding> {
    let sources = if own.is_ipv6() { Set::Sources6 } else { Set::Sources4 };
    let key = Key::Source(task.interface, own);
    let at = (task.interface, own);
    vec![
        has_element(seen, "source", sources, key, &format!("{} may send from {own}", task.interface)),
        route(seen, own),
        same(
            "neighbour",
            &format!("{own} on {}", task.interface),
            &seen.wanted.neighbours,
            &seen.found.neighbours,
            &at,
        ),
    ]
}

fn same_network(seen: &Examined, way: &Way, own: IpAddr, other: IpAddr) -> Finding {
    const WHAT: &str = "network";
    let Some(view) = seen.swarm.networks.list.get(&way.network) else {
        return Finding::broken(WHAT, format!("this node was told nothing of network {}", way.network));
    };
    let subnet_of = |address: IpAddr| view.subnets.iter().copied().find(|subnet| subnet.contains(address));
    let (Some(here), Some(there)) = (subnet_of(own), subnet_of(other)) else {
        return Finding::broken(WHAT, format!("{own} or {other} is not in {} as this node knows it", view.name));
    };
    let set = if own.is_ipv6() { Set::SameNetwork6 } else { Set::SameNetwork4 };
    has_element(seen, WHAT, set, Key::Networks(here, there), &format!("{own} and {other} may meet on {}", view.name))
}

/// Whether this node knows the other task, and lets packets to it pass.
fn endpoint(seen: &Examined, way: &Way, other: IpAddr) -> Finding {
    const WHAT: &str = "endpoint";
    let view = seen.swarm.networks.list.get(&way.network);
    match view.and_then(|view| view.endpoints.get(&way.other)) {
        Some(known) if known.node != way.other_node || !known.addresses.contains(&other) => {
            Finding::broken(WHAT, format!("this node knows the other task elsewhere than at {other}"))
        }
        Some(known) => {
            let set = if other.is_ipv6() { Set::Endpoints6 } else { Set::Endpoints4 };
            let serves = if known.serving { "" } else { ", though out of the balance" };
            has_element(seen, WHAT, set, Key::Address(other), &format!("{other} is a task's{serves}"))
        }
        None => Finding::broken(WHAT, format!("this node was not told that {other} is a task's")),
    }
}

/// The other task's end, where both are here.
fn beside(seen: &Examined, way: &Way, other: IpAddr) -> Vec<Finding> {
    match seen.tasks.get(&way.other) {
        Some(_) => vec![route(seen, other)],
        None => vec![Finding::broken("task", format!("this node has made no network for task {}", way.other))],
    }
}

/// The way to another node: route, neighbour, forwarding.
fn over_there(seen: &Examined, way: &Way, other: IpAddr) -> Vec<Finding> {
    let mut findings = vec![route(seen, other)];
    let Some(Route::Via { interface, gateway }) = host_route(&seen.wanted, other) else { return findings };
    let at = (*interface, *gateway);
    let Examined { wanted, found, .. } = seen;
    findings.push(same("neighbour", &format!("{gateway} on {interface}"), &wanted.neighbours, &found.neighbours, &at));
    let Some(mac) = wanted.neighbours.get(&at) else { return findings };
    let there = seen.swarm.members.get(&way.other_node).map_or_else(|| "?".to_owned(), IpAddr::to_string);
    findings.push(same("forwarding", &format!("{mac} is behind {there}"), &wanted.remotes, &found.remotes, mac));
    findings
}

fn host_route(state: &KernelState, to: IpAddr) -> Option<&Route> {
    let subnet = Subnet::new(to, if to.is_ipv6() { 128 } else { 32 })?;
    state.routes.get(&(MAIN_TABLE, subnet))
}

fn route(seen: &Examined, to: IpAddr) -> Finding {
    let text = match host_route(&seen.wanted, to) {
        Some(Route::Link { interface, .. }) => format!("{to} by {interface}"),
        Some(Route::Via { interface, gateway }) => format!("{to} via {gateway} by {interface}"),
        Some(Route::Unreachable) | None => to.to_string(),
    };
    verdict("route", &text, host_route(&seen.wanted, to), host_route(&seen.found, to))
}

fn has_element(seen: &Examined, what: &str, set: Set, key: Key, meaning: &str) -> Finding {
    let at = (set, key);
    let text = format!("{meaning} ({})", element(set, &key));
    same(what, &text, &seen.wanted.elements, &seen.found.elements, &at)
}

fn same<K: Ord, V: PartialEq>(
    what: &str,
    text: &str,
    wanted: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
    key: &K,
) -> Finding {
    verdict(what, text, wanted.get(key), found.get(key))
}

fn verdict<V: PartialEq>(what: &str, text: &str, wanted: Option<&V>, found: Option<&V>) -> Finding {
    match (wanted, found) {
        (None, _) => Finding::broken(what, format!("{text}: this node does not plan it")),
        (Some(_), None) => Finding::broken(what, format!("{text}: the kernel lacks it")),
        (Some(wanted), Some(found)) if wanted != found => {
            Finding::broken(what, format!("{text}: the kernel has another"))
        }
        _ => Finding::ok(what, text),
    }
}

/// As nft writes it.
fn element(set: Set, key: &Key) -> String {
    let pair = |a: &dyn Display, b: &dyn Display| format!("{a} . {b}");
    let key = match key {
        Key::Address(address) => address.to_string(),
        Key::Pair(a, b) => pair(a, b),
        Key::Networks(a, b) => pair(a, b),
        Key::Interface(name) => name.to_string(),
        Key::Source(name, address) => pair(name, address),
        Key::Mac(mac) => mac.to_string(),
        Key::Port(protocol, port) => pair(&protocol.as_str(), port),
    };
    format!("{} {key}", set.name())
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
