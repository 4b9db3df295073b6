//! Why a service's tasks are where they are, or do not run: what the scheduler and the orchestrator say of it, put together
//! with what nodes report.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;

use super::plan::{node_name, slot_name};
use super::status::mass_failure;
use crate::api::docker::answer;
use crate::api::docker::services::mode_name;
use crate::api::model::explain::{NodeExplanation, ServiceExplanation, TaskExplanation};
use crate::api::view::{counts, status};
use crate::api::{ApiError, Backend, Explained, Read, lookup};
use crate::spec::*;
use crate::state::{self, Service, Task};

pub async fn explain<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &wanted)?;
    let explained = backend.explain(&read, &service).await?;
    Ok(answer(&read, put_together(&read, &service, explained)))
}

fn put_together(read: &Read, service: &Service, explained: Explained) -> ServiceExplanation {
    let counts = counts(service, read);
    let mut notes = notes(read, service);
    let (mut nodes, refused) = match explained.nodes {
        Ok(nodes) => (nodes, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    notes.extend(refused);
    nodes.sort_by_key(|fit| (fit.refusal.is_some(), fit.avoided, fit.cost, fit.node));
    let tasks = explained.slots.into_iter().map(|fate| task(read, service, &nodes, &explained.homes, fate)).collect();
    let per_task = |cost: u64| cost as f64 / 1000.0;
    let node = |fit: NodeFit| NodeExplanation {
        name: node_name(&read.state, fit.node),
        refusal: fit.refusal,
        cost: per_task(fit.cost),
        busy: per_task(fit.busy),
        avoided: fit.avoided,
        tasks: fit.tasks,
        has_image: fit.has_image,
    };
    ServiceExplanation {
        service: service.spec.name.clone(),
        mode: mode_name(service.spec.mode).to_owned(),
        running: counts.running,
        wanted: counts.desired,
        notes,
        tasks,
        nodes: nodes.into_iter().map(node).collect(),
    }
}

fn notes(read: &Read, service: &Service) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(stale) = &read.stale {
        let missing = if stale.missing.is_empty() { "unknown".to_owned() } else { stale.missing.join(", ") };
        notes.push(format!("there is no quorum of managers, so nothing is placed or replaced; missing: {missing}"));
    } else if read.leader.is_none() {
        notes.push("there is no leader at present, so nothing is placed or replaced".to_owned());
    }
    notes.extend(mass_failure(read));
    let update = service.update.as_ref().map(|update| format!("update: {}", update.message));
    notes.extend(update.filter(|text| text != "update: "));
    notes.extend(older_data(&read.state, service));
    if let (Some(schedule), Some(cron)) = (&service.spec.schedule, &service.cron) {
        notes.push(super::runs::note(&service.spec.name, schedule, cron));
    }
    notes
}

/// Secrets and configs of which the service's tasks do not get the newest data.
pub(super) fn older_data(state: &state::State, service: &Service) -> Vec<String> {
    let note = |(id, version): (DataId, DataVersion)| {
        let (has, newest) = (state.data(id, version)?, state.newest_data(id)?);
        let (kind, name, number) = (id.kind(), state.data_name(id)?, newest.record.number);
        let text =
            format!("{kind} {name}: tasks get version {version} of its data, until an update; the newest is {number}");
        (!has.is_same(&newest)).then_some(text)
    };
    service.spec.task.container.data_used().filter_map(note).collect()
}

fn task(
    read: &Read,
    service: &Service,
    fits: &[NodeFit],
    homes: &[(TaskId, String)],
    fate: SlotFate,
) -> TaskExplanation {
    let found = fate.task.and_then(|id| read.state.task(id));
    let state = found.map(|task| status(task, read).state);
    let why = match (fate.why.as_str(), found) {
        ("", Some(task)) => placed(fits, homes, task),
        (why, _) => why.to_owned(),
    };
    TaskExplanation {
        name: format!("{}.{}", service.spec.name, slot_name(&read.state, fate.slot)),
        id: fate.task.map(|id| id.to_string()).unwrap_or_default(),
        node: found.and_then(|task| task.node).map(|node| node_name(&read.state, node)),
        state: state.map(|state| format!("{state:?}").to_lowercase()).unwrap_or_default(),
        why,
    }
}

/// Why a task that runs is where it is.
fn placed(fits: &[NodeFit], homes: &[(TaskId, String)], task: &Task) -> String {
    if matches!(task.slot, Slot::Node(_)) {
        return "the service has a task on every node that fits".to_owned();
    }
    if let Some((_, volume)) = homes.iter().find(|(id, _)| *id == task.id) {
        return format!("the node holds the data of volume {volume}");
    }
    let open = fits.iter().filter(|fit| fit.refusal.is_none()).count();
    let at = fits.iter().position(|fit| Some(fit.node) == task.node);
    match at.map(|at| (at + 1, &fits[at].refusal)) {
        Some((place, None)) => format!("the node passed all filters; for another task it is number {place} of {open}"),
        Some((_, Some(refusal))) => {
            format!("the node passed all filters then; another task it would refuse: {refusal}")
        }
        None => "the node passed all filters then".to_owned(),
    }
}
