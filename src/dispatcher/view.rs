//! One node's view of the swarm: its tasks, what they depend on, and the members. Built in time proportional to the
//! node's own tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::members::Members;
use crate::spec::*;
use crate::state::{Service, State, Task};

/// Which state a view was cut from: the index of the last log entry in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// What one node must know, and nothing that is another node's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    pub generation: Generation,
    /// Every task that was given to the node and is not forgotten yet. One that is absent is to be removed.
    pub assignments: BTreeMap<TaskId, Assignment>,
    /// Secrets, configs and registry credentials that its unfinished tasks name.
    pub dependencies: BTreeMap<DependencyId, Dependency>,
    /// Shared: every node's view holds the same list.
    pub members: Arc<Members>,
    /// Of managers alone, while the swarm locks them: what locks their keys on their disks.
    pub unlock_key: Option<SecretBytes>,
}

/// Builds views and keeps the member list between them, so that a view does not cost a walk over all nodes.
#[derive(Debug, Default)]
pub struct Dispatcher {
    members: Option<(State, Arc<Members>)>,
}

impl Dispatcher {
    pub fn view(&mut self, state: &State, node: NodeId) -> View {
        let members = match &self.members {
            Some((of, members)) if of.same_members(state) => Arc::clone(members),
            _ => {
                let members = Arc::new(Members::of(state));
                self.members = Some((state.clone(), Arc::clone(&members)));
                members
            }
        };
        build(state, node, members)
    }
}

/// The view of `node` in `state`; for many nodes, use a [`Dispatcher`].
pub fn view(state: &State, node: NodeId) -> View {
    build(state, node, Arc::new(Members::of(state)))
}

fn build(state: &State, node: NodeId, members: Arc<Members>) -> View {
    let mut view = View {
        generation: Generation(state.applied()),
        members,
        unlock_key: unlock_key(state, node),
        assignments: BTreeMap::new(),
        dependencies: BTreeMap::new(),
    };
    // A task of a global service has its node from the start; it is the node's only once the scheduler said so.
    for task in state.tasks_of_node(node).filter(|task| task.assigned_at.is_some()) {
        let Some(spec) = state.task_spec(task.service, task.spec_version) else { continue };
        if task.outcome.is_none() {
            add_dependencies(&mut view.dependencies, state, task.service, &spec.container);
        }
        let service = state.service(task.service).map(Arc::as_ref);
        view.assignments.insert(task.id, assignment(task, service, spec));
    }
    view
}

/// A worker has nothing to lock: it knows of its own tasks alone.
fn unlock_key(state: &State, node: NodeId) -> Option<SecretBytes> {
    state.node(node).filter(|node| node.is_manager())?;
    state.swarm()?.unlock_key.clone()
}

/// As users know it: `web.1.<task id>`.
pub(super) fn task_name(service: &str, task: &Task) -> String {
    format!("{service}.{}.{}", task.slot, task.id)
}

fn assignment(task: &Task, service: Option<&Service>, spec: &TaskSpec) -> Assignment {
    let service_name = service.map_or_else(|| task.service.to_string(), |service| service.spec.name.clone());
    // What has ended in the log must not go on running, whatever was wanted of it before (a node that was declared
    // down and comes back has such tasks).
    let desired = match task.outcome {
        Some(_) => task.desired.max(DesiredState::Shutdown),
        None => task.desired,
    };
    let mut spec = TaskSpec::clone(spec);
    if !task.host_ports.is_empty() {
        // With the automatic ones as the scheduler chose them.
        spec.host_ports.clone_from(&task.host_ports);
    }
    if task.job_iteration.is_some() && spec.restart.condition == RestartCondition::Any {
        // What it completed is done: the node, too, restarts only what failed, where nobody tells it what to do.
        spec.restart.condition = RestartCondition::OnFailure;
    }
    Assignment {
        task: task.id,
        service: task.service,
        name: task_name(&service_name, task),
        service_name,
        service_labels: service.map(|service| service.spec.labels.clone()).unwrap_or_default(),
        slot: task.slot,
        desired,
        spec,
        spec_version: task.spec_version,
        start_delay: task.start_delay,
        attachments: task.attachments.clone(),
        resources: task.generic.clone(),
        outcome_recorded: task.outcome.is_some(),
    }
}

fn add_dependencies(
    into: &mut BTreeMap<DependencyId, Dependency>,
    state: &State,
    service: ServiceId,
    container: &ContainerSpec,
) {
    let mut add = |id: DependencyId, version: Version, data: SecretBytes, templating: Option<&str>| {
        let is_template = templating.is_some_and(|driver| !driver.is_empty());
        into.entry(id).or_insert(Dependency { id, version, data, is_template });
    };
    for (id, number) in container.data_used() {
        if let Some(found) = state.data(id, number) {
            let data = SecretBytes(found.bytes.to_vec());
            add(DependencyId::Data(id, number), found.record.made_at, data, found.templating);
        }
    }
    if let Some(credentials) = state.credentials(service) {
        add(DependencyId::Credentials(service), credentials.version, credentials.auth.clone(), None);
    }
}
