//! Tries, from within a task's namespace, what its processes would do: an echo to another task, a question to the
//! resolver. They block, for a bounded time.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::dns;
use super::namespace::within;

const TRIES: u16 = 2;
const ANSWER_WITHIN: Duration = Duration::from_millis(700);
/// Answers to others that a raw socket sees.
const PATIENCE: usize = 64;
const ECHO_ID: [u8; 2] = *b"fk";

/// ICMP from one address of the task's to another's. The kernel on the other side answers, whatever runs there.
pub fn echo(namespace: &Path, from: IpAddr, to: IpAddr) -> io::Result<()> {
    within(namespace, move || {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        for sequence in 0..TRIES {
            socket.send(&request(to.is_ipv6(), sequence))?;
            if answered(&mut socket, to.is_ipv6())? {
                return Ok(());
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    })
}

/// Of an echo request; the kernel fills in the second family's checksum itself.
fn request(ipv6: bool, sequence: u16) -> [u8; 8] {
    let [high, low] = sequence.to_be_bytes();
    let mut packet = [if ipv6 { 128 } else { 8 }, 0, 0, 0, ECHO_ID[0], ECHO_ID[1], high, low];
    if !ipv6 {
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from(folded & 0xffff).unwrap_or(0);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// `false` where nothing came in time.
fn answered(socket: &mut Socket, ipv6: bool) -> io::Result<bool> {
    let mut packet = [0; 256];
    for _ in 0..PATIENCE {
        let length = match socket.read(&mut packet) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        };
        // IPv4's raw sockets show the header too.
        let header = if ipv6 { 0 } else { usize::from(packet[0] & 0xf) * 4 };
        let reply = if ipv6 { 129 } else { 0 };
        if let Some(message) = packet[..length].get(header..header + 8)
            && message[0] == reply
            && message[4..6] == ECHO_ID
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the task's look-ups are answered: the name of its own address is, by the node itself.
pub fn look_up(namespace: &Path, own: IpAddr) -> io::Result<()> {
    within(namespace, move || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.connect((dns::ADDRESS, 53))?;
        for id in 0..TRIES {
            let question = question(id, own);
            socket.send(&question)?;
            let mut answer = [0; 512];
            match socket.recv(&mut answer) {
                Ok(length) if length > 2 && answer[..2] == question[..2] && answer[2] & 0x80 != 0 => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    })
}

/// For the name of an address.
fn question(id: u16, address: IpAddr) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut question = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in reversed(address).split('.') {
        question.push(u8::try_from(label.len()).unwrap_or(0));
        question.extend(label.bytes());
    }
    question.extend([0, 0, 12, 0, 1]);
    question
}

fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits = address.octets().into_iter().rev().flat_map(|byte| [byte & 0xf, byte >> 4]);
            let labels: String = digits.map(|digit| format!("{digit:x}.")).collect();
            labels + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_sums_to_nothing() {
        for sequence in [0, 1, 0xffff] {
            let packet = request(false, sequence);
            let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{packet:?}");
        }
    }

    #[test]
    fn the_name_of_an_address_is_asked_for() {
        assert_eq!(reversed("10.0.1.2".parse().unwrap()), "2.1.0.10.in-addr.arpa");
        let v6 = "b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reversed("fd00:1::b".parse().unwrap()), v6);
        let question = question(1, "10.0.1.2".parse().unwrap());
        assert_eq!(question[..16], [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'2', 1, b'1']);
        assert_eq!(question[question.len() - 5..], [0, 0, 12, 0, 1]);
    }
}
