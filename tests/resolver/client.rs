//! A stub resolver, and a server for it to be passed on to, as small as they can be.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::host::within;

/// A test that waits this long for one answer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

pub const OK: u8 = 0;
pub const SERVER_FAILURE: u8 = 2;
pub const NO_SUCH_NAME: u8 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u8,
    pub truncated: bool,
    pub addresses: Vec<IpAddr>,
}

pub fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    if let Some(size) = edns {
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

/// IPv4 addresses of `name`, asked of 127.0.0.11 in the namespace by datagram, once.
pub fn look_up(netns: &Path, name: &str) -> Reply {
    reply(&ask(netns, question(name, 1, None)).unwrap())
}

pub fn ask(netns: &Path, message: Vec<u8>) -> io::Result<Vec<u8>> {
    within(netns, move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect("127.0.0.11:53")?;
        exchange(&socket, &message)
    })
}

pub fn exchange(socket: &UdpSocket, message: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(message)?;
    let mut answer = vec![0; 65535];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// The same over a connection.
pub fn ask_by_stream(netns: &Path, message: Vec<u8>) -> io::Result<Vec<u8>> {
    within(netns, move || {
        let mut stream = TcpStream::connect("127.0.0.11:53")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&framed(&message))?;
        unframed(&mut stream)
    })
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn unframed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Reads answers whose names are pointers, as the resolver and [`Server`] write them.
pub fn reply(message: &[u8]) -> Reply {
    assert_eq!(message[..2], [0x12, 0x34], "an answer to another question");
    let count = usize::from(u16::from_be_bytes([message[6], message[7]]));
    let mut at = question_end(message);
    let mut addresses = Vec::new();
    for _ in 0..count {
        let data = &message[at + 12..at + 12 + usize::from(message[at + 11])];
        if let Ok(octets) = <[u8; 4]>::try_from(data) {
            addresses.push(IpAddr::from(octets));
        }
        at += 12 + data.len();
    }
    addresses.sort();
    Reply { code: message[3] & 15, truncated: message[2] & 2 != 0, addresses }
}

fn question_end(message: &[u8]) -> usize {
    12 + message[12..].iter().position(|byte| *byte == 0).unwrap() + 5
}

/// A name server on port 53 of `address`, UDP and TCP, in the namespace of the thread that starts it.
pub struct Server;

impl Server {
    /// Answers every question with `code` and `addresses`; by datagram with the truncation flag and nothing where
    /// `truncates`.
    pub fn start(address: &str, code: u8, addresses: Vec<IpAddr>, truncates: bool) {
        let address = SocketAddr::new(address.parse().unwrap(), 53);
        let udp = UdpSocket::bind(address).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let for_stream = addresses.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let shown = if truncates { &[][..] } else { &addresses[..] };
                udp.send_to(&answer(&buffer[..length], code, shown, truncates), from).unwrap();
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                let message = unframed(&mut stream).unwrap();
                stream.write_all(&framed(&answer(&message, code, &for_stream, false))).unwrap();
            }
        });
    }
}

fn answer(message: &[u8], code: u8, addresses: &[IpAddr], truncated: bool) -> Vec<u8> {
    let mut out = message[..question_end(message)].to_vec();
    out[2] = 0x81 | if truncated { 2 } else { 0 };
    out[3] = 0x80 | code;
    out[6..12].copy_from_slice(&[0, addresses.len() as u8, 0, 0, 0, 0]);
    for address in addresses {
        let IpAddr::V4(address) = address else { panic!("only IPv4 here") };
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        out.extend(address.octets());
    }
    out
}
