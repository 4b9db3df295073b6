//! What is wrong with a network: `GET /flok/v1/network/doctor`.

use serde::{Deserialize, Serialize};

/// In the order in which a packet meets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub findings: Vec<NodeFinding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFinding {
    /// The node's name; empty for what the whole swarm knows.
    pub node: String,
    pub ok: bool,
    pub what: String,
    pub detail: String,
}
