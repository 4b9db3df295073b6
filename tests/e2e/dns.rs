//! A stub resolver in the network namespace that the thread is in, and a name server beside the hosts that it may be
//! passed on to.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use super::client::{WITHIN, within};
use super::swarm::Swarm;

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;

pub const FOUND: u8 = 0;
pub const NO_SUCH_NAME: u8 = 3;

/// Where a task's questions go.
const RESOLVER: &str = "127.0.0.11:53";

#[derive(Debug, Clone, Copy)]
pub enum Over {
    Udp,
    Tcp,
}

/// What an answer says, in the order in which it says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u8,
    pub addresses: Vec<IpAddr>,
    pub names: Vec<String>,
}

/// The addresses of a name, and the response code.
pub fn look_up(name: &str, kind: u16) -> std::io::Result<(u8, Vec<IpAddr>)> {
    ask_resolver(Over::Udp, name, kind).map(|reply| (reply.code, reply.addresses))
}

/// One question, sent once.
pub fn ask_resolver(over: Over, name: &str, kind: u16) -> std::io::Result<Reply> {
    let question = question(name, kind);
    let answer = match over {
        Over::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(WITHIN))?;
            socket.connect(RESOLVER)?;
            socket.send(&question)?;
            let mut answer = vec![0; 1232];
            let length = socket.recv(&mut answer)?;
            answer.truncate(length);
            answer
        }
        Over::Tcp => {
            let mut stream = TcpStream::connect_timeout(&RESOLVER.parse().unwrap(), WITHIN)?;
            stream.set_read_timeout(Some(WITHIN))?;
            stream.write_all(&framed(&question))?;
            read_framed(&mut stream)?
        }
    };
    read_reply(&answer).ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("{answer:?}")))
}

/// As it goes by TCP.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// The name under which an address's own name is asked for (RFC 1035 3.5, RFC 3596 2.5).
pub fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits = format!("{:032x}", address.to_bits());
            let dotted: Vec<String> = digits.chars().rev().map(String::from).collect();
            dotted.join(".") + ".ip6.arpa"
        }
    }
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    message
}

fn read_reply(message: &[u8]) -> Option<Reply> {
    let (_, end) = read_name(message, 12)?;
    let mut at = end + 4;
    let mut reply = Reply { code: message[3] & 0xf, addresses: Vec::new(), names: Vec::new() };
    for _ in 0..u16::from_be_bytes([message[6], message[7]]) {
        let (_, end) = read_name(message, at)?;
        let kind = u16::from_be_bytes([*message.get(end)?, *message.get(end + 1)?]);
        let length = usize::from(u16::from_be_bytes([*message.get(end + 8)?, *message.get(end + 9)?]));
        let data = message.get(end + 10..end + 10 + length)?;
        match kind {
            A => reply.addresses.push(<[u8; 4]>::try_from(data).ok()?.into()),
            AAAA => reply.addresses.push(<[u8; 16]>::try_from(data).ok()?.into()),
            PTR => reply.names.push(read_name(message, end + 10)?.0),
            _ => {}
        }
        at = end + 10 + length;
    }
    Some(reply)
}

/// A name, and where what follows it begins.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut labels, mut end) = (Vec::new(), None);
    // A name has no more labels than that, pointers or not.
    for _ in 0..128 {
        match usize::from(*message.get(at)?) {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            pointer if pointer >= 0xc0 => {
                end = end.or(Some(at + 2));
                at = (pointer & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
            }
            length => {
                labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).into_owned());
                at += 1 + length;
            }
        }
    }
    None
}

/// A name server at the switch's address. It knows one name.
pub struct NameServer {
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    pub const ADDRESS: &str = "10.99.0.254";
    pub const KNOWN: (&str, Ipv4Addr) = ("printer.lan.example", Ipv4Addr::new(192, 0, 2, 80));

    /// It ends with the test.
    pub fn beside(swarm: &Swarm) -> NameServer {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let at = (NameServer::ADDRESS, 53);
        let bound = within(&swarm.switch_netns(), move || {
            (UdpSocket::bind(at).unwrap(), std::net::TcpListener::bind(at).unwrap())
        });
        let (socket, listener) = bound.join().unwrap();
        let told = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut message) {
                if let Some(answer) = answer(&message[..length], &told) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        let told = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if let Some(answer) = read_framed(&mut stream).ok().and_then(|message| answer(&message, &told)) {
                    let _ = stream.write_all(&framed(&answer));
                }
            }
        });
        NameServer { asked }
    }

    /// What it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Makes a host's programs ask it, and look for short names in its domain.
    pub fn is_of(&self, swarm: &Swarm, host: usize) {
        let file = swarm.hosts[host].dir.join("resolv.conf");
        let text = format!("nameserver {}\nsearch lan.example\noptions timeout:3\n", NameServer::ADDRESS);
        std::fs::write(&file, text).unwrap();
        let mut mount = swarm.hosts[host].command("mount");
        assert!(mount.arg("--bind").arg(&file).arg("/etc/resolv.conf").status().unwrap().success());
    }
}

fn answer(message: &[u8], asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let (name, end) = read_name(message, 12)?;
    let mut out = message.get(..end + 4)?.to_vec();
    let known = name.eq_ignore_ascii_case(NameServer::KNOWN.0);
    asked.lock().unwrap().push(name);
    let has = known && out.ends_with(&[0, 1, 0, 1]);
    out[2] = 0x81;
    out[3] = 0x80 | if known { FOUND } else { NO_SUCH_NAME };
    out[6..12].copy_from_slice(&[0, u8::from(has), 0, 0, 0, 0]);
    if has {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        out.extend(NameServer::KNOWN.1.octets());
    }
    Some(out)
}
