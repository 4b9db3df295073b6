//! Raft as a pure machine: inputs by `handle_*`, what to do by [`Machine::poll`].
//!
//! Around raft-rs's `RawNode`. The machine has no clock, no disk and no network: whoever drives it counts its ticks, brings
//! it messages and carries out its [`Effects`]. There is one rule for the driver. Everything in an `Effects` may be done at
//! once, except that each [`Write`] must be durable, in order, before [`Machine::handle_written`] says so. What may only
//! follow a write (a follower's acknowledgement, a vote, a leader's first messages of a term, a membership change taking
//! effect) is held back in here and comes out of a later poll. The driver may therefore go on with ticks and messages while
//! a write is under way, and let the next write gather what has come meanwhile: that is the whole of batching.
//!
//! It must not: read a clock, draw randomness of its own (raft-rs does; [`Machine::handle_tick`] overrides it), or block.

mod inbound;
mod ready;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType, SnapshotMetadata,
};
use raft::{Changer, RawNode, SnapshotStatus, StateRole};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use inbound::PeerMessage;
use ready::Pending;
pub use status::{Follower, MachineStatus, RaftRole};

use super::error::Refused;
use super::log::MemLog;
use super::tracing_drain;

/// A driver's tick. Ten of them without a leader and an election starts, so that it is over within a second; heartbeats
/// go out every second tick, and never wait for the disk, so that commits of 60 ms and more disturb nobody.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(50);
pub const HEARTBEAT_TICKS: usize = 2;
/// Also the leader's lease: without a quorum's answers for this long it steps down.
pub const ELECTION_TICKS: usize = 10;
/// Timeouts are drawn from `ELECTION_TICKS..MAX_ELECTION_TICKS`, each voter's from a part of its own.
const MAX_ELECTION_TICKS: usize = 17;
/// A commit index that nothing else carries to the disk goes there after this many ticks.
const COMMIT_FLUSH_TICKS: u64 = 20;

/// Entries in one message stop here, unless a single entry is larger.
pub const MAX_APPEND_BYTES: u64 = 512 << 10;
/// Messages of entries on their way to one peer.
const MAX_INFLIGHT: usize = 64;
const MAX_UNCOMMITTED_BYTES: u64 = 32 << 20;
const MAX_COMMITTED_BYTES_PER_POLL: u64 = 4 << 20;

/// How a machine starts: what the store recovered, and its seed.
#[derive(Debug)]
pub struct Start {
    pub id: u64,
    pub hard_state: HardState,
    pub compacted: (u64, u64),
    pub entries: Vec<Entry>,
    pub snapshot: Option<SnapshotMetadata>,
    pub seed: u64,
}

/// A message for a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    Message {
        to: u64,
        bytes: Vec<u8>,
    },
    /// Needs the stored snapshot's bytes beside it, and [`Machine::handle_snapshot_sent`] when they have arrived or not.
    Snapshot {
        to: u64,
        index: u64,
        bytes: Vec<u8>,
    },
}

/// To be made durable as a whole: in one transaction, before or with every later write.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub number: u64,
    /// Replaces the whole log.
    pub snapshot: Option<(SnapshotMetadata, Vec<u8>)>,
    /// Replace everything from the first one's index on.
    pub entries: Vec<Entry>,
    pub hard_state: HardState,
}

/// In log order, each index once.
#[derive(Debug, Clone, PartialEq)]
pub enum Committed {
    Entry {
        index: u64,
        data: Vec<u8>,
    },
    /// In effect from here on. `context` came with the proposal; empty when raft itself ends a joint change.
    Membership {
        index: u64,
        context: Vec<u8>,
    },
    /// A leader's first entry of its term.
    Blank {
        index: u64,
    },
    /// A leader's snapshot is on disk: the state starts over from it.
    Snapshot {
        index: u64,
        data: Vec<u8>,
    },
}

/// What to do now. See the module's doc for the one rule.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    pub send: Vec<Outgoing>,
    pub writes: Vec<Write>,
    pub committed: Vec<Committed>,
    /// Reads that may be answered from a state that has applied the index.
    pub reads: Vec<(Vec<u8>, u64)>,
}

/// A member's new standing in raft's own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    Voter(u64),
    Learner(u64),
    Remove(u64),
}

