//! The task that owns the libp2p swarm: dials, greets, opens streams, gives connections up, and passes on what arrives.
//!
//! A connection's life: the dialer connects, and with its first stream says that this is the peers' main connection
//! ([`Topic::Link`]); the other side gives up older ones, which are dead or will be, and acknowledges. Only then does
//! either use it. Where the other side does not know the dialer, the dialer shows its certificate and dials again. Bulk
//! has a connection of its own, without a greeting.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{PeerId, gossipsub};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::handle::Shared;
use super::identity;
use super::join::{self, Admission, Doorkeeper, NotRecognised};
use super::links::{Link, Links, Waiting};
use super::protocol::{Lane, Protocol, Topic};
use super::serve::{Incoming, Server};
use super::streams::{Admits, Inbound, OpenError};
use super::swarm::{Behaviour, BehaviourEvent, Listening, dial_reason, ip_of, multiaddr};
use super::wire::MessageStream;
use super::{Opened, TransportError};
use crate::spec::{NodeId, Role};

/// For a greeting, or for showing a certificate.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at who is to be dialed and at strangers.
const TICK: Duration = Duration::from_millis(200);

/// A stranger's connection is closed after this in any case.
const STRANGER_LIMIT: Duration = Duration::from_secs(60);

/// Arrivals held back while the node is busy; beyond it gossip is dropped, which its repair makes good.
const MAX_OUTBOX: usize = 1024;

/// The byte that acknowledges a greeting.
const WELCOME: u8 = 1;

/// From the handles, where order and back-pressure matter.
#[derive(Debug)]
pub(super) enum Command {
    Open { node: NodeId, protocol: Protocol, answer: oneshot::Sender<Result<Opened, TransportError>> },
    Publish(Bytes),
    Shutdown(oneshot::Sender<()>),
}

/// How a side task of the driver ended.
enum Outcome {
    Greeted(Result<(), OpenError>),
    Presented(Result<(), NotRecognised>),
}

type SideTask = BoxFuture<'static, (PeerId, ConnectionId, Outcome)>;

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    admission: Option<Arc<dyn Admission>>,
    commands: mpsc::Receiver<Command>,
    incoming: mpsc::Sender<Incoming>,
    outbox: VecDeque<Incoming>,
    links: Links,
    wanted: BTreeSet<NodeId>,
    side_tasks: FuturesUnordered<SideTask>,
    subscribed: bool,
}

impl Driver {
    pub(super) fn new(
        listening: Listening,
        shared: Arc<Shared>,
        admission: Option<Arc<dyn Admission>>,
        commands: mpsc::Receiver<Command>,
        incoming: mpsc::Sender<Incoming>,
    ) -> Driver {
        let mut driver = Driver {
            swarm: listening.swarm,
            shared,
            admission,
            commands,
            incoming,
            outbox: VecDeque::new(),
            links: Links::default(),
            wanted: BTreeSet::new(),
            side_tasks: FuturesUnordered::new(),
            subscribed: false,
        };
        driver.subscribe();
        driver
    }

