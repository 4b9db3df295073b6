//! A node's part in a swarm, from joining to leaving: everything that runs only while there is a swarm.
//!
//! [`Session`] owns the tasks; [`Shared`] is what they have in common. Two loops turn the wheel: `knowledge` takes what
//! the swarm wants of this node from the log (or a manager's stream) to the worker, and `leader`, where this node leads,
//! takes what the swarm observes to the log. Nothing else carries state between nodes.

pub mod admission;
mod courier;
pub mod decisions;
mod detector;
pub mod dispatch;
pub mod doctor;
pub mod forecast;
mod gossiping;
mod inbound;
mod knowledge;
mod leader;
pub mod logs;
mod networks;
mod observed;
pub mod roster;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::admission::Doorkeeper;
use self::courier::Couriers;
use self::detector::Detector;
pub use self::observed::Observed;
use super::clock;
use super::host::Host;
use super::standing::Standing;
use crate::consensus::{self, Consensus, LogStore};
use crate::dispatcher::{SwarmNetworks, View};
use crate::gossip::Publisher;
use crate::spec::*;
use crate::transport::probe::ProbeKey;
use crate::transport::{self, Transport};

/// For handing leadership over, and for the goodbye to be heard.
const GOODBYE: Duration = Duration::from_secs(1);
/// For a leaving node to be relieved of the log.
const RELEASED_WITHIN: Duration = Duration::from_secs(8);

/// What all parts of a session have in common.
pub struct Shared {
    pub me: NodeId,
    pub swarm: SwarmId,
    pub host: Arc<Host>,
    pub transport: Transport,
    pub observed: Arc<Observed>,
    /// The log, while this node holds it.
    pub log: watch::Sender<Option<Consensus>>,
    /// What the swarm wants of this node, as last heard.
    pub view: watch::Sender<Arc<View>>,
    /// What nodes are to know of networks, while this node holds the log.
    pub networks: watch::Sender<Option<Arc<SwarmNetworks>>>,
    /// Whether a quorum is heard, by this node or by the manager it follows; and when that last changed to no.
    pub quorum: watch::Sender<bool>,
    pub quorum_lost: Mutex<Option<MonoMs>>,
    pub standing: Mutex<Standing>,
    pub incarnation: Mutex<Incarnation>,
    detector: Detector,
    pub cancel: CancellationToken,
}

impl Shared {
    pub fn log(&self) -> Option<Consensus> {
        self.log.borrow().clone()
    }

    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    pub fn role(&self) -> Role {
        let known = self.view.borrow().members.list.get(&self.me).map(|member| member.role);
        known.unwrap_or_else(|| self.standing().certificate.role)
    }

    pub fn is_manager(&self) -> bool {
        self.role() == Role::Manager
    }

    pub fn is_member(&self, node: NodeId) -> bool {
        self.transport.member(node).is_some() || node == self.me
    }

    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is kept on the disk of this node's part in the swarm.
    pub fn change_standing(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.clone();
        change(&mut standing);
        if *standing != before
            && let Err(error) = self.host.dir.save_standing(&standing)
        {
            tracing::error!(%error, "this node's part in the swarm cannot be written down");
        }
    }

    pub fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Managers other than this one, those that hold the log first.
    pub fn managers(&self) -> Vec<NodeId> {
        let view = self.view.borrow();
        let list = if view.members.list.is_empty() { None } else { Some(&view.members.list) };
        let mut managers: Vec<(bool, NodeId)> = match list {
            Some(list) => {
                list.iter().filter(|(_, m)| m.role == Role::Manager).map(|(id, m)| (m.raft.is_none(), *id)).collect()
            }
            None => {
                let standing = self.standing();
                let members = standing.members.members.iter();
                members.filter(|m| m.role == Role::Manager).map(|m| (!m.log_holder, m.node)).collect()
            }
        };
        managers.retain(|(_, id)| *id != self.me);
        managers.sort();
        managers.into_iter().map(|(_, id)| id).collect()
    }

    /// How long no quorum has been heard.
    pub fn without_quorum(&self) -> Option<Duration> {
        let lost = *self.quorum_lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.map(|since| clock::mono() - since)
    }
}

