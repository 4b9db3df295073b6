//! A machine and the state it replicates, as one pure thing: what a node without IO is to the log.
//!
//! It turns raft ids into nodes and back, applies what commits, and says when a snapshot is due. The tokio driver runs
//! one; so does the simulator. The machine's rule holds here too: writes must be durable, in order, before
//! [`Replica::handle_written`].

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::SnapshotMetadata;

use super::error::{MessageError, Refused, StoreError};
use super::machine::{Committed, Machine, MemberChange, Outgoing, PeerMessage, Start, Write};
use super::store::Recovered;
use super::wire::{Members, MembershipContext};
use crate::spec::{FeatureLevel, NodeId};
use crate::state::{Applied, BeyondBuild, Entry, Proposal, RaftStanding, Reply, State, snapshot};

/// When a snapshot is due, and what of the log stays beside it. The simulator's are small, so that its short logs have
/// snapshots, too.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// A snapshot is due after this many entries, or this many bytes and no less than the last snapshot's own.
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    /// The newest entries that stay, so that a peer that was away for a moment needs no snapshot.
    pub keep_entries: u64,
    pub keep_bytes: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { snapshot_entries: 8192, snapshot_bytes: 16 << 20, keep_entries: 4096, keep_bytes: 8 << 20 }
    }
}

/// Why this node must stop holding the log. Nothing may be sent after it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fatal {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    BeyondBuild(#[from] BeyondBuild),
    #[error("log entry {index} cannot be read: {why}")]
    Unreadable { index: u64, why: String },
}

/// Who this is and whom it knows before the state tells.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    pub node: NodeId,
    pub raft_id: u64,
    pub seed: u64,
    /// Log holders by raft id, for a joiner whose log is empty.
    pub peers: BTreeMap<u64, NodeId>,
    pub retention: Retention,
}

/// What to do now; see [`super::machine::Effects`].
#[derive(Debug, Default)]
pub struct Step {
    pub send: Vec<(NodeId, Vec<u8>)>,
    pub send_snapshots: Vec<SendSnapshot>,
    pub writes: Vec<Write>,
    /// To those who proposed, wherever they are; most are somebody else's.
    pub answers: Vec<(Proposal, Applied)>,
    pub reads: Vec<(Vec<u8>, u64)>,
    /// The state has a new feature level, for the store's header.
    pub feature_level: Option<FeatureLevel>,
    /// The state changed.
    pub advanced: bool,
    /// What it was after each entry, where that is wanted.
    pub trail: Vec<State>,
}

/// The stored snapshot at `index` goes to a peer, with raft's message.
#[derive(Debug, Clone)]
pub struct SendSnapshot {
    pub to: NodeId,
    pub raft_id: u64,
    pub index: u64,
    pub message: Vec<u8>,
}

/// A snapshot to be encoded and stored; then [`Replica::handle_snapshot_saved`].
#[derive(Debug, Clone)]
pub struct SnapshotJob {
    pub meta: SnapshotMetadata,
    pub state: State,
    /// Index and term up to which the log may be dropped.
    pub compact_to: (u64, u64),
}

/// See the module's doc.
pub struct Replica {
    node: NodeId,
    machine: Machine,
    state: State,
    directory: BTreeMap<u64, NodeId>,
    /// A snapshot handed to raft, decoded: most often it is installed next.
    arrived: Option<(Vec<u8>, State)>,
    /// Bytes applied since the last snapshot, and that one's size.
    bytes_since: u64,
    snapshot_bytes: u64,
    snapshotting: bool,
    leaves_trail: bool,
    retention: Retention,
}

