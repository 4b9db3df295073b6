//! The libp2p behaviour behind every stream: offers each connection the protocols its peer may speak, opens streams on
//! the connection it is told, and hands inbound ones to the swarm task.
//!
//! `libp2p-stream` does nearly this, but picks any connection to the peer, offers every peer the same protocols, and
//! drops an inbound stream when another has not been taken yet.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, StreamProtocol};
use tokio::sync::oneshot;

use super::protocol::Topic;

/// For the other side to agree on a stream's protocol.
const NEGOTIATION_LIMIT: Duration = Duration::from_secs(5);

/// Connections of strangers held at once; further ones are closed as they come.
const MAX_STRANGERS: usize = 64;

/// Says which protocols a peer is offered. Asked again for every stream, so its answer may change.
pub(super) trait Admits: Send + Sync + 'static {
    fn offered(&self, peer: &PeerId) -> Vec<Topic>;
    fn is_member(&self, peer: &PeerId) -> bool;
}

/// Why a stream did not come about.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum OpenError {
    /// The peer does not offer the protocol to this node.
    #[error("the other side does not take this protocol from this node")]
    NotOffered,
    #[error("the other side did not answer in time")]
    TimedOut,
    #[error("the connection broke: {0}")]
    Broken(String),
}

pub(super) type OpenAnswer = oneshot::Sender<Result<Stream, OpenError>>;

/// A stream that a peer opened.
#[derive(Debug)]
pub(super) struct Inbound {
    pub peer: PeerId,
    pub connection: ConnectionId,
    pub topic: Topic,
    pub stream: Stream,
}

pub(super) struct Behaviour {
    admits: Arc<dyn Admits>,
    events: VecDeque<ToSwarm<Inbound, Open>>,
    strangers: BTreeSet<ConnectionId>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(super) fn new(admits: Arc<dyn Admits>) -> Behaviour {
        Behaviour { admits, events: VecDeque::new(), strangers: BTreeSet::new(), waker: None }
    }

    /// Opens a stream on one connection. Where that is gone, `answer` is dropped.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId, topic: Topic, answer: OpenAnswer) {
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Open { topic, answer },
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler { peer, admits: self.admits.clone(), wanted: VecDeque::new(), inbound: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.admits.is_member(&peer) {
            if self.strangers.len() >= MAX_STRANGERS {
                return Err(ConnectionDenied::new("too many connections of non-members"));
            }
            self.strangers.insert(connection);
        }
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) = event {
            self.strangers.remove(&connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (topic, stream): THandlerOutEvent<Self>,
    ) {
        self.events.push_back(ToSwarm::GenerateEvent(Inbound { peer, connection, topic, stream }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// To a connection: open a stream.
#[derive(Debug)]
pub(super) struct Open {
    topic: Topic,
    answer: OpenAnswer,
}

pub(super) struct Handler {
    peer: PeerId,
    admits: Arc<dyn Admits>,
    wanted: VecDeque<Open>,
    inbound: VecDeque<(Topic, Stream)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (Topic, Stream);
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenAnswer;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        let names = self.admits.offered(&self.peer).into_iter().map(Topic::name).collect();
        SubstreamProtocol::new(Upgrade { names }, ()).with_timeout(NEGOTIATION_LIMIT)
    }

    fn connection_keep_alive(&self) -> bool {
        self.admits.is_member(&self.peer)
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Upgrade, OpenAnswer, Self::ToBehaviour>> {
        // No waker is needed: libp2p polls a handler again after each event it has handed to it.
        if let Some(inbound) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(inbound));
        }
        if let Some(Open { topic, answer }) = self.wanted.pop_front() {
            let upgrade = Upgrade { names: vec![topic.name()] };
            let protocol = SubstreamProtocol::new(upgrade, answer).with_timeout(NEGOTIATION_LIMIT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        self.wanted.push_back(open);
    }

    // An answer that nobody waits for any more is dropped, and its stream with it.
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Upgrade, Upgrade, (), OpenAnswer>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, name), .. }) => {
                self.inbound.extend(Topic::from_name(&name).map(|topic| (topic, stream)));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info: answer,
            }) => {
                let _ = answer.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: answer, error }) => {
                let _ = answer.send(Err(error.into()));
            }
            _ => {}
        }
    }
}

impl From<StreamUpgradeError<Infallible>> for OpenError {
    fn from(error: StreamUpgradeError<Infallible>) -> OpenError {
        match error {
            StreamUpgradeError::Timeout => OpenError::TimedOut,
            StreamUpgradeError::NegotiationFailed => OpenError::NotOffered,
            StreamUpgradeError::Io(error) => OpenError::Broken(error.to_string()),
            StreamUpgradeError::Apply(never) => match never {},
        }
    }
}

/// Agrees on a name and leaves the stream as it is.
pub(super) struct Upgrade {
    names: Vec<StreamProtocol>,
}

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.names.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}
