//! What flok keeps in the kernel, as data: what [`plan`](super::plan) wants, what the kernel is found to have, and what
//! lies between the two. The same type for both, so that a comparison is all there is to repairing, adopting and changing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::spec::{Protocol, Subnet};

/// All of it that is ours. Task interfaces and what is inside of tasks are not here: see [`super::tasks`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelState {
    pub vxlan: Option<Vxlan>,
    /// Of `lo`.
    pub addresses: BTreeSet<IpAddr>,
    pub neighbours: BTreeMap<(Interface, IpAddr), Mac>,
    /// Behind which host each node's device is.
    pub remotes: BTreeMap<Mac, IpAddr>,
    pub routes: BTreeMap<(Table, Subnet), Route>,
    pub rules: BTreeSet<Rule>,
    pub elements: BTreeMap<(Set, Key), Value>,
    pub balancers: BTreeMap<Balancer, Vec<Target>>,
}

/// A routing table's number.
pub type Table = u32;

/// `main`.
pub const MAIN_TABLE: Table = 254;

/// The device that carries all overlay networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    pub mac: Mac,
    pub local: Option<IpAddr>,
    pub port: u16,
    pub mtu: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Straight out of an interface, from `source` where the host itself sends.
    Link {
        interface: Interface,
        source: Option<IpAddr>,
    },
    Via {
        interface: Interface,
        gateway: IpAddr,
    },
    /// Nobody is there: told at once, and never sent to the outside.
    Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub ipv6: bool,
    pub priority: u32,
    pub what: RuleKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleKind {
    /// Packets without the mark, under the mask, go on at a later rule.
    Past { mark: u32, mask: u32, to: u32 },
    /// Packets with the mark are routed by a table.
    Marked { mark: u32, table: Table },
    /// A place to jump to.
    Landing,
}

/// An interface's name, as the kernel holds it: zeroes after its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface([u8; 16]);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// The sets and maps of the table `inet flok`. Those ending in a digit are of that address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    Sources4,
    Sources6,
    Confined,
    Members4,
    Members6,
    NodeZones,
    NodeMarks,
    Turning4,
    Turning6,
    SameNetwork4,
    SameNetwork6,
    Endpoints4,
    Endpoints6,
    Ingress4,
    Ingress6,
    HostPorts4,
    HostPorts6,
    Vips4,
    Vips6,
    Ports4,
    Ports6,
    Published,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Address(IpAddr),
    Pair(IpAddr, IpAddr),
    Networks(Subnet, Subnet),
    Interface(Interface),
    Source(Interface, IpAddr),
    Mac(Mac),
    Port(Protocol, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A set's element has none.
    None,
    Mark(u32),
    Zone(u16),
    Target(Target),
    Goto(Balancer),
}

/// A chain of its own for whatever connections are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balancer {
    Vip(IpAddr),
    Port { protocol: Protocol, port: u16, ipv6: bool },
}

/// Where a connection ends. The port is kept where it is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub address: IpAddr,
    pub port: Option<u16>,
}

/// What turns one state into another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// `Some(None)`: the device goes.
    pub vxlan: Option<Option<Vxlan>>,
    pub addresses: Difference<IpAddr, ()>,
    pub neighbours: Difference<(Interface, IpAddr), Mac>,
    pub remotes: Difference<Mac, IpAddr>,
    pub routes: Difference<(Table, Subnet), Route>,
    pub rules: Difference<Rule, ()>,
    pub elements: Difference<(Set, Key), Value>,
    pub balancers: Difference<Balancer, Vec<Target>>,
}

/// Of one map: `old` and `new` are both there where a value changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<K, V> {
    pub list: Vec<Change<K, V>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<K, V> {
    pub key: K,
    pub old: Option<V>,
    pub new: Option<V>,
}

