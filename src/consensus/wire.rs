//! What log holders ask one another beside raft's own messages, and what rides along with membership changes.

use serde::{Deserialize, Serialize};

use crate::spec::NodeId;
use crate::state::{Proposal, RaftMember, codec};

/// Who is to hold the log how from now on; `None` takes the log away.
pub type Members = Vec<(NodeId, Option<RaftMember>)>;

/// A request to a log holder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// An encoded [`Entry`](crate::state::Entry), for the leader's log.
    Propose(Vec<u8>),
    ChangeMembership(MembershipContext),
    /// One piece of the snapshot at `index`, in order from 0.
    SnapshotChunk {
        index: u64,
        number: u64,
        data: Vec<u8>,
    },
    /// All pieces were sent: `bytes` in all, described by raft's `message`.
    SnapshotEnd {
        index: u64,
        bytes: u64,
        message: Vec<u8>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// In the leader's log, or, of a snapshot, taken. Whether it will be committed is another matter.
    Accepted,
    /// Nothing was to be changed.
    Done,
    NotLeader {
        leader: Option<NodeId>,
    },
    /// Try again soon.
    Busy,
    /// Will never be taken.
    Invalid(String),
}

/// Rides in a membership change's log entry: what the state learns when it commits, and whom to answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MembershipContext {
    pub proposal: Proposal,
    pub members: Members,
}

/// Of [`MembershipContext`] in the log. Another one comes with a feature level.
const CONTEXT_FORMAT: u8 = 1;

impl MembershipContext {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![CONTEXT_FORMAT];
        bytes.extend(codec::encode(self));
        bytes
    }

    /// `None` for a change without one (raft's own end of a joint change), or one that cannot be read.
    pub fn from_bytes(bytes: &[u8]) -> Option<MembershipContext> {
        match bytes.split_first() {
            Some((&CONTEXT_FORMAT, context)) => codec::decode(context).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ClientId;
    use crate::state::RaftStanding;

    #[test]
    fn a_membership_change_has_the_same_bytes_in_every_build() {
        let context = MembershipContext {
            proposal: Proposal { client: ClientId(1), sequence: 2, answered_below: 1 },
            members: vec![
                (NodeId(3), Some(RaftMember { raft_id: 4, standing: RaftStanding::Standby })),
                (NodeId(5), None),
            ],
        };
        let golden = [1, 1, 2, 1, 2, 3, 1, 4, 1, 5, 0];
        assert_eq!(context.to_bytes(), golden);
        assert_eq!(MembershipContext::from_bytes(&golden), Some(context));
    }

    #[test]
    fn raft_leaves_a_joint_change_without_a_context() {
        assert_eq!(MembershipContext::from_bytes(&[]), None);
    }
}
