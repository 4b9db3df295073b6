//! The table `inet flok`, spoken to over nf_tables' netlink: its elements and balancer chains are read and changed
//! directly. What never changes, the base chains, is a text for `nft` ([`skeleton`](crate::network::skeleton)).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::sys::socket::SockProtocol;

use super::netlink::{Body, Netlink, Reply, Request, attribute, attributes, text};
use crate::network::NetworkError;
use crate::network::names::{ASKED4, ASKED6, PUBLISHED_MARK, TABLE};
use crate::network::state::{Balancer, Change, Changes, Interface, Key, Mac, Set, Target, Value};
use crate::program::Program;
use crate::spec::{Protocol, Subnet};

const SUBSYSTEM: u8 = 10;
/// For `nft` to carry out a script; it waits for the kernel's own lock.
const NFT_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of one transaction; more is split, each part right by itself.
const TRANSACTION: usize = 4 << 20;
/// Elements that are looked up one by one; where more are asked for, to list the set costs less.
const SINGLY: usize = 64;
/// Elements of one message: an attribute has at most 64 KiB.
const ELEMENTS: usize = 500;

const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const GETGEN: u16 = 16;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// nfgenmsg of the family `inet`.
const INET: [u8; 4] = [1, 0, 0, 0];
const LIST_ELEMENT: u16 = 1;
const GOTO: i32 = -4;
/// The registers: 16 bytes each, or 4 bytes each from 8 on.
const REGISTER: u32 = 1;
const SECOND_WORD: u32 = 9;
const SECOND_REGISTER: u32 = 2;

pub struct Nftables {
    netlink: Netlink,
}

/// A target to which this node led a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskedTarget {
    pub address: IpAddr,
    pub protocol: Protocol,
}

impl AskedTarget {
    /// Stands for all that were asked before there was a note of it.
    pub const UNKNOWN: AskedTarget =
        AskedTarget { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), protocol: Protocol::Udp };

    /// A line of a script, which notes it.
    pub fn unknown() -> String {
        format!("add element {TABLE} {ASKED4} {{ {} . udp }}\n", AskedTarget::UNKNOWN.address)
    }

    fn set(self) -> &'static str {
        if self.address.is_ipv6() { ASKED6 } else { ASKED4 }
    }

    fn key(self) -> Vec<u8> {
        [address_bytes(self.address), vec![protocol_number(self.protocol), 0, 0, 0]].concat()
    }

    /// A request about it.
    fn request(self, kind: u16) -> Request {
        let mut body = table_body();
        body.text(2, self.set());
        body.nest(3, |list| list.nest(LIST_ELEMENT, |element| element.nest(1, |data| data.put(1, &self.key()))));
        request(kind, 0, &mut body)
    }
}

/// The table as it is found.
#[derive(Default)]
pub struct Found {
    /// Of all that is not an element or a balancer.
    pub fingerprint: u64,
    /// It has the sets of this version and no others.
    pub complete: bool,
    /// The chains that are no balancers.
    pub chains: Vec<String>,
    pub elements: BTreeMap<(Set, Key), Value>,
    pub balancers: BTreeMap<Balancer, Vec<Target>>,
}

impl Nftables {
    pub fn open() -> io::Result<Nftables> {
        Ok(Nftables { netlink: Netlink::open(SockProtocol::NetlinkNetFilter)? })
    }

    pub fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// Counts the transactions of all who change nf_tables in this network namespace.
    pub fn generation(&mut self) -> io::Result<u32> {
        let reply = self.netlink.get(message(GETGEN), &INET)?;
        let count = reply.body.get(4..).and_then(|attributes| attribute(attributes, 1)?.try_into().ok());
        count.map(u32::from_be_bytes).ok_or_else(|| io::Error::other("nf_tables tells no generation"))
    }