impl Replica {
    /// Takes up where the store left off. Entries known to be committed come with the first polls.
    pub fn new(config: ReplicaConfig, recovered: Recovered) -> Result<Replica, Fatal> {
        let (meta, state, snapshot_bytes) = match recovered.snapshot {
            Some((meta, data)) => (Some(meta), decode(&data)?, data.len() as u64),
            None => (None, State::default(), 0),
        };
        state.check_level()?;
        let machine = Machine::new(Start {
            id: config.raft_id,
            hard_state: recovered.hard_state,
            compacted: recovered.compacted,
            entries: recovered.entries,
            snapshot: meta,
            seed: config.seed,
        });
        let mut directory = config.peers;
        directory.insert(config.raft_id, config.node);
        let mut replica = Replica {
            node: config.node,
            machine,
            state,
            directory,
            arrived: None,
            bytes_since: 0,
            snapshot_bytes,
            snapshotting: false,
            leaves_trail: false,
            retention: config.retention,
        };
        replica.learn_members();
        Ok(replica)
    }

    pub fn handle_tick(&mut self) {
        self.machine.handle_tick();
    }

    /// A raft message that the transport says is from `from`. It is dropped when its raft id is known to be another's.
    pub fn handle_message(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), Fatal> {
        let result = self.believed(from, bytes).and_then(|message| self.machine.handle_message(message));
        settle(result)
    }

    /// A leader's snapshot: its raft message and all of its bytes.
    pub fn handle_snapshot(&mut self, from: NodeId, message: &[u8], data: Vec<u8>) -> Result<(), Fatal> {
        // Bytes that are no snapshot must not replace a log.
        match snapshot::decode(&data) {
            Ok(state) => self.arrived = Some((data.clone(), state)),
            Err(error) => {
                tracing::warn!(%from, %error, "a snapshot was dropped");
                return Ok(());
            }
        }
        let result = self.believed(from, message).and_then(|message| self.machine.handle_snapshot(message, data));
        settle(result)
    }

    /// Encoded entries for the leader's log, all or none.
    pub fn handle_proposals(&mut self, entries: Vec<Vec<u8>>) -> Result<u64, Refused> {
        self.machine.handle_proposals(entries)
    }

    /// `Ok(None)`: everything is so already, and nothing was proposed.
    pub fn handle_membership(&mut self, context: &MembershipContext) -> Result<Option<u64>, Refused> {
        if !self.machine.leads() {
            return Err(Refused::NotLeader);
        }
        let changes = self.member_changes(&context.members)?;
        if changes.is_empty() {
            return Ok(None);
        }
        let own = self.machine.id();
        let steps_down = changes
            .iter()
            .any(|change| matches!(change, MemberChange::Learner(id) | MemberChange::Remove(id) if *id == own));
        if steps_down && self.machine.handle_transfer(None).is_ok() {
            // The next leader takes the change: one that removes itself would leave the rest to an election.
            return Err(Refused::Busy);
        }
        self.machine.handle_membership(&changes, context.to_bytes()).map(Some)
    }

    pub fn handle_read(&mut self, id: Vec<u8>) {
        self.machine.handle_read(id);
    }

    pub fn handle_transfer(&mut self, to: Option<NodeId>) -> Result<(), Refused> {
        let to = match to {
            Some(node) => Some(self.raft_id_of(node).ok_or(Refused::Invalid)?),
            None => None,
        };
        self.machine.handle_transfer(to)
    }

    pub fn handle_written(&mut self, number: u64) {
        self.machine.handle_written(number);
    }

    pub fn handle_snapshot_sent(&mut self, raft_id: u64, arrived: bool) {
        self.machine.handle_snapshot_sent(raft_id, arrived);
    }

    /// The outcome of a [`SnapshotJob`]: the size that was stored, or `None` when it failed.
    pub fn handle_snapshot_saved(&mut self, job: SnapshotMetadata, compacted: u64, stored: Option<u64>) {
        self.snapshotting = false;
        if let Some(bytes) = stored {
            tracing::info!(index = job.index, bytes, compacted, "the state was written down, and the log shortened");
            self.snapshot_bytes = bytes;
            self.machine.handle_snapshot_saved(job, compacted);
        }
    }

