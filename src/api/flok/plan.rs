//! What deploying a stack would do, worked out with nothing proposed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;

use super::stack;
use crate::api::diff::diff;
use crate::api::docker::{Body, answer};
use crate::api::model::plan::{Action, FieldChange, ObjectPlan, ServicePlan, StackPlan, TaskPlan};
use crate::api::model::stack::StackDeploy;
use crate::api::{ApiError, Backend, Forecast};
use crate::spec::*;
use crate::state::{self, Command, Service, Task};

pub async fn plan<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    Body(asked): Body<StackDeploy>,
) -> Result<Response, ApiError> {
    stack::validate(&name, &asked)?;
    let read = backend.read().await?;
    let (commands, changed) = stack::plan(&name, &asked, &read, || backend.new_id())?;
    let forecast = backend.foresee(&read, commands.clone()).await?;
    let mut plan = shown(&read.state, &commands, &forecast);
    plan.stack = name;
    add_unchanged(&mut plan, changed.unchanged);
    Ok(answer(&read, plan))
}

fn shown(before: &state::State, commands: &[Command], forecast: &Forecast) -> StackPlan {
    let after = &forecast.state;
    let mut plan = StackPlan { complete: forecast.is_settled, ..StackPlan::default() };
    let mut named = BTreeSet::new();
    for command in commands {
        if let Some(object) = object(before, command) {
            plan.objects.push(object);
        }
        let (action, id) = match command {
            Command::CreateService { id, .. } => (Action::Create, *id),
            Command::UpdateService { id, .. } => (Action::Update, *id),
            Command::RemoveService { id } => (Action::Remove, *id),
            _ => continue,
        };
        named.insert(id);
        plan.services.extend(service(before, after, action, id));
    }
    // Those that no command names, but that get new data or are replaced with one that they depend on.
    let others = before.services().filter(|service| !named.contains(&service.id));
    let follows = |old: &&Arc<Service>| {
        let has_new_data = |new: &Service| new.spec.task.container != old.spec.task.container;
        after.service(old.id).is_some_and(|new| has_new_data(new)) || !restarts_with(before, after, old.id).is_empty()
    };
    plan.services.extend(others.filter(follows).filter_map(|old| service(before, after, Action::Update, old.id)));
    plan
}

/// Those of the stack's `names` to which nothing happens.
fn add_unchanged(plan: &mut StackPlan, names: Vec<String>) {
    let named: BTreeSet<String> = plan.services.iter().map(|service| service.name.clone()).collect();
    let unchanged = names.into_iter().filter(|name| !named.contains(name)).map(|name| ServicePlan {
        action: Action::Unchanged,
        name,
        fields: Vec::new(),
        starts: Vec::new(),
        stops: Vec::new(),
        waits_for: Vec::new(),
        restarts_with: Vec::new(),
    });
    plan.services.extend(unchanged);
}

fn service(before: &state::State, after: &state::State, action: Action, id: ServiceId) -> Option<ServicePlan> {
    let name = after.service(id).or_else(|| before.service(id))?.spec.name.clone();
    let (starts, stops) = tasks(before, after, id, &name);
    let fields = fields(before, after, id);
    let waits_for = if starts.is_empty() { Vec::new() } else { waits_for(after, id) };
    let restarts_with = restarts_with(before, after, id);
    Some(ServicePlan { action, name, fields, starts, stops, waits_for, restarts_with })
}

/// Whose update replaces its tasks, though it has nothing new to run itself.
fn restarts_with(before: &state::State, after: &state::State, id: ServiceId) -> Vec<String> {
    let (Some(old), Some(new)) = (before.service(id), after.service(id)) else { return Vec::new() };
    if old.spec_version == new.spec_version || old.spec.task != new.spec.task {
        return Vec::new();
    }
    let is_updated = |name: &str| {
        let versions = [before, after].map(|state| Some(state.service_by_name(name)?.spec_version));
        versions[0].is_some() && versions[1].is_some() && versions[0] != versions[1]
    };
    let with = new.spec.depends_on.iter().filter(|one| one.restart && is_updated(&one.service));
    with.map(|one| one.service.clone()).collect()
}

/// In words, whether it would still have to wait or not.
fn waits_for(after: &state::State, id: ServiceId) -> Vec<String> {
    let depends_on = after.service(id).map(|service| service.spec.depends_on.as_slice()).unwrap_or_default();
    depends_on.iter().map(ToString::to_string).collect()
}