    /// `None` where there is no such table.
    pub fn read(&mut self) -> io::Result<Option<Found>> {
        let chains = self.dump(GETCHAIN, |body| body)?;
        let sets = match self.dump(GETSET, |body| body) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            sets => sets?,
        };
        if chains.is_empty() && sets.is_empty() {
            return Ok(None);
        }
        let mut found = Found { complete: true, ..Found::default() };
        let mut hash = DefaultHasher::new();
        for chain in &chains {
            let name = attribute(chain, 3).map(text).unwrap_or_default();
            if name.parse::<Balancer>().is_err() {
                found.chains.push(name.to_owned());
                name.hash(&mut hash);
                // Hook, policy and type.
                [4, 5, 7].iter().for_each(|kind| attribute(chain, *kind).hash(&mut hash));
            }
        }
        let mut maps = Vec::new();
        for rule in self.dump(GETRULE, |body| body)? {
            let chain = attribute(&rule, 2).map(text).unwrap_or_default();
            match chain.parse::<Balancer>() {
                Ok(balancer) => maps.push((balancer, spread_of(&rule))),
                Err(()) => (chain, attribute(&rule, 4)).hash(&mut hash),
            }
        }
        let names: Vec<&str> = sets.iter().filter_map(|set| attribute(set, 2).map(text)).collect();
        for set in Set::ALL {
            if names.contains(&set.name()) {
                let elements = self.elements_of(set.name())?;
                found.elements.extend(elements.iter().filter_map(|element| {
                    let (key, value) = decode(set, element)?;
                    Some(((set, key), value))
                }));
            } else {
                found.complete = false;
            }
        }
        found.complete &= [ASKED4, ASKED6].iter().all(|set| names.contains(set));
        let noted = |name: &str| [ASKED4, ASKED6].contains(&name);
        let ours =
            |name: &&str| name.starts_with("__") || noted(name) || Set::ALL.iter().any(|set| set.name() == *name);
        found.complete &= names.iter().all(ours);
        for chain in &chains {
            if let Ok(balancer) = attribute(chain, 3).map(text).unwrap_or_default().parse() {
                // A chain without its one rule has no targets, which none is meant to have.
                found.balancers.insert(balancer, Vec::new());
            }
        }
        for (balancer, spread) in maps {
            let targets = match spread {
                Some((map, modulus)) => {
                    let targets = targets(&self.elements_of(&map)?);
                    if targets.len() == modulus as usize { targets } else { Vec::new() }
                }
                None => Vec::new(),
            };
            found.balancers.insert(balancer, targets);
        }
        found.fingerprint = hash.finish();
        Ok(Some(found))
    }

    /// Makes the changes of elements and balancers.
    pub fn apply(&mut self, changes: &Changes) -> io::Result<()> {
        let mut requests = Vec::new();
        let mut at = 0;
        for change in changes.balancers.list.iter().filter(|change| change.new.is_some()) {
            balancer_requests(change, requests.len() as u32, &mut requests);
        }
        element_requests(&changes.elements.list, &mut requests);
        for change in changes.balancers.list.iter().filter(|change| change.new.is_none()) {
            let mut body = table_body();
            requests.push(request(DELCHAIN, 0, body.text(3, &change.key.to_string())));
        }
        while at < requests.len() {
            let mut size = 0;
            let mut fits = requests[at..]
                .iter()
                .take_while(|request| {
                    size += request.body.len() + 32;
                    size <= TRANSACTION
                })
                .count()
                .max(1);
            // A map and its rule belong together.
            while at + fits < requests.len() && is_inside_balancer(&requests[at + fits]) && fits > 1 {
                fits -= 1;
            }
            let part = &requests[at..at + fits];
            self.netlink.transaction(SUBSYSTEM, part).map_err(|(place, error)| {
                let kind = place.and_then(|place| part.get(place)).map_or(0, |request| request.kind & 0xff);
                io::Error::new(error.kind(), format!("{error} (request {kind} of nf_tables)"))
            })?;
            at += fits;
        }
        Ok(())
    }

    /// Those to which this node ever led a packet.
    pub fn asked_among(&mut self, targets: &BTreeSet<AskedTarget>) -> io::Result<BTreeSet<AskedTarget>> {
        if targets.len() <= SINGLY {
            let mut asked = BTreeSet::new();
            for target in targets {
                if self.was_asked(*target)? {
                    asked.insert(*target);
                }
            }
            return Ok(asked);
        }
        let mut noted = BTreeSet::new();
        for set in [ASKED4, ASKED6] {
            let elements = self.elements_of(set)?;
            noted.extend(elements.iter().filter_map(|element| Some(attribute(attribute(element, 1)?, 1)?.to_vec())));
        }
        Ok(targets.iter().copied().filter(|target| noted.contains(&target.key())).collect())
    }

    fn was_asked(&mut self, target: AskedTarget) -> io::Result<bool> {
        let Request { kind, body, .. } = target.request(GETSETELEM);
        match self.netlink.get(kind, &body) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As if this node had never asked them. All are noted: a transaction that fails takes the kernel milliseconds.
    pub fn forget_asked(&mut self, targets: &[AskedTarget]) -> io::Result<()> {
        let requests: Vec<Request> = targets.iter().map(|target| target.request(DELSETELEM)).collect();
        self.netlink.transaction(SUBSYSTEM, &requests).map_err(|(_, error)| error)
    }

    fn dump(&mut self, kind: u16, fill: impl FnOnce(&mut Body) -> &mut Body) -> io::Result<Vec<Vec<u8>>> {
        let mut body = table_body();
        fill(&mut body);
        let replies = self.netlink.dump(message(kind), &body.done())?;
        let name = TABLE.split_once(' ').map_or(TABLE, |(_, name)| name);
        // Older kernels list all tables of the family for some kinds.
        Ok(replies
            .into_iter()
            .map(|Reply { body, .. }| body.get(4..).unwrap_or_default().to_vec())
            .filter(|body| attribute(body, 1).is_some_and(|table| text(table) == name))
            .collect())
    }

    fn elements_of(&mut self, set: &str) -> io::Result<Vec<Vec<u8>>> {
        let replies = self.dump(GETSETELEM, |body| body.text(2, set))?;
        Ok(replies
            .iter()
            .filter_map(|reply| attribute(reply, 3))
            .flat_map(attributes)
            .map(|(_, element)| element.to_vec())
            .collect())
    }
}

