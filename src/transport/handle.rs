//! The handle that rooms hold, and what it shares with the swarm task.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::TransportError;
use super::certificate::Certificate;
use super::counters::Counters;
use super::driver::{Command, Driver};
use super::gossip::MAX_GOSSIP_BYTES;
use super::identity::{Identity, PublicKey};
use super::join::{self, Admission, JoinError};
use super::lanes::{Lane, Unsent};
use super::members::{Member, MemberList, Roster};
use super::protocol::{Mode, Protocol};
use super::requests::{self, IdleStreams};
use super::serve::Incoming;
use super::swarm::Listening;
use super::wire::MessageStream;
use crate::spec::NodeId;

/// Commands that wait for the swarm task, and arrivals that wait for the node.
const MAX_COMMANDS: usize = 1024;
const MAX_INCOMING: usize = 1024;

/// What a transport needs to start.
pub struct Config {
    pub identity: Identity,
    pub listen: SocketAddr,
    /// Where others reach this node; `None`: where it listens.
    pub advertise: Option<SocketAddr>,
    pub ca_public_key: PublicKey,
    /// This node's own.
    pub certificate: Certificate,
    /// As the log has it, or as it was last heard; empty where none is held.
    pub members: MemberList,
    /// Lets joiners in; `None` sends them to the managers.
    pub admission: Option<Arc<dyn Admission>>,
}

/// The node's way to all others. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

/// What handles, swarm task and stream tasks have in common.
pub(super) struct Shared {
    pub local: NodeId,
    pub local_addr: SocketAddr,
    pub advertise: SocketAddr,
    pub roster: Arc<Roster>,
    pub counters: Arc<Counters>,
    pub idle: IdleStreams,
    pub lanes: Mutex<BTreeMap<(NodeId, Protocol), Lane>>,
    pub connected: watch::Sender<BTreeSet<NodeId>>,
    certificate: Mutex<Certificate>,
    wishes: Mutex<Wishes>,
    pub wished: Notify,
    commands: mpsc::Sender<Command>,
}

/// What handles want of the swarm task and what must not get lost in a full queue.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// `Some` where it was set since it was last taken.
    pub wanted: Option<BTreeSet<NodeId>>,
    pub redial: BTreeSet<NodeId>,
    pub disconnect: BTreeSet<NodeId>,
    pub members_changed: bool,
}

impl Transport {
    /// Listens, and starts the task that owns the swarm.
    pub async fn start(config: Config) -> Result<(Transport, mpsc::Receiver<Incoming>), TransportError> {
        let (commands, orders) = mpsc::channel(MAX_COMMANDS);
        let (arrivals, incoming) = mpsc::channel(MAX_INCOMING);
        let roster = Roster::new(&config.identity, &config.certificate, config.ca_public_key, config.members);
        let roster = Arc::new(roster);
        let listening = Listening::start(&config.identity, &roster, config.listen).await?;
        let shared = Arc::new(Shared {
            local: config.identity.node(),
            local_addr: listening.addr,
            advertise: config.advertise.unwrap_or(listening.addr),
            roster,
            counters: Arc::default(),
            idle: IdleStreams::default(),
            lanes: Mutex::default(),
            connected: watch::Sender::default(),
            certificate: Mutex::new(config.certificate),
            wishes: Mutex::default(),
            wished: Notify::new(),
            commands,
        });
        let driver = Driver::new(listening, shared.clone(), config.admission, orders, arrivals);
        tokio::spawn(driver.run());
        Ok((Transport { shared }, incoming))
    }

    pub fn local_node(&self) -> NodeId {
        self.shared.local
    }

    /// Where this node listens, its port known.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Takes a newer member list at once: who is no member in it is heard no more, and its connections are closed.
    /// False where the list is older than the one held.
    pub fn set_members(&self, list: MemberList) -> bool {
        let taken = self.shared.roster.replace(list);
        if taken {
            self.wish(|wishes| wishes.members_changed = true);
        }
        taken
    }

    /// Keeps connections to these nodes, besides those that requests and messages need.
    pub fn set_wanted(&self, nodes: BTreeSet<NodeId>) {
        self.wish(|wishes| wishes.wanted = Some(nodes));
    }

    /// Shown to joiners and to members that do not list this node yet.
    pub fn set_certificate(&self, certificate: Certificate) {
        *self.shared.certificate.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    pub fn certificate(&self) -> Certificate {
        self.shared.certificate()
    }

    /// As the member list has it.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.shared.roster.member(node)
    }