    /// What to do now, `None` when there is nothing.
    pub fn poll(&mut self) -> Result<Option<Step>, Fatal> {
        let Some(effects) = self.machine.poll() else { return Ok(None) };
        let mut step = Step { writes: effects.writes, reads: effects.reads, ..Step::default() };
        let level = self.state.feature_level();
        for committed in effects.committed {
            step.advanced = true;
            self.apply(committed, &mut step.answers)?;
            if self.leaves_trail {
                step.trail.push(self.state.clone());
            }
        }
        if self.state.feature_level() != level {
            step.feature_level = Some(self.state.feature_level());
        }
        if step.advanced {
            self.learn_members();
        }
        for outgoing in effects.send {
            self.address(outgoing, &mut step);
        }
        Ok(Some(step))
    }

    /// A snapshot, if one is due. Not again before [`Self::handle_snapshot_saved`].
    pub fn poll_snapshot(&mut self) -> Option<SnapshotJob> {
        let log = self.machine.log();
        let Retention { snapshot_entries, snapshot_bytes, keep_entries, keep_bytes } = self.retention;
        let due = log.snapshot_wanted()
            || self.machine.delivered() >= log.snapshot_index() + snapshot_entries
            || self.bytes_since >= snapshot_bytes.max(self.snapshot_bytes);
        if self.snapshotting || !due {
            return None;
        }
        let meta = self.machine.snapshot_metadata()?;
        let index = log.tail_start(keep_entries, keep_bytes).min(meta.index);
        let term = log.term_of(index)?;
        self.snapshotting = true;
        self.bytes_since = 0;
        Some(SnapshotJob { meta, state: self.state.clone(), compact_to: (index, term) })
    }

    /// Whether each state between two polls is told of, and not the last one alone.
    pub fn leave_trail(&mut self, wanted: bool) {
        self.leaves_trail = wanted;
    }

    /// Lets the next poll write the commit index, before a stop.
    pub fn save_commit(&mut self) {
        self.machine.save_commit();
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Which node a raft id is.
    pub fn node_of(&self, raft_id: u64) -> Option<NodeId> {
        self.directory.get(&raft_id).copied()
    }

    /// Raft ids that still hold the log although no member of the swarm has them: of nodes that were removed.
    pub fn strangers(&self) -> impl Iterator<Item = u64> + '_ {
        let known: BTreeSet<u64> = self.state.nodes().filter_map(|node| Some(node.raft?.raft_id)).collect();
        let conf = self.machine.conf_state();
        // Before the first entry there is a log and no swarm.
        let ids = conf.voters.iter().chain(&conf.learners).copied().filter(|_| self.state.swarm().is_some());
        ids.filter(move |id| !known.contains(id))
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.machine.leader().and_then(|id| self.node_of(id))
    }

    fn believed(&mut self, from: NodeId, bytes: &[u8]) -> Result<PeerMessage, MessageError> {
        let message = PeerMessage::parse(bytes)?;
        let node = *self.directory.entry(message.sender()).or_insert(from);
        if node != from || from == self.node {
            return Err(MessageError::Dropped("in another node's name"));
        }
        Ok(message)
    }

    fn apply(&mut self, committed: Committed, answers: &mut Vec<(Proposal, Applied)>) -> Result<(), Fatal> {
        match committed {
            Committed::Entry { index, data } => {
                self.bytes_since += data.len() as u64;
                let entry =
                    Entry::from_bytes(&data).map_err(|error| Fatal::Unreadable { index, why: error.to_string() })?;
                let answer = self.state.apply(index, &entry)?;
                answers.push((entry.proposal, answer));
            }
            Committed::Membership { index, context } => match MembershipContext::from_bytes(&context) {
                Some(context) => {
                    self.state.apply_raft_membership(index, &context.members);
                    answers.push((context.proposal, Ok(Reply::Done)));
                }
                None => self.state.advance(index),
            },
            Committed::Blank { index } => self.state.advance(index),
            Committed::Snapshot { data, .. } => {
                self.state = match self.arrived.take() {
                    Some((bytes, state)) if bytes == data => state,
                    _ => decode(&data)?,
                };
                self.state.check_level()?;
                (self.bytes_since, self.snapshot_bytes) = (0, data.len() as u64);
                tracing::info!(bytes = data.len(), "the leader's snapshot takes the place of the log");
            }
        }
        Ok(())
    }

