//! Connection tracking entries that would lead a packet to where it no longer belongs: flows of UDP, which have no end, and
//! connections of TCP that were never answered, which a later one from the same port would be taken for.
//!
//! The kernel is asked for the entries of one protocol, and those that go are deleted one by one: to delete by a filter is
//! not possible before Linux 6.11.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;

use super::netlink::{Body, Netlink, Request, attribute};

/// Of netfilter's subsystem 1: `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;

/// Attributes of an entry.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
const NESTED: u16 = 0x8000;

/// Of a tuple, and of its two parts.
const ADDRESSES: u16 = 1;
const SOURCE4: u16 = 1;
const SOURCE6: u16 = 3;
const PORTS: u16 = 2;
const PROTOCOL: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// The part of a tuple that a filter compares.
const BY_PROTOCOL: u32 = 1 << 3;
/// The bit of an entry's status: there was an answer.
const SEEN_REPLY: u32 = 1 << 1;

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Which entries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stale {
    /// Flows of UDP that are answered from this address: its task takes no more of them.
    AnsweredBy(IpAddr),
    /// Flows of UDP to this port, which went to the host itself before the port was published.
    ToPort { port: u16, ipv6: bool },
    /// Connections of TCP that this address should have answered and did not. Another one from the same port would be led
    /// there too, and reset, for the two minutes that the kernel waits for the answer.
    NeverAnsweredBy(IpAddr),
}

impl Stale {
    fn is_ipv6(self) -> bool {
        match self {
            Stale::AnsweredBy(address) | Stale::NeverAnsweredBy(address) => address.is_ipv6(),
            Stale::ToPort { ipv6, .. } => ipv6,
        }
    }

    fn protocol(self) -> u8 {
        if matches!(self, Stale::NeverAnsweredBy(_)) { TCP } else { UDP }
    }
}

/// Deletes them.
pub fn forget(stale: &BTreeSet<Stale>) -> io::Result<()> {
    let kinds: BTreeSet<(bool, u8)> = stale.iter().map(|one| (one.is_ipv6(), one.protocol())).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let mut netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    for (ipv6, protocol) in kinds {
        let found = netlink.dump(GET, &selection(ipv6, protocol))?;
        let flows = found.iter().filter_map(|reply| Flow::read(reply.body.get(4..)?));
        let going: Vec<Request> = flows.filter(|flow| flow.is_among(stale)).map(|flow| flow.deletion(ipv6)).collect();
        let failed = netlink.each(&going)?;
        // ENOENT: it ended meanwhile.
        let real = failed.into_iter().find(|(_, error)| error.raw_os_error() != Some(libc::ENOENT));
        real.map_or(Ok(()), |(_, error)| Err(error))?;
    }
    Ok(())
}

/// netfilter's header: the family, and version 1, by which the family counts.
fn header(ipv6: bool) -> Body {
    Body::new(&[if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8, 1, 0, 0])
}

/// Entries of a protocol; of TCP's those that were never answered. An older kernel may give more of them.
fn selection(ipv6: bool, protocol: u8) -> Vec<u8> {
    let mut body = header(ipv6);
    body.nest(TUPLE_ORIGINAL, |tuple| tuple.nest(PORTS, |ports| ports.put(PROTOCOL, &[protocol])));
    body.nest(FILTER, |filter| filter.put(1, &BY_PROTOCOL.to_ne_bytes()));
    if protocol == TCP {
        body.big(STATUS, 0).big(STATUS_MASK, SEEN_REPLY);
    }
    body.done()
}

/// An entry, as the kernel told it.
struct Flow<'a> {
    original: &'a [u8],
    protocol: u8,
    /// Of whoever answers it.
    answers: IpAddr,
    /// That it was sent to at first.
    port: u16,
    answered: bool,
    zone: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
}