    /// Whom this node has a connection to.
    pub fn connected(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.shared.connected.subscribe()
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Asks and waits for the answer, connecting first where needed.
    pub async fn request(
        &self,
        node: NodeId,
        protocol: Protocol,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        requests::request(self, node, protocol, &request, deadline).await
    }

    /// Sends one way, in order with other messages to the node on the protocol. Never waits; a message that is taken may
    /// still be lost with its connection.
    pub fn send(&self, node: NodeId, protocol: Protocol, message: Bytes) -> Result<(), Unsent> {
        let sent = self.lane(node, protocol, message.len()).and_then(|lane| lane.send(message));
        if sent.is_err() {
            Counters::count(&self.shared.counters.unsent);
        }
        sent
    }

    fn lane(&self, node: NodeId, protocol: Protocol, size: usize) -> Result<Lane, Unsent> {
        if size > protocol.max_message_bytes() {
            return Err(Unsent::TooLarge);
        }
        if self.shared.roster.member(node).is_none() {
            return Err(Unsent::NotAMember);
        }
        if !self.shared.roster.may_address(node, protocol) {
            return Err(Unsent::NotPermitted);
        }
        let mut lanes = self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(lanes.entry((node, protocol)).or_insert_with(|| Lane::start(self.clone(), node, protocol)).clone())
    }

    /// Opens a stream for as long as both sides like.
    pub async fn open(
        &self,
        node: NodeId,
        protocol: Protocol,
        deadline: Duration,
    ) -> Result<MessageStream, TransportError> {
        self.open_stream(node, protocol, Mode::Open, deadline).await
    }

    pub(super) async fn open_stream(
        &self,
        node: NodeId,
        protocol: Protocol,
        mode: Mode,
        deadline: Duration,
    ) -> Result<MessageStream, TransportError> {
        let opening = async {
            let (answer, opened) = oneshot::channel();
            let command = Command::Open { node, protocol, answer };
            self.shared.commands.send(command).await.map_err(|_| TransportError::Stopped)?;
            let (stream, lost) = opened.await.map_err(|_| TransportError::Stopped)??;
            let mut stream = MessageStream::new(stream, protocol, self.shared.counters.clone(), lost);
            let opened = stream.writer.write_byte(mode as u8).await;
            opened.map_err(|source| TransportError::Broken { node, source })?;
            Ok(stream)
        };
        timeout(deadline, opening).await.unwrap_or(Err(TransportError::TimedOut { node, protocol, deadline }))
    }

    /// Publishes to all managers, signed. False where the message is too large or too many wait; that nobody is there
    /// to hear it is no failure.
    pub fn publish(&self, message: Bytes) -> bool {
        message.len() <= MAX_GOSSIP_BYTES && self.shared.commands.try_send(Command::Publish(message)).is_ok()
    }

    /// Gives up the connections to a node. They are made again when they are needed.
    pub fn disconnect(&self, node: NodeId) {
        self.wish(|wishes| {
            wishes.disconnect.insert(node);
        });
    }

    /// Gives up the connections to a node and dials it now, for TCP's own patience with a dead path is long.
    pub fn redial(&self, node: NodeId) {
        self.wish(|wishes| {
            wishes.redial.insert(node);
        });
    }

    /// Learns who listens at an address: a node that proves to be a member, by a certificate newer than the list held
    /// here, may be addressed from then on. For a node whose list is so old that nobody in it answers.
    pub async fn introduce(
        &self,
        identity: &Identity,
        addr: SocketAddr,
        deadline: Duration,
    ) -> Result<NodeId, JoinError> {
        let greeting = join::greet(identity, &self.shared.roster.ca(), addr, deadline).await?;
        let refused = |source: super::members::NotAdmitted| JoinError::NotAdmitted { addr, reason: source.to_string() };
        self.shared.roster.admit(&greeting.certificate, addr).map_err(refused)?;
        Ok(greeting.certificate.node)
    }

    /// Closes all connections and ends every task of the transport.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self.shared.commands.send(Command::Shutdown(done)).await.is_ok() {
            // An error means that the task has ended.
            let _ = ended.await;
        }
    }

    pub(super) fn idle_streams(&self) -> &IdleStreams {
        &self.shared.idle
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wished.notify_one();
    }
}

impl Shared {
    pub(super) fn take_wishes(&self) -> Wishes {
        std::mem::take(&mut self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn certificate(&self) -> Certificate {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the one-way lanes to nodes that `gone` names.
    pub(super) fn close_lanes(&self, gone: impl Fn(NodeId) -> bool) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|(node, _), _| !gone(*node));
    }
}