impl<K, V> Default for Difference<K, V> {
    fn default() -> Self {
        Difference { list: Vec::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Difference<K, V> {
    fn between(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Self {
        let gone = old.iter().filter(|(key, _)| !new.contains_key(key)).map(|(key, value)| Change {
            key: key.clone(),
            old: Some(value.clone()),
            new: None,
        });
        let come = new.iter().filter_map(|(key, value)| match old.get(key) {
            Some(before) if before == value => None,
            before => Some(Change { key: key.clone(), old: before.cloned(), new: Some(value.clone()) }),
        });
        Difference { list: gone.chain(come).collect() }
    }

    /// What goes, goes first: its place may be taken in the same step.
    fn apply(&self, map: &mut BTreeMap<K, V>) {
        for change in self.list.iter().filter(|change| change.new.is_none()) {
            map.remove(&change.key);
        }
        map.extend(self.list.iter().filter_map(|change| Some((change.key.clone(), change.new.clone()?))));
    }
}

impl<K: Ord + Clone> Difference<K, ()> {
    fn between_sets(old: &BTreeSet<K>, new: &BTreeSet<K>) -> Self {
        let gone = old.difference(new).map(|key| Change { key: key.clone(), old: Some(()), new: None });
        let come = new.difference(old).map(|key| Change { key: key.clone(), old: None, new: Some(()) });
        Difference { list: gone.chain(come).collect() }
    }

    fn apply_set(&self, set: &mut BTreeSet<K>) {
        for change in self.list.iter().filter(|change| change.new.is_none()) {
            set.remove(&change.key);
        }
        set.extend(self.list.iter().filter(|change| change.new.is_some()).map(|change| change.key.clone()));
    }
}

impl Changes {
    pub fn between(old: &KernelState, new: &KernelState) -> Changes {
        Changes {
            vxlan: (old.vxlan != new.vxlan).then_some(new.vxlan),
            addresses: Difference::between_sets(&old.addresses, &new.addresses),
            neighbours: Difference::between(&old.neighbours, &new.neighbours),
            remotes: Difference::between(&old.remotes, &new.remotes),
            routes: Difference::between(&old.routes, &new.routes),
            rules: Difference::between_sets(&old.rules, &new.rules),
            elements: Difference::between(&old.elements, &new.elements),
            balancers: Difference::between(&old.balancers, &new.balancers),
        }
    }

    /// Makes those after these.
    pub fn append(&mut self, mut more: Changes) {
        self.vxlan = more.vxlan.or(self.vxlan);
        self.addresses.list.append(&mut more.addresses.list);
        self.neighbours.list.append(&mut more.neighbours.list);
        self.remotes.list.append(&mut more.remotes.list);
        self.routes.list.append(&mut more.routes.list);
        self.rules.list.append(&mut more.rules.list);
        self.elements.list.append(&mut more.elements.list);
        self.balancers.list.append(&mut more.balancers.list);
    }

    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

impl KernelState {
    /// Whatever `more` has of networks.
    pub fn take_in(&mut self, more: KernelState) {
        self.routes.extend(more.routes);
        self.elements.extend(more.elements);
        self.balancers.extend(more.balancers);
    }

    /// What the kernel holds after the changes.
    pub fn apply(&mut self, changes: &Changes) {
        if let Some(vxlan) = changes.vxlan {
            self.vxlan = vxlan;
        }
        changes.addresses.apply_set(&mut self.addresses);
        changes.neighbours.apply(&mut self.neighbours);
        changes.remotes.apply(&mut self.remotes);
        changes.routes.apply(&mut self.routes);
        changes.rules.apply_set(&mut self.rules);
        changes.elements.apply(&mut self.elements);
        changes.balancers.apply(&mut self.balancers);
    }
}

impl Route {
    pub fn interface(&self) -> Option<Interface> {
        match self {
            Route::Link { interface, .. } | Route::Via { interface, .. } => Some(*interface),
            Route::Unreachable => None,
        }
    }
}

impl Interface {
    /// A name that is too long is cut, which the kernel's limit never lets happen to one that exists.
    pub fn new(name: &str) -> Interface {
        let mut bytes = [0; 16];
        let length = name.len().min(15);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        Interface(bytes)
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Interface {
        Interface(bytes)
    }

    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub fn name(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(16);
        std::str::from_utf8(&self.0[..end]).unwrap_or("?")
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The chain's name. nft's identifiers have no colon: an IPv6 address is written with dots.
impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Balancer::Vip(IpAddr::V4(address)) => write!(f, "vip4_{address}"),
            Balancer::Vip(IpAddr::V6(address)) => {
                let groups = address.segments().map(|group| format!("{group:x}"));
                write!(f, "vip6_{}", groups.join("."))
            }
            Balancer::Port { protocol, port, ipv6 } => {
                write!(f, "port{}_{}_{port}", if *ipv6 { 6 } else { 4 }, protocol.as_str())
            }
        }
    }
}

impl FromStr for Balancer {
    type Err = ();

    fn from_str(name: &str) -> Result<Balancer, ()> {
        let (kind, rest) = name.split_once('_').ok_or(())?;
        match kind {
            "vip4" => rest.parse().map(|address: Ipv4Addr| Balancer::Vip(address.into())).map_err(|_| ()),
            "vip6" => {
                let address: Ipv6Addr = rest.replace('.', ":").parse().map_err(|_| ())?;
                Ok(Balancer::Vip(address.into()))
            }
            "port4" | "port6" => {
                let (protocol, port) = rest.split_once('_').ok_or(())?;
                let protocol = match protocol {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    "sctp" => Protocol::Sctp,
                    _ => return Err(()),
                };
                Ok(Balancer::Port { protocol, port: port.parse().map_err(|_| ())?, ipv6: kind == "port6" })
            }
            _ => Err(()),
        }
    }
}

impl Set {
    pub const ALL: [Set; 22] = [
        Set::Sources4,
        Set::Sources6,
        Set::Confined,
        Set::Members4,
        Set::Members6,
        Set::NodeZones,
        Set::NodeMarks,
        Set::Turning4,
        Set::Turning6,
        Set::SameNetwork4,
        Set::SameNetwork6,
        Set::Endpoints4,
        Set::Endpoints6,
        Set::Ingress4,
        Set::Ingress6,
        Set::HostPorts4,
        Set::HostPorts6,
        Set::Vips4,
        Set::Vips6,
        Set::Ports4,
        Set::Ports6,
        Set::Published,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Set::Sources4 => "sources4",
            Set::Sources6 => "sources6",
            Set::Confined => "confined",
            Set::Members4 => "members4",
            Set::Members6 => "members6",
            Set::NodeZones => "node_zones",
            Set::NodeMarks => "node_marks",
            Set::Turning4 => "turning4",
            Set::Turning6 => "turning6",
            Set::SameNetwork4 => "same_network4",
            Set::SameNetwork6 => "same_network6",
            Set::Endpoints4 => "endpoints4",
            Set::Endpoints6 => "endpoints6",
            Set::Ingress4 => "ingress4",
            Set::Ingress6 => "ingress6",
            Set::HostPorts4 => "host_ports4",
            Set::HostPorts6 => "host_ports6",
            Set::Vips4 => "vips4",
            Set::Vips6 => "vips6",
            Set::Ports4 => "ports4",
            Set::Ports6 => "ports6",
            Set::Published => "published",
        }
    }

    /// As nft declares it.
    pub fn declaration(self) -> &'static str {
        match self {
            Set::Sources4 => "set sources4 { type ifname . ipv4_addr; }",
            Set::Sources6 => "set sources6 { type ifname . ipv6_addr; }",
            Set::Confined => "set confined { type ifname; }",
            Set::Members4 => "set members4 { type ipv4_addr; }",
            Set::Members6 => "set members6 { type ipv6_addr; }",
            Set::NodeZones => "map node_zones { typeof ether saddr : ct zone; }",
            Set::NodeMarks => "map node_marks { type ether_addr : mark; }",
            Set::Turning4 => "set turning4 { type ipv4_addr . ipv4_addr; }",
            Set::Turning6 => "set turning6 { type ipv6_addr . ipv6_addr; }",
            Set::SameNetwork4 => "set same_network4 { type ipv4_addr . ipv4_addr; flags interval; }",
            Set::SameNetwork6 => "set same_network6 { type ipv6_addr . ipv6_addr; flags interval; }",
            Set::Endpoints4 => "set endpoints4 { type ipv4_addr; }",
            Set::Endpoints6 => "set endpoints6 { type ipv6_addr; }",
            Set::Ingress4 => "set ingress4 { type ipv4_addr; }",
            Set::Ingress6 => "set ingress6 { type ipv6_addr; }",
            Set::HostPorts4 => "map host_ports4 { type inet_proto . inet_service : ipv4_addr . inet_service; }",
            Set::HostPorts6 => "map host_ports6 { type inet_proto . inet_service : ipv6_addr . inet_service; }",
            Set::Vips4 => "map vips4 { type ipv4_addr : verdict; }",
            Set::Vips6 => "map vips6 { type ipv6_addr : verdict; }",
            Set::Ports4 => "map ports4 { type inet_proto . inet_service : verdict; }",
            Set::Ports6 => "map ports6 { type inet_proto . inet_service : verdict; }",
            Set::Published => "set published { type inet_proto . inet_service; }",
        }
    }

    /// Of the addresses in it.
    pub fn is_ipv6(self) -> bool {
        self.name().ends_with('6')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_is_known_again_by_its_chains_name() {
        for balancer in [
            Balancer::Vip("10.0.1.2".parse().unwrap()),
            Balancer::Vip("fd00::1:2".parse().unwrap()),
            Balancer::Port { protocol: Protocol::Udp, port: 53, ipv6: true },
            Balancer::Port { protocol: Protocol::Sctp, port: 9, ipv6: false },
        ] {
            let name = balancer.to_string();
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte)), "{name}");
            assert_eq!(name.parse(), Ok(balancer));
        }
        for name in ["arrive", "vip4_x", "port4_tcp", "port4_icmp_1", "vip6_"] {
            assert_eq!(name.parse::<Balancer>(), Err(()), "{name}");
        }
    }

    #[test]
    fn each_set_is_declared_under_its_name() {
        for set in Set::ALL {
            let words: Vec<&str> = set.declaration().split(' ').collect();
            assert_eq!(words[1], set.name());
        }
    }
}
