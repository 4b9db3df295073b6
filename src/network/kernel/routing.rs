//! The overlay's device, addresses of `lo`, neighbours, routes and rules: read from the kernel and changed, over rtnetlink.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::netlink::{Body, Netlink, Request, attribute, text, word};
use crate::network::names::*;
use crate::network::pool;
use crate::network::state::*;
use crate::spec::Subnet;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;
const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;
const GETRULE: u16 = 34;

const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const V4: u8 = libc::AF_INET as u8;
const V6: u8 = libc::AF_INET6 as u8;
const BRIDGE: u8 = libc::AF_BRIDGE as u8;
const PERMANENT: u16 = 0x80;
const OWN: u8 = 2;
const UNICAST: u8 = 1;
const UNREACHABLE: u8 = 7;
const SCOPE_LINK: u8 = 253;
const UP: u32 = 1;
const ONLINK: u32 = 4;
const INVERT: u32 = 2;
const TO_TABLE: u8 = 1;
const GOTO: u8 = 2;
const NOP: u8 = 3;

pub struct Routing {
    netlink: Netlink,
    /// Whose addresses on `lo` are ours.
    subnet: pool::Subnet,
}

/// One of the host's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub mtu: u32,
    pub up: bool,
    /// Of its own kind, where it is a VXLAN device.
    vxlan: Option<Vxlan>,
    kind: String,
    mac: Option<Mac>,
}

impl Link {
    /// A task's, by all marks that we give: a name alone is anybody's.
    fn is_of_task(&self, name: Interface) -> bool {
        self.kind == "veth" && self.mac == Some(GATEWAY_MAC) && is_task_interface(name.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Add,
    Replace,
    Delete,
}

/// What the kernel would not do.
pub type Refused = Vec<Refusal>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub what: String,
    /// The port of the overlay's datagrams is another's.
    pub port_in_use: bool,
    /// Where it was to be done, where it is of one interface.
    pub interface: Option<Interface>,
}

impl Refusal {
    fn new(what: String, interface: Option<Interface>) -> Refusal {
        Refusal { what, port_in_use: false, interface }
    }
}

/// One change, and how it is told where it is refused.
struct Step {
    request: Request,
    words: String,
    interface: Option<Interface>,
}

fn step((request, words): (Request, String)) -> Step {
    Step { request, words, interface: None }
}

fn step_at(interface: Interface) -> impl Fn((Request, String)) -> Step {
    move |(request, words)| Step { request, words, interface: Some(interface) }
}

impl Routing {
    pub fn open(subnet: pool::Subnet) -> io::Result<Routing> {
        Ok(Routing { netlink: Netlink::open(SockProtocol::NetlinkRoute)?, subnet })
    }

    pub fn port(&self) -> u32 {
        self.netlink.port()
    }

    pub fn bring_lo_up(&mut self) -> io::Result<()> {
        let mut body = link_header(0, UP, UP);
        let request = Request { kind: NEWLINK, flags: 0, body: body.text(3, "lo").done() };
        self.netlink.each(&[request])?.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    pub fn links(&mut self) -> io::Result<BTreeMap<Interface, Link>> {
        let replies = self.netlink.dump(GETLINK, &[0; 16])?;
        Ok(replies.iter().filter_map(|reply| link(&reply.body)).collect())
    }

    /// The MTU of the interface that has `address`, where one has it.
    pub fn mtu_under(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        let replies = self.netlink.dump(GETADDR, &[0; 8])?;
        let holder = replies.iter().find(|reply| address_of(&reply.body) == Some(address));
        let Some(index) = holder.map(|reply| word(&reply.body, 4)) else { return Ok(None) };
        let links = self.links()?;
        // Deleted in between: what is asked next says so.
        let link = links.values().find(|link| link.index == index).ok_or(io::ErrorKind::NotFound)?;
        Ok(Some(link.mtu))
    }

    /// All but the table of nftables.
    pub fn read(&mut self) -> io::Result<KernelState> {
        let links = self.links()?;
        let of_us = links.iter().filter(|(name, link)| **name == overlay() || link.is_of_task(**name));
        let names: BTreeMap<u32, Interface> = of_us.map(|(name, link)| (link.index, *name)).collect();
        let ours = |index: u32| names.get(&index).copied();
        let mut state = KernelState::default();
        if let Some(link) = links.get(&overlay()) {
            // One that is down has to be set up anew.
            state.vxlan = link.vxlan.map(|vxlan| Vxlan { mtu: if link.up { link.mtu } else { 0 }, ..vxlan });
        }
        let loopback = links.get(&Interface::new("lo")).map(|link| link.index);
        for reply in self.netlink.dump(GETADDR, &[0; 8])? {
            if Some(word(&reply.body, 4)) == loopback {
                state.addresses.extend(address_of(&reply.body).filter(|address| self.is_host_local(*address)));
            }
        }
        for family in [V4, V6] {
            for reply in self.netlink.dump(GETNEIGH, &neighbour_header(family, 0, 0, 0))? {
                state.neighbours.extend(neighbour(&reply.body, ours));
            }
            for reply in self.netlink.dump(GETROUTE, &route_header(family, 0, 0, 0, 0))? {
                state.routes.extend(route(&reply.body, ours));
            }
            for reply in self.netlink.dump(GETRULE, &rule_header(family, 0, 0))? {
                state.rules.extend(rule(&reply.body));
            }
        }
        for reply in self.netlink.dump(GETNEIGH, &neighbour_header(BRIDGE, 0, 0, 0))? {
            if ours(word(&reply.body, 4)) == Some(overlay()) {
                state.remotes.extend(remote(&reply.body));
            }
        }
        Ok(state)
    }

    /// Takes the host's own address in the subnet from it. What is not there is fine.
    pub fn forget_host(&mut self) -> io::Result<()> {
        let links = self.links()?;
        let request = address_request(self.subnet.host().into(), &links, true);
        let mut refused = Vec::new();
        self.carry_out(request.into_iter().map(step).collect(), &mut refused)?;
        refused.pop().map_or(Ok(()), |refusal| Err(io::Error::other(refusal.what)))
    }

    fn is_host_local(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.subnet.contains(address),
            IpAddr::V6(address) => address.to_bits() >> 32 == LOCAL6.to_bits() >> 32,
        }
    }