/// Runs a script as one transaction.
pub fn run_nft(script: &str) -> Result<(), NetworkError> {
    Program::new("nft", NFT_WITHIN).args(["-f", "-"]).input(script).run().map(drop).map_err(NetworkError::Nft)
}

fn message(kind: u16) -> u16 {
    (u16::from(SUBSYSTEM) << 8) | kind
}

fn request(kind: u16, flags: u16, body: &mut Body) -> Request {
    Request { kind: message(kind), flags, body: body.done() }
}

/// Begins every body: the family, and in all of nf_tables' messages attribute 1 is the table.
fn table_body() -> Body {
    let mut body = Body::new(&INET);
    body.text(1, TABLE.split_once(' ').map_or(TABLE, |(_, name)| name));
    body
}

fn is_inside_balancer(request: &Request) -> bool {
    let anonymous = |kind| attribute(&request.body[4..], kind).is_some_and(|name| name.starts_with(b"__"));
    match request.kind & 0xff {
        NEWRULE | DELRULE => true,
        NEWSET | NEWSETELEM => anonymous(2),
        _ => false,
    }
}

/// The chain, the map of its targets, and the one rule: `dnat to numgen random mod N map {...}`.
fn balancer_requests(change: &Change<Balancer, Vec<Target>>, id: u32, requests: &mut Vec<Request>) {
    const ANONYMOUS_CONSTANT_MAP: u32 = 1 | 2 | 8;
    /// nft's numbers for its data types, for who lists the table.
    const INTEGER: u32 = 4;
    let Some(targets) = change.new.as_ref().filter(|targets| !targets.is_empty()) else { return };
    let name = change.key.to_string();
    let ports = targets[0].port.is_some();
    let (address_type, address_length) = if targets[0].address.is_ipv6() { (8, 16) } else { (7, 4) };
    requests.push(request(NEWCHAIN, CREATE, table_body().text(3, &name)));
    if change.old.is_some() {
        requests.push(request(DELRULE, 0, table_body().text(2, &name)));
    }
    let mut set = table_body();
    set.text(2, "__map%d").big(3, ANONYMOUS_CONSTANT_MAP).big(4, INTEGER).big(5, 4);
    set.big(6, if ports { (address_type << 6) | 13 } else { address_type });
    set.big(7, if ports { address_length + 4 } else { address_length }).big(10, id);
    set.nest(9, |size| size.big(1, targets.len() as u32));
    // The key is a number of this host's byte order, the data is in the network's.
    set.put(13, &[0, 4, 1, 0, 0, 0, 1, 4, if ports { 0 } else { 2 }, 0, 0, 0]);
    requests.push(request(NEWSET, CREATE, &mut set));
    for (at, some) in targets.chunks(ELEMENTS).enumerate() {
        let mut elements = table_body();
        elements.text(2, "__map%d").big(4, id).nest(3, |list| {
            for (index, target) in some.iter().enumerate() {
                let key = ((at * ELEMENTS + index) as u32).to_ne_bytes();
                list.nest(LIST_ELEMENT, |element| {
                    element.nest(1, |data| data.put(1, &key)).nest(2, |data| data.put(1, &target_bytes(target)))
                });
            }
            list
        });
        requests.push(request(NEWSETELEM, CREATE, &mut elements));
    }
    let mut rule = table_body();
    rule.text(2, &name).nest(4, |rule| {
        if let Balancer::Port { protocol, .. } = change.key {
            remember_published(rule, protocol);
        }
        expression(rule, "numgen", |it| it.big(1, REGISTER).big(2, targets.len() as u32).big(3, 1));
        expression(rule, "lookup", |it| it.text(1, "__map%d").big(4, id).big(2, REGISTER).big(3, REGISTER));
        expression(rule, "nat", |it| {
            let ipv6 = targets[0].address.is_ipv6();
            it.big(1, 1).big(2, if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u32).big(3, REGISTER);
            if ports {
                it.big(5, if ipv6 { SECOND_REGISTER } else { SECOND_WORD });
            }
            it
        });
        rule
    });
    requests.push(request(NEWRULE, CREATE | APPEND, &mut rule));
}

