//! What a node's copy of the log says about itself, for the API and the leader's loop.

use std::collections::BTreeMap;

use super::machine::{Follower, RaftRole};
use super::replica::Replica;
use crate::spec::NodeId;

/// Published after every step. All nodes are named by [`NodeId`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    pub role: RaftRole,
    pub term: u64,
    pub leader: Option<NodeId>,
    /// Index of the last entry in the local state.
    pub applied: u64,
    pub commit: u64,
    /// Index of the last entry in the local log.
    pub last: u64,
    /// On the leader: a majority answered lately. Elsewhere: a leader was heard lately. Without it, no write is taken and
    /// a fresh read has no answer.
    pub has_quorum: bool,
    /// Voters not heard lately, as far as this node can tell: a follower that hears its leader asks nobody else.
    pub missing: Vec<NodeId>,
    pub voters: Vec<NodeId>,
    pub standbys: Vec<NodeId>,
    /// Somebody holds the log who is no member of the swarm any more: the next membership change takes it away.
    pub strangers: bool,
    /// A membership change is under way.
    pub changing: bool,
    /// On the leader: the others' progress. One whose `matched` is close to `commit` has caught up.
    pub followers: BTreeMap<NodeId, Follower>,
    /// Why this node no longer takes part. Nothing follows it.
    pub stopped: Option<String>,
}

impl Status {
    pub fn is_leader(&self) -> bool {
        self.role == RaftRole::Leader && self.stopped.is_none()
    }

    pub fn of(replica: &Replica) -> Status {
        let status = replica.machine().status();
        let nodes = |ids: &[u64]| ids.iter().filter_map(|id| replica.node_of(*id)).collect::<Vec<_>>();
        let followers = status.followers.iter().filter_map(|(id, follower)| Some((replica.node_of(*id)?, *follower)));
        Status {
            role: status.role,
            term: status.term,
            leader: replica.leader(),
            applied: replica.machine().delivered(),
            commit: status.commit,
            last: status.last,
            has_quorum: status.has_quorum,
            missing: nodes(&status.missing),
            voters: nodes(&status.voters),
            standbys: nodes(&status.learners),
            strangers: replica.strangers().next().is_some(),
            changing: status.joint,
            followers: followers.collect(),
            stopped: None,
        }
    }
}