    /// Makes the changes as far as they can be made; what cannot is told, and stays as it was.
    pub fn apply(&mut self, changes: &Changes) -> io::Result<Refused> {
        let mut refused = Vec::new();
        if let Some(vxlan) = changes.vxlan {
            self.set_overlay(vxlan, &mut refused)?;
        }
        let links = self.links()?;
        let mut steps: Vec<Step> = Vec::new();
        // What goes leaves in the opposite order to the one in which it came.
        steps.extend(changes.rules.list.iter().filter(|c| c.new.is_none()).map(|c| step(rule_request(c.key, true))));
        for change in changes.routes.list.iter().filter(|change| change.new.is_none()) {
            steps.extend(change.old.and_then(|old| route_request(change.key, old, &links, How::Delete)).map(step));
        }
        for change in changes.neighbours.list.iter().filter(|change| change.new.is_none()) {
            steps.extend(change.old.and_then(|mac| neighbour_request(change.key, mac, &links, true)).map(step));
        }
        for change in &changes.remotes.list {
            steps.extend(change.old.and_then(|host| remote_request(change.key, host, &links, true)).map(step));
        }
        for change in &changes.addresses.list {
            steps.extend(address_request(change.key, &links, change.new.is_none()).map(step));
        }
        for change in &changes.remotes.list {
            steps.extend(change.new.and_then(|host| remote_request(change.key, host, &links, false)).map(step));
        }
        for change in &changes.neighbours.list {
            let interface = change.key.0;
            let set = change.new.and_then(|mac| neighbour_request(change.key, mac, &links, false));
            steps.extend(set.map(step_at(interface)));
        }
        for change in &changes.routes.list {
            let how = if change.old.is_some() { How::Replace } else { How::Add };
            let Some(route) = change.new else { continue };
            match (route_request(change.key, route, &links, how), route.interface()) {
                (Some(request), Some(interface)) => steps.push(step_at(interface)(request)),
                (Some(request), None) => steps.push(step(request)),
                // Without the overlay's device none of its routes can be: that it is missing was told.
                (None, Some(interface)) if interface != overlay() => {
                    let what = format!("route {}: the interface {interface} is gone", change.key.1);
                    refused.push(Refusal::new(what, Some(interface)));
                }
                (None, _) => {}
            }
        }
        steps.extend(changes.rules.list.iter().filter(|c| c.new.is_some()).map(|c| step(rule_request(c.key, false))));
        self.carry_out(steps, &mut refused)?;
        Ok(refused)
    }

