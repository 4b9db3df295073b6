//! What a node is asked when a network is examined, and what it finds.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{NetworkId, NodeId, TaskId};

/// From a task of the node that is asked to another task, on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub network: NetworkId,
    pub own: TaskId,
    pub other: TaskId,
    pub other_node: NodeId,
    /// Their addresses, one pair for each family.
    pub pairs: Vec<(IpAddr, IpAddr)>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub ok: bool,
    /// What it is: `route`, `overlay device`.
    pub what: String,
    /// How it is, in words.
    pub detail: String,
}

impl Finding {
    pub fn ok(what: &str, detail: impl Into<String>) -> Finding {
        Finding { ok: true, what: what.to_owned(), detail: detail.into() }
    }

    pub fn broken(what: &str, detail: impl Into<String>) -> Finding {
        Finding { ok: false, what: what.to_owned(), detail: detail.into() }
    }
}