fn object(before: &state::State, command: &Command) -> Option<ObjectPlan> {
    let object = |action, kind: &str, name: &str| Some(ObjectPlan { action, kind: kind.into(), name: name.into() });
    match command {
        Command::CreateNetwork { spec, .. } => object(Action::Create, "network", &spec.name),
        Command::RemoveNetwork { id } => object(Action::Remove, "network", &before.network(*id)?.spec.name),
        Command::CreateSecret { spec, .. } => object(Action::Create, "secret", &spec.name),
        Command::UpdateSecret { spec, .. } => object(Action::Update, "secret", &spec.name),
        Command::ReplaceData { id, .. } => object(Action::Update, id.kind(), before.data_name(*id)?),
        Command::RemoveSecret { id } => object(Action::Remove, "secret", &before.secret(*id)?.spec.name),
        Command::CreateConfig { spec, .. } => object(Action::Create, "config", &spec.name),
        Command::UpdateConfig { spec, .. } => object(Action::Update, "config", &spec.name),
        Command::RemoveConfig { id } => object(Action::Remove, "config", &before.config(*id)?.spec.name),
        _ => None,
    }
}

/// What becomes different in the service's spec.
fn fields(before: &state::State, after: &state::State, id: ServiceId) -> Vec<FieldChange> {
    let Some(new) = after.service(id) else { return Vec::new() };
    let new = for_people(&new.spec, after);
    let old = before.service(id).map_or_else(|| plainest(&new), |service| for_people(&service.spec, before));
    match (serde_json::to_value(&old), serde_json::to_value(&new)) {
        (Ok(old), Ok(new)) => diff(&old, &new).into_iter().map(shortened).collect(),
        _ => Vec::new(),
    }
}

/// Networks by their names, and without what only repeats the service's ports.
fn for_people(spec: &ServiceSpec, state: &state::State) -> ServiceSpec {
    let mut spec = spec.clone();
    spec.task.host_ports.clear();
    spec.task.ingress = false;
    for attachment in &mut spec.task.networks {
        if let NetworkTarget::Id(id) = attachment.target
            && let Some(network) = state.network(id)
        {
            attachment.target = NetworkTarget::Name(network.spec.name.clone());
        }
    }
    spec
}

/// A spec of the same name and mode that asks for nothing.
fn plainest(spec: &ServiceSpec) -> ServiceSpec {
    let mut plain = spec.clone();
    plain.labels = Labels::new();
    plain.task.container = ContainerSpec::default();
    plain.task.resources = Resources::default();
    plain.task.restart = RestartPolicy::default();
    plain.task.placement = Placement::default();
    plain.task.networks = Vec::new();
    plain.task.log_driver = None;
    plain.task.volume_policy = VolumePolicy::default();
    plain.update = UpdateConfig::default();
    plain.rollback = UpdateConfig::default();
    plain.endpoint = EndpointSpec::default();
    plain.depends_on = Vec::new();
    plain.schedule = None;
    if let ServiceMode::Replicated { replicas } = &mut plain.mode {
        *replicas = 0;
    }
    plain
}

/// Most fields are the container's: `image` says as much as `task.container.image`.
fn shortened(change: FieldChange) -> FieldChange {
    let prefixes = ["task.container.", "task.", "mode.Replicated.", "mode.ReplicatedJob."];
    let path = prefixes.iter().find_map(|prefix| change.path.strip_prefix(prefix)).unwrap_or(&change.path).to_owned();
    FieldChange { path, ..change }
}

/// The service's tasks that come, and those that go.
fn tasks(before: &state::State, after: &state::State, id: ServiceId, service: &str) -> (Vec<TaskPlan>, Vec<TaskPlan>) {
    let live = |state: &state::State| -> BTreeMap<TaskId, Arc<Task>> {
        let live = state.tasks_of_service(id).filter(|task| task.is_live());
        live.map(|task| (task.id, Arc::clone(task))).collect()
    };
    let (old, new) = (live(before), live(after));
    let only = |of: &BTreeMap<TaskId, Arc<Task>>, not_in: &BTreeMap<TaskId, Arc<Task>>| {
        let mut tasks: Vec<Arc<Task>> =
            of.values().filter(|task| !not_in.contains_key(&task.id)).map(Arc::clone).collect();
        tasks.sort_by_key(|task| (task.slot, task.id));
        tasks.iter().map(|task| shown_task(after, service, task)).collect()
    };
    (only(&new, &old), only(&old, &new))
}

