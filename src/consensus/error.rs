//! What can go wrong in this room, in words that tell the operator what to do.

use std::sync::Arc;

use crate::spec::{FeatureLevel, NodeId, SwarmId};
use crate::state::State;

/// Why the log on disk cannot be opened, read or written. Nothing is changed by a call that returns one of these.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("the log is in use by another process; stop the other daemon that runs on this data directory")]
    InUse,
    #[error(
        "the log belongs to swarm {found}, this node is of swarm {expected}; \
         start with the right --data-dir, or leave the swarm and join again"
    )]
    OtherSwarm { found: SwarmId, expected: SwarmId },
    #[error("the log belongs to node {found}, this node's key is {expected}; a data directory cannot be shared")]
    OtherNode { found: NodeId, expected: NodeId },
    #[error("the log has format {found}, this build knows {known}; install a newer flok")]
    NewerFormat { found: u32, known: u32 },
    #[error("the swarm is at feature level {}, this build knows {}; install a newer flok", .found.0, .known.0)]
    NewerFeatureLevel { found: FeatureLevel, known: FeatureLevel },
    #[error("the log cannot be read with this key; unlock the node with the swarm's key")]
    WrongKey,
    #[error("the log is damaged ({what}); remove this node's data directory and join the swarm again")]
    Corrupt { what: String },
    #[error(
        "the log lost entries that this node had acknowledged ({what}); it must not vote on what it forgot: \
         remove this node's data directory and join the swarm again as a new member"
    )]
    LostEntries { what: String },
    #[error("the disk of the log is full; free some space, then start the daemon again")]
    DiskFull,
    #[error("the log cannot be {doing}: {why}")]
    Io { doing: &'static str, why: String },
}

/// Why a message from a peer was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not ours, not readable, or of a kind no peer sends. Nothing changed.
    #[error("a raft message was dropped: {0}")]
    Dropped(&'static str),
    /// The leader counts on entries that this log does not have. The node must stop.
    #[error("the leader has {acknowledged} entries acknowledged by this node, its log ends at {last}")]
    LostEntries { acknowledged: u64, last: u64 },
    /// The leader's log contradicts what is committed here. The node must stop.
    #[error("the leader's log differs from this node's at committed entry {index}")]
    Diverged { index: u64 },
}

/// Why a proposal was not taken into the log. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this node does not lead")]
    NotLeader,
    /// Too much is uncommitted, leadership is being handed over, or a membership change is under way.
    #[error("the leader takes nothing now")]
    Busy,
    #[error("the membership change is invalid")]
    Invalid,
}

/// Why a write was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    #[error("{}{}", no_quorum(.missing), maybe_text(.may_happen))]
    NoQuorum { missing: Vec<NodeId>, may_happen: bool },
    #[error("the swarm did not answer in time{}", maybe_text(.may_happen))]
    Deadline { may_happen: bool },
    #[error("the request is {bytes} bytes in the log's form, the limit is {limit}; split it")]
    TooLarge { bytes: usize, limit: usize },
    #[error("{0}")]
    Invalid(String),
    #[error("this node has left the log: {0}")]
    Stopped(String),
}

impl ProposeError {
    /// The write was handed to a leader and may still be applied. Otherwise it never will be.
    pub fn may_happen(&self) -> bool {
        matches!(self, ProposeError::NoQuorum { may_happen: true, .. } | ProposeError::Deadline { may_happen: true })
    }
}

/// Why a fresh read was not answered. `state` is what this node knows, which may be old.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("{}", no_quorum(.missing))]
    NoQuorum { missing: Vec<NodeId>, state: Arc<State> },
    #[error("this node has left the log: {why}")]
    Stopped { why: String, state: Arc<State> },
}

fn no_quorum(missing: &[NodeId]) -> String {
    if missing.is_empty() {
        return "the swarm has no leader: too few managers are reachable".to_owned();
    }
    let names: Vec<String> = missing.iter().map(NodeId::to_string).collect();
    format!("the swarm has no leader: too few managers are reachable; not heard: {}", names.join(", "))
}

fn maybe_text(may_happen: &bool) -> &'static str {
    if *may_happen { "; the change may still happen: look before you try again" } else { "; nothing was changed" }
}