    fn carry_out(&mut self, steps: Vec<Step>, refused: &mut Refused) -> io::Result<()> {
        let (requests, told): (Vec<Request>, Vec<_>) =
            steps.into_iter().map(|step| (step.request, (step.words, step.interface))).unzip();
        for (place, error) in self.netlink.each(&requests)? {
            let deleting = matches!(requests[place].kind, DELADDR | DELROUTE | DELNEIGH | DELRULE);
            let known = match error.raw_os_error() {
                // Gone already, perhaps with its interface.
                Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL) => deleting,
                Some(libc::EEXIST) => requests[place].kind == NEWRULE,
                _ => false,
            };
            if !known {
                let (words, interface) = &told[place];
                // Of all that is asked for only a tunnel needs a port.
                let port_in_use = error.raw_os_error() == Some(libc::EADDRINUSE);
                refused.push(Refusal { port_in_use, ..Refusal::new(format!("{words}: {error}"), *interface) });
            }
        }
        Ok(())
    }

    /// Made anew where it is another: a VXLAN device's address and port cannot be changed.
    fn set_overlay(&mut self, wanted: Option<Vxlan>, refused: &mut Refused) -> io::Result<()> {
        let found = self.links()?.remove(&overlay());
        if let Some(link) = &found {
            if link.kind != "vxlan" {
                let what = format!("an interface {OVERLAY} that is no VXLAN device is in the way: rename or delete it");
                refused.push(Refusal::new(what, None));
                return Ok(());
            }
            let same = |wanted: Vxlan| link.vxlan.is_some_and(|is| Vxlan { mtu: wanted.mtu, ..is } == wanted);
            if wanted.is_none_or(|wanted| !same(wanted)) {
                let mut header = link_header(link.index, 0, 0);
                let delete = Request { kind: DELLINK, flags: 0, body: header.done() };
                self.carry_out(vec![step((delete, format!("delete {OVERLAY}")))], refused)?;
            } else if let Some(wanted) = wanted {
                let mut body = link_header(link.index, UP, UP);
                body.put(4, &wanted.mtu.to_ne_bytes());
                let set = Request { kind: SETLINK, flags: 0, body: body.done() };
                return self.carry_out(vec![step((set, format!("bring {OVERLAY} up")))], refused);
            }
        }
        match wanted {
            Some(wanted) => {
                let add = Request { kind: NEWLINK, flags: CREATE | EXCLUSIVE, body: vxlan_body(wanted) };
                let words = format!("add the VXLAN device {OVERLAY} on port {}", wanted.port);
                self.carry_out(vec![step((add, words))], refused)
            }
            None => Ok(()),
        }
    }
}

/// The host's ends of all veth pairs that are tasks', by our marks.
pub fn task_interfaces() -> io::Result<Vec<Interface>> {
    let replies = Netlink::open(SockProtocol::NetlinkRoute)?.dump(GETLINK, &[0; 16])?;
    let links = replies.iter().filter_map(|reply| link(&reply.body));
    Ok(links.filter(|(name, link)| link.is_of_task(*name)).map(|(name, _)| name).collect())
}

/// Whose name is of task interfaces or of the overlay's device.
pub fn may_be_ours(interface: Interface) -> bool {
    interface == overlay() || is_task_interface(interface.name())
}

fn link_header(index: u32, flags: u32, change: u32) -> Body {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    Body::new(&header)
}

fn vxlan_body(wanted: Vxlan) -> Vec<u8> {
    let mut body = link_header(0, UP, UP);
    body.put(1, &wanted.mac.0).text(3, OVERLAY).put(4, &wanted.mtu.to_ne_bytes());
    body.nest(18, |info| {
        info.put(1, b"vxlan").nest(2, |data| {
            data.put(1, &VNI.to_ne_bytes()).put(7, &[0]).put(15, &wanted.port.to_be_bytes());
            match wanted.local {
                Some(IpAddr::V4(address)) => data.put(4, &address.octets()),
                Some(IpAddr::V6(address)) => data.put(17, &address.octets()),
                None => data,
            }
        })
    });
    body.done()
}