fn shown_task(state: &state::State, service: &str, task: &Task) -> TaskPlan {
    let placed = task.assigned_at.is_some();
    TaskPlan {
        name: format!("{service}.{}", slot_name(state, task.slot)),
        node: task.node.filter(|_| placed).map(|id| node_name(state, id)),
        reason: if placed { String::new() } else { task.pending_reason.clone() },
    }
}

/// `1`, or the node's name for a global service.
pub(super) fn slot_name(state: &state::State, slot: Slot) -> String {
    match slot {
        Slot::Replica(slot) => slot.to_string(),
        Slot::Node(node) => node_name(state, node),
    }
}

pub(super) fn node_name(state: &state::State, id: NodeId) -> String {
    state.node(id).map_or_else(|| id.to_string(), |node| node.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixture::{Fixture, node, service_spec};

    fn texts(fields: &[FieldChange]) -> Vec<String> {
        let side = |value: &Option<serde_json::Value>| value.as_ref().map_or("-".into(), ToString::to_string);
        fields.iter().map(|f| format!("{} {} {}", f.path, side(&f.from), side(&f.to))).collect()
    }

    #[test]
    fn a_new_service_names_what_is_not_as_it_is_anyway() {
        let mut swarm = Fixture::nodes(1);
        let network = swarm.network("back", &["10.1.0.0/24"]);
        let before = swarm.state.clone();
        let id = swarm.service("web", 2, |spec| {
            spec.task.networks = vec![crate::state::fixture::attach_to(network)];
            spec.task.container.env = vec!["A=1".into()];
        });
        let fields = fields(&before, &swarm.state, id);
        let image = format!("image - {:?}", service_spec("x", 1).task.container.image);
        let mut texts = texts(&fields);
        let attached = texts.iter().position(|text| text.starts_with("networks[back] - "));
        texts.remove(attached.expect("the network by its name"));
        texts.sort();
        assert_eq!(texts, ["env[A] - \"1\"".to_owned(), image, "replicas 0 2".to_owned()]);
    }

    #[test]
    fn what_is_replaced_with_a_service_it_depends_on_says_with_which() {
        let mut swarm = Fixture::nodes(1);
        let on = |text: &'static str| {
            move |spec: &mut ServiceSpec| spec.depends_on = vec![DependsOn::parse(text).expect("it is one")]
        };
        let db = swarm.service("db", 1, |_| {});
        let api = swarm.service("api", 1, on("db:restart"));
        let web = swarm.service("web", 1, on("api:restart"));
        let log = swarm.service("log", 1, on("db"));
        let before = swarm.state.clone();
        swarm.update(db, |spec| spec.task.container.env = vec!["A=1".into()]);
        let with = |id| restarts_with(&before, &swarm.state, id);
        assert_eq!((with(db), with(log)), (vec![], vec![]));
        assert_eq!((with(api), with(web)), (vec!["db".to_owned()], vec!["api".to_owned()]));

        let forecast = Forecast { state: swarm.state.clone(), is_settled: true };
        let mut plan = shown(&before, &[Command::RemoveService { id: log }], &forecast);
        add_unchanged(&mut plan, ["api", "log", "more"].map(Into::into).into());
        let told: Vec<(&str, Action)> = plan.services.iter().map(|one| (one.name.as_str(), one.action)).collect();
        let find =
            |name: &str| told.iter().filter(|(one, _)| *one == name).map(|(_, action)| *action).collect::<Vec<_>>();
        assert_eq!((find("api"), find("web")), (vec![Action::Update], vec![Action::Update]));
        assert_eq!((find("log"), find("more")), (vec![Action::Remove], vec![Action::Unchanged]));
    }

    #[test]
    fn tasks_that_come_and_go_are_named_with_their_nodes() {
        let mut swarm = Fixture::nodes(2);
        let id = swarm.service("web", 2, |_| {});
        let old = swarm.running(id, 1, node(1));
        let before = swarm.state.clone();
        swarm.set_desired(old, DesiredState::Shutdown);
        swarm.pending(id, 1);
        swarm.running(id, 2, node(2));
        let (starts, stops) = tasks(&before, &swarm.state, id, "web");
        let names = |tasks: Vec<TaskPlan>| -> Vec<(String, Option<String>)> {
            tasks.into_iter().map(|task| (task.name, task.node)).collect()
        };
        assert_eq!(names(starts), [("web.1".into(), None), ("web.2".into(), Some("node-2".into()))]);
        assert_eq!(names(stops), [("web.1".into(), Some("node-1".into()))]);
    }
}