    /// Until the handles are gone or one of them says so.
    pub(super) async fn run(mut self) {
        let (shared, incoming) = (self.shared.clone(), self.incoming.clone());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_swarm_event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Open { node, protocol, answer }) => self.open(node, protocol, answer),
                    Some(Command::Publish(message)) => self.publish(&message),
                    Some(Command::Shutdown(done)) => {
                        self.stop();
                        // Nobody waits for it any more: fine.
                        let _ = done.send(());
                        return;
                    }
                    None => return self.stop(),
                },
                () = shared.wished.notified() => self.grant_wishes(),
                Some((peer, id, outcome)) = self.side_tasks.next(), if !self.side_tasks.is_empty() => {
                    self.handle_outcome(peer, id, outcome);
                }
                Ok(permit) = incoming.reserve(), if !self.outbox.is_empty() => {
                    permit.send(self.outbox.pop_front().expect("the outbox is not empty"));
                }
                _ = tick.tick() => self.handle_tick(),
            }
        }
    }

    fn stop(&mut self) {
        let all: Vec<_> = self.links.iter().map(|(peer, link)| (*peer, link.id)).collect();
        for (peer, id) in all {
            self.give_up(peer, id);
        }
        self.shared.close_lanes(|_| true);
        self.shared.idle.clear(None);
    }

    // Commands and wishes.

    fn open(&mut self, node: NodeId, protocol: Protocol, answer: oneshot::Sender<Result<Opened, TransportError>>) {
        let roster = &self.shared.roster;
        let member = roster.member(node).filter(|_| node != self.shared.local);
        let Some((member, peer)) = member.and_then(|m| identity::peer_id(&m.public_key).map(|peer| (m, peer))) else {
            return refuse(answer, TransportError::NotAMember(node));
        };
        if !roster.may_address(node, protocol) {
            return refuse(answer, TransportError::NotPermitted { node, protocol });
        }
        let lane = protocol.lane();
        let waiting = Waiting { protocol, answer };
        let state = self.links.peer(peer);
        if let Some(link) = state.usable(lane) {
            let (id, lost) = (link.id, link.lost.clone());
            return self.open_on(node, peer, id, lost, waiting);
        }
        let dialing = state.is_dialing(lane);
        if !dialing && !state.may_dial(Instant::now()) {
            let reason = state.last_error().to_string();
            return refuse(waiting.answer, TransportError::Unreachable { node, reason });
        }
        if let Err(waiting) = state.wait(waiting) {
            return refuse(waiting.answer, TransportError::Busy(node));
        }
        if !dialing {
            self.dial(peer, member.addr, lane);
        }
    }

    /// Asks a connection for a stream; the answer finds its way without this task.
    fn open_on(&mut self, node: NodeId, peer: PeerId, id: ConnectionId, lost: CancellationToken, waiting: Waiting) {
        let Waiting { protocol, answer } = waiting;
        let (sender, opened) = oneshot::channel();
        self.swarm.behaviour_mut().streams.open(peer, id, Topic::Of(protocol), sender);
        tokio::spawn(async move {
            let result = match opened.await {
                Ok(Ok(stream)) => Ok((stream, lost)),
                Ok(Err(OpenError::NotOffered)) => Err(TransportError::Refused {
                    node,
                    protocol,
                    reason: "by its member list, this node may not speak that".into(),
                }),
                Ok(Err(error)) => Err(TransportError::Unreachable { node, reason: error.to_string() }),
                Err(_) => Err(TransportError::Unreachable { node, reason: "the connection closed".into() }),
            };
            // The asker may have given up.
            let _ = answer.send(result);
        });
    }

    fn publish(&mut self, message: &[u8]) {
        if self.swarm.behaviour_mut().gossip.publish(message.to_vec()) {
            Counters::count(&self.shared.counters.gossip_published);
        } else {
            Counters::count(&self.shared.counters.gossip_dropped);
        }
    }

    fn grant_wishes(&mut self) {
        let wishes = self.shared.take_wishes();
        if wishes.members_changed {
            self.apply_members();
        }
        for node in wishes.disconnect {
            if let Some((peer, _)) = self.leave(node) {
                self.tell_waiting(peer, Lane::Main, "its connections were given up");
                self.tell_waiting(peer, Lane::Bulk, "its connections were given up");
            }
        }
        for node in wishes.redial {
            self.redial(node);
        }
        if let Some(wanted) = wishes.wanted {
            self.wanted = wanted;
        }
        self.dial_wanted();
    }

    /// Closes the connections of those whose membership or role is another than when they connected.
    fn apply_members(&mut self) {
        let roster = self.shared.roster.clone();
        let changed = |peer: &PeerId, link: &Link| {
            link.sender.is_some_and(|was| roster.sender(peer).is_none_or(|now| now.role != was.role))
        };
        let stale: Vec<_> =
            self.links.iter().filter(|(peer, link)| changed(peer, link)).map(|(peer, link)| (*peer, link.id)).collect();
        for (peer, id) in stale {
            tracing::info!(%peer, "closing the connection of a node whose membership has changed");
            self.give_up(peer, id);
        }
        self.shared.close_lanes(|node| roster.member(node).is_none());
        self.links.forget_idle(|peer| roster.is_member(peer));
        self.subscribe();
    }

    fn subscribe(&mut self) {
        let manager = self.shared.roster.local_role() == Role::Manager;
        if manager != self.subscribed {
            self.subscribed = manager;
            self.swarm.behaviour_mut().gossip.set_subscribed(manager);
        }
    }

    fn peer_of(&self, node: NodeId) -> Option<(PeerId, SocketAddr)> {
        let member = self.shared.roster.member(node).filter(|_| node != self.shared.local)?;
        Some((identity::peer_id(&member.public_key)?, member.addr))
    }

    fn leave(&mut self, node: NodeId) -> Option<(PeerId, SocketAddr)> {
        let (peer, addr) = self.peer_of(node)?;
        let state = self.links.peer(peer);
        // A dial under way may hang on a dead path: whatever becomes of it is closed.
        state.dialing.clear();
        let links: Vec<_> = state.links.iter().map(|link| link.id).collect();
        for id in links {
            self.give_up(peer, id);
        }
        Some((peer, addr))
    }

    fn redial(&mut self, node: NodeId) {
        if let Some((peer, addr)) = self.leave(node) {
            self.links.peer(peer).forgive(Instant::now());
            self.dial(peer, addr, Lane::Main);
        }
    }

    fn dial_wanted(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.wanted.iter().filter_map(|node| self.peer_of(*node)).collect();
        for (peer, addr) in due {
            let state = self.links.peer(peer);
            let at_work = state.usable(Lane::Main).is_some() || state.is_dialing(Lane::Main);
            if !at_work && state.may_dial(now) {
                self.dial(peer, addr, Lane::Main);
            }
        }
    }

    fn dial(&mut self, peer: PeerId, addr: SocketAddr, lane: Lane) {
        Counters::count(&self.shared.counters.dials);
        // A port of its own: from the listening port a second connection to the same peer could not be made.
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![multiaddr(addr)])
            .allocate_new_port()
            .build();
        let id = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                self.links.peer(peer).dialing.insert(lane, id);
            }
            Err(error) => self.not_reached(peer, lane, dial_reason(&error)),
        }
    }

    /// Pauses before the next dial, and tells those who waited.
    fn not_reached(&mut self, peer: PeerId, lane: Lane, reason: String) {
        Counters::count(&self.shared.counters.dials_failed);
        tracing::debug!(%peer, %reason, "not reached");
        self.tell_waiting(peer, lane, &reason);
        self.links.peer(peer).failed(reason, Instant::now(), jitter());
    }

    fn tell_waiting(&mut self, peer: PeerId, lane: Lane, reason: &str) {
        let Some(node) = identity::public_key(&peer).map(|key| identity::node_id(&key)) else { return };
        for waiting in self.links.peer(peer).take_waiting(lane) {
            refuse(waiting.answer, TransportError::Unreachable { node, reason: reason.into() });
        }
    }

    // The swarm's events.

    fn handle_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(inbound)) => self.handle_inbound(inbound),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.handle_gossip(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.handle_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "a connection closed");
                self.forget(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), connection_id, error, .. } => {
                let dialing = &mut self.links.peer(peer).dialing;
                let lane = dialing.iter().find(|(_, id)| **id == connection_id).map(|(lane, _)| *lane);
                if let Some(lane) = lane {
                    dialing.remove(&lane);
                    self.not_reached(peer, lane, dial_reason(&error));
                }
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an inbound connection failed");
            }
            SwarmEvent::ListenerClosed { reason, .. } => tracing::error!(?reason, "no longer listening"),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "cannot accept connections"),
            _ => {}
        }
    }

    fn handle_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let dialed = endpoint.is_dialer();
        let sender = self.shared.roster.sender(&peer);
        let state = self.links.peer(peer);
        let lane = state.dialing.iter().find(|(_, dial)| **dial == id).map(|(lane, _)| *lane);
        if let Some(lane) = lane {
            state.dialing.remove(&lane);
        }
        if dialed && (lane.is_none() || sender.is_none()) {
            // Not waited for any more, or removed meanwhile.
            self.drop_connection(id);
            if let Some(lane) = lane {
                self.not_reached(peer, lane, "it is no member any more".into());
            }
            return;
        }
        if !dialed && sender.is_none() {
            Counters::count(&self.shared.counters.refused);
        }
        state.links.push(Link {
            id,
            lane: lane.filter(|lane| *lane == Lane::Bulk),
            dialed,
            remote: endpoint.get_remote_address().clone(),
            sender,
            since: Instant::now(),
            lost: CancellationToken::new(),
            joining: Arc::new(()),
        });
        match lane {
            Some(Lane::Main) => self.greet(peer, id),
            Some(Lane::Bulk) => self.serve_waiting(peer, Lane::Bulk),
            None => {}
        }
    }

    fn greet(&mut self, peer: PeerId, id: ConnectionId) {
        let (sender, opened) = oneshot::channel();
        self.swarm.behaviour_mut().streams.open(peer, id, Topic::Link, sender);
        let greeting = async move {
            let mut stream = opened.await.unwrap_or(Err(OpenError::Broken("the connection closed".into())))?;
            let mut byte = [0];
            match stream.read_exact(&mut byte).await {
                Ok(()) if byte == [WELCOME] => Ok(()),
                Ok(()) => Err(OpenError::Broken("an unexpected greeting".into())),
                Err(error) => Err(OpenError::Broken(error.to_string())),
            }
        };
        self.side_tasks.push(Box::pin(async move {
            let greeted = timeout(GREETING_LIMIT, greeting).await.unwrap_or(Err(OpenError::TimedOut));
            (peer, id, Outcome::Greeted(greeted))
        }));
    }

    fn handle_outcome(&mut self, peer: PeerId, id: ConnectionId, outcome: Outcome) {
        if self.links.link(&peer, id).is_none() {
            // Closed meanwhile. Who waits is told, unless another connection is there or on its way.
            let state = self.links.peer(peer);
            if state.usable(Lane::Main).is_none() && !state.is_dialing(Lane::Main) {
                self.not_reached(peer, Lane::Main, "it closed the connection".into());
            }
            return;
        }
        match outcome {
            Outcome::Greeted(Ok(())) => self.set_main(peer, id),
            Outcome::Greeted(Err(OpenError::NotOffered)) if !self.links.peer(peer).presented => self.present(peer, id),
            Outcome::Greeted(Err(error)) => {
                let reason = match error {
                    OpenError::NotOffered => "it does not count this node as a member".to_string(),
                    other => other.to_string(),
                };
                self.give_up(peer, id);
                self.not_reached(peer, Lane::Main, reason);
            }
            Outcome::Presented(Ok(())) => {
                self.give_up(peer, id);
                let addr = self.shared.roster.sender(&peer).and_then(|sender| self.peer_of(sender.node));
                if let Some((peer, addr)) = addr {
                    self.dial(peer, addr, Lane::Main);
                }
            }
            Outcome::Presented(Err(reason)) => {
                self.give_up(peer, id);
                // A worker is in no position to say so.
                let manager = self.shared.roster.sender(&peer).filter(|sender| sender.role == Role::Manager);
                if let (NotRecognised::Removed, Some(manager)) = (&reason, manager) {
                    self.outbox.push_back(Incoming::Disowned(manager.node));
                }
                self.not_reached(peer, Lane::Main, format!("it does not count this node as a member: {reason}"));
            }
        }
    }

    /// The peer does not know this node: perhaps it is behind, and a certificate newer than its list convinces it.
    fn present(&mut self, peer: PeerId, id: ConnectionId) {
        self.links.peer(peer).presented = true;
        let (sender, opened) = oneshot::channel();
        self.swarm.behaviour_mut().streams.open(peer, id, Topic::Of(Protocol::Join), sender);
        let (certificate, addr) = (self.shared.certificate(), self.shared.advertise);
        let counters = self.shared.counters.clone();
        let presenting = async move {
            match opened.await {
                Ok(Ok(stream)) => {
                    let stream = MessageStream::new(stream, Protocol::Join, counters, CancellationToken::new());
                    join::present(stream, certificate, addr).await
                }
                Ok(Err(error)) => Err(NotRecognised::Other(error.to_string())),
                Err(_) => Err(NotRecognised::Other("the connection closed".into())),
            }
        };
        self.side_tasks.push(Box::pin(async move {
            let late = Err(NotRecognised::Other("no answer".into()));
            let presented = timeout(GREETING_LIMIT, presenting).await.unwrap_or(late);
            (peer, id, Outcome::Presented(presented))
        }));
    }

    /// From now on this is the connection to use.
    fn set_main(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(link) = self.links.link(&peer, id) else { return };
        link.lane = Some(Lane::Main);
        let Some(sender) = link.sender else { return };
        self.links.peer(peer).connected();
        if !self.shared.connected.borrow().contains(&sender.node) {
            self.shared.connected.send_modify(|nodes| {
                nodes.insert(sender.node);
            });
            self.outbox.push_back(Incoming::Connected(sender.node));
        }
        self.serve_waiting(peer, Lane::Main);
    }

    fn serve_waiting(&mut self, peer: PeerId, lane: Lane) {
        let state = self.links.peer(peer);
        let Some(link) = state.usable(lane) else { return };
        let (id, lost, sender) = (link.id, link.lost.clone(), link.sender);
        let Some(sender) = sender else { return };
        for waiting in state.take_waiting(lane) {
            self.open_on(sender.node, peer, id, lost.clone(), waiting);
        }
    }

    fn handle_inbound(&mut self, inbound: Inbound) {
        let Inbound { peer, connection, topic, stream } = inbound;
        let Some(link) = self.links.link(&peer, connection) else { return };
        let lost = link.lost.clone();
        let protocol = match topic {
            Topic::Link => return self.welcome(peer, connection, stream),
            Topic::Of(protocol) => protocol,
        };
        if link.lane.is_none() && !link.dialed && protocol.lane() == Lane::Bulk {
            link.lane = Some(Lane::Bulk);
        }
        let (remote, joining) = (ip_of(&link.remote), link.joining.clone());
        let counters = self.shared.counters.clone();
        let roster = self.shared.roster.clone();
        let stream = MessageStream::new(stream, protocol, counters.clone(), lost);
        if protocol == Protocol::Join {
            let (certificate, admission) = (self.shared.certificate(), self.admission.clone());
            let doorkeeper = Doorkeeper { peer, remote, stream, roster, certificate, admission, _joining: joining };
            tokio::spawn(doorkeeper.run());
        } else {
            let incoming = self.incoming.clone();
            tokio::spawn(Server { peer, protocol, stream, roster, counters, incoming }.run());
        }
    }

    /// A peer says that a connection is the main one: it has no other any more, whatever this side still believes.
    fn welcome(&mut self, peer: PeerId, id: ConnectionId, mut stream: libp2p::Stream) {
        if self.links.link(&peer, id).is_none_or(|link| link.sender.is_none()) {
            // Became a member after it had connected: gossip takes no part in this connection, so it is to make another.
            return self.give_up(peer, id);
        }
        let older: Vec<_> = self
            .links
            .get(&peer)
            .map(|state| {
                state.links.iter().filter(|l| l.id != id && l.lane == Some(Lane::Main)).map(|l| l.id).collect()
            })
            .unwrap_or_default();
        self.set_main(peer, id);
        for old in older {
            self.give_up(peer, old);
        }
        self.swarm.behaviour_mut().gossip.announce(id);
        tokio::spawn(async move {
            let answer = async {
                stream.write_all(&[WELCOME]).await?;
                stream.close().await
            };
            // A peer that does not hear it dials again.
            let _: Result<io::Result<()>, _> = timeout(GREETING_LIMIT, answer).await;
        });
    }

    fn handle_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        let author = message.source.and_then(|source| self.shared.roster.sender(&source));
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.judge(&message_id, &propagation_source, author.is_some());
        match author {
            Some(author) if self.outbox.len() < MAX_OUTBOX => {
                Counters::count(&self.shared.counters.gossip_received);
                self.outbox.push_back(Incoming::Gossip { author, message: message.data.into() });
            }
            _ => Counters::count(&self.shared.counters.gossip_dropped),
        }
    }

    fn handle_tick(&mut self) {
        let now = Instant::now();
        let over = |peer: &PeerId, link: &Link| {
            let admitted = self.shared.roster.is_member(peer) && !link.is_joining();
            link.sender.is_none() && (admitted || now - link.since > STRANGER_LIMIT)
        };
        let closing: Vec<_> =
            self.links.iter().filter(|(peer, link)| over(peer, link)).map(|(peer, link)| (*peer, link.id)).collect();
        for (peer, id) in closing {
            self.give_up(peer, id);
        }
        self.dial_wanted();
    }

    // The end of connections.

    /// Stops using a connection at once, and closes it as fast as its socket lets itself be closed.
    fn give_up(&mut self, peer: PeerId, id: ConnectionId) {
        self.drop_connection(id);
        self.forget(peer, id);
    }

    fn drop_connection(&mut self, id: ConnectionId) {
        self.swarm.behaviour_mut().gossip.abandon(id);
        self.swarm.close_connection(id);
    }

    fn forget(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(link) = self.links.remove(&peer, id) else { return };
        link.lost.cancel();
        let (Some(sender), Some(Lane::Main)) = (link.sender, link.lane) else { return };
        if self.links.peer(peer).usable(Lane::Main).is_none() {
            self.shared.connected.send_modify(|nodes| {
                nodes.remove(&sender.node);
            });
            self.outbox.push_back(Incoming::Disconnected(sender.node));
            self.shared.idle.clear(Some(sender.node));
        }
    }
}

fn refuse(answer: oneshot::Sender<Result<Opened, TransportError>>, error: TransportError) {
    // The asker may have given up.
    let _ = answer.send(Err(error));
}

/// From 0.0 to 1.0.
fn jitter() -> f64 {
    f64::from(SysRng.try_next_u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