    /// What differs between the members as they are and as wanted, in raft's terms.
    fn member_changes(&self, members: &Members) -> Result<Vec<MemberChange>, Refused> {
        let conf = self.machine.conf_state();
        let mut changes = Vec::new();
        for (node, wanted) in members {
            let ids = conf.voters.iter().chain(&conf.learners).copied();
            let old: Vec<u64> = ids.filter(|id| self.directory.get(id) == Some(node)).collect();
            changes.extend(
                old.iter().filter(|id| wanted.is_none_or(|w| w.raft_id != **id)).map(|id| MemberChange::Remove(*id)),
            );
            let Some(wanted) = wanted else { continue };
            if self.state.node(*node).is_none() || wanted.raft_id == 0 {
                return Err(Refused::Invalid);
            }
            match wanted.standing {
                RaftStanding::Voter if !conf.voters.contains(&wanted.raft_id) => {
                    changes.push(MemberChange::Voter(wanted.raft_id));
                }
                RaftStanding::Standby if !conf.learners.contains(&wanted.raft_id) => {
                    changes.push(MemberChange::Learner(wanted.raft_id));
                }
                RaftStanding::Voter | RaftStanding::Standby => {}
            }
        }
        // Dead, they would go on counting towards the quorum; alive, they would go on learning every secret.
        let strangers: Vec<MemberChange> = self.strangers().map(MemberChange::Remove).collect();
        for stranger in strangers {
            if !changes.contains(&stranger) {
                changes.push(stranger);
            }
        }
        Ok(changes)
    }

    fn raft_id_of(&self, node: NodeId) -> Option<u64> {
        let conf = self.machine.conf_state();
        conf.voters.iter().chain(&conf.learners).copied().find(|id| self.directory.get(id) == Some(&node))
    }

    /// The state's word on who has which raft id goes before what peers said of themselves. Ids of nodes that left stay
    /// known: they may still be in the configuration.
    fn learn_members(&mut self) {
        for node in self.state.nodes() {
            if let Some(raft) = node.raft {
                self.directory.insert(raft.raft_id, node.id);
            }
        }
    }

    fn address(&self, outgoing: Outgoing, step: &mut Step) {
        let (Outgoing::Message { to: raft_id, .. } | Outgoing::Snapshot { to: raft_id, .. }) = outgoing;
        // Somebody whose address nobody told; raft asks again.
        let Some(to) = self.node_of(raft_id) else { return };
        match outgoing {
            Outgoing::Message { bytes, .. } => step.send.push((to, bytes)),
            Outgoing::Snapshot { index, bytes, .. } => {
                step.send_snapshots.push(SendSnapshot { to, raft_id, index, message: bytes });
            }
        }
    }
}

fn decode(data: &[u8]) -> Result<State, StoreError> {
    snapshot::decode(data).map_err(|error| StoreError::Corrupt { what: format!("the snapshot: {error}") })
}

/// Lost messages are raft's business, lost logs are not.
fn settle(result: Result<(), MessageError>) -> Result<(), Fatal> {
    match result {
        Ok(()) => Ok(()),
        Err(MessageError::Dropped(why)) => {
            tracing::debug!(why, "a raft message was dropped");
            Ok(())
        }
        Err(lost @ (MessageError::LostEntries { .. } | MessageError::Diverged { .. })) => {
            Err(StoreError::LostEntries { what: lost.to_string() }.into())
        }
    }
}
