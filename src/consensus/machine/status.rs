//! What a machine says about itself.

use std::collections::BTreeMap;

use raft::StateRole;

use super::{ELECTION_TICKS, Machine};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RaftRole {
    Leader,
    Candidate,
    #[default]
    Follower,
    /// Holds the log without a vote.
    Standby,
}

/// A peer as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// Index of the last entry it is known to hold.
    pub matched: u64,
    /// Heard within the last election timeout or two.
    pub active: bool,
}

/// In raft ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineStatus {
    pub role: RaftRole,
    pub term: u64,
    pub leader: Option<u64>,
    pub commit: u64,
    pub last: u64,
    /// The leader's check of its quorum; elsewhere, a leader was heard within an election timeout.
    pub has_quorum: bool,
    /// Voters not heard of late: all of them on a leader, those that answer no vote on a node without one.
    pub missing: Vec<u64>,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// A membership change is under way.
    pub joint: bool,
    /// On a leader: everybody else.
    pub followers: BTreeMap<u64, Follower>,
}

impl Machine {
    pub fn status(&self) -> MachineStatus {
        let raft = &self.raw.raft;
        let role = match raft.state {
            StateRole::Leader => RaftRole::Leader,
            StateRole::Candidate | StateRole::PreCandidate => RaftRole::Candidate,
            StateRole::Follower if raft.promotable() => RaftRole::Follower,
            StateRole::Follower => RaftRole::Standby,
        };
        let hears_leader = raft.leader_id != 0 && self.heard_lately(raft.leader_id);
        let has_quorum = role == RaftRole::Leader || hears_leader;
        let conf = raft.prs().conf().to_conf_state();
        let mut voters = conf.voters.clone();
        voters.extend(conf.voters_outgoing.iter().filter(|id| !conf.voters.contains(id)));
        voters.sort_unstable();
        let asks_around = role == RaftRole::Leader || !has_quorum;
        let is_missing = |id: &&u64| asks_around && **id != raft.id && !self.heard_lately(**id);
        MachineStatus {
            role,
            term: raft.term,
            leader: self.leader(),
            commit: raft.raft_log.committed,
            last: raft.raft_log.last_index(),
            has_quorum,
            missing: voters.iter().filter(is_missing).copied().collect(),
            learners: conf.learners.clone(),
            joint: !conf.voters_outgoing.is_empty(),
            followers: if role == RaftRole::Leader { self.followers() } else { BTreeMap::new() },
            voters,
        }
    }

    fn followers(&self) -> BTreeMap<u64, Follower> {
        let others = self.raw.raft.prs().iter().filter(|(id, _)| **id != self.raw.raft.id);
        others
            .map(|(id, progress)| (*id, Follower { matched: progress.matched, active: self.heard_lately(*id) }))
            .collect()
    }

    fn heard_lately(&self, id: u64) -> bool {
        self.heard.get(&id).is_some_and(|at| self.ticks - at <= 2 * ELECTION_TICKS as u64)
    }
}
