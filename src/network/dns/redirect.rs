//! Port 53 of the resolver's address, inside a task's network namespace, without holding it.
//!
//! A task may run a name server of its own on port 53 of every address, and a socket on 127.0.0.11:53 would be in its way.
//! So the resolver listens on a port of the kernel's choice, and four rules in the task's namespace rewrite that port to 53
//! and back on its loopback. They rewrite packets one by one: no connection tracking, which would cost every packet of the
//! task something.
//!
//! Spoken to the kernel directly (nfnetlink, `linux/netfilter/nf_tables.h`): `nft` takes some 40 ms of CPU to say the
//! same, for each task.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::ADDRESS;

const TABLE: &str = "flok_dns";
const CHAIN: &str = "output";
const DNS_PORT: u16 = 53;
/// The kernel answers within the call; this is for a kernel that does not.
const ANSWER_WITHIN_SECONDS: i64 = 2;

const NFPROTO_IPV4: u8 = 2;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const REQUEST_AND_ACK: u16 = 0x1 | 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

const HOOK_OUTPUT: u32 = 3;
/// Before connection tracking, should the task have brought it in.
const PRIORITY_RAW: i32 = -300;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const ACCEPT: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const META_OUT_INTERFACE: u32 = 5;
const META_PROTOCOL: u32 = 16;
const LOOPBACK_INDEX: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// In the calling thread's network namespace: what is sent to port 53 of the resolver's address goes to `port`.
/// Replaces what was there.
pub fn install(port: u16) -> io::Result<()> {
    let commands = [
        message(NEW_TABLE, CREATE, NFPROTO_IPV4, 0, &text(1, TABLE)),
        message(DELETE_TABLE, 0, NFPROTO_IPV4, 0, &text(1, TABLE)),
        message(NEW_TABLE, CREATE, NFPROTO_IPV4, 0, &text(1, TABLE)),
        chain(),
        rule(&elsewhere()),
        rule(&rewrite(libc::IPPROTO_UDP, Side::Destination, DNS_PORT, port)),
        rule(&rewrite(libc::IPPROTO_TCP, Side::Destination, DNS_PORT, port)),
        rule(&rewrite(libc::IPPROTO_UDP, Side::Source, port, DNS_PORT)),
        rule(&rewrite(libc::IPPROTO_TCP, Side::Source, port, DNS_PORT)),
    ];
    let mut batch = message(BATCH_BEGIN, 0, 0, SUBSYSTEM, &[]);
    for (number, command) in (1u32..).zip(&commands) {
        let start = batch.len();
        batch.extend_from_slice(command);
        batch[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
        let flags = u16::from_ne_bytes([command[6], command[7]]) | REQUEST_AND_ACK;
        batch[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
    }
    batch.extend(message(BATCH_END, 0, 0, SUBSYSTEM, &[]));
    exchange(&batch, commands.len())
}

fn exchange(batch: &[u8], commands: usize) -> io::Result<()> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_WITHIN_SECONDS, 0))?;
    send(netlink.as_raw_fd(), batch, MsgFlags::empty())?;
    let mut acknowledged = 0;
    let mut buffer = [0u8; 16 * 1024];
    while acknowledged < commands {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        // Each is a netlink header (16 bytes), then the error's number, negative; 0 is success.
        while let Some(code) = rest.get(16..20) {
            let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            acknowledged += 1;
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            rest = rest.get(length.next_multiple_of(4).max(20)..).unwrap_or_default();
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn chain() -> Vec<u8> {
    let hook = [number(1, HOOK_OUTPUT), attribute(2, &PRIORITY_RAW.to_be_bytes())].concat();
    let parts = [text(1, TABLE), text(3, CHAIN), attribute(4 | NESTED, &hook), text(7, "filter")];
    message(NEW_CHAIN, CREATE, NFPROTO_IPV4, 0, &parts.concat())
}

fn rule(expressions: &[Vec<u8>]) -> Vec<u8> {
    let parts = [text(1, TABLE), text(2, CHAIN), attribute(4 | NESTED, &expressions.concat())];
    message(NEW_RULE, CREATE | APPEND, NFPROTO_IPV4, 0, &parts.concat())
}

/// Whatever leaves the task: nothing more to look at.
fn elsewhere() -> Vec<Vec<u8>> {
    let accept = attribute(2 | NESTED, &attribute(2 | NESTED, &number(1, ACCEPT)));
    vec![
        meta(META_OUT_INTERFACE),
        compare(NOT_EQUAL, &LOOPBACK_INDEX.to_ne_bytes()),
        expression("immediate", &[number(1, VERDICT_REGISTER), accept].concat()),
    ]
}

/// Of packets to (or from) the resolver's address and `from`: that port becomes `to`.
fn rewrite(protocol: i32, side: Side, from: u16, to: u16) -> Vec<Vec<u8>> {
    let (address_at, port_at) = match side {
        Side::Source => (12, 0),
        Side::Destination => (16, 2),
    };
    let checksum_at = if protocol == libc::IPPROTO_UDP { 6 } else { 16 };
    let write = [
        number(5, REGISTER),
        number(2, TRANSPORT_HEADER),
        number(3, port_at),
        number(4, 2),
        number(6, 1),
        number(7, checksum_at),
    ];
    vec![
        load(NETWORK_HEADER, address_at, 4),
        compare(EQUAL, &ADDRESS.octets()),
        meta(META_PROTOCOL),
        compare(EQUAL, &[protocol as u8]),
        load(TRANSPORT_HEADER, port_at, 2),
        compare(EQUAL, &from.to_be_bytes()),
        expression("immediate", &[number(1, REGISTER), data(2, &to.to_be_bytes())].concat()),
        expression("payload", &write.concat()),
    ]
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)].concat())
}

fn load(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, base), number(3, offset), number(4, length)].concat())
}

fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, operation), data(3, value)].concat())
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    attribute(1 | NESTED, &[text(1, name), attribute(2 | NESTED, data)].concat())
}

fn data(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, &attribute(1, value))
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A netlink header, its sequence number left open, and nfnetlink's.
fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = (20 + attributes.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | 0x1).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend_from_slice(attributes);
    bytes
}
