//! SCTP through published ports and virtual addresses. Kernels without SCTP's sockets translate it all the same, so both
//! ends are raw sockets here, which write the first two chunks of an association by hand (RFC 9260).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::client::{A, AAAA, at, from_beside, in_task, look_up, within, works};
use super::swarm::{Swarm, Task};

const STACK: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['9990:80/sctp']
    networks: [six]
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    networks: [six]
    deploy: { mode: global }
networks:
  six: { enable_ipv6: true }
";

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Of the one who begins, and of the one who answers.
const TAGS: [u32; 2] = [0x1234_5678, 0x8765_4321];

/// One chunk of a fixed form, in a packet.
fn packet(from: u16, to: u16, kind: u8) -> Vec<u8> {
    let (verification, own) = if kind == INIT { (0, TAGS[0]) } else { (TAGS[0], TAGS[1]) };
    let mut packet = [&from.to_be_bytes()[..], &to.to_be_bytes(), &u32::to_be_bytes(verification), &[0; 4]].concat();
    packet.extend([kind, 0, 0, 20]);
    packet.extend(own.to_be_bytes());
    // A window, streams out and in, and the first number.
    packet.extend([0, 1, 0, 0, 0, 1, 0, 1]);
    packet.extend(own.to_be_bytes());
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// What came: from whom, its ports, and its chunk's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Came {
    from: IpAddr,
    ports: (u16, u16),
    kind: u8,
}

/// The standard library's name for it is narrower than what it does.
fn raw(ipv6: bool) -> UdpSocket {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::from(libc::SOCK_RAW), Some(Protocol::from(libc::IPPROTO_SCTP))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    OwnedFd::from(socket).into()
}

fn receive(socket: &UdpSocket, ipv6: bool) -> std::io::Result<Came> {
    let mut bytes = [0; 256];
    let (length, from) = socket.recv_from(&mut bytes)?;
    // By IPv4 its header comes along.
    let sctp = if ipv6 { &bytes[..length] } else { &bytes[usize::from(bytes[0] & 0xf) * 4..length] };
    let mut plain = sctp.to_vec();
    plain[8..12].fill(0);
    assert_eq!(crc32c(&plain).to_le_bytes(), sctp[8..12], "the checksum was made anew");
    let port = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
    Ok(Came { from: from.ip(), ports: (port(0), port(2)), kind: sctp[12] })
}

fn send(socket: &UdpSocket, packet: &[u8], to: IpAddr) {
    socket.send_to(packet, SocketAddr::new(to, 0)).unwrap();
}

/// Answers what comes to port 80 in a task, until it is stopped; tells whom it saw.
fn answering(swarm: &Swarm, task: &Task, ipv6: bool, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<Came>> {
    let socket = in_task(swarm, task, move || raw(ipv6));
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Ok(came) = receive(&socket, ipv6) else { continue };
            if came.ports.1 == 80 && came.kind == INIT {
                send(&socket, &packet(80, came.ports.0, INIT_ACK), came.from);
                seen.push(came);
            }
        }
        seen
    })
}

/// Begins an association from the network namespace that the thread is in, until it is answered.
fn begin(own: u16, to: SocketAddr) -> std::io::Result<()> {
    let socket = raw(to.is_ipv6());
    send(&socket, &packet(own, to.port(), INIT), to.ip());
    for _ in 0..10 {
        match receive(&socket, to.is_ipv6()) {
            Ok(came) if came.kind == INIT_ACK && came.ports.1 == own => {
                let answered = Came { from: to.ip(), ports: (to.port(), own), kind: INIT_ACK };
                assert_eq!(came, answered, "the answer comes from where the question went");
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn associations_are_led_to_a_task_by_published_ports_and_virtual_addresses_and_answers_find_back() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.deploy(0, "s", STACK);
    let web = swarm.running(0, "s_web", 1).remove(0);
    let clients = swarm.running(0, "s_client", 3);
    let stop = Arc::new(AtomicBool::new(false));
    let servers = [false, true].map(|ipv6| answering(&swarm, &web, ipv6, &stop));
    let mut own = 20_000;
    for host in 0..3 {
        let six: IpAddr = swarm.hosts[host].addr6().parse().unwrap();
        for to in [at(&swarm, host, 9990), SocketAddr::new(six, 9990)] {
            own += 1;
            works(&format!("{to}"), || from_beside(&swarm, move || begin(own, to)));
        }
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 9990));
        works(&format!("{loopback} on n{}", host + 1), || {
            within(&swarm.hosts[host].netns(), move || begin(30_000, loopback)).join().unwrap()
        });
    }
    for client in &clients {
        for kind in [A, AAAA] {
            works("the virtual address", || {
                in_task(&swarm, client, move || {
                    let (_, vips) = look_up("web", kind)?;
                    begin(31_000, SocketAddr::new(*vips.first().ok_or(ErrorKind::NotFound)?, 80))
                })
            });
        }
    }
    stop.store(true, Ordering::Relaxed);
    let seen: Vec<Came> = servers.into_iter().flat_map(|server| server.join().unwrap()).collect();
    let beside: [IpAddr; 2] = [Ipv4Addr::new(10, 99, 0, 254).into(), "fd99::254".parse::<Ipv6Addr>().unwrap().into()];
    // The client's own address and port, by whichever node it came.
    for port in 20_001..=own {
        let client = beside[usize::from(port % 2 == 0)];
        assert!(seen.iter().any(|came| came.from == client && came.ports == (port, 80)), "{client}:{port} in {seen:?}");
    }
    for client in &clients {
        for address in swarm.addresses(0, &client.id) {
            assert!(seen.iter().any(|came| came.from == address), "{address} in {seen:?}");
        }
    }
}
