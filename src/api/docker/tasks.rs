//! `/tasks`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;

use super::containers::find;
use super::{ListQuery, answer, truthy};
use crate::api::convert::{TaskShown, desired_state, task_to_docker};
use crate::api::filters::Filters;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, Read, lookup};
use crate::spec::*;
use crate::state::Task;

/// Docker's words for what a task is to come to.
const STATES: [&str; 14] = [
    "new",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
    "remove",
    "orphaned",
];
const FILTERS: [&str; 8] = ["id", "name", "label", "service", "node", "desired-state", "_up-to-date", "runtime"];

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    filters.one_of("desired-state", &STATES)?;
    filters.flag("_up-to-date")?;
    let read = backend.read().await?;
    // As in Docker, and as its clients send them: whole ids, names, or the beginnings of ids.
    let services = filters.values("service").map(|wanted| Ok(lookup::service(&read.state, wanted)?.id));
    let services: Vec<ServiceId> = services.collect::<Result<_, ApiError>>()?;
    let nodes = filters.values("node").map(|wanted| Ok(lookup::node(&read.state, wanted)?.id));
    let nodes: Vec<NodeId> = nodes.collect::<Result<_, ApiError>>()?;
    let shown: Vec<TaskShown> = read
        .state
        .tasks()
        .filter(|task| services.is_empty() || services.contains(&task.service))
        .filter(|task| nodes.is_empty() || task.node.is_some_and(|node| nodes.contains(&node)))
        .filter(|task| matches(task, &filters, &read))
        .map(|task| task_to_docker(task, &read))
        .collect();
    Ok(answer(&read, shown))
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let task = lookup::task(&read.state, &wanted)?;
    Ok(answer(&read, task_to_docker(&task, &read)))
}

fn matches(task: &Task, filters: &Filters, read: &Read) -> bool {
    let service = read.state.service(task.service);
    let name = find::name(read, task);
    let desired = desired_state(task, read).to_string();
    let up_to_date = service.is_some_and(|service| service.spec_version == task.spec_version);
    filters.id("id", &task.id.to_string())
        // Docker counts a task that is getting ready as one that is to run.
        && filters.any("desired-state", |wanted| {
            wanted == desired || (wanted == "running" && task.is_live()) || (wanted == "accepted" && task.is_live())
        })
        && filters.any("_up-to-date", |wanted| truthy(Some(wanted)) == up_to_date)
        && filters.any("runtime", |wanted| wanted == "container")
        && filters.any("name", |wanted| name.starts_with(wanted))
        && match read.state.task_spec(task.service, task.spec_version) {
            Some(spec) => filters.labels("label", &spec.container.labels),
            None => filters.labels("label", &Labels::new()),
        }
}
