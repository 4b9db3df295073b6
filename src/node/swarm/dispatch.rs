//! Views of the swarm on their way to nodes that do not hold the log: the manager's end of a stream and the node's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::admission;
use super::observed::Observed;
use crate::consensus::Consensus;
use crate::dispatcher::{Dispatcher, Networks, NetworksUpdate, SwarmNetworks, Update, View, diff};
use crate::gossip::Echo;
use crate::membership::{Rings, WatchList};
use crate::node::clock;
use crate::spec::{NodeId, Role, UnixMs};
use crate::state::{State, codec};
use crate::transport::probe::ProbeKey;
use crate::transport::{Certificate, MessageStream, Protocol, Transport};

/// A manager says something at least this often, so that a node notices one that is gone.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node leaves a manager that has said nothing for this long.
const PATIENCE: Duration = Duration::from_secs(3);
/// For opening a stream to a manager.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// Between two attempts, doubled up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Changes of the state within this are sent in one update.
const COALESCE: Duration = Duration::from_millis(5);

/// What a manager tells a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Downlink {
    Update(Box<Update>),
    Watch(Box<WatchOrders>),
    Pulse {
        /// The manager hears a quorum.
        quorum: bool,
        /// The receiver's own record as the managers hold it.
        echo: Option<Echo>,
    },
    Certificate(Box<Certificate>),
    /// The first on a stream is a snapshot.
    Networks(Box<NetworksUpdate>),
}

/// What a manager serves its streams from.
pub struct Sources {
    pub log: Consensus,
    pub observed: Arc<Observed>,
    pub networks: watch::Receiver<Option<Arc<SwarmNetworks>>>,
}

/// Whom to watch, and the keys that the datagrams need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchOrders {
    pub list: WatchList,
    pub keys: BTreeMap<NodeId, ProbeKey>,
    pub own_key: ProbeKey,
}

impl WatchOrders {
    /// `None` before the state has a swarm.
    pub fn of(node: NodeId, rings: &Rings, state: &State, observed: &Observed) -> Option<WatchOrders> {
        let swarm = state.swarm()?;
        let secret = &swarm.ca_secret_key.0;
        let list = WatchList::for_observer(node, rings, state, &observed.table());
        let keys = list.watched.keys().map(|id| (*id, ProbeKey::of_node(secret, *id))).collect();
        Some(WatchOrders { list, keys, own_key: ProbeKey::of_node(secret, node) })
    }
}

