//! Which container a name means, and which node has it.

use crate::api::{ApiError, Backend, Container, LOCKED, Membership, NOT_IN_A_SWARM, Read, lookup};
use crate::spec::*;
use crate::state::Task;

pub enum Found {
    Here(Box<Container>),
    /// On another node, under this whole id.
    On {
        node: NodeId,
        container: String,
    },
}

/// What a container goes by.
struct Candidate<'a> {
    id: &'a str,
    /// `web.1.<task id>`
    name: &'a str,
    task: String,
}

impl Candidate<'_> {
    fn is(&self, wanted: &str) -> bool {
        self.id == wanted || self.name == wanted || self.task == wanted
    }

    /// `web.1` for `web.1.<task id>`.
    fn is_slot(&self, wanted: &str) -> bool {
        self.name.strip_suffix(&self.task).and_then(|slot| slot.strip_suffix('.')) == Some(wanted)
    }

    fn begins(&self, wanted: &str) -> bool {
        !wanted.is_empty() && (self.id.starts_with(wanted) || self.task.starts_with(wanted))
    }
}

/// Docker's words, which clients match.
pub fn no_such(wanted: &str) -> ApiError {
    ApiError::NotFound(format!("No such container: {wanted}"))
}

fn pick<'a>(
    wanted: &str,
    candidates: impl Iterator<Item = (Candidate<'a>, bool)> + Clone,
) -> Result<Option<usize>, ApiError> {
    let wanted = wanted.trim_start_matches('/');
    let all = || candidates.clone().enumerate();
    if let Some((at, _)) = all().find(|(_, (candidate, _))| candidate.is(wanted)) {
        return Ok(Some(at));
    }
    // While a task is replaced there are two in its slot: the one that is to run is meant.
    let slot = all().filter(|(_, (candidate, _))| candidate.is_slot(wanted));
    if let Some((at, _)) = slot.max_by_key(|(at, (_, live))| (*live, *at)) {
        return Ok(Some(at));
    }
    let mut prefixed = all().filter(|(_, (candidate, _))| candidate.begins(wanted)).map(|(at, _)| at);
    match (prefixed.next(), prefixed.next()) {
        (Some(_), Some(_)) => Err(ApiError::invalid(format!("multiple IDs found with provided prefix: {wanted}"))),
        (found, _) => Ok(found),
    }
}

pub async fn on_this_node<B: Backend>(backend: &B, wanted: &str) -> Result<Box<Container>, ApiError> {
    let mut containers = backend.containers().await?;
    let at = among(&containers, wanted)?;
    Ok(Box::new(containers.swap_remove(at)))
}

/// The place of the one that goes by that name.
pub fn among(containers: &[Container], wanted: &str) -> Result<usize, ApiError> {
    let candidates = containers.iter().map(|container| {
        let live = container.task.desired <= DesiredState::Running;
        (Candidate { id: &container.id, name: &container.task.name, task: container.task.task.to_string() }, live)
    });
    pick(wanted, candidates)?.ok_or_else(|| no_such(wanted))
}

/// On a manager, of all nodes; on a worker, of its own.
pub async fn anywhere<B: Backend>(backend: &B, wanted: &str) -> Result<Found, ApiError> {
    let local = backend.local();
    match local.membership {
        Membership::Active { role: Role::Manager, .. } => {}
        Membership::Active { .. } => {
            return on_this_node(backend, wanted).await.map(Found::Here).map_err(|error| match error {
                ApiError::NotFound(text) => ApiError::NotFound(format!(
                    "{text} (on this node: a worker shows its own containers, a manager those of all nodes)"
                )),
                other => other,
            });
        }
        Membership::Locked => return Err(ApiError::NotFound(format!("No such container: {wanted} ({LOCKED})"))),
        _ => return Err(ApiError::NotFound(format!("No such container: {wanted} ({NOT_IN_A_SWARM})"))),
    }
    // What is here by its whole name needs no quorum.
    let here = on_this_node(backend, wanted).await;
    if let Ok(container) = &here
        && [&container.id, &container.task.name].contains(&&wanted.trim_start_matches('/').to_owned())
    {
        return here.map(Found::Here);
    }
    let read = backend.read().await?;
    match task(backend, &read, wanted)? {
        Some((id, Some(node))) if node != local.id => Ok(Found::On { node, container: id }),
        Some((id, _)) => on_this_node(backend, &id).await.map(Found::Here).map_err(|_| no_such(wanted)),
        // It is on its way out of the log and still on the disk.
        None => here.map(Found::Here).map_err(|_| unknown(&read, wanted)),
    }
}