impl<'a> Flow<'a> {
    /// From its attributes.
    fn read(entry: &'a [u8]) -> Option<Flow<'a>> {
        let original = attribute(entry, TUPLE_ORIGINAL)?;
        let ports = attribute(original, PORTS)?;
        let addresses = attribute(attribute(entry, TUPLE_REPLY)?, ADDRESSES)?;
        let four = attribute(addresses, SOURCE4).and_then(|four| Some(IpAddr::from(<[u8; 4]>::try_from(four).ok()?)));
        let six = || attribute(addresses, SOURCE6).and_then(|six| Some(IpAddr::from(<[u8; 16]>::try_from(six).ok()?)));
        let status = attribute(entry, STATUS).and_then(|status| status.try_into().ok()).map_or(0, u32::from_be_bytes);
        Some(Flow {
            original,
            protocol: *attribute(ports, PROTOCOL)?.first()?,
            answers: four.or_else(six)?,
            port: attribute(ports, DESTINATION_PORT)
                .and_then(|port| port.try_into().ok())
                .map_or(0, u16::from_be_bytes),
            answered: status & SEEN_REPLY != 0,
            zone: attribute(entry, ZONE),
            id: attribute(entry, ID),
        })
    }

    fn is_among(&self, stale: &BTreeSet<Stale>) -> bool {
        match self.protocol {
            UDP => {
                let to_port = Stale::ToPort { port: self.port, ipv6: self.answers.is_ipv6() };
                stale.contains(&Stale::AnsweredBy(self.answers)) || stale.contains(&to_port)
            }
            TCP => !self.answered && stale.contains(&Stale::NeverAnsweredBy(self.answers)),
            _ => false,
        }
    }

    /// Of this entry and none that took its place.
    fn deletion(&self, ipv6: bool) -> Request {
        let mut body = header(ipv6);
        body.put(TUPLE_ORIGINAL | NESTED, self.original);
        for (kind, value) in [(ZONE, self.zone), (ID, self.id)] {
            if let Some(value) = value {
                body.put(kind, value);
            }
        }
        Request { kind: DELETE, flags: 0, body: body.done() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: u8, answers: IpAddr, status: u32) -> Vec<u8> {
        let mut body = Body::new(&[]);
        body.nest(TUPLE_ORIGINAL, |tuple| {
            tuple.nest(PORTS, |ports| ports.put(PROTOCOL, &[protocol]).put(DESTINATION_PORT, &53u16.to_be_bytes()))
        });
        body.nest(TUPLE_REPLY, |tuple| {
            tuple.nest(ADDRESSES, |both| match answers {
                IpAddr::V4(four) => both.put(SOURCE4, &four.octets()),
                IpAddr::V6(six) => both.put(SOURCE6, &six.octets()),
            })
        });
        body.big(STATUS, status);
        body.done()
    }

    #[test]
    fn what_goes_is_told_from_what_stays() {
        let (four, six): (IpAddr, IpAddr) = ("10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap());
        let goes = |protocol, answers, status, stale: &[Stale]| {
            let entry = entry(protocol, answers, status);
            Flow::read(&entry).unwrap().is_among(&stale.iter().copied().collect())
        };
        for answers in [four, six] {
            assert!(goes(UDP, answers, SEEN_REPLY, &[Stale::AnsweredBy(answers)]));
            assert!(goes(TCP, answers, 0, &[Stale::NeverAnsweredBy(answers)]));
            assert!(!goes(TCP, answers, SEEN_REPLY, &[Stale::NeverAnsweredBy(answers)]), "one that is open");
            assert!(!goes(TCP, answers, 0, &[Stale::AnsweredBy(answers)]));
        }
        assert!(goes(UDP, four, 0, &[Stale::ToPort { port: 53, ipv6: false }]));
        assert!(!goes(UDP, six, 0, &[Stale::ToPort { port: 53, ipv6: false }]));
        assert!(!goes(UDP, four, 0, &[Stale::AnsweredBy(six), Stale::ToPort { port: 54, ipv6: false }]));
    }

    #[test]
    fn an_entry_that_is_cut_short_is_none() {
        let whole = entry(UDP, "10.0.0.7".parse().unwrap(), 0);
        assert!((0..whole.len() - 8).all(|length| Flow::read(&whole[..length]).is_none()));
    }
}
