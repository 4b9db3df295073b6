//! The member list: who belongs to the swarm, in which role, and where to reach them. A node that does not hold the
//! log admits connections by it, and knows from it whom to watch.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::spec::{NodeId, Role, Version};
use crate::state::{Node, NodeHealth, RaftMember, State};

/// All members, at one membership version.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Members {
    /// Raised with every change of who is a member or in which role.
    pub version: Version,
    pub list: BTreeMap<NodeId, Member>,
    /// UDP port of the members' tunnels; 0 while it is not known.
    pub data_path_port: u16,
}

/// One member, as the others need to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// ed25519; the node's id is its hash.
    pub public_key: [u8; 32],
    pub role: Role,
    pub transport: SocketAddr,
    pub probe: SocketAddr,
    /// `Some` while it holds the log: requests for the log go to one of these.
    pub raft: Option<RaftMember>,
    pub health: NodeHealth,
}

impl Members {
    pub fn of(state: &State) -> Members {
        Members {
            version: state.swarm().map(|swarm| swarm.membership_version).unwrap_or_default(),
            list: state.nodes().map(|node| (node.id, Member::of(node))).collect(),
            data_path_port: state.swarm().map_or(0, |swarm| swarm.spec.data_path_port),
        }
    }
}

impl Member {
    fn of(node: &Node) -> Member {
        Member {
            public_key: node.public_key,
            role: node.spec.role,
            transport: node.transport_addr(),
            probe: node.probe_addr(),
            raft: node.raft,
            health: node.health,
        }
    }
}
