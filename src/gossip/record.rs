//! A node's record, and what it says of the node.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::surroundings::Surroundings;
use crate::spec::*;

/// Which of a node's records this is: a later life beats an earlier one, then a later writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordVersion {
    pub incarnation: Incarnation,
    pub sequence: u64,
}

/// What a node says of itself. Written by that node only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub node: NodeId,
    pub version: RecordVersion,
    pub description: NodeDescription,
    pub load: Load,
    /// Every task it was assigned and has not been told to forget.
    pub tasks: BTreeMap<TaskId, TaskReport>,
    /// Digests or names of images present, newest used first; at most [`MAX_RECORD_IMAGES`].
    pub images: Vec<String>,
    /// Names of the local volumes present.
    pub volumes: Vec<String>,
    /// Whom it observes and cannot reach, and for how long.
    pub unreachable: Vec<Unreachable>,
    /// It is shutting down and says goodbye.
    pub leaving: bool,
    /// What its operator has to mend of its network; at most [`MAX_CONDITIONS`].
    pub conditions: Vec<Condition>,
    pub surroundings: Surroundings,
    /// An init is there to put into containers that ask for one.
    pub has_init: bool,
}

impl NodeRecord {
    /// Of a node that has nothing to tell yet but who it is.
    pub fn new(node: NodeId, version: RecordVersion, description: NodeDescription) -> NodeRecord {
        NodeRecord {
            node,
            version,
            description,
            load: Load::default(),
            tasks: BTreeMap::new(),
            images: Vec::new(),
            volumes: Vec::new(),
            unreachable: Vec::new(),
            leaving: false,
            conditions: Vec::new(),
            surroundings: Surroundings::default(),
            has_init: false,
        }
    }
}

pub const MAX_RECORD_IMAGES: usize = 256;

/// An observer's alarm as it stands in its record: the repair path of the direct alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    pub subject: NodeId,
    pub incarnation: Incarnation,
    pub membership_version: Version,
    pub silent_for: Duration,
    /// The process refused a probe, twice: the daemon is gone, the host is not.
    pub refused: bool,
}

/// Use and pressure, averaged over the last ten seconds or so.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Billionths of a CPU in use on the whole host.
    pub used_nano_cpus: u64,
    pub used_memory_bytes: u64,
    /// PSI `some avg10` in percent, 0 where the kernel has none.
    pub cpu_pressure: f32,
    pub memory_pressure: f32,
    pub io_pressure: f32,
    /// Free bytes on the data directory's filesystem, and its size.
    pub disk_free_bytes: u64,
    pub disk_total_bytes: u64,
}