/// `meta l4proto P ct mark set PUBLISHED`. The kernel needs no match of the protocol, but who loads a saved table does.
fn remember_published(rule: &mut Body, protocol: Protocol) {
    const META_L4PROTO: u32 = 16;
    const CT_MARK: u32 = 3;
    expression(rule, "meta", |it| it.big(1, REGISTER).big(2, META_L4PROTO));
    expression(rule, "cmp", |it| {
        it.big(1, REGISTER).big(2, 0).nest(3, |data| data.put(1, &[protocol_number(protocol)]))
    });
    expression(rule, "immediate", |it| it.big(1, REGISTER).nest(2, |data| data.put(1, &PUBLISHED_MARK.to_ne_bytes())));
    expression(rule, "ct", |it| it.big(2, CT_MARK).big(4, REGISTER));
}

fn expression(rule: &mut Body, name: &str, fill: impl FnOnce(&mut Body) -> &mut Body) {
    rule.nest(LIST_ELEMENT, |expression| expression.text(1, name).nest(2, fill));
}

/// What changes its value is deleted and added again. Deleting comes first within a set, so that what takes the place
/// of something finds it free.
fn element_requests(changes: &[Change<(Set, Key), Value>], requests: &mut Vec<Request>) {
    for set in Set::ALL {
        let of_set: Vec<_> = changes.iter().filter(|change| change.key.0 == set).collect();
        let gone = of_set.iter().filter_map(|change| Some((change.key.1, change.old?)));
        let come = of_set.iter().filter_map(|change| Some((change.key.1, change.new?)));
        for (kind, flags, list) in [(DELSETELEM, 0, gone.collect::<Vec<_>>()), (NEWSETELEM, CREATE, come.collect())] {
            for some in list.chunks(ELEMENTS) {
                let mut body = table_body();
                body.text(2, set.name()).nest(3, |elements| {
                    for (key, value) in some {
                        let value = if kind == DELSETELEM { Value::None } else { *value };
                        elements.nest(LIST_ELEMENT, |element| encode(element, *key, value));
                    }
                    elements
                });
                requests.push(request(kind, flags, &mut body));
            }
        }
    }
}

fn encode(element: &mut Body, key: Key, value: Value) -> &mut Body {
    let (start, end) = key_bytes(key);
    element.nest(1, |data| data.put(1, &start));
    if let Some(end) = end {
        element.nest(10, |data| data.put(1, &end));
    }
    match value {
        Value::None => element,
        Value::Mark(mark) => element.nest(2, |data| data.put(1, &mark.to_ne_bytes())),
        Value::Zone(zone) => element.nest(2, |data| data.put(1, &zone.to_ne_bytes())),
        Value::Target(target) => element.nest(2, |data| data.put(1, &target_bytes(&target))),
        Value::Goto(balancer) => element.nest(2, |data| {
            data.nest(2, |verdict| verdict.big(1, GOTO.cast_unsigned()).text(2, &balancer.to_string()))
        }),
    }
}

