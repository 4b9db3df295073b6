//! Why a service's tasks are where they are: what the scheduler and the orchestrator say when they are asked.

use super::{NodeId, Slot, TaskId};

/// How a node stands to one more task of a service, as the scheduler would find it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFit {
    pub node: NodeId,
    /// Why it gets none. `None`: it passes all filters.
    pub refusal: Option<String>,
    /// In thousandths of a task, the lowest wins; see [`score`](crate::scheduler).
    pub cost: u64,
    /// What of the cost is the node's being busy, whatever the service.
    pub busy: u64,
    /// It comes after all others, since tasks of this spec failed there of late.
    pub avoided: bool,
    /// Tasks of the service that it has.
    pub tasks: u32,
    pub has_image: bool,
}

/// What is to be said of a slot, or of the task in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFate {
    pub slot: Slot,
    /// The one that is to run, else the last one that ended.
    pub task: Option<TaskId>,
    pub why: String,
}
