//! Why a service's tasks are where they are: the answer of `GET /flok/v1/services/{name}/explain`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceExplanation {
    pub service: String,
    pub mode: String,
    pub running: u64,
    pub wanted: u64,
    /// What holds up the service or the swarm as a whole.
    pub notes: Vec<String>,
    pub tasks: Vec<TaskExplanation>,
    /// In the order in which one more task would prefer them; those that refuse it last.
    pub nodes: Vec<NodeExplanation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskExplanation {
    /// `web.1`, or for a global service `web.node-3`.
    pub name: String,
    pub id: String,
    pub node: Option<String>,
    /// `running`, `pending`, `failed`...
    pub state: String,
    /// In words: why it is there, or why it does not run.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeExplanation {
    pub name: String,
    /// Why it would get no other task; `None`: it passes all filters.
    pub refusal: Option<String>,
    /// In tasks: what another task would cost there; the lowest wins.
    pub cost: f64,
    /// What of it is the node's being busy.
    pub busy: f64,
    /// It comes last, because tasks of this spec failed there of late.
    pub avoided: bool,
    /// Tasks of the service that it has.
    pub tasks: u32,
    pub has_image: bool,
}
