//! What is wrong with a network: of this node as a whole, or of the way between two tasks.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::api::docker::answer;
use crate::api::model::doctor::{Diagnosis, NodeFinding};
use crate::api::query::Query;
use crate::api::view::status;
use crate::api::{ApiError, Backend, Read, lookup};
use crate::spec::*;
use crate::state::{Network, Task};

#[derive(Debug, Deserialize)]
pub struct DoctorQuery {
    from: Option<String>,
    to: Option<String>,
}

pub async fn doctor<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<DoctorQuery>,
) -> Result<Response, ApiError> {
    match (query.from, query.to) {
        (None, None) => {
            let name = backend.local().hostname;
            let findings = backend.examine().await?.into_iter().map(|finding| on(&name, finding)).collect();
            Ok(Json(Diagnosis { findings }).into_response())
        }
        (Some(from), Some(to)) => {
            let read = backend.read().await?;
            let (from, to) = (task(&read, &from)?, task(&read, &to)?);
            let findings = pair(backend.as_ref(), &read, &from, &to).await?;
            Ok(answer(&read, Diagnosis { findings }))
        }
        _ => Err(ApiError::invalid("name two tasks, to see the way between them, or none")),
    }
}

fn on(node: &str, finding: Finding) -> NodeFinding {
    let Finding { ok, what, detail } = finding;
    NodeFinding { node: node.to_owned(), ok, what, detail }
}

/// By its id, its name or its container's id.
fn task(read: &Read, wanted: &str) -> Result<Arc<Task>, ApiError> {
    let live = || read.state.tasks().filter(|task| task.outcome.is_none());
    let named = live().filter(|task| {
        let name = name(read, task);
        name == wanted || format!("{name}.{}", task.id) == wanted
    });
    // While one is replaced there may be two of a name: the one that is to run is meant.
    if let Some(found) = named.max_by_key(|task| (task.is_live(), task.meta.created_at)) {
        return Ok(Arc::clone(found));
    }
    let mut of_container = live().filter(|task| {
        let id = status(task, read).container_id;
        wanted.len() >= MIN_CONTAINER_ID && id.is_some_and(|id| id.starts_with(wanted))
    });
    match (of_container.next(), of_container.next()) {
        (Some(found), None) => Ok(Arc::clone(found)),
        _ => lookup::task(&read.state, wanted),
    }
}

/// A shorter beginning of a container's id may be one of many.
const MIN_CONTAINER_ID: usize = 12;

fn name(read: &Read, task: &Task) -> String {
    let service = read.state.service(task.service);
    let service = service.map_or_else(|| task.service.to_string(), |service| service.spec.name.clone());
    format!("{service}.{}", task.slot)
}

async fn pair<B: Backend>(backend: &B, read: &Read, from: &Task, to: &Task) -> Result<Vec<NodeFinding>, ApiError> {
    if from.id == to.id {
        return Err(ApiError::invalid(format!("{} is one task: name two", name(read, from))));
    }
    let node_name = |id: NodeId| read.state.node(id).map_or_else(|| id.to_string(), |node| node.name().to_owned());
    let mut findings: Vec<NodeFinding> =
        [from, to].map(|task| on(&task.node.map(node_name).unwrap_or_default(), standing(read, task))).into();
    let shared = shared(read, from, to);
    findings.push(on("", networks(read, from, to, &shared)));
    let (Some(here), Some(there)) = (from.node, to.node) else { return Ok(findings) };
    for network in shared {
        let pairs = pairs(network.id, from, to);
        let back = pairs.iter().map(|(a, b)| (*b, *a)).collect();
        let way = Way { network: network.id, own: from.id, other: to.id, other_node: there, pairs };
        let back = Way { network: network.id, own: to.id, other: from.id, other_node: here, pairs: back };
        let (way, back) = tokio::join!(backend.examine_way(here, way), backend.examine_way(there, back));
        findings.extend(way?.into_iter().map(|finding| on(&node_name(here), finding)));
        findings.extend(back?.into_iter().map(|finding| on(&node_name(there), finding)));
    }
    Ok(findings)
}

fn standing(read: &Read, task: &Task) -> Finding {
    let (status, name) = (status(task, read), name(read, task));
    if status.state == TaskState::Running && task.is_live() {
        return Finding::ok("task", format!("{name} runs"));
    }
    let state = format!("{:?}", status.state).to_lowercase();
    let why = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
    Finding::broken("task", format!("{name} is {state}{why}"))
}

/// Networks that lead from one to the other; the ingress network leads from outside to tasks alone.
fn shared(read: &Read, from: &Task, to: &Task) -> Vec<Arc<Network>> {
    let others: Vec<NetworkId> = to.attachments.iter().map(|at| at.network).collect();
    let both = from.attachments.iter().filter(|at| others.contains(&at.network));
    let known = both.filter_map(|at| read.state.network(at.network));
    known.filter(|network| !network.spec.ingress).cloned().collect()
}

fn networks(read: &Read, from: &Task, to: &Task, shared: &[Arc<Network>]) -> Finding {
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if !shared.is_empty() {
        let names = list(shared.iter().map(|network| network.spec.name.as_str()).collect());
        return Finding::ok("networks", format!("both are on {names}"));
    }
    let of = |task: &Task| {
        let known = task.attachments.iter().filter_map(|at| read.state.network(at.network));
        list(known.map(|network| network.spec.name.as_str()).collect())
    };
    let detail = format!(
        "they share none: {} is on {}; {} is on {}. They meet by published ports alone",
        name(read, from),
        of(from),
        name(read, to),
        of(to)
    );
    Finding::broken("networks", detail)
}

/// Their addresses on one network, those of one family together.
fn pairs(network: NetworkId, from: &Task, to: &Task) -> Vec<(IpAddr, IpAddr)> {
    let of = |task: &Task| -> Vec<IpAddr> {
        let there = task.attachments.iter().filter(|at| at.network == network);
        there.flat_map(|at| at.addresses.iter().copied()).collect()
    };
    let others = of(to);
    let partner = |own: IpAddr| others.iter().copied().find(|other| other.is_ipv6() == own.is_ipv6());
    of(from).into_iter().filter_map(|own| Some((own, partner(own)?))).collect()
}
