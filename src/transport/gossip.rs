//! Gossipsub, behind a gate: only members' connections take part, and a connection that is given up leaves at once.
//!
//! Left to itself, gossipsub talks to whoever connects, so a stranger who subscribes would be sent everything. It also
//! announces its subscriptions only on the first of a peer's connections: were a dead one still counted while the peer
//! dials anew, the peer would never be sent gossip again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, PublishError, ValidationMode};
use libp2p::swarm::derive_prelude::{ConnectionEstablished, Either};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{PeerId, identity};

use super::streams::Admits;
use crate::spec::SwarmId;

/// Most bytes of one published message.
pub const MAX_GOSSIP_BYTES: usize = 1 << 20;

/// What gossipsub adds to a message: author, key, signature, topic.
const OVERHEAD_BYTES: usize = 1 << 10;

/// Messages waiting for one peer.
const PEER_QUEUE: usize = 256;

pub(super) struct Gate {
    inner: gossipsub::Behaviour,
    topic: IdentTopic,
    admits: Arc<dyn Admits>,
    /// Connections that gossipsub knows of.
    open: BTreeMap<ConnectionId, (PeerId, ConnectedPoint)>,
    /// Admitted, waiting for the swarm to report them established.
    arriving: BTreeMap<ConnectionId, PeerId>,
}

impl Gate {
    pub(super) fn new(key: identity::Keypair, swarm: SwarmId, admits: Arc<dyn Admits>) -> Gate {
        let inner = gossipsub::Behaviour::new(MessageAuthenticity::Signed(key), config())
            .expect("signed messages and strict validation go together");
        let topic = IdentTopic::new(format!("flok/{swarm}/1"));
        Gate { inner, topic, admits, open: BTreeMap::new(), arriving: BTreeMap::new() }
    }

    /// Managers read the gossip; workers only write it.
    pub(super) fn set_subscribed(&mut self, subscribed: bool) {
        if subscribed {
            self.inner.subscribe(&self.topic).expect("no filter is set that could refuse the topic");
        } else {
            self.inner.unsubscribe(&self.topic);
        }
    }

    /// Whether the message is on its way or reached everybody there is, which may be nobody.
    pub(super) fn publish(&mut self, message: Vec<u8>) -> bool {
        match self.inner.publish(self.topic.hash(), message) {
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => true,
            Err(error) => {
                tracing::debug!(%error, "gossip was not published");
                false
            }
        }
    }

    /// Passes a received message on to others, or not.
    pub(super) fn judge(&mut self, id: &MessageId, from: &PeerId, good: bool) {
        let verdict = if good { gossipsub::MessageAcceptance::Accept } else { gossipsub::MessageAcceptance::Reject };
        self.inner.report_message_validation_result(id, from, verdict);
    }

    /// Forgets a connection now; its end is reported by the swarm whenever its socket agrees.
    pub(super) fn abandon(&mut self, connection: ConnectionId) {
        self.arriving.remove(&connection);
        let Some((peer, endpoint)) = self.open.remove(&connection) else { return };
        let others = self.open.iter().filter(|(_, (other, _))| *other == peer);
        let (remaining, other) = (others.clone().count(), others.map(|(id, _)| *id).next_back());
        self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            cause: None,
            remaining_established: remaining,
        }));
        // A peer's connections share what waits to be said: this one may have taken along what was meant for a newer one.
        if let Some(other) = other {
            self.announce(other);
        }
    }

    /// Says once more on this connection what this node subscribes to: earlier words may have gone into a dead one.
    pub(super) fn announce(&mut self, connection: ConnectionId) {
        let Some((peer, endpoint)) = self.open.get(&connection) else { return };
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: *peer,
            connection_id: connection,
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }
}

fn config() -> gossipsub::Config {
    gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(MAX_GOSSIP_BYTES + OVERHEAD_BYTES)
        .connection_handler_queue_len(PEER_QUEUE)
        .heartbeat_initial_delay(Duration::from_millis(200))
        .heartbeat_interval(Duration::from_secs(1))
        // A mesh small enough that a record is not sent many times over; a swarm of nine is still one mesh.
        .mesh_outbound_min(1)
        .mesh_n_low(3)
        .mesh_n(4)
        .mesh_n_high(8)
        .gossip_lazy(3)
        // What is older has been replaced by a newer record.
        .publish_queue_duration(Duration::from_secs(2))
        .forward_queue_duration(Duration::from_secs(1))
        .prune_backoff(Duration::from_secs(5))
        .unsubscribe_backoff(Duration::from_secs(2))
        .graft_flood_threshold(Duration::from_secs(1))
        .build()
        .expect("the mesh's sizes are in order")
}

type Inner = gossipsub::Behaviour;

impl NetworkBehaviour for Gate {
    type ConnectionHandler = Either<THandler<Inner>, dummy::ConnectionHandler>;
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.admits.is_member(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.arriving.insert(connection, peer);
        self.inner.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Left)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.admits.is_member(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.arriving.insert(connection, peer);
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, endpoint, .. }) => {
                if let Some(peer) = self.arriving.remove(&connection_id) {
                    self.open.insert(connection_id, (peer, endpoint.clone()));
                    self.announce(connection_id);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => self.abandon(connection_id),
            FromSwarm::AddressChange(_) => {}
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) if self.open.contains_key(&connection) => {
                self.inner.on_connection_handler_event(peer, connection, event);
            }
            Either::Left(_) => {}
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context).map(|event| event.map_in(Either::Left))
    }
}
