//! Beginnings: of a swarm, of a membership, of a daemon that was here before, and of what is left after a disaster.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use raft::eraftpb::{ConfState, HardState, SnapshotMetadata};
use rand::CryptoRng;
use tokio::sync::{broadcast, mpsc, watch};

use super::courier::Courier;
use super::disk::Disk;
use super::driver::{Driver, Shared};
use super::error::StoreError;
use super::handle::{Consensus, Inner};
use super::replica::{Fatal, Replica, ReplicaConfig, Retention};
use super::seal::SealingKey;
use super::status::Status;
use super::store::{First, LogIdentity, LogStore};
use super::transfer::Assembly;
use crate::spec::{ClientId, NodeId, UnixMs};
use crate::state::{RaftMember, RaftStanding, State, snapshot};

const INPUT_QUEUE: usize = 4096;
const MESSAGE_QUEUE: usize = 1024;
/// States that wait for who follows them one by one.
const APPLIED_KEPT: usize = 256;

/// What a node brings to its log.
pub struct Config {
    /// Log holders that a joiner was told of, by raft id. Empty where the state says it.
    pub peers: BTreeMap<u64, NodeId>,
    /// New for every start of the daemon, never used again.
    pub client: ClientId,
    /// For election timeouts and pauses.
    pub seed: u64,
    /// The wall clock that entries are stamped with.
    pub now: fn() -> UnixMs,
}

/// The first log of a new swarm: this node is its one voter. The swarm itself comes with the first entry,
/// [`Command::InitSwarm`](crate::state::Command::InitSwarm).
pub fn new_swarm() -> First {
    let mut state = State::default();
    // The log starts behind a snapshot, so that whoever joins gets one: raft cannot learn its first members from entries.
    state.advance(1);
    alone(FIRST_RAFT_ID, 1, 1, &state)
}

/// A log of one voter that begins with a state, at this index and term.
fn alone(raft_id: u64, index: u64, term: u64, state: &State) -> First {
    let conf_state = Some(ConfState::from((vec![raft_id], Vec::new())));
    First::Snapshot {
        meta: SnapshotMetadata { index, term, conf_state },
        data: snapshot::encode(state),
        hard_state: HardState { term, commit: index, ..HardState::default() },
    }
}

/// The raft id of a swarm's first node.
pub const FIRST_RAFT_ID: u64 = 1;

impl Consensus {
    /// Starts on an opened store. Must be called within a tokio runtime.
    pub fn start(mut store: LogStore, config: Config, courier: Arc<dyn Courier>) -> Result<Consensus, Fatal> {
        let LogIdentity { node, raft_id, .. } = *store.identity();
        let recovered = store.recover()?;
        let replica_config =
            ReplicaConfig { node, raft_id, seed: config.seed, peers: config.peers, retention: Retention::default() };
        let replica = Replica::new(replica_config, recovered)?;
        let (disk, done) = Disk::start(store)
            .map_err(|error| StoreError::Io { doing: "served", why: format!("no thread: {error}") })?;
        let (inputs, input_queue) = mpsc::channel(INPUT_QUEUE);
        let (messages, message_queue) = mpsc::channel(MESSAGE_QUEUE);
        let shared = Arc::new(Shared {
            state: watch::Sender::new(Arc::new(replica.state().clone())),
            applied: broadcast::Sender::new(APPLIED_KEPT),
            status: watch::Sender::new(Status::of(&replica)),
            waiters: Mutex::default(),
        });
        let driver = Driver {
            replica,
            disk,
            done,
            inputs: input_queue,
            messages: message_queue,
            courier: courier.clone(),
            shared: shared.clone(),
            client: config.client,
        };
        driver.spawn();
        let inner = Inner {
            node,
            client: config.client,
            now: config.now,
            seed: config.seed,
            inputs,
            messages,
            courier,
            shared,
            sequence: AtomicU64::new(1),
            slots: Inner::slots(),
            assembly: Mutex::new(Assembly::default()),
        };
        Ok(Consensus { inner: Arc::new(inner) })
    }
}

/// Makes the node that owns this log the only one that holds it, when the others are lost for good: the operator's
/// `--force-new-cluster`. Everything in the log counts as committed, so nothing that was answered is lost, and something
/// that was not may come true. The other holders must never return with their logs; they join again.
///
/// The old log is replaced at the end, whole or not at all.
pub fn force_new_cluster(
    path: &Path,
    key: &SealingKey,
    identity: &LogIdentity,
    mut rng: impl FnMut() -> Box<dyn CryptoRng + Send>,
) -> Result<(), Fatal> {
    let mut store = LogStore::open(path, key, identity, rng())?;
    let identity = *store.identity();
    let mut recovered = store.recover()?;
    drop(store);
    let last = recovered.last();
    let term = recovered.entries.last().map_or(recovered.compacted.1, |entry| entry.term);
    let term = term.max(recovered.hard_state.term) + 1;
    recovered.hard_state.commit = last;
    let config = ReplicaConfig {
        node: identity.node,
        raft_id: identity.raft_id,
        seed: 0,
        peers: BTreeMap::new(),
        retention: Retention::default(),
    };
    let mut replica = Replica::new(config, recovered)?;
    while replica.poll()?.is_some() {}
    let mut state = replica.state().clone();
    let others = state.nodes().filter(|node| node.id != identity.node && node.raft.is_some());
    let mut members: Vec<(NodeId, Option<RaftMember>)> = others.map(|node| (node.id, None)).collect();
    let voter = RaftMember { raft_id: identity.raft_id, standing: RaftStanding::Voter };
    members.push((identity.node, Some(voter)));
    state.apply_raft_membership(last + 1, &members);
    LogStore::create(path, key, identity, alone(identity.raft_id, last + 1, term, &state), rng())?;
    Ok(())
}
