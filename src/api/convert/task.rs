//! Tasks, as the log and the gossip together show them.

use bollard::models as docker;
use serde::Serialize;

use super::network::{AttachmentShown, attachment_to_docker};
use super::service::{generic_out, ports_to_docker, task_spec_out};
use super::{date, labels_out, list_out, signed, version};
use crate::api::Read;
use crate::api::view::{TaskStatus, status};
use crate::spec::*;
use crate::state::Task;

/// A task as `GET /tasks` shows it: Docker's model, and what that lacks.
#[derive(Debug, Serialize)]
pub struct TaskShown {
    #[serde(flatten)]
    task: docker::Task,
    #[serde(rename = "NetworksAttachments", skip_serializing_if = "Vec::is_empty")]
    networks: Vec<AttachmentShown>,
}

pub fn task_to_docker(task: &Task, read: &Read) -> TaskShown {
    let networks = task.attachments.iter().filter_map(|place| attachment_to_docker(place, &read.state)).collect();
    TaskShown { task: model(task, read), networks }
}

fn model(task: &Task, read: &Read) -> docker::Task {
    let status = status(task, read);
    let spec = read.state.task_spec(task.service, task.spec_version);
    docker::Task {
        id: Some(task.id.to_string()),
        version: version(task.meta.version),
        created_at: Some(date(task.meta.created_at)),
        updated_at: Some(date(task.meta.updated_at)),
        name: None,
        labels: labels_out(&Labels::new()),
        spec: spec.map(|spec| task_spec_out(spec)),
        service_id: Some(task.service.to_string()),
        slot: match task.slot {
            Slot::Replica(slot) => signed(slot),
            Slot::Node(_) => None,
        },
        node_id: task.node.map(|node| node.to_string()),
        assigned_generic_resources: list_out(&task.generic.iter().map(generic_out).collect::<Vec<_>>()),
        desired_state: Some(desired_state(task, read)),
        job_iteration: task.job_iteration.map(|iteration| docker::ObjectVersion { index: Some(iteration) }),
        status: Some(status_out(status)),
    }
}

/// A job's task is to complete, and has come to that once it has.
pub fn desired_state(task: &Task, read: &Read) -> docker::TaskState {
    match task.desired {
        DesiredState::Ready => docker::TaskState::READY,
        DesiredState::Running if spec_is_job(task, read) => docker::TaskState::COMPLETE,
        DesiredState::Running => docker::TaskState::RUNNING,
        DesiredState::Shutdown if spec_is_job(task, read) && status(task, read).state == TaskState::Complete => {
            docker::TaskState::COMPLETE
        }
        DesiredState::Shutdown => docker::TaskState::SHUTDOWN,
        DesiredState::Remove => docker::TaskState::REMOVE,
    }
}

fn spec_is_job(task: &Task, read: &Read) -> bool {
    read.state.service(task.service).is_some_and(|service| service.spec.mode.is_job())
}

fn status_out(status: TaskStatus) -> docker::TaskStatus {
    let failed = matches!(status.state, TaskState::Failed | TaskState::Rejected | TaskState::Orphaned);
    let waits = status.state == TaskState::Pending && !status.message.is_empty();
    docker::TaskStatus {
        timestamp: Some(date(status.since)),
        state: Some(state_out(status.state)),
        err: (failed || waits).then(|| status.message.clone()).filter(|text| !text.is_empty()),
        message: Some(if status.message.is_empty() { status.state.as_str().to_owned() } else { status.message }),
        container_status: status.container_id.map(|id| docker::ContainerStatus {
            container_id: Some(id),
            pid: status.pid.map(i64::from),
            exit_code: Some(i64::from(status.exit_code.unwrap_or(0))),
        }),
        port_status: Some(docker::PortStatus { ports: list_out(&ports_to_docker(&status.host_ports)) }),
    }
}

fn state_out(state: TaskState) -> docker::TaskState {
    match state {
        TaskState::New => docker::TaskState::NEW,
        TaskState::Pending => docker::TaskState::PENDING,
        TaskState::Assigned => docker::TaskState::ASSIGNED,
        TaskState::Accepted => docker::TaskState::ACCEPTED,
        TaskState::Preparing => docker::TaskState::PREPARING,
        TaskState::Ready => docker::TaskState::READY,
        TaskState::Starting => docker::TaskState::STARTING,
        TaskState::Running => docker::TaskState::RUNNING,
        TaskState::Complete => docker::TaskState::COMPLETE,
        TaskState::Shutdown => docker::TaskState::SHUTDOWN,
        TaskState::Failed => docker::TaskState::FAILED,
        TaskState::Rejected => docker::TaskState::REJECTED,
        TaskState::Orphaned => docker::TaskState::ORPHANED,
        TaskState::Remove => docker::TaskState::REMOVE,
    }
}
