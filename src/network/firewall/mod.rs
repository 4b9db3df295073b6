//! Firewalls of others: whether their rules let the swarm's packets pass, said with care and with what mends it. Their
//! tables are read, for a bounded time and not often, and never changed.

mod look;
mod nft;
mod rules;
mod save;
#[cfg(test)]
mod tests;
mod way;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use look::{look, uplink};
pub use rules::{Hook, Packet, State};
pub use way::hops;

use self::rules::Table;
use super::names::{OVERLAY, VETH_PREFIX};
use super::plane::SwarmView;

/// Who made a table, and so by which command it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Inet,
    Ip,
    Ip6,
}

/// A table that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    pub family: Family,
    pub name: String,
    /// Of iptables, not of nftables.
    pub legacy: bool,
    pub table: Table,
}

/// What the swarm sends through this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Where the node's datagrams come from, and the interface that has this address.
    pub address: Option<IpAddr>,
    pub uplink: Option<String>,
    /// UDP port of the overlay; `None` where there is no overlay.
    pub data_path_port: Option<u16>,
    pub members: Vec<IpAddr>,
    /// An address of each subnet of tasks.
    pub tasks: Vec<IpAddr>,
}

/// Members and subnets that packets are made up for; what holds for these holds for more.
const SAMPLES: usize = 64;

impl Traffic {
    /// All but the uplink, which the host knows.
    pub fn of(swarm: &SwarmView) -> Traffic {
        let others = swarm.members.iter().filter(|(node, _)| swarm.overlay.is_none_or(|own| own.node != **node));
        let subnets = swarm.networks.list.values().flat_map(|view| &view.subnets);
        Traffic {
            address: swarm.overlay.map(|overlay| overlay.address),
            uplink: None,
            data_path_port: swarm.overlay.map(|overlay| overlay.port),
            members: others.map(|(_, address)| *address).take(SAMPLES).collect(),
            tasks: subnets.map(|subnet| subnet.at(1)).take(SAMPLES).collect(),
        }
    }
}

/// One kind of packets, as people call it.
struct Kind {
    what: &'static str,
    packet: Packet,
    /// What lets it pass concerns the overlay's port, not its interfaces.
    datagrams: bool,
}

/// What each foreign chain drops for sure, in words, with what mends it.
pub fn judge(foreign: &[Foreign], traffic: &Traffic) -> Vec<String> {
    let mut told = Vec::new();
    for one in foreign {
        let mut dropped: BTreeSet<(&str, bool, &str)> = BTreeSet::new();
        for kind in kinds(traffic).iter().filter(|kind| one.sees(&kind.packet)) {
            dropped
                .extend(one.table.dropping(&kind.packet).into_iter().map(|chain| (chain, kind.datagrams, kind.what)));
        }
        let places: BTreeSet<(&str, bool)> = dropped.iter().map(|(chain, datagrams, _)| (*chain, *datagrams)).collect();
        for (chain, datagrams) in places {
            let of_place = dropped.iter().filter(|(c, d, _)| (*c, *d) == (chain, datagrams));
            let what: Vec<&str> = of_place.map(|(_, _, what)| *what).collect();
            let port = traffic.data_path_port.filter(|_| datagrams);
            told.push(format!(
                "{} seems to drop {}. To let it pass: {}",
                one.place(chain),
                what.join(" and "),
                one.remedy(chain, port)
            ));
        }
    }
    told
}

/// The chains that drop exactly this packet.
pub fn dropping(foreign: &[Foreign], packet: &Packet) -> Vec<String> {
    let of_table = |one: &Foreign| {
        let chains = if one.sees(packet) { one.table.dropping(packet) } else { Vec::new() };
        chains.into_iter().map(|chain| one.place(chain)).collect::<Vec<_>>()
    };
    foreign.iter().flat_map(of_table).collect()
}