fn link(body: &[u8]) -> Option<(Interface, Link)> {
    let attributes = body.get(16..)?;
    let name = Interface::new(text(attribute(attributes, 3)?));
    let mtu = attribute(attributes, 4).map_or(0, |mtu| word(mtu, 0));
    let info = attribute(attributes, 18).unwrap_or_default();
    let kind = attribute(info, 1).map(text).unwrap_or_default().to_owned();
    let mac = attribute(attributes, 1).and_then(|mac| mac.try_into().ok()).map(Mac);
    let data = attribute(info, 2).unwrap_or_default();
    let own = attribute(data, 1).map(|id| word(id, 0)) == Some(VNI) && attribute(data, 7).is_some_and(|on| on == [0]);
    let vxlan = mac.filter(|_| kind == "vxlan" && own).map(|mac| Vxlan {
        mac,
        local: attribute(data, 4).or_else(|| attribute(data, 17)).and_then(ip),
        port: attribute(data, 15).and_then(|port| port.try_into().ok()).map_or(0, u16::from_be_bytes),
        mtu,
    });
    Some((name, Link { index: word(body, 4), mtu, up: word(body, 8) & UP != 0, vxlan, kind, mac }))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { V6 } else { V4 }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn address_of(body: &[u8]) -> Option<IpAddr> {
    let attributes = body.get(8..)?;
    // IFA_LOCAL, where it differs from the other end's.
    attribute(attributes, 2).or_else(|| attribute(attributes, 1)).and_then(ip)
}

fn address_request(address: IpAddr, links: &BTreeMap<Interface, Link>, delete: bool) -> Option<(Request, String)> {
    const NO_DAD: u8 = 2;
    let index = links.get(&Interface::new("lo"))?.index;
    let mut header = [family(address), width(address), if address.is_ipv6() { NO_DAD } else { 0 }, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut body = Body::new(&header);
    body.put(2, &octets(address)).put(1, &octets(address));
    let (kind, flags) = if delete { (DELADDR, 0) } else { (NEWADDR, CREATE | REPLACE) };
    Some((Request { kind, flags, body: body.done() }, format!("give lo the address {address}")))
}

fn neighbour_header(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

fn neighbour(body: &[u8], ours: impl Fn(u32) -> Option<Interface>) -> Option<((Interface, IpAddr), Mac)> {
    let state = u16::from_ne_bytes([*body.get(8)?, *body.get(9)?]);
    let interface = ours(word(body, 4)).filter(|_| state & PERMANENT != 0)?;
    let attributes = body.get(12..)?;
    let mac = attribute(attributes, 2)?.try_into().ok().map(Mac)?;
    Some(((interface, ip(attribute(attributes, 1)?)?), mac))
}

fn neighbour_request(
    (interface, address): (Interface, IpAddr),
    mac: Mac,
    links: &BTreeMap<Interface, Link>,
    delete: bool,
) -> Option<(Request, String)> {
    let index = links.get(&interface)?.index;
    let mut body = Body::new(&neighbour_header(family(address), index, PERMANENT, 0));
    body.put(1, &octets(address));
    if !delete {
        body.put(2, &mac.0);
    }
    let (kind, flags) = if delete { (DELNEIGH, 0) } else { (NEWNEIGH, CREATE | REPLACE) };
    Some((Request { kind, flags, body: body.done() }, format!("set the neighbour {address} of {interface}")))
}

fn remote(body: &[u8]) -> Option<(Mac, IpAddr)> {
    let attributes = body.get(12..)?;
    let mac = attribute(attributes, 2)?.try_into().ok().map(Mac)?;
    Some((mac, ip(attribute(attributes, 1)?)?))
}

fn remote_request(
    mac: Mac,
    host: IpAddr,
    links: &BTreeMap<Interface, Link>,
    delete: bool,
) -> Option<(Request, String)> {
    let index = links.get(&overlay())?.index;
    let mut body = Body::new(&neighbour_header(BRIDGE, index, PERMANENT, OWN));
    body.put(2, &mac.0).put(1, &octets(host));
    let (kind, flags) = if delete { (DELNEIGH, 0) } else { (NEWNEIGH, CREATE | REPLACE) };
    Some((Request { kind, flags, body: body.done() }, format!("lead {mac} to {host}")))
}

fn route_header(family: u8, prefix: u8, table: Table, scope: u8, kind: u8) -> [u8; 12] {
    let small = u8::try_from(table).unwrap_or(0);
    [family, prefix, 0, 0, small, if kind == 0 { 0 } else { ROUTE_PROTOCOL }, scope, kind, 0, 0, 0, 0]
}

fn route(body: &[u8], ours: impl Fn(u32) -> Option<Interface>) -> Option<((Table, Subnet), Route)> {
    if *body.get(5)? != ROUTE_PROTOCOL {
        return None;
    }
    let attributes = body.get(12..)?;
    let none: IpAddr = if body[0] == V6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let destination = attribute(attributes, 1).and_then(ip).unwrap_or(none);
    let subnet = Subnet::new(destination, body[1])?;
    let table = attribute(attributes, 15).map_or(u32::from(body[4]), |table| word(table, 0));
    let interface = attribute(attributes, 4).and_then(|index| ours(word(index, 0)));
    let gateway = attribute(attributes, 5).and_then(ip);
    let route = match (body[7], interface, gateway) {
        (UNREACHABLE, ..) => Route::Unreachable,
        (_, Some(interface), Some(gateway)) => Route::Via { interface, gateway },
        (_, Some(interface), None) => Route::Link { interface, source: attribute(attributes, 7).and_then(ip) },
        // Of ours by its number, yet none that we make: it differs from all that is wanted, and goes.
        (_, None, _) => Route::Link { interface: Interface::new(""), source: None },
    };
    Some(((table, subnet), route))
}

fn route_request(
    (table, subnet): (Table, Subnet),
    route: Route,
    links: &BTreeMap<Interface, Link>,
    how: How,
) -> Option<(Request, String)> {
    let ipv6 = subnet.base().is_ipv6();
    let (kind, scope) = match route {
        Route::Unreachable => (UNREACHABLE, 0),
        Route::Link { .. } if !ipv6 => (UNICAST, SCOPE_LINK),
        _ => (UNICAST, 0),
    };
    let mut header = route_header(family(subnet.base()), subnet.prefix(), table, scope, kind);
    if let Route::Via { .. } = route {
        header[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
    }
    let mut body = Body::new(&header);
    if subnet.prefix() > 0 {
        body.put(1, &octets(subnet.base()));
    }
    body.put(15, &table.to_ne_bytes());
    // One that goes is known by its destination, table and protocol.
    if how != How::Delete {
        match route {
            Route::Unreachable => {}
            Route::Link { interface, source } => {
                body.put(4, &links.get(&interface)?.index.to_ne_bytes());
                if let Some(source) = source {
                    body.put(7, &octets(source));
                }
            }
            Route::Via { interface, gateway } => {
                body.put(4, &links.get(&interface)?.index.to_ne_bytes()).put(5, &octets(gateway));
            }
        }
    } else {
        body = bare(body, header);
    }
    let (kind, flags) = match how {
        How::Delete => (DELROUTE, 0),
        How::Replace => (NEWROUTE, CREATE | REPLACE),
        // Another's route to the same place is left alone.
        How::Add => (NEWROUTE, CREATE | EXCLUSIVE),
    };
    Some((Request { kind, flags, body: body.done() }, format!("route {subnet} in table {table}")))
}

/// A route's type and scope do not matter when it is deleted: 0 and "nowhere" match any.
fn bare(mut body: Body, mut header: [u8; 12]) -> Body {
    const NOWHERE: u8 = 255;
    header[6] = if header[0] == V6 { 0 } else { NOWHERE };
    header[7] = 0;
    header[8..12].fill(0);
    let mut bytes = body.done();
    bytes[..12].copy_from_slice(&header);
    Body::new(&bytes)
}

fn rule_header(family: u8, action: u8, flags: u32) -> [u8; 12] {
    let mut header = [family, 0, 0, 0, 0, 0, 0, action, 0, 0, 0, 0];
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn rule(body: &[u8]) -> Option<Rule> {
    let attributes = body.get(12..)?;
    if attribute(attributes, 21)? != [ROUTE_PROTOCOL] {
        return None;
    }
    let number = |kind| attribute(attributes, kind).map(|value| word(value, 0));
    let mark = number(10).unwrap_or(0);
    let what = match body[7] {
        GOTO => RuleKind::Past { mark, mask: number(16)?, to: number(4)? },
        NOP => RuleKind::Landing,
        _ => RuleKind::Marked { mark, table: number(15)? },
    };
    Some(Rule { ipv6: body[0] == V6, priority: number(6)?, what })
}

fn rule_request(rule: Rule, delete: bool) -> (Request, String) {
    let family = if rule.ipv6 { V6 } else { V4 };
    let mut body = match rule.what {
        RuleKind::Past { .. } => Body::new(&rule_header(family, GOTO, INVERT)),
        RuleKind::Marked { .. } => Body::new(&rule_header(family, TO_TABLE, 0)),
        RuleKind::Landing => Body::new(&rule_header(family, NOP, 0)),
    };
    body.put(6, &rule.priority.to_ne_bytes()).put(21, &[ROUTE_PROTOCOL]);
    match rule.what {
        RuleKind::Past { mark, mask, to } => {
            body.put(10, &mark.to_ne_bytes()).put(16, &mask.to_ne_bytes()).put(4, &to.to_ne_bytes());
        }
        RuleKind::Marked { mark, table } => {
            body.put(10, &mark.to_ne_bytes()).put(16, &u32::MAX.to_ne_bytes()).put(15, &table.to_ne_bytes());
        }
        RuleKind::Landing => {}
    }
    let (kind, flags) = if delete { (DELRULE, 0) } else { (NEWRULE, CREATE | EXCLUSIVE) };
    (Request { kind, flags, body: body.done() }, format!("the routing rule {}", rule.priority))
}