/// See the module's doc.
pub struct Machine {
    raw: RawNode<MemLog>,
    rng: StdRng,
    /// Drawn anew whenever term or role change.
    timeout: usize,
    timeout_for: Option<(u64, StateRole)>,
    ticks: u64,
    /// When each peer was last heard, in ticks.
    heard: BTreeMap<u64, u64>,
    pending: VecDeque<Pending>,
    last_number: u64,
    /// What the disk is known to hold.
    durable: HardState,
    commit_flushed_at: u64,
    /// As of the last delivered entry.
    conf_state: ConfState,
    delivered: u64,
    out: Effects,
}

impl Machine {
    /// Starts as a follower. The first polls deliver what is known to be committed beyond the snapshot.
    pub fn new(start: Start) -> Machine {
        let applied = start.snapshot.as_ref().map_or(0, |meta| meta.index);
        let mut hard_state = start.hard_state;
        // A snapshot only covers what was committed; the commit index may have been written before it.
        hard_state.commit = hard_state.commit.max(applied);
        let log = MemLog::new(hard_state.clone(), start.compacted, start.entries, start.snapshot);
        let config = raft_config(start.id, applied);
        let mut raw = RawNode::new(&config, log, &tracing_drain::logger()).expect("the configuration is valid");
        let conf_state = raw.raft.prs().conf().to_conf_state();
        if conf_state.voters == [start.id] && conf_state.voters_outgoing.is_empty() {
            // Nobody to wait for. Where raft refuses, the first election timeout does it.
            let _ = raw.campaign();
        }
        Machine {
            rng: StdRng::seed_from_u64(start.seed),
            timeout: ELECTION_TICKS,
            timeout_for: None,
            ticks: 0,
            heard: BTreeMap::new(),
            pending: VecDeque::new(),
            last_number: 0,
            durable: hard_state,
            commit_flushed_at: 0,
            conf_state,
            delivered: applied,
            out: Effects::default(),
            raw,
        }
    }

    /// One [`TICK`] has passed.
    pub fn handle_tick(&mut self) {
        self.ticks += 1;
        if self.ticks - self.commit_flushed_at >= COMMIT_FLUSH_TICKS {
            self.commit_flushed_at = self.ticks;
            self.save_commit();
        }
        // raft-rs counts on every entry being durable when it starts to lead, and a single voter leads at once.
        if !self.leads() && self.pending.iter().any(|pending| pending.write.is_some()) {
            return;
        }
        let now = Some((self.raw.raft.term, self.raw.raft.state));
        if self.timeout_for != now {
            self.timeout_for = now;
            self.timeout = self.draw_timeout();
        }
        self.raw.raft.set_randomized_election_timeout(self.timeout);
        self.raw.tick();
    }

    /// Appends entries to the leader's log, all or none, and returns the index of the first.
    pub fn handle_proposals(&mut self, batch: Vec<Vec<u8>>) -> Result<u64, Refused> {
        let entries = batch.into_iter().map(|data| {
            assert!(!data.is_empty(), "an empty entry is raft's own");
            Entry { data, ..Entry::default() }
        });
        self.append(entries.collect())
    }

