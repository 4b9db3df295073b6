//! Ports published in `host` mode. The node keeps each one bound, so that no other process takes it while traffic to it
//! goes to a task, and so that a port in use is found before anything is made.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Socket, Type};

use super::NetworkError;
use crate::spec::{PortConfig, Protocol, TaskId};

/// Where automatic ports come from, as in Docker Swarm.
const AUTOMATIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

#[derive(Default)]
pub struct HeldPorts {
    held: BTreeMap<(Protocol, u16), (TaskId, Option<Socket>)>,
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
        let socket = bind(protocol, port)?;
        self.held.insert((protocol, port), (task, socket));
        Ok(port)
    }
}

/// `None` for SCTP, whose sockets many kernels lack while their NAT knows the protocol.
fn bind(protocol: Protocol, port: u16) -> Result<Option<Socket>, NetworkError> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => return Ok(None),
    };
    let address = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    Socket::new(Domain::IPV4, kind, None)
        .and_then(|socket| {
            // Connections of the task before may still be in TIME_WAIT.
            socket.set_reuse_address(protocol == Protocol::Tcp)?;
            socket.bind(&address.into())?;
            Ok(Some(socket))
        })
        .map_err(|_| NetworkError::PortTaken { port, protocol })
}