/// The packets without which there is no network of the swarm's.
fn kinds(traffic: &Traffic) -> Vec<Kind> {
    let task = || Some(format!("{VETH_PREFIX}0"));
    let (overlay, uplink) = (|| Some(OVERLAY.to_owned()), || traffic.uplink.clone());
    let mut kinds = Vec::new();
    for ipv6 in [false, true] {
        let own = |list: &[IpAddr]| list.iter().copied().filter(|at| at.is_ipv6() == ipv6).collect::<Vec<_>>();
        let forwarded = Packet { ipv6, sources: Vec::new(), ..Packet::forwarded() };
        let between = Packet { sources: own(&traffic.tasks), destinations: own(&traffic.tasks), ..forwarded.clone() };
        let mut add = |what, datagrams, packet| kinds.push(Kind { what, packet, datagrams });
        let connected = !own(&traffic.tasks).is_empty();
        if connected && traffic.data_path_port.is_some() {
            add("what tasks send to other nodes", false, Packet { from: task(), to: overlay(), ..between.clone() });
            add("what other nodes send to tasks", false, Packet { from: overlay(), to: task(), ..between.clone() });
        }
        if connected && uplink().is_some() {
            add("what tasks send to the outside", false, Packet { from: task(), to: uplink(), ..forwarded.clone() });
            let published = Packet { translated: true, destinations: own(&traffic.tasks), ..forwarded.clone() };
            add("what comes by published ports", false, Packet { from: uplink(), to: task(), ..published });
        }
        let members = own(&traffic.members);
        // By which interface, rules may ask.
        let Some(port) = traffic.data_path_port.filter(|_| !members.is_empty() && uplink().is_some()) else { continue };
        let datagram = Packet::datagram(port, ipv6);
        let sent = Packet { hook: Hook::Output, to: uplink(), destinations: members.clone(), ..datagram.clone() };
        let received = Packet { hook: Hook::Input, from: uplink(), sources: members, to_local: true, ..datagram };
        add("the datagrams of other nodes", true, received);
        add("the datagrams to other nodes", true, sent);
    }
    kinds
}

impl Packet {
    /// The first one of a connection that programs choose.
    pub fn forwarded() -> Packet {
        Packet {
            hook: Hook::Forward,
            ipv6: false,
            from: None,
            to: None,
            state: State::New,
            translated: false,
            protocol: "tcp",
            port: None,
            sources: Vec::new(),
            destinations: Vec::new(),
            to_local: false,
        }
    }

    /// Of the overlay, between nodes; they are not tracked.
    pub fn datagram(port: u16, ipv6: bool) -> Packet {
        Packet { ipv6, state: State::Untracked, protocol: "udp", port: Some(port), ..Packet::forwarded() }
    }
}

impl Foreign {
    fn sees(&self, packet: &Packet) -> bool {
        match self.family {
            Family::Inet => true,
            Family::Ip => !packet.ipv6,
            Family::Ip6 => packet.ipv6,
        }
    }

    fn place(&self, chain: &str) -> String {
        let legacy = if self.legacy { " (iptables-legacy)" } else { "" };
        format!("the firewall's chain {} {} {chain}{legacy}", self.family.name(), self.name)
    }

    /// The command of whoever made the table. `port`: of the overlay, where that is what is dropped.
    fn remedy(&self, chain: &str, port: Option<u16>) -> String {
        let has = |beginning: &str| self.table.chains.keys().any(|name| name.starts_with(beginning));
        let both = |patterns: &str, command: &str| format!("for i in {patterns}; do {command}; done");
        let iptables = match (self.family, self.legacy) {
            (Family::Ip6, true) => "ip6tables-legacy",
            (Family::Ip6, false) => "ip6tables",
            (_, true) => "iptables-legacy",
            (_, false) => "iptables",
        };
        let wild = format!("{VETH_PREFIX}+ {OVERLAY}");
        match port {
            _ if self.name == "firewalld" => {
                let what = port.map_or_else(
                    || format!("--zone=trusted --add-interface={OVERLAY} --add-interface={VETH_PREFIX}+"),
                    |port| format!("--add-port={port}/udp"),
                );
                format!("firewall-cmd --permanent {what} && firewall-cmd --reload")
            }
            Some(port) if has("ufw") => format!("ufw allow {port}/udp"),
            None if has("ufw") => both(&wild, "ufw route allow in on $i; ufw route allow out on $i"),
            None if has("DOCKER-USER") => both(
                &wild,
                &format!("{iptables} -I DOCKER-USER -i $i -j ACCEPT; {iptables} -I DOCKER-USER -o $i -j ACCEPT"),
            ),
            Some(port) if self.is_iptables() => format!("{iptables} -I {chain} -p udp --dport {port} -j ACCEPT"),
            None if self.is_iptables() => {
                both(&wild, &format!("{iptables} -I {chain} -i $i -j ACCEPT; {iptables} -I {chain} -o $i -j ACCEPT"))
            }
            Some(port) => {
                format!("nft insert rule {} {} {chain} udp dport {port} accept", self.family.name(), self.name)
            }
            None => {
                let insert = format!("nft insert rule {} {} {chain}", self.family.name(), self.name);
                let command = format!("{insert} iifname $i accept; {insert} oifname $i accept");
                both(&format!("'{VETH_PREFIX}*' {OVERLAY}"), &command)
            }
        }
    }

    fn is_iptables(&self) -> bool {
        let chains = ["INPUT", "FORWARD", "OUTPUT"];
        self.legacy || self.name == "filter" && chains.iter().any(|name| self.table.chains.contains_key(*name))
    }
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        }
    }
}