    /// Changes who votes and who holds the log. Several changes at once go through a joint configuration, which raft
    /// leaves by itself. `context` comes back with the committed change.
    pub fn handle_membership(&mut self, changes: &[MemberChange], context: Vec<u8>) -> Result<u64, Refused> {
        if !self.leads() {
            return Err(Refused::NotLeader);
        }
        // raft-rs would turn the entry into a blank one without a word.
        if self.raw.raft.has_pending_conf() || !self.conf_state.voters_outgoing.is_empty() {
            return Err(Refused::Busy);
        }
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(changes.iter().map(conf_change).collect());
        if !self.is_valid(&change) {
            return Err(Refused::Invalid);
        }
        let data = change.write_to_bytes().expect("a message in memory can be written");
        let mut entry = Entry { data, context, ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        self.append(vec![entry])
    }

    /// Asks for the index that a fresh read must have applied. Nothing comes back without a leader, or before the leader
    /// has committed in its term: ask again with another id. The id must be unlike every other in the swarm.
    pub fn handle_read(&mut self, id: Vec<u8>) {
        self.raw.read_index(id);
    }

    /// Hands leadership over; `None` picks the voter that is furthest.
    pub fn handle_transfer(&mut self, to: Option<u64>) -> Result<(), Refused> {
        if !self.leads() {
            return Err(Refused::NotLeader);
        }
        let to = to.or_else(|| self.best_successor()).ok_or(Refused::Invalid)?;
        self.raw.transfer_leader(to);
        Ok(())
    }

    /// A snapshot of the state at `meta.index` is on disk, and the disk's log starts after `compacted`.
    pub fn handle_snapshot_saved(&mut self, meta: SnapshotMetadata, compacted: u64) {
        self.raw.mut_store().set_snapshot(meta);
        self.raw.mut_store().compact(compacted);
    }

    /// The outcome of an [`Outgoing::Snapshot`].
    pub fn handle_snapshot_sent(&mut self, to: u64, arrived: bool) {
        self.raw.report_snapshot(to, if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }

    /// What a snapshot of the state as delivered so far must say about itself; `None` when the stored one says the same.
    pub fn snapshot_metadata(&self) -> Option<SnapshotMetadata> {
        let meta = SnapshotMetadata {
            index: self.delivered,
            term: self.log().term_of(self.delivered)?,
            conf_state: Some(self.conf_state.clone()),
        };
        (self.delivered > self.log().snapshot_index()).then_some(meta)
    }

    pub fn log(&self) -> &MemLog {
        self.raw.store()
    }

    pub fn id(&self) -> u64 {
        self.raw.raft.id
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Raft id of the leader this node follows, or its own.
    pub fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != 0)
    }

    /// Members as of the last delivered entry.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Index of the last entry delivered by [`Self::poll`].
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The voters share the range out among themselves, anew in each term, so that the first to miss the leader is done
    /// before the second stirs. Purely random timeouts collide in one election of ten.
    fn draw_timeout(&mut self) -> usize {
        let voters = &self.conf_state.voters;
        let parts = voters.len().clamp(1, MAX_ELECTION_TICKS - ELECTION_TICKS);
        let rank = voters.iter().filter(|id| **id < self.id()).count() as u64;
        let width = (MAX_ELECTION_TICKS - ELECTION_TICKS) / parts;
        let part = (rank.wrapping_add(self.term()) % parts as u64) as usize;
        ELECTION_TICKS + part * width + self.rng.random_range(0..width)
    }

    fn append(&mut self, entries: Vec<Entry>) -> Result<u64, Refused> {
        if !self.leads() {
            return Err(Refused::NotLeader);
        }
        let first = self.raw.raft.raft_log.last_index() + 1;
        let mut message = Message { from: self.id(), entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        self.raw.raft.step(message).map_err(|_| Refused::Busy)?;
        Ok(first)
    }

    fn is_valid(&self, change: &ConfChangeV2) -> bool {
        let mut changer = Changer::new(self.raw.raft.prs());
        match change.enter_joint() {
            Some(auto_leave) => changer.enter_joint(auto_leave, &change.changes).is_ok(),
            None => changer.simple(&change.changes).is_ok(),
        }
    }

    fn best_successor(&self) -> Option<u64> {
        let candidates = self.raw.raft.prs().iter().filter(|(id, progress)| {
            **id != self.id() && progress.recent_active && self.conf_state.voters.contains(id)
        });
        candidates.max_by_key(|(id, progress)| (progress.matched, std::cmp::Reverse(**id))).map(|(id, _)| *id)
    }
}

fn raft_config(id: u64, applied: u64) -> raft::Config {
    raft::Config {
        id,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        min_election_tick: ELECTION_TICKS,
        max_election_tick: MAX_ELECTION_TICKS,
        applied,
        max_size_per_msg: MAX_APPEND_BYTES,
        max_inflight_msgs: MAX_INFLIGHT,
        check_quorum: true,
        pre_vote: true,
        max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
        max_committed_size_per_ready: MAX_COMMITTED_BYTES_PER_POLL,
        ..raft::Config::default()
    }
}

fn conf_change(change: &MemberChange) -> ConfChangeSingle {
    let (kind, id) = match *change {
        MemberChange::Voter(id) => (ConfChangeType::AddNode, id),
        MemberChange::Learner(id) => (ConfChangeType::AddLearnerNode, id),
        MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    let mut single = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    single.set_change_type(kind);
    single
}
