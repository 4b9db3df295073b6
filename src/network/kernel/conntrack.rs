//! Connection tracking entries of UDP: such a flow has no end, and would stay where it once went.

use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;

use super::netlink::{Body, Netlink, Request};

/// `IPCTNL_MSG_CT_DELETE` of netfilter's subsystem 1.
const DELETE: u16 = (1 << 8) | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
const UDP: u8 = 17;

/// Which parts of a tuple are compared.
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Which entries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stale {
    /// Flows that are answered from this address: its task takes no more of them.
    AnsweredBy(IpAddr),
    /// Flows to this port, which went to the host itself before the port was published.
    ToPort { port: u16, ipv6: bool },
}

/// Deletes them. A kernel that cannot select (before 5.8) refuses, and deletes nothing.
pub fn forget(stale: &[Stale]) -> io::Result<()> {
    if stale.is_empty() {
        return Ok(());
    }
    let mut netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    let requests: Vec<Request> = stale.iter().map(request).collect();
    let failed = netlink.each(&requests)?;
    // ENOENT: there is none.
    let real = failed.into_iter().find(|(_, error)| error.raw_os_error() != Some(libc::ENOENT));
    real.map_or(Ok(()), |(_, error)| Err(error))
}

fn request(stale: &Stale) -> Request {
    let ipv6 = match stale {
        Stale::AnsweredBy(address) => address.is_ipv6(),
        Stale::ToPort { ipv6, .. } => *ipv6,
    };
    // Version 1: the family counts.
    let mut body = Body::new(&[if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8, 1, 0, 0]);
    fn udp(protocol: &mut Body) -> &mut Body {
        protocol.put(1, &[UDP])
    }
    match stale {
        Stale::AnsweredBy(address) => {
            body.nest(TUPLE_REPLY, |tuple| {
                tuple.nest(1, |ip| match address {
                    IpAddr::V4(address) => ip.put(1, &address.octets()),
                    IpAddr::V6(address) => ip.put(3, &address.octets()),
                });
                tuple.nest(2, udp)
            });
            body.nest(FILTER, |filter| filter.put(2, &(BY_SOURCE | BY_PROTOCOL).to_ne_bytes()));
        }
        Stale::ToPort { port, .. } => {
            body.nest(TUPLE_ORIGINAL, |tuple| tuple.nest(2, |protocol| udp(protocol).put(3, &port.to_be_bytes())));
            body.nest(FILTER, |filter| filter.put(1, &(BY_PROTOCOL | BY_DESTINATION_PORT).to_ne_bytes()));
        }
    }
    Request { kind: DELETE, flags: 0, body: body.done() }
}
