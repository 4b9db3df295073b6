//! The libp2p swarm as flok sets it up, and the translation of its addresses and errors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::Multiaddr;
use libp2p::core::multiaddr::Protocol as Part;
use libp2p::swarm::{DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{PeerId, SwarmBuilder, noise, tcp, yamux};
use tokio::time::timeout;

use super::TransportError;
use super::gossip::Gate;
use super::identity::Identity;
use super::members::Roster;
use super::protocol::{Protocol, Topic};
use super::streams::{self, Admits};

/// For TCP, noise and yamux together.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A connection on which nothing happens and which no member needs is closed after this.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Streams that one connection may carry; inbound requests of one node are bounded by it.
const MAX_STREAMS: usize = 1024;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) streams: streams::Behaviour,
    pub(super) gossip: Gate,
}

/// A swarm that takes connections.
pub(super) struct Listening {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) addr: SocketAddr,
}

/// Whether this host can listen there now, and nobody else does.
pub fn check_listen_addr(addr: SocketAddr) -> Result<(), TransportError> {
    std::net::TcpListener::bind(addr).map(drop).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => format!("{error}. Is another process using the port?"),
            io::ErrorKind::AddrNotAvailable => {
                format!("{error}. This host has no such address: choose one that it has")
            }
            _ => error.to_string(),
        };
        TransportError::Listen { addr, reason }
    })
}

impl Listening {
    pub(super) async fn start(
        identity: &Identity,
        roster: &Arc<Roster>,
        addr: SocketAddr,
    ) -> Result<Listening, TransportError> {
        let failed = |reason: String| TransportError::Listen { addr, reason };
        // libp2p listens with SO_REUSEPORT, so that a second daemon on the port would quietly take half of the
        // connections: a plain socket tells.
        check_listen_addr(addr)?;
        let streams = streams::Behaviour::new(roster.clone());
        let gossip = Gate::new(identity.keypair(), roster.swarm(), roster.clone());
        let mut swarm = build_swarm(identity, Behaviour { streams, gossip });
        let listener = swarm.listen_on(multiaddr(addr)).map_err(|error| failed(innermost(&error)))?;
        let listening = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::NewListenAddr { listener_id, address } if listener_id == listener => {
                        return socket_addr(&address).ok_or_else(|| failed("no TCP address".into()));
                    }
                    SwarmEvent::ListenerClosed { listener_id, reason, .. } if listener_id == listener => {
                        return Err(failed(reason.err().map_or("closed".into(), |error| error.to_string())));
                    }
                    SwarmEvent::ListenerError { error, .. } => return Err(failed(error.to_string())),
                    _ => {}
                }
            }
        };
        let bound = timeout(CONNECT_LIMIT, listening).await.unwrap_or(Err(failed("no answer".into())))?;
        Ok(Listening { swarm, addr: SocketAddr::new(addr.ip(), bound.port()) })
    }
}

impl Admits for Roster {
    fn offered(&self, peer: &PeerId) -> Vec<Topic> {
        if self.sender(peer).is_none() {
            return vec![Topic::Of(Protocol::Join)];
        }
        let permitted = Protocol::ALL.into_iter().filter(|protocol| self.speaker(peer, *protocol).is_some());
        std::iter::once(Topic::Link).chain(permitted.map(Topic::Of)).collect()
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        self.sender(peer).is_some()
    }
}

/// TCP, noise and yamux, with flok's limits.
pub(super) fn build_swarm<B: NetworkBehaviour>(identity: &Identity, behaviour: B) -> Swarm<B> {
    let yamux = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config
    };
    SwarmBuilder::with_existing_identity(identity.keypair())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux)
        .expect("noise works with an ed25519 key")
        .with_behaviour(|_| behaviour)
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_LIMIT))
        .with_connection_timeout(CONNECT_LIMIT)
        .build()
}

pub(super) fn multiaddr(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Part::Tcp(addr.port()))
}

fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Part::Ip4(ip) => IpAddr::from(ip),
        Part::Ip6(ip) => IpAddr::from(ip),
        _ => return None,
    };
    match parts.next()? {
        Part::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

pub(super) fn ip_of(address: &Multiaddr) -> IpAddr {
    socket_addr(address).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |addr| addr.ip())
}

/// libp2p's account of a failed dial, without its frame.
pub(super) fn dial_reason(error: &DialError) -> String {
    match error {
        DialError::Transport(errors) => match errors.first() {
            Some((_, error)) => innermost(error),
            None => "no address".into(),
        },
        DialError::WrongPeerId { .. } => "another node answers at its address".into(),
        other => other.to_string(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
