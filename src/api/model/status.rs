//! The swarm's health in one answer: `GET /flok/v1/status`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmStatus {
    pub swarm: String,
    pub node: String,
    pub leader: Option<String>,
    /// Milliseconds since a quorum last answered, where none does now.
    pub no_quorum_for_ms: Option<u64>,
    /// Names of log holders that do not answer.
    pub missing: Vec<String>,
    /// What keeps the swarm from acting, in words for people.
    #[serde(default)]
    pub notice: Option<String>,
    pub applied_index: u64,
    pub feature_level: u32,
    pub nodes: Vec<NodeStatus>,
    pub services: usize,
    pub tasks: TaskTotals,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub id: String,
    pub name: String,
    pub role: String,
    /// `leader`, `voter`, `standby` or empty.
    pub raft: String,
    /// `up`, `suspect`, `down`, `held-down`, `left`, `unknown`.
    pub health: String,
    pub availability: String,
    pub address: String,
    pub tasks: usize,
    /// As it measured itself last; `None` where this manager has not heard it.
    pub load: Option<LoadStatus>,
    /// What its operator has to mend of its network.
    #[serde(default)]
    pub conditions: Vec<ConditionStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionStatus {
    /// `kernel`, `data-path-port`, `firewall` or `port`.
    pub concern: String,
    /// Of a `port`: as in `8080/tcp`.
    pub port: Option<String>,
    pub detail: String,
}

/// In percent: of its CPUs and memory in use, and of the time in which something waited for them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoadStatus {
    pub cpu: f32,
    pub memory: f32,
    pub cpu_pressure: f32,
    pub memory_pressure: f32,
    pub io_pressure: f32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTotals {
    pub running: usize,
    pub wanted: usize,
    pub pending: usize,
}
