//! Listens to what others do to what is ours in the kernel, and rings. What was done is found out by reading the kernel:
//! a notification that is lost costs time, nothing else.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;

use nix::sys::socket::SockProtocol;

use super::NetworkError;
use super::inbox::Inbox;
use super::kernel::netlink::{Netlink, Reply, attribute, text};
use super::kernel::routing::may_be_ours;
use super::names::{ROUTE_PROTOCOL, TABLE};
use super::state::Interface;

/// Bits of the groups: links, neighbours, then addresses, routes and rules, of IPv4 and of IPv6.
const ROUTE_GROUPS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18;
/// nf_tables.
const NFT_GROUPS: u32 = 1 << 6;
const NFT: u16 = 10;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const DELADDR: u16 = 21;
const DELROUTE: u16 = 25;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const DELRULE: u16 = 33;
/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
const NEIGHBOUR_FAILED: u16 = 0x20;
/// An entry of the device itself.
const OWN: u8 = 2;

/// What was touched: an interface, or anything.
type Touched = Option<Interface>;
/// What a notification is to us.
type Meaning = fn(&Reply) -> Option<Touched>;

/// As long as `inbox` is there. `ours` are the ports of our own sockets, of nf_tables and of rtnetlink.
pub fn hang(inbox: &Arc<Inbox>, ours: [u32; 2]) -> Result<(), NetworkError> {
    let listeners: [(SockProtocol, u32, u32, Meaning); 2] = [
        (SockProtocol::NetlinkNetFilter, NFT_GROUPS, ours[0], of_nftables),
        (SockProtocol::NetlinkRoute, ROUTE_GROUPS, ours[1], of_routing),
    ];
    for (protocol, groups, own, meaning) in listeners {
        let netlink = Netlink::listening(protocol, groups).map_err(NetworkError::NetlinkSocket)?;
        let inbox = Arc::downgrade(inbox);
        let listen = move || listen(netlink, own, meaning, &inbox);
        thread::Builder::new().name("flok-bell".into()).spawn(listen).map_err(NetworkError::NetlinkSocket)?;
    }
    Ok(())
}

fn listen(mut netlink: Netlink, own: u32, meaning: Meaning, inbox: &Weak<Inbox>) {
    while inbox.strong_count() > 0 {
        let rings: Vec<Touched> = match netlink.listen() {
            Ok(replies) => replies.iter().filter(|reply| reply.port != own).filter_map(meaning).collect(),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            // More than the buffer holds: something may have been missed.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => vec![None],
            Err(error) => {
                tracing::warn!(%error, "changes of others to the network are seen by the periodic look only");
                return;
            }
        };
        let Some(inbox) = inbox.upgrade() else { return };
        rings.into_iter().for_each(|ring| inbox.ring(ring));
    }
}

fn of_nftables(reply: &Reply) -> Option<Touched> {
    let name = TABLE.split_once(' ').map_or(TABLE, |(_, name)| name);
    let table = reply.body.get(4..).and_then(|attributes| attribute(attributes, 1));
    let ours = reply.kind >> 8 == NFT && table.is_some_and(|table| text(table) == name);
    ours.then_some(None)
}

fn of_routing(reply: &Reply) -> Option<Touched> {
    match reply.kind {
        NEWLINK | DELLINK => {
            let name = Interface::new(text(attribute(reply.body.get(16..)?, 3)?));
            const UP: u8 = 1;
            let whole = reply.kind == NEWLINK && reply.body.get(8)? & UP != 0;
            (may_be_ours(name) && !whole).then_some(Some(name))
        }
        DELROUTE => (*reply.body.get(5)? == ROUTE_PROTOCOL).then_some(None),
        DELADDR => (reply.body.get(4..8)? == LOOPBACK.to_ne_bytes()).then_some(None),
        // A neighbour that somebody deletes fails first; those that the kernel gives up are nobody's doing.
        NEWNEIGH => {
            let failed = reply.body.get(8..10)? == NEIGHBOUR_FAILED.to_ne_bytes();
            (failed && reply.port != 0).then_some(None)
        }
        // Of a tunnel's, not of a bridge's.
        DELNEIGH => {
            let of_tunnel = *reply.body.first()? == libc::AF_BRIDGE as u8 && *reply.body.get(10)? & OWN != 0;
            of_tunnel.then_some(None)
        }
        DELRULE => (attribute(reply.body.get(12..)?, 21)? == [ROUTE_PROTOCOL]).then_some(None),
        _ => None,
    }
}
