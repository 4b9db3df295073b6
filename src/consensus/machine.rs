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

mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState, Message,
    MessageType, SnapshotMetadata,
};
use raft::{Changer, RawNode, SnapshotStatus, StateRole};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use status::{Follower, MachineStatus, RaftRole};

use super::error::{MessageError, Refused};
use super::log::MemLog;
use super::tracing_drain;

/// A driver's tick. Ten of them without a leader and an election starts, so that it is over within a second; heartbeats
/// go out every second tick, and never wait for the disk, so that commits of 60 ms and more disturb nobody.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(50);
pub const HEARTBEAT_TICKS: usize = 2;
/// Also the leader's lease: without a quorum's answers for this long it steps down.
pub const ELECTION_TICKS: usize = 10;
/// Randomised timeouts are drawn from `ELECTION_TICKS..MAX_ELECTION_TICKS`.
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

/// A message from a peer, read but not yet believed.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerMessage(Message);

impl PeerMessage {
    pub fn outgoing(messages: Vec<Message>) -> Vec<Outgoing> {
    let outgoing = |message: Message| {
        let bytes = message.write_to_bytes().expect("a message in memory can be written");
        match message.get_msg_type() {
            MessageType::MsgSnapshot => {
                Outgoing::Snapshot { to: message.to, index: message.get_snapshot().get_metadata().index, bytes }
            }
            _ => Outgoing::Message { to: message.to, bytes },
        }
    };
    messages.into_iter().map(outgoing).collect()
}

fn conf_change(change: &MemberChange) -> ConfChangeSingle {
    let (kind, id) = match *change {
        MemberChange::Voter(id) => (ConfChangeType::AddNode, id),
        MemberChange::Learner(id) => (ConfChangeType::AddLearnerNode, id),
        MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = id;
    single
}

fn is_conf_change(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}