/// The key, and for an interval its end. In a concatenation each part fills whole words.
fn key_bytes(key: Key) -> (Vec<u8>, Option<Vec<u8>>) {
    match key {
        Key::Address(address) => (address_bytes(address), None),
        Key::Pair(a, b) => ([address_bytes(a), address_bytes(b)].concat(), None),
        Key::Networks(a, b) => {
            let first = [address_bytes(a.base()), address_bytes(b.base())].concat();
            (first, Some([address_bytes(last(a)), address_bytes(last(b))].concat()))
        }
        Key::Interface(interface) => (interface.bytes().to_vec(), None),
        Key::Source(interface, address) => ([interface.bytes().to_vec(), address_bytes(address)].concat(), None),
        Key::Mac(mac) => (mac.0.to_vec(), None),
        Key::Port(protocol, port) => {
            let [high, low] = port.to_be_bytes();
            (vec![protocol_number(protocol), 0, 0, 0, high, low, 0, 0], None)
        }
    }
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn target_bytes(target: &Target) -> Vec<u8> {
    let mut bytes = address_bytes(target.address);
    if let Some(port) = target.port {
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
    }
    bytes
}

/// The last address of a subnet.
fn last(subnet: Subnet) -> IpAddr {
    match subnet.base() {
        IpAddr::V4(base) => {
            let rest = u32::MAX.checked_shr(u32::from(subnet.prefix())).unwrap_or(0);
            Ipv4Addr::from_bits(base.to_bits() | rest).into()
        }
        IpAddr::V6(base) => {
            let rest = u128::MAX.checked_shr(u32::from(subnet.prefix())).unwrap_or(0);
            Ipv6Addr::from_bits(base.to_bits() | rest).into()
        }
    }
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// An element of `set` as the kernel lists it. What does not read is none of ours.
fn decode(set: Set, element: &[u8]) -> Option<(Key, Value)> {
    let key = attribute(attribute(element, 1)?, 1)?;
    let ipv6 = set.is_ipv6();
    let width = if ipv6 { 16 } else { 4 };
    let key = match set {
        Set::Sources4 | Set::Sources6 => {
            Key::Source(Interface::from_bytes(key.get(..16)?.try_into().ok()?), address(key.get(16..)?)?)
        }
        Set::Confined => Key::Interface(Interface::from_bytes(key.try_into().ok()?)),
        Set::NodeZones | Set::NodeMarks => Key::Mac(Mac(key.get(..6)?.try_into().ok()?)),
        Set::Turning4 | Set::Turning6 => Key::Pair(address(key.get(..width)?)?, address(key.get(width..)?)?),
        Set::SameNetwork4 | Set::SameNetwork6 => {
            let end = attribute(attribute(element, 10)?, 1)?;
            let part = |at: usize| subnet(key.get(at..at + width)?, end.get(at..at + width)?);
            Key::Networks(part(0)?, part(width)?)
        }
        Set::HostPorts4 | Set::HostPorts6 | Set::Ports4 | Set::Ports6 | Set::Published => {
            let protocol = match key.first()? {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                132 => Protocol::Sctp,
                _ => return None,
            };
            Key::Port(protocol, u16::from_be_bytes(key.get(4..6)?.try_into().ok()?))
        }
        _ => Key::Address(address(key)?),
    };
    let data = attribute(element, 2);
    let plain = || attribute(data?, 1);
    let value = match set {
        Set::NodeZones => Value::Zone(u16::from_ne_bytes(plain()?.get(..2)?.try_into().ok()?)),
        Set::NodeMarks => Value::Mark(u32::from_ne_bytes(plain()?.get(..4)?.try_into().ok()?)),
        Set::HostPorts4 | Set::HostPorts6 => Value::Target(target(plain()?, width)?),
        Set::Vips4 | Set::Vips6 | Set::Ports4 | Set::Ports6 => {
            Value::Goto(text(attribute(attribute(data?, 2)?, 2)?).parse().ok()?)
        }
        _ => Value::None,
    };
    Some((key, value))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn target(bytes: &[u8], width: usize) -> Option<Target> {
    let port = bytes.get(width..width + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    Some(Target { address: address(bytes.get(..width)?)?, port })
}

/// The subnet from the first to the last address.
fn subnet(first: &[u8], end: &[u8]) -> Option<Subnet> {
    let host_bits: u32 = first.iter().zip(end).map(|(a, b)| (a ^ b).count_ones()).sum();
    Subnet::new(address(first)?, (first.len() * 8) as u8 - host_bits as u8)
        .filter(|found| address(end) == Some(last(*found)))
}

/// The map that a balancer's rule looks up, and over how many numbers it spreads.
fn spread_of(rule: &[u8]) -> Option<(String, u32)> {
    let (mut map, mut modulus) = (None, None);
    for (_, expression) in attributes(attribute(rule, 4)?) {
        let data = attribute(expression, 2)?;
        match attribute(expression, 1).map(text) {
            Some("numgen") => {
                modulus = attribute(data, 2).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes)
            }
            Some("lookup") => map = attribute(data, 1).map(|name| text(name).to_owned()),
            _ => {}
        }
    }
    Some((map?, modulus?))
}

/// The targets of an anonymous map, by their numbers.
fn targets(elements: &[Vec<u8>]) -> Vec<Target> {
    let numbered: BTreeMap<u32, Target> = elements
        .iter()
        .filter_map(|element| {
            let key = u32::from_ne_bytes(attribute(attribute(element, 1)?, 1)?.try_into().ok()?);
            let data = attribute(attribute(element, 2)?, 1)?;
            let width = if data.len() >= 16 { 16 } else { 4 };
            Some((key, target(data, width)?))
        })
        .collect();
    numbered.into_values().collect()
}
