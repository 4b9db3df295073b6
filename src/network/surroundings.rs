//! What the host reaches without flok: the destinations of routes that others made.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;

use super::kernel::netlink::{Netlink, attribute, text, word};
use super::kernel::routing::may_be_ours;
use super::names::ROUTE_PROTOCOL;
use super::state::Interface;
use crate::spec::Subnet;

const GETLINK: u16 = 18;
const GETROUTE: u16 = 26;
const HEADER: usize = 12;
const UNICAST: u8 = 1;
/// Of the host's own addresses.
const TABLE_LOCAL: u32 = 255;
/// Not a route, but what a look-up of one came to.
const CLONED: u32 = 0x200;

/// Where others' routes lead to, default routes and what every host has included; each once. In any table: policy routing
/// keeps those of tunnels out of the main one.
pub fn others_routes() -> io::Result<BTreeSet<Subnet>> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
    let links = netlink.dump(GETLINK, &[0; 16])?;
    let passed_over = |body: &[u8]| {
        let name = text(attribute(body.get(16..)?, 3)?);
        (name == "lo" || may_be_ours(Interface::new(name))).then(|| word(body, 4))
    };
    let passed_over: BTreeSet<u32> = links.iter().filter_map(|link| passed_over(&link.body)).collect();
    let mut found = BTreeSet::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut header = [0; HEADER];
        header[0] = family;
        let routes = netlink.dump(GETROUTE, &header)?;
        found.extend(routes.iter().filter_map(|route| destination(&route.body, &passed_over)));
    }
    Ok(found)
}

/// Of another's route that leads somewhere by an interface that is neither ours nor the loopback.
fn destination(body: &[u8], passed_over: &BTreeSet<u32>) -> Option<Subnet> {
    let attributes = body.get(HEADER..)?;
    let table = attribute(attributes, 15).map_or(u32::from(body[4]), |table| word(table, 0));
    let leads = body[7] == UNICAST && body[5] != ROUTE_PROTOCOL && table != TABLE_LOCAL && word(body, 8) & CLONED == 0;
    let by_ours = attribute(attributes, 4).is_some_and(|index| passed_over.contains(&word(index, 0)));
    let address = attribute(attributes, 1).filter(|_| leads && !by_ours)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Subnet::new(address, body[1])
}

#[cfg(test)]
mod tests {
    use super::super::kernel::netlink::Body;
    use super::*;

    /// To 10.7.0.0/16 by interface 2, in the main table.
    fn route(change: impl FnOnce(&mut [u8; HEADER])) -> Vec<u8> {
        let mut header = [libc::AF_INET as u8, 16, 0, 0, 254, 2, 253, UNICAST, 0, 0, 0, 0];
        change(&mut header);
        Body::new(&header).put(1, &[10, 7, 0, 0]).put(4, &2u32.to_ne_bytes()).done()
    }

    fn read(body: &[u8], passed_over: &[u32]) -> Option<String> {
        destination(body, &passed_over.iter().copied().collect()).map(|subnet| subnet.to_string())
    }

    #[test]
    fn others_routes_are_told_from_the_swarms_and_the_hosts_own_addresses() {
        assert_eq!(read(&route(|_| {}), &[3]).as_deref(), Some("10.7.0.0/16"));
        assert_eq!(read(&route(|_| {}), &[2]), None, "by an interface of ours");
        assert_eq!(read(&route(|header| header[5] = ROUTE_PROTOCOL), &[]), None, "a route of ours");
        assert_eq!(read(&route(|header| header[4] = 255), &[]), None, "an address of the host");
        assert_eq!(read(&route(|header| header[7] = 7), &[]), None, "unreachable");
        assert_eq!(read(&route(|header| header[8..12].copy_from_slice(&CLONED.to_ne_bytes())), &[]), None);
        assert_eq!(read(&[0; 5], &[]), None);
    }
}
