//! What the log and the gossip say together: a task's status, a service's counts.

use crate::api::Read;
use crate::spec::*;
use crate::state::{Service, Task};

/// A task's status in one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    pub state: TaskState,
    pub message: String,
    pub since: UnixMs,
    pub container_id: Option<String>,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    pub health: Health,
    pub host_ports: Vec<PortConfig>,
}

/// The outcome in the log is final; until then what the task's own node says of it counts; until that has spoken, where
/// the task stands on its way to a node.
pub fn status(task: &Task, read: &Read) -> TaskStatus {
    let empty = TaskStatus {
        state: TaskState::Pending,
        message: task.pending_reason.clone(),
        since: task.meta.updated_at,
        container_id: None,
        pid: None,
        exit_code: None,
        health: Health::None,
        host_ports: task.host_ports.clone(),
    };
    if let Some(outcome) = &task.outcome {
        return TaskStatus {
            state: outcome.state,
            message: outcome.message.clone(),
            since: task.finished_at.unwrap_or(task.meta.updated_at),
            container_id: outcome.container_id.clone(),
            exit_code: outcome.exit_code,
            ..empty
        };
    }
    let (Some(node), Some(assigned_at)) = (task.node, task.assigned_at) else { return empty };
    match read.observed.report(node, task.id) {
        Some(report) => TaskStatus {
            state: report.state,
            message: report.message.clone(),
            since: assigned_at,
            container_id: report.container_id.clone(),
            pid: report.pid,
            exit_code: report.exit_code,
            health: report.health,
            host_ports: if report.host_ports.is_empty() { task.host_ports.clone() } else { report.host_ports.clone() },
        },
        None => TaskStatus { state: TaskState::Assigned, since: assigned_at, ..empty },
    }
}

/// What a node's operator has to mend of its network, as it says itself.
pub fn conditions(node: NodeId, read: &Read) -> &[Condition] {
    read.observed.get(node).map_or(&[], |held| &held.record.conditions)
}

/// How far a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceCounts {
    pub running: u64,
    pub desired: u64,
    pub completed: u64,
}

pub fn counts(service: &Service, read: &Read) -> ServiceCounts {
    let mut counts = ServiceCounts::default();
    let iteration = service.job.map(|job| job.iteration);
    for task in read.state.tasks_of_service(service.id) {
        if service.spec.mode.is_job() && task.job_iteration != iteration {
            continue;
        }
        let state = status(task, read).state;
        let wanted = task.desired <= DesiredState::Running;
        counts.running += u64::from(wanted && state == TaskState::Running);
        counts.completed += u64::from(state == TaskState::Complete);
        counts.desired += u64::from(task.is_live());
    }
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => counts.desired = replicas,
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            let rests = service.cron.as_ref().is_some_and(|cron| cron.open.is_empty());
            let max_concurrent = if rests { 0 } else { max_concurrent };
            counts.desired = max_concurrent.min(total_completions.saturating_sub(counts.completed));
        }
        ServiceMode::Global | ServiceMode::GlobalJob => {}
    }
    counts
}
