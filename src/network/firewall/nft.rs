//! A table as `nft --json list table` writes it. Pure; what it does not know matches perhaps.

use serde_json::Value;

use super::rules::*;
use crate::spec::Subnet;

/// `None` where it is no table's listing.
pub fn parse(json: &[u8]) -> Option<Table> {
    let whole: Value = serde_json::from_slice(json).ok()?;
    let mut table = Table::default();
    for object in whole["nftables"].as_array()? {
        if let Some(chain) = object.get("chain") {
            let name = chain["name"].as_str()?.to_owned();
            table.chains.entry(name).or_default().base = base(chain);
        }
        if let Some(rule) = object.get("rule") {
            let chain = rule["chain"].as_str()?.to_owned();
            table.chains.entry(chain).or_default().rules.push(rule_of(rule["expr"].as_array()?));
        }
    }
    Some(table)
}

/// Of chains that may drop; those of translation do not.
fn base(chain: &Value) -> Option<Base> {
    if !matches!(chain["type"].as_str()?, "filter" | "route") {
        return None;
    }
    let hook = match chain["hook"].as_str()? {
        "prerouting" => Hook::Prerouting,
        "input" => Hook::Input,
        "forward" => Hook::Forward,
        "output" => Hook::Output,
        "postrouting" => Hook::Postrouting,
        _ => return None,
    };
    Some(Base { hook, drops: chain["policy"].as_str() == Some("drop") })
}

fn rule_of(statements: &[Value]) -> Rule {
    let mut rule = Rule::default();
    for statement in statements {
        let Some((name, value)) = statement.as_object().and_then(|object| object.iter().next()) else {
            rule.matches.push(Match::unknown());
            continue;
        };
        match name.as_str() {
            "match" => rule.matches.push(match_of(value)),
            "counter" | "log" | "mangle" | "notrack" | "ct helper" => {}
            "vmap" => rule.verdict = choices(value),
            "xt" => match value["type"].as_str() {
                Some("target") => rule.verdict = target(value["name"].as_str().unwrap_or_default()),
                _ => rule.matches.push(Match::unknown()),
            },
            _ => match verdict_of(name, value) {
                Some(verdict) => rule.verdict = verdict,
                // A rate, a quota, a set that grows.
                None => rule.matches.push(Match::unknown()),
            },
        }
    }
    rule
}

fn verdict_of(name: &str, value: &Value) -> Option<Verdict> {
    let target = || value["target"].as_str().map(str::to_owned);
    Some(match name {
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Drop,
        "return" => Verdict::Return,
        "continue" => Verdict::Continue,
        "jump" => Verdict::Jump(target()?),
        "goto" => Verdict::Goto(target()?),
        "queue" | "tproxy" | "synproxy" | "fwd" => Verdict::Unknown,
        _ => return None,
    })
}

/// Of iptables' own.
fn target(name: &str) -> Verdict {
    match name {
        "REJECT" => Verdict::Drop,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "CHECKSUM" => Verdict::Continue,
        _ => Verdict::Unknown,
    }
}

fn choices(vmap: &Value) -> Verdict {
    let Some(elements) = vmap["data"]["set"].as_array() else { return Verdict::Unknown };
    let choice = |element: &Value| {
        let (name, value) = element.get(1)?.as_object()?.iter().next()?;
        let of = of(&vmap["key"], element.get(0)?);
        Some((Match { of, negated: false }, verdict_of(name, value)?))
    };
    elements.iter().map(choice).collect::<Option<Vec<_>>>().map_or(Verdict::Unknown, Verdict::OneOf)
}

fn match_of(value: &Value) -> Match {
    let negated = match value["op"].as_str() {
        Some("==" | "in") => false,
        Some("!=") => true,
        _ => return Match::unknown(),
    };
    Match { of: of(&value["left"], &value["right"]), negated }
}

fn of(left: &Value, right: &Value) -> Of {
    let key = |kind: &str| left[kind]["key"].as_str();
    let known = match (key("meta"), key("ct"), left["payload"]["field"].as_str()) {
        (Some("iifname" | "iif"), _, _) => strings(right).map(Of::In),
        (Some("oifname" | "oif"), _, _) => strings(right).map(Of::Out),
        (Some("l4proto"), _, _) => strings(right).map(Of::Protocols),
        (Some("nfproto"), _, _) => right.as_str().map(|family| Of::Ipv6(family == "ipv6")),
        (_, Some("state"), _) => states(right).map(Of::States),
        (_, Some("status"), _) => (right == "dnat").then_some(Of::Translated),
        (_, _, Some(field)) => payload(left["payload"]["protocol"].as_str(), field, right),
        _ if left["fib"]["result"] == "type" => (right == "local").then_some(Of::ToLocal),
        _ => None,
    };
    known.unwrap_or(Of::Unknown)
}

/// A port says its protocol too; that of another protocol does not match.
fn payload(protocol: Option<&str>, field: &str, right: &Value) -> Option<Of> {
    match (protocol?, field) {
        ("ip" | "ip6", "saddr") => subnets(right).map(Of::Sources),
        ("ip" | "ip6", "daddr") => subnets(right).map(Of::Destinations),
        ("ip", "protocol") | ("ip6", "nexthdr") => strings(right).map(Of::Protocols),
        ("th", "dport") => ranges(right).map(Of::Ports),
        (protocol @ ("tcp" | "udp" | "sctp" | "dccp" | "icmp" | "icmpv6"), "dport" | "type") => {
            let ports = ranges(right).filter(|_| field == "dport");
            Some(Of::Within(protocol.replace("icmpv6", "ipv6-icmp"), ports))
        }
        _ => None,
    }
}

/// One value, or all of a set that is written out.
fn listed(value: &Value) -> Vec<&Value> {
    match value.get("set").and_then(Value::as_array).or_else(|| value.as_array()) {
        Some(all) => all.iter().collect(),
        None => vec![value],
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    listed(value).into_iter().map(|one| one.as_str().filter(|text| !text.starts_with('@')).map(str::to_owned)).collect()
}

fn states(value: &Value) -> Option<Vec<State>> {
    strings(value)?.iter().map(|name| state(name)).collect()
}

pub(super) fn state(name: &str) -> Option<State> {
    Some(match name.to_ascii_lowercase().as_str() {
        "new" => State::New,
        "established" => State::Established,
        "related" => State::Related,
        "invalid" => State::Invalid,
        "untracked" => State::Untracked,
        _ => return None,
    })
}

fn ranges(value: &Value) -> Option<Vec<(u16, u16)>> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    listed(value)
        .into_iter()
        .map(|one| match one.get("range") {
            Some(range) => Some((port(range.get(0)?)?, port(range.get(1)?)?)),
            None => port(one).map(|port| (port, port)),
        })
        .collect()
}

fn subnets(value: &Value) -> Option<Vec<Subnet>> {
    listed(value).into_iter().map(subnet).collect()
}

fn subnet(value: &Value) -> Option<Subnet> {
    if let Some(prefix) = value.get("prefix") {
        let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
        return Subnet::new(prefix["addr"].as_str()?.parse().ok()?, length);
    }
    let address: std::net::IpAddr = value.as_str()?.parse().ok()?;
    Subnet::new(address, if address.is_ipv6() { 128 } else { 32 })
}
