//! Published ports. The node keeps each one bound, so that no other process takes it while traffic to it goes to a task,
//! and so that a port in use is found before anything is made.
//!
//! One that is bound and no more is still had by whoever reuses addresses: TCP's have to listen. To hold without ever
//! answering, a socket that has found the port free goes to an interface that does not exist ([`NOWHERE`]): no packet
//! comes in by it, and all who are bound to no interface meet it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use socket2::{Domain, Socket, Type};

use super::NetworkError;
use super::holders::{self, Holder};
use crate::spec::{PortConfig, Protocol, TaskId};

/// Where automatic ports come from, as in Docker Swarm.
const AUTOMATIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The last number an interface could have; the kernel gives them out from the first.
const NOWHERE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX.cast_unsigned());
/// Of `lo`, in every network namespace.
const LOOPBACK: Option<NonZeroU32> = NonZeroU32::new(1);

/// Of `host` mode, by the tasks of this node.
#[derive(Default)]
pub struct HeldPorts {
    held: BTreeMap<(Protocol, u16), (TaskId, Vec<Socket>)>,
}

impl HeldPorts {
    /// Binds every port of `wanted` for `task`, choosing the automatic ones. On an error none is kept.
    pub fn take(&mut self, task: TaskId, wanted: &[PortConfig]) -> Result<Vec<PortConfig>, NetworkError> {
        let mut taken = Vec::with_capacity(wanted.len());
        for port in wanted {
            let bound = match port.published {
                0 => self.take_automatic(task, port.protocol),
                published => self.take_one(task, port.protocol, published),
            };
            match bound {
                Ok(published) => taken.push(PortConfig { published, ..port.clone() }),
                Err(error) => {
                    for port in &taken {
                        self.held.remove(&(port.protocol, port.published));
                    }
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    pub fn release(&mut self, task: TaskId) {
        self.held.retain(|_, (holder, _)| *holder != task);
    }

    fn take_automatic(&mut self, task: TaskId, protocol: Protocol) -> Result<u16, NetworkError> {
        let mut last = NetworkError::PortTaken { port: 0, protocol };
        for port in AUTOMATIC {
            match self.take_one(task, protocol, port) {
                Ok(port) => return Ok(port),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn take_one(&mut self, task: TaskId, protocol: Protocol, port: u16) -> Result<u16, NetworkError> {
        if let Some((holder, _)) = self.held.get(&(protocol, port)) {
            return Err(NetworkError::PortPublished { port, protocol, task: *holder });
        }
        let sockets = bind(protocol, port)?;
        self.held.insert((protocol, port), (task, sockets));
        Ok(port)
    }
}

/// Of `ingress` mode, on every node.
#[derive(Default)]
pub struct IngressPorts {
    held: BTreeMap<(Protocol, u16), Vec<Socket>>,
    taken: BTreeSet<(Protocol, u16)>,
}

impl IngressPorts {
    /// Binds what is new and lets go of the rest. One that another process has is not taken from it, and is tried again
    /// each time.
    pub fn follow(&mut self, wanted: &BTreeSet<(Protocol, u16)>) {
        self.held.retain(|port, _| wanted.contains(port));
        self.taken.retain(|port| wanted.contains(port));
        for (protocol, port) in wanted.iter().copied() {
            if self.held.contains_key(&(protocol, port)) {
                continue;
            }
            match bind(protocol, port) {
                Ok(sockets) => {
                    self.held.insert((protocol, port), sockets);
                    if self.taken.remove(&(protocol, port)) {
                        tracing::info!(port, ?protocol, "a published port is free on this node again");
                    }
                }
                Err(error) => {
                    if self.taken.insert((protocol, port)) {
                        tracing::warn!(%error, "a service's port is not published on this node");
                    }
                }
            }
        }
    }

    /// Those that are another process'.
    pub fn taken(&self) -> &BTreeSet<(Protocol, u16)> {
        &self.taken
    }

    pub fn held(&self) -> impl Iterator<Item = (Protocol, u16)> {
        self.held.keys().copied()
    }
}

/// Whether a tunnel could have this port, and who has it where not.
pub fn check_data_path(port: u16) -> Result<(), NetworkError> {
    bind(Protocol::Udp, port).map(drop).map_err(|_| {
        let holders = holders::of(&[(Protocol::Udp, port)].into());
        let holder = holders.into_values().next().unwrap_or(Holder::Unknown).to_string();
        NetworkError::DataPathPort { port, holder }
    })
}

/// On all addresses of both families, where this kernel has both. None for SCTP, whose sockets many kernels lack while
/// their NAT knows the protocol.
fn bind(protocol: Protocol, port: u16) -> Result<Vec<Socket>, NetworkError> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => return Ok(Vec::new()),
    };
    let mut sockets = Vec::new();
    for address in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        match bind_one(address, kind, port) {
            Ok(socket) => sockets.push(socket),
            // A kernel without the second family.
            Err(error)
                if address.is_ipv6()
                    && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {}
            Err(_) => return Err(NetworkError::PortTaken { port, protocol }),
        }
    }
    Ok(sockets)
}

fn bind_one(address: IpAddr, kind: Type, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 }, kind, None)?;
    let socket = bound(socket, SocketAddr::new(address, port), kind)?;
    // Both names are one option.
    socket.bind_device_by_index_v4(NOWHERE)?;
    if kind == Type::STREAM {
        socket.listen(0)?;
    }
    Ok(socket)
}

/// The node's own `[::1]`, beside the socket that holds the port.
pub fn bind_loopback(kind: Type, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, None)?;
    socket.bind_device_by_index_v6(LOOPBACK)?;
    socket.set_nonblocking(true)?;
    bound(socket, SocketAddr::from((Ipv6Addr::LOCALHOST, port)), kind)
}

fn bound(socket: Socket, address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the task before may still be in TIME_WAIT.
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    fn held(protocol: Protocol) -> (HeldPorts, u16) {
        let mut ports = HeldPorts::default();
        let any = PortConfig { name: None, protocol, target: 80, published: 0, mode: crate::spec::PublishMode::Host };
        let taken = ports.take(TaskId(1), &[any]).unwrap();
        (ports, taken[0].published)
    }

    #[test]
    fn a_held_port_is_nobody_elses_though_he_reuses_addresses() {
        for (protocol, kind) in [(Protocol::Tcp, Type::STREAM), (Protocol::Udp, Type::DGRAM)] {
            let (_ports, port) = held(protocol);
            for address in ["0.0.0.0", "127.0.0.1", "::", "::1"] {
                let address: IpAddr = address.parse().unwrap();
                let Ok(other) = Socket::new(Domain::for_address((address, port).into()), kind, None) else { continue };
                other.set_reuse_address(true).unwrap();
                other.set_reuse_port(true).unwrap();
                let bound = other.bind(&SocketAddr::new(address, port).into());
                assert_eq!(bound.unwrap_err().kind(), ErrorKind::AddrInUse, "{protocol:?} at {address}");
            }
            // And nobody answers by it.
            let refused = match protocol {
                Protocol::Tcp => TcpStream::connect(("127.0.0.1", port)).map(drop),
                _ => {
                    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    client.connect(("127.0.0.1", port)).unwrap();
                    client.send(b"x").unwrap();
                    client.recv(&mut [0]).map(drop)
                }
            };
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{protocol:?}");
        }
    }

    #[test]
    fn the_loopback_of_a_held_port_may_listen_and_its_release_frees_it() {
        let (mut ports, port) = held(Protocol::Tcp);
        let Ok(proxy) = bind_loopback(Type::STREAM, port) else { return };
        proxy.listen(1).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
        drop(proxy);
        ports.release(TaskId(1));
        let _again = bind(Protocol::Tcp, port).unwrap();
    }
}