/// The running part. Dropped, it stops; [`Self::stop`] stops it in order.
pub struct Session {
    pub shared: Arc<Shared>,
}

impl Session {
    /// Takes up this node's part. `first` makes a new log, for a new swarm or one rescued by force.
    pub async fn start(
        host: Arc<Host>,
        standing: Standing,
        first: Option<consensus::First>,
    ) -> anyhow::Result<Session> {
        let incarnation = host.dir.next_incarnation(Incarnation(0))?;
        let cancel = CancellationToken::new();
        let log = watch::Sender::new(None);
        let listen = host.listen_addr();
        let (transport, incoming) = Transport::start(transport::Config {
            identity: host.dir.identity()?,
            listen,
            advertise: Some(host.advertise_addr()),
            ca_public_key: standing.ca_public_key,
            certificate: standing.certificate.clone(),
            members: standing.members.clone(),
            admission: Some(Arc::new(Doorkeeper { log: log.subscribe() })),
        })
        .await?;

        let mut publisher = Publisher::new(host.node(), host.random_u64(), incarnation, host.description());
        // The first record goes out at once: one that did not name the tasks that run would take them out of the balance.
        publisher.set_tasks(host.reports().borrow().tasks.clone(), clock::mono());
        // Nor may a network get a subnet before the leader knows what is around its nodes.
        publisher.set_surroundings(host.surroundings().context("read this host's routes")?, clock::mono());
        publisher.set_init(host.has_init(), clock::mono());
        let observed = Arc::new(Observed::new(host.dir.identity()?, publisher));
        let view = watch::Sender::new(Arc::new(View::default()));
        let managers = {
            let (view, me) = (view.subscribe(), host.node());
            move || managers_of(&view.borrow(), me)
        };
        // Until the managers say which one it is, no key is right and nobody probes this node.
        let key = ProbeKey::of_node(&host.random_bytes(), host.node());
        let detector = Detector::start(
            listen,
            incarnation,
            key,
            transport.clone(),
            Arc::clone(&observed),
            managers,
            cancel.clone(),
        )?;
        let shared = Arc::new(Shared {
            me: host.node(),
            swarm: standing.swarm,
            host,
            transport,
            observed,
            log,
            view,
            networks: watch::Sender::new(None),
            quorum: watch::Sender::new(false),
            quorum_lost: Mutex::new(Some(clock::mono())),
            standing: Mutex::new(standing),
            incarnation: Mutex::new(incarnation),
            detector,
            cancel: cancel.clone(),
        });
        if let Some(raft_id) = shared.standing().raft_id {
            let opened = match first {
                Some(first) => shared.create_log(raft_id, first).await,
                None => shared.open_log(raft_id).await,
            };
            if let Err(error) = opened {
                shared.transport.shutdown().await;
                return Err(error);
            }
        }
        let spawn = |task: futures::future::BoxFuture<'static, ()>| {
            tokio::spawn(cancel.clone().run_until_cancelled_owned(task));
        };
        spawn(Box::pin(inbound::run(Arc::clone(&shared), incoming, cancel.clone())));
        spawn(Box::pin(gossiping::run(Arc::clone(&shared))));
        spawn(Box::pin(gossiping::describe(Arc::clone(&shared))));
        spawn(Box::pin(knowledge::run(Arc::clone(&shared))));
        Ok(Session { shared })
    }

    /// Hands over what this node leads, and stops. Containers go on.
    pub async fn stop(&self) {
        // First of all: no loop of this session may take the end of the log for a change of mind of the swarm.
        self.shared.cancel.cancel();
        if let Some(log) = self.shared.log.send_replace(None) {
            let _ = timeout(GOODBYE * 2, log.shutdown()).await;
        }
        self.shared.transport.shutdown().await;
        let shared = Arc::clone(&self.shared);
        // It waits for a thread; a panic of that thread was its own.
        let _ = tokio::task::spawn_blocking(move || shared.detector.stop()).await;
    }

    /// Says goodbye, so that this node's tasks are replaced at once, and stops.
    pub async fn leave(&self) {
        self.shared.observed.set_leaving();
        // A voter that went at once would go on counting towards the quorum: the others first take the log from it.
        let me = self.shared.me;
        let mut views = self.shared.view.subscribe();
        let released = views.wait_for(|view| {
            let others = view.members.list.keys().any(|node| *node != me);
            !others || view.members.list.get(&me).is_none_or(|member| member.raft.is_none())
        });
        // Where that takes longer, there is no quorum to lose.
        let _ = timeout(RELEASED_WITHIN, released).await;
        sleep(GOODBYE / 2).await;
        self.stop().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

impl Shared {
    fn log_identity(&self, raft_id: u64) -> consensus::LogIdentity {
        consensus::LogIdentity { swarm: self.swarm, node: self.me, raft_id }
    }

    /// Makes the log anew and starts it.
    pub async fn create_log(self: &Arc<Self>, raft_id: u64, first: consensus::First) -> anyhow::Result<()> {
        if let Some(old) = self.log.send_replace(None) {
            old.shutdown().await;
        }
        self.host.dir.remove_log()?;
        let key = self.host.log_key()?;
        let path = self.host.dir.log_path();
        let store = LogStore::create(&path, &key, self.log_identity(raft_id), first, self.host.crypto_rng())?;
        self.start_log(raft_id, store)
    }

    /// Opens the log that an earlier run wrote.
    pub async fn open_log(self: &Arc<Self>, raft_id: u64) -> anyhow::Result<()> {
        let key = self.host.log_key()?;
        let path = self.host.dir.log_path();
        let store = LogStore::open(&path, &key, &self.log_identity(raft_id), self.host.crypto_rng())?;
        self.start_log(raft_id, store)
    }

    fn start_log(self: &Arc<Self>, raft_id: u64, store: LogStore) -> anyhow::Result<()> {
        let view = self.view();
        let peers = view.members.list.iter().filter_map(|(id, member)| Some((member.raft?.raft_id, *id)));
        let config = consensus::Config {
            peers: peers.collect(),
            client: ClientId(self.host.random_u128()),
            seed: self.host.random_u64(),
            now: clock::unix,
        };
        let courier = Arc::new(Couriers(self.transport.clone()));
        let log = Consensus::start(store, config, courier)?;
        self.change_standing(|standing| standing.raft_id = Some(raft_id));
        tokio::spawn(self.cancel.clone().run_until_cancelled_owned(leader::run(Arc::clone(self), log.clone())));
        self.networks.send_replace(None);
        tokio::spawn(self.cancel.clone().run_until_cancelled_owned(networks::run(Arc::clone(self), log.clone())));
        tokio::spawn(self.cancel.clone().run_until_cancelled_owned(report_end(Arc::clone(self), log.clone())));
        self.log.send_replace(Some(log));
        Ok(())
    }

    /// Whether this node's own log says that it is to hold it no more.
    fn released(&self) -> bool {
        self.log().is_some_and(|log| log.state().node(self.me).is_some_and(|node| node.raft.is_none()))
    }

    /// This node holds the log no more.
    pub async fn drop_log(&self) {
        self.networks.send_replace(None);
        if let Some(log) = self.log.send_replace(None) {
            log.shutdown().await;
        }
        self.change_standing(|standing| standing.raft_id = None);
        if let Err(error) = self.host.dir.remove_log() {
            tracing::error!(%error, "the log that this node holds no more cannot be removed");
        }
    }
}

/// A log that ends by itself (a full disk, damage, entries lost) ends this node's part: the daemon stops and says why.
async fn report_end(shared: Arc<Shared>, log: Consensus) {
    let reason = log.stopped().await;
    if shared.log().is_some() {
        shared.host.stop_because(reason);
    }
}

fn managers_of(view: &View, me: NodeId) -> Vec<NodeId> {
    let managers = view.members.list.iter().filter(|(_, member)| member.role == Role::Manager).map(|(id, _)| *id);
    let mut managers: BTreeSet<NodeId> = managers.collect();
    // A worker is in no position to take its own alarm; a manager is.
    if view.members.list.get(&me).is_none_or(|member| member.role != Role::Manager) {
        managers.remove(&me);
    }
    managers.into_iter().collect()
}
