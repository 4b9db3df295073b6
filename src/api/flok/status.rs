//! The swarm's health in one answer.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::api::docker::answer;
use crate::api::model::status::{ConditionStatus, LoadStatus, NodeStatus, SwarmStatus, TaskTotals};
use crate::api::view::{conditions, status as task_status};
use crate::api::{ApiError, Backend, Read};
use crate::spec::*;
use crate::state::{Node, NodeHealth, RaftStanding};

pub async fn status<B: Backend>(State(backend): State<Arc<B>>) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let shown = swarm_status(&read, backend.local().id)?;
    Ok(answer(&read, shown))
}

pub(super) fn swarm_status(read: &Read, own: NodeId) -> Result<SwarmStatus, ApiError> {
    let swarm = read
        .state
        .swarm()
        .ok_or_else(|| ApiError::Unavailable("this node has not caught up with the swarm yet: try again".to_owned()))?;
    Ok(SwarmStatus {
        swarm: swarm.id.to_string(),
        node: own.to_string(),
        leader: read.leader.map(|leader| leader.to_string()),
        no_quorum_for_ms: read.stale.as_ref().map(|stale| u64::try_from(stale.age.as_millis()).unwrap_or(u64::MAX)),
        missing: read.stale.as_ref().map(|stale| stale.missing.clone()).unwrap_or_default(),
        notice: mass_failure(read),
        applied_index: read.state.applied(),
        feature_level: swarm.feature_level.0,
        nodes: read.state.nodes().map(|node| node_status(node, read)).collect(),
        services: read.state.services().len(),
        tasks: totals(read),
    })
}

fn node_status(node: &Node, read: &Read) -> NodeStatus {
    let raft = match node.raft.map(|raft| raft.standing) {
        _ if read.leader == Some(node.id) => "leader",
        Some(RaftStanding::Voter) => "voter",
        Some(RaftStanding::Standby) => "standby",
        None => "",
    };
    let health = match node.health {
        NodeHealth::Unknown => "unknown",
        NodeHealth::Up if read.observed.is_suspect(node.id) => "suspect",
        NodeHealth::Up => "up",
        NodeHealth::Down { .. } => "down",
        NodeHealth::HeldDown { .. } => "held-down",
        NodeHealth::Left { .. } => "left",
    };
    NodeStatus {
        id: node.id.to_string(),
        name: node.name().to_owned(),
        role: if node.is_manager() { "manager" } else { "worker" }.to_owned(),
        raft: raft.to_owned(),
        health: health.to_owned(),
        availability: match node.spec.availability {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        }
        .to_owned(),
        address: node.transport_addr().to_string(),
        tasks: read.state.tasks_of_node(node.id).filter(|task| task.is_live()).count(),
        load: load(node.id, read),
        conditions: conditions(node.id, read).iter().map(condition_status).collect(),
    }
}

fn condition_status(condition: &Condition) -> ConditionStatus {
    let port = match condition.concern {
        Concern::Port { protocol, port } => Some(format!("{port}/{}", protocol.as_str())),
        _ => None,
    };
    ConditionStatus { concern: condition.concern.as_str().to_owned(), port, detail: condition.detail.clone() }
}

fn load(node: NodeId, read: &Read) -> Option<LoadStatus> {
    let record = &read.observed.get(node)?.record;
    let (load, has) = (&record.load, &record.description.resources);
    let percent = |used: u64, has: u64| if has == 0 { 0.0 } else { (used as f64 * 100.0 / has as f64) as f32 };
    Some(LoadStatus {
        cpu: percent(load.used_nano_cpus, has.nano_cpus),
        memory: percent(load.used_memory_bytes, has.memory_bytes),
        cpu_pressure: load.cpu_pressure,
        memory_pressure: load.memory_pressure,
        io_pressure: load.io_pressure,
    })
}

/// Why suspects are not replaced: the leader waits where they, with those already down, are more than half of the swarm.
pub(super) fn mass_failure(read: &Read) -> Option<String> {
    let members: Vec<&Arc<Node>> =
        read.state.nodes().filter(|node| !matches!(node.health, NodeHealth::Left { .. })).collect();
    let down = members.iter().filter(|node| matches!(node.health, NodeHealth::Down { .. })).count();
    let is_suspect = |node: &&&Arc<Node>| node.health == NodeHealth::Up && read.observed.is_suspect(node.id);
    let suspects = members.iter().filter(is_suspect).count();
    let gone = down + suspects;
    (suspects > 0 && gone * 2 > members.len()).then(|| {
        format!(
            "{gone} of {} nodes do not answer, more than half: nothing is replaced for a while, in case it is the network \
             that failed",
            members.len()
        )
    })
}

fn totals(read: &Read) -> TaskTotals {
    let mut totals = TaskTotals::default();
    for task in read.state.tasks().filter(|task| task.is_live()) {
        totals.wanted += 1;
        match task_status(task, read).state {
            TaskState::Running => totals.running += 1,
            TaskState::Pending => totals.pending += 1,
            _ => {}
        }
    }
    totals
}