/// With the service or slot that is nearest.
fn unknown(read: &Read, wanted: &str) -> ApiError {
    let mut known: Vec<String> = read.state.services().map(|service| service.spec.name.clone()).collect();
    let live = read.state.tasks().filter(|task| task.is_live() && task.assigned_at.is_some());
    known.extend(live.filter_map(|task| {
        let service = read.state.service(task.service)?;
        Some(format!("{}.{}", service.spec.name, task.slot))
    }));
    known.sort();
    known.dedup();
    let hint = lookup::did_you_mean(wanted, known.iter().map(String::as_str));
    ApiError::NotFound(format!("No such container: {wanted}{hint}"))
}

/// The container's id and its node, of all tasks that have been given to one.
fn task<B: Backend>(backend: &B, read: &Read, wanted: &str) -> Result<Option<(String, Option<NodeId>)>, ApiError> {
    let tasks: Vec<_> = read.state.tasks().filter(|task| task.assigned_at.is_some()).collect();
    let named: Vec<(String, String)> =
        tasks.iter().map(|task| (backend.container_id(task.id), name(read, task))).collect();
    let candidates = tasks
        .iter()
        .zip(&named)
        .map(|(task, (id, name))| (Candidate { id, name, task: task.id.to_string() }, task.is_live()));
    Ok(pick(wanted, candidates)?.map(|at| (named[at].0.clone(), tasks[at].node)))
}

/// `web.1.<task id>`
pub fn name(read: &Read, task: &Task) -> String {
    let service = read.state.service(task.service);
    let service = service.map_or_else(|| task.service.to_string(), |service| service.spec.name.clone());
    format!("{service}.{}.{}", task.slot, task.id)
}

/// The id of a container by what people call it: its names, or a service of which some task runs. For commands of flok's
/// own; Docker's clients look for services elsewhere.
pub async fn by_service_too<B: Backend>(backend: &B, wanted: &str) -> Result<String, ApiError> {
    let error = match anywhere(backend, wanted).await {
        Ok(Found::Here(container)) => return Ok(container.id),
        Ok(Found::On { container, .. }) => return Ok(container),
        Err(error @ ApiError::NotFound(_)) => error,
        Err(error) => return Err(error),
    };
    let Ok(read) = backend.read().await else { return Err(error) };
    let Ok(service) = lookup::service(&read.state, wanted) else { return Err(error) };
    let local = backend.local().id;
    let runs = |task: &&std::sync::Arc<Task>| {
        task.is_live() && crate::api::view::status(task, &read).state == TaskState::Running
    };
    let running = read.state.tasks_of_service(service.id).filter(runs);
    let nearest = running.min_by_key(|task| (task.node != Some(local), task.slot));
    match nearest {
        Some(task) => Ok(backend.container_id(task.id)),
        None => Err(ApiError::Conflict(format!(
            "no task of service {} runs: `flok service ps {}` says why",
            service.spec.name, service.spec.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(wanted: &str) -> Result<Option<usize>, String> {
        let all = [("aaaa1", "web.1.t1", true), ("aaaa2", "web.1.t2", false), ("bbbb1", "db.1.x9", true)];
        let candidate = |(id, name, live): (&'static str, &'static str, bool)| {
            (Candidate { id, name, task: name.rsplit('.').next().unwrap().to_owned() }, live)
        };
        pick(wanted, all.into_iter().map(candidate)).map_err(|error| error.to_string())
    }

    #[test]
    fn names_ids_and_their_beginnings_are_found() {
        for (wanted, at) in [("aaaa2", 1), ("web.1.t1", 0), ("/web.1.t2", 1), ("x9", 2), ("bb", 2), ("x", 2)] {
            assert_eq!(found(wanted), Ok(Some(at)), "{wanted}");
        }
        assert_eq!(found("web.1"), Ok(Some(0)), "the one that is to run");
        assert_eq!(found("web"), Ok(None), "a service is no container");
        assert_eq!(found(""), Ok(None));
        assert_eq!(found("aaaa"), Err("multiple IDs found with provided prefix: aaaa".into()));
    }
}
