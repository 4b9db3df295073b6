//! The rules of others on the way between two tasks: which of them drop the very packets of this way. Pure.

use std::net::IpAddr;

use super::{Foreign, Hook, Packet, dropping};
use crate::network::doctor::Examined;
use crate::network::names::OVERLAY;
use crate::spec::{Finding, Way};

/// This node's half, of either direction.
pub fn hops(seen: &Examined, way: &Way, foreign: &[Foreign], uplink: Option<&str>) -> Vec<Finding> {
    const WHAT: &str = "firewall";
    let Some(task) = seen.tasks.get(&way.own) else { return Vec::new() };
    let remote = seen.swarm.overlay.filter(|overlay| overlay.node != way.other_node);
    let beyond = match remote {
        Some(_) => Some(OVERLAY.to_owned()),
        None => seen.tasks.get(&way.other).map(|other| other.interface.to_string()),
    };
    let own = Some(task.interface.to_string());
    let mut broken = Vec::new();
    let mut look = |packet: &Packet, words: &str| {
        let chains = dropping(foreign, packet).into_iter();
        broken.extend(chains.map(|chain| Finding::broken(WHAT, format!("{chain} drops {words}"))));
    };
    for (here, there) in &way.pairs {
        for (from, to, source, destination) in [(&own, &beyond, *here, *there), (&beyond, &own, *there, *here)] {
            let words = format!("what goes from {source} to {destination}");
            for packet in forwarded(from.clone(), to.clone(), source, destination) {
                look(&packet, &words);
            }
        }
    }
    let member = seen.swarm.members.get(&way.other_node).copied();
    if let (Some(overlay), Some(member), Some(uplink)) = (remote, member, uplink) {
        let datagram = Packet::datagram(overlay.port, member.is_ipv6());
        let uplink = Some(uplink.to_owned());
        let sent = Packet {
            hook: Hook::Output,
            to: uplink.clone(),
            sources: vec![overlay.address],
            destinations: vec![member],
            ..datagram.clone()
        };
        look(&sent, &format!("the overlay's datagrams to {member}"));
        let received = Packet {
            from: uplink,
            sources: vec![member],
            destinations: vec![overlay.address],
            to_local: true,
            ..datagram
        };
        for hook in [Hook::Prerouting, Hook::Input] {
            look(&Packet { hook, ..received.clone() }, &format!("the overlay's datagrams of {member}"));
        }
    }
    if broken.is_empty() {
        broken.push(Finding::ok(WHAT, "no rule of another program is seen to drop this"));
    }
    broken
}

fn forwarded(from: Option<String>, to: Option<String>, source: IpAddr, destination: IpAddr) -> [Packet; 2] {
    let whole = Packet {
        ipv6: source.is_ipv6(),
        from,
        to,
        sources: vec![source],
        destinations: vec![destination],
        ..Packet::forwarded()
    };
    [Packet { hook: Hook::Prerouting, to: None, ..whole.clone() }, whole]
}
