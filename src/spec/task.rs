//! What every room says of a task: its states, its report, its outcome, and the assignment that a node carries out.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    DataId, DataVersion, GenericResource, Labels, NetworkId, NodeId, PortConfig, SecretBytes, ServiceId, TaskId,
    TaskSpec, Version,
};

/// The states of a task, in the order it goes through them; a task only moves forward.
/// Those up to `Running` are reported by its node; from `Complete` on they are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    New,
    /// Waits for a node.
    Pending,
    /// Has a node that does not know yet.
    Assigned,
    Accepted,
    /// Its image is pulled, its network and mounts are made.
    Preparing,
    /// Could start; waits for its turn or its restart delay.
    Ready,
    Starting,
    Running,
    /// Ended with code 0 by itself.
    Complete,
    /// Was stopped because the swarm asked for it.
    Shutdown,
    /// Ended by itself with another code, or was unhealthy.
    Failed,
    /// Could not be run at all on its node.
    Rejected,
    /// Its node was declared down or removed.
    Orphaned,
    /// As desired state: stop it and forget it.
    Remove,
}

impl TaskState {
    pub fn is_final(self) -> bool {
        self >= TaskState::Complete
    }

    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::New => "new",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Shutdown => "shutdown",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Orphaned => "orphaned",
            TaskState::Remove => "remove",
        }
    }
}

/// The place a task fills in its service. A task that ends is replaced by a new one in the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Of a replicated service, from 1; of a replicated job, from 0.
    Replica(u64),
    /// Of a global service: the node itself.
    Node(NodeId),
}

/// As in a task's name: the number, or the node's id.
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Replica(slot) => slot.fmt(f),
            Slot::Node(node) => node.fmt(f),
        }
    }
}

/// How a task ended; final, and part of desired state once it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// One for which [`TaskState::is_final`] holds.
    pub state: TaskState,
    /// What a user reads: `task: non-zero exit (1)`, `No such image: ...`.
    pub message: String,
    pub exit_code: Option<i32>,
    pub container_id: Option<String>,
    /// How long it was in `Running`; `None` if it never was.
    pub ran_for: Option<Duration>,
}

/// What a node says of one of its tasks, in its own gossip record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    pub task: TaskId,
    pub state: TaskState,
    /// What it waits for or why it ended: `pulling 42%`, `starting in 4s`, an error. Empty where there is nothing to say.
    pub message: String,
    pub container_id: Option<String>,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    /// How long it has been in `Running`, or was.
    pub ran_for: Option<Duration>,
    pub health: Health,
    /// Restarts made in place while no quorum could be reached.
    pub restarts_in_place: u32,
    /// Ports bound on the node for `host` mode ports, with the ones chosen filled in.
    pub host_ports: Vec<PortConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Health {
    /// No check is defined.
    #[default]
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// What the swarm wants of an assigned task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DesiredState {
    /// Prepare, but do not start.
    Ready,
    Running,
    /// Stop, and keep the record.
    Shutdown,
    /// Stop, and forget.
    Remove,
}

/// One task as its node is told of it: all it needs to run it, and nothing about other tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub task: TaskId,
    pub service: ServiceId,
    pub service_name: String,
    pub service_labels: Labels,
    pub slot: Slot,
    /// The task's name as users know it: `web.1.<task id>`.
    pub name: String,
    pub desired: DesiredState,
    pub spec: TaskSpec,
    pub spec_version: Version,
    /// Wait this long between being ready and starting, counted by the node itself.
    pub start_delay: Duration,
    /// Addresses on overlay networks.
    pub attachments: Vec<Attachment>,
    /// Generic resources that the task holds on its node, named ones by their names.
    pub resources: Vec<GenericResource>,
    /// The swarm holds this task's outcome in its log: the node may forget it.
    pub outcome_recorded: bool,
}

/// A task's place on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: NetworkId,
    pub addresses: Vec<IpAddr>,
    pub aliases: Vec<String>,
}

/// Secret or config data delivered beside the assignments that name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    pub id: DependencyId,
    pub version: Version,
    pub data: SecretBytes,
    /// The data is a template, to be filled in for each task.
    pub is_template: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DependencyId {
    Data(DataId, DataVersion),
    /// Registry credentials that came with a service.
    Credentials(ServiceId),
}
