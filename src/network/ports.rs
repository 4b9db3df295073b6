//! Published ports. The node keeps each one bound, so that no other process takes it while traffic to it goes to a task,
//! and so that a port in use is found before anything is made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::NetworkError;
use super::holders::{self, Holder};
use crate::spec::{PortConfig, Protocol, TaskId};

/// Where automatic ports come from, as in Docker Swarm.
const AUTOMATIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

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
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the task before may still be in TIME_WAIT.
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    // Whoever has it was found out; now the narrower one of `[::1]` may stand beside.
    socket.set_reuse_address(kind == Type::STREAM || address.is_ipv6())?;
    Ok(socket)
}
