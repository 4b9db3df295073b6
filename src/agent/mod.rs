//! The worker's task machine: what the swarm assigned to this node, compared with what runs on it.
//!
//! A pure machine, driven by `node::worker`: it takes assignments, events of the executor and the time, and gives
//! [`Action`]s and reports. The executor makes no choices. Two promises are kept here: a task is started once (only a
//! restart in place runs it again, and is counted), and an outcome is reported only after it was made durable.

mod backoff;
mod expand;
mod health;
mod machine;
mod step;
mod task;
mod turns;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::spec::{Outcome, PortConfig, TaskId};

pub use expand::{Expander, NodeNames, TaskFile};
pub use health::{
    Check, FoundHealth, HealthLog, MAX_PROBE_OUTPUT_BYTES, NotedHealth, PROBE_NOT_RUN, Probe, ProbeResult,
};
pub use machine::Machine;

/// How long a process may take to end after SIGKILL before the task is given up: one that hangs in the kernel must not
/// hold its slot for ever.
pub const KILL_BOUND: Duration = Duration::from_secs(30);

/// Longest message in a report, in characters: reports travel in gossip.
pub const MAX_MESSAGE_CHARS: usize = 400;

/// What the executor is to do for one task. Never two at a time for one task, but for [`Action::Cancel`], and for the health
/// check's [`Action::Probe`] and [`Action::NoteHealth`], which go on beside whatever else is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Pull the image, make network, mounts and container; do not start it. May find parts of it done already.
    /// Answered by [`EventKind::Prepared`] or [`EventKind::PrepareFailed`].
    Prepare { task: TaskId },
    /// Give up a [`Action::Prepare`] under way, which is still answered by its own event.
    Cancel { task: TaskId },
    /// Answered by [`EventKind::Started`] or [`EventKind::StartFailed`]. `again`: it ran before and ended (restart in place).
    Start { task: TaskId, again: bool },
    /// Run the health check's command in the container, and kill it after `timeout`. Answered by [`EventKind::Probed`].
    Probe { task: TaskId, number: u32, command: Vec<String>, timeout: Duration },
    /// Keep this for the next daemon. Not answered: where it fails, the next one finds the task `starting`.
    NoteHealth { task: TaskId, noted: NotedHealth },
    /// Send the stop signal; the end comes as [`EventKind::Exited`]. Answered by [`EventKind::Signalled`], also when it failed.
    Stop { task: TaskId },
    /// Send SIGKILL to every process of the task. Answered as [`Action::Stop`] is.
    Kill { task: TaskId },
    /// The process has ended or never was: give back network, ports and process resources; keep files and logs.
    /// Answered by [`EventKind::Released`], also when parts of it failed.
    Release { task: TaskId },
    /// Make the outcome durable. Answered by [`EventKind::Persisted`] or [`EventKind::PersistFailed`].
    Persist { task: TaskId, outcome: Outcome },
    /// Remove all that is left of it: container, files, logs, outcome. Answered by [`EventKind::Removed`] or
    /// [`EventKind::RemoveFailed`].
    Remove { task: TaskId },
}

impl Action {
    pub fn task(&self) -> TaskId {
        match self {
            Action::Prepare { task }
            | Action::Cancel { task }
            | Action::Start { task, .. }
            | Action::Probe { task, .. }
            | Action::NoteHealth { task, .. }
            | Action::Stop { task }
            | Action::Kill { task }
            | Action::Release { task }
            | Action::Persist { task, .. }
            | Action::Remove { task } => *task,
        }
    }
}

/// What the executor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub task: TaskId,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// What the preparation is doing, for people: `pulling 42%`.
    Progress(String),
    Prepared {
        container_id: String,
        /// As bound on this node, chosen ports filled in.
        host_ports: Vec<PortConfig>,
        /// The service's or the image's.
        check: Option<Check>,
    },
    PrepareFailed(String),
    Started {
        pid: u32,
    },
    StartFailed(String),
    Exited(Exit),
    /// `number` as in the [`Action::Probe`] it answers.
    Probed {
        number: u32,
        result: ProbeResult,
    },
    Signalled,
    Released,
    Persisted,
    PersistFailed(String),
    Removed,
    RemoveFailed(String),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// 128 + the signal's number where a signal ended it.
    pub code: i32,
    /// The kernel killed one of its processes for want of memory.
    pub out_of_memory: bool,
}

/// A task found on this node when the daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub task: TaskId,
    pub container_id: String,
    pub host_ports: Vec<PortConfig>,
    pub state: FoundState,
    /// Where its container is checked.
    pub health: Option<FoundHealth>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// Was being prepared, never started.
    Prepared,
    Running {
        pid: u32,
        /// How long the process has existed.
        age: Duration,
    },
    /// Ended while no daemon was there.
    Exited(Exit),
    /// Was started, and nothing is left of its process: the host went down with it.
    Lost,
    /// Its outcome was made durable before.
    Ended(Outcome),
}