/// The manager's end, until the node goes, is no member any more, or this node holds the log no more.
pub async fn serve(node: NodeId, stream: MessageStream, sources: Sources, cancel: CancellationToken) {
    let Sources { log, observed, mut networks } = sources;
    let (mut reader, mut writer) = stream.split();
    // A manager that was cut off knows an older state than the one the node's tasks were made from, and a node that has
    // just started cannot tell: that view would end its tasks. It asks another manager.
    if log.read().await.is_err() {
        let _ = writer.close().await;
        return;
    }
    let mut state_changed = log.changed();
    let mut server = Server::of(node);
    let mut pulse = interval(HEARTBEAT);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What else there is to tell costs more, and does not depend on them.
    let mut only_networks = false;
    loop {
        let state = log.state();
        // A node that was removed is told so: no assignments, and a member list without it.
        let removed = state.node(node).is_none();
        let mut news = if only_networks { Vec::new() } else { server.news(&state, &observed) };
        news.extend(server.networks_news(networks.borrow_and_update().as_deref()));
        for message in news {
            if writer.send(&codec::encode(&message)).await.is_err() {
                return;
            }
        }
        if removed {
            break;
        }
        only_networks = false;
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = state_changed.changed() => match changed {
                Ok(()) => sleep(COALESCE).await,
                Err(_) => break,
            },
            // Its sender has gathered what changed together.
            changed = networks.changed() => match changed {
                Ok(()) => only_networks = true,
                Err(_) => break,
            },
            // The node says nothing on this stream: its end is its end.
            _ = reader.receive() => return,
            _ = pulse.tick() => {
                let quorum = log.status().borrow().has_quorum;
                let message = Downlink::Pulse { quorum, echo: observed.echo(node) };
                if writer.send(&codec::encode(&message)).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = writer.close().await;
}

struct Server {
    node: NodeId,
    sent: Option<View>,
    watch: Option<WatchOrders>,
    /// The role of the certificate that was last sent, and when it is to be renewed.
    renewed: Option<(Role, UnixMs)>,
    dispatcher: Dispatcher,
    /// As last told.
    networks: Option<Networks>,
}

impl Server {
    fn of(node: NodeId) -> Server {
        let dispatcher = Dispatcher::default();
        Server { node, sent: None, watch: None, renewed: None, dispatcher, networks: None }
    }

    fn networks_news(&mut self, newest: Option<&SwarmNetworks>) -> Option<Downlink> {
        let newest = newest?;
        let networks = newest.of(self.node);
        let update = match &self.networks {
            None => NetworksUpdate::snapshot(&networks),
            Some(sent) => newest.update(sent, &networks),
        };
        self.networks = Some(networks);
        (!update.is_empty()).then(|| Downlink::Networks(Box::new(update)))
    }

    fn news(&mut self, state: &State, observed: &Observed) -> Vec<Downlink> {
        let mut news = Vec::new();
        let view = self.dispatcher.view(state, self.node);
        let update = match &self.sent {
            None => Update::snapshot(&view),
            Some(sent) => diff(sent, &view),
        };
        if !update.is_empty() {
            news.push(Downlink::Update(Box::new(update)));
            self.sent = Some(view);
        }
        let orders = WatchOrders::of(self.node, &Rings::of(state), state, observed);
        if orders.is_some() && orders != self.watch {
            news.extend(orders.clone().map(|orders| Downlink::Watch(Box::new(orders))));
            self.watch = orders;
        }
        news.extend(self.renewal(state, clock::unix()));
        news
    }

    fn renewal(&mut self, state: &State, now: UnixMs) -> Option<Downlink> {
        let certificate = admission::renewal(state, self.node, self.renewed, now)?;
        self.renewed = Some((certificate.role, certificate.renew_at(0.0)));
        Some(Downlink::Certificate(Box::new(certificate)))
    }
}

/// Streams from any one manager, in `messages`, for as long as this node has no log of its own to ask.
pub async fn follow(
    transport: Transport,
    managers: impl Fn() -> Vec<NodeId>,
    messages: impl Fn(NodeId, Downlink),
    quorum: watch::Sender<bool>,
    cancel: CancellationToken,
) {
    let mut delay = RETRY_FIRST;
    let mut turn = 0usize;
    while !cancel.is_cancelled() {
        let choices = managers();
        if let Some(manager) = choices.get(turn % choices.len().max(1)).copied() {
            let started = Instant::now();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = listen(&transport, manager, &messages, &quorum) => {}
            }
            if started.elapsed() > PATIENCE {
                delay = RETRY_FIRST;
            }
        }
        quorum.send_replace(false);
        turn += 1;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(delay) => {}
        }
        delay = (delay * 2).min(RETRY_MOST);
    }
}

async fn listen(
    transport: &Transport,
    manager: NodeId,
    messages: &impl Fn(NodeId, Downlink),
    quorum: &watch::Sender<bool>,
) {
    let mut stream = match transport.open(manager, Protocol::Dispatch, OPEN_WITHIN).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%manager, %error, "a manager cannot be reached"),
    };
    loop {
        let message = match timeout(PATIENCE, stream.receive()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return tracing::debug!(%manager, "a manager closed its stream"),
            Ok(Err(error)) => return tracing::debug!(%manager, %error, "a manager's stream broke off"),
            Err(_) => {
                transport.redial(manager);
                return tracing::debug!(%manager, "a manager has fallen silent");
            }
        };
        match codec::decode::<Downlink>(&message) {
            Ok(Downlink::Pulse { quorum: heard, echo }) => {
                quorum.send_if_modified(|known| std::mem::replace(known, heard) != heard);
                messages(manager, Downlink::Pulse { quorum: heard, echo });
            }
            Ok(message) => messages(manager, message),
            Err(error) => return tracing::warn!(%manager, %error, "a manager said something this node cannot read"),
        }
    }
}
