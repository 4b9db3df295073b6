//! `/tasks`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;

use super::{ListQuery, answer};
use crate::api::convert::{TaskShown, task_to_docker};
use crate::api::filters::Filters;
use crate::api::{ApiError, Backend, Read, lookup};
use crate::spec::*;
use crate::state::Task;

const FILTERS: [&str; 8] = ["id", "name", "label", "service", "node", "desired-state", "_up-to-date", "runtime"];

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    let read = backend.read().await?;
    let shown: Vec<TaskShown> = read
        .state
        .tasks()
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
    let service_name = service.map(|service| service.spec.name.as_str()).unwrap_or_default();
    let node = task.node.and_then(|id| read.state.node(id));
    let desired = match task.desired {
        DesiredState::Ready => "ready",
        DesiredState::Running => "running",
        DesiredState::Shutdown => "shutdown",
        DesiredState::Remove => "remove",
    };
    let up_to_date = service.is_some_and(|service| service.spec_version == task.spec_version);
    filters.id("id", &task.id.to_string())
        && filters.any("service", |wanted| task.service.to_string().starts_with(wanted) || service_name == wanted)
        && filters.any("node", |wanted| {
            node.is_some_and(|node| node.id.to_string().starts_with(wanted) || node.name() == wanted)
        })
        // Docker counts a task that is getting ready as one that is to run.
        && filters.any("desired-state", |wanted| {
            wanted == desired || (wanted == "running" && task.is_live()) || (wanted == "accepted" && task.is_live())
        })
        && filters.any("_up-to-date", |wanted| (wanted == "true") == up_to_date)
        && filters.any("runtime", |wanted| wanted == "container")
        && filters.name(service_name)
        && match read.state.task_spec(task.service, task.spec_version) {
            Some(spec) => filters.labels("label", &spec.container.labels),
            None => filters.labels("label", &Labels::new()),
        }
}
