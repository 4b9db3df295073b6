//! What the journal is told by those who look: each state of the swarm's log, one after the other, so that nothing that came
//! and went is lost; and this node's containers as their reports change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};

use super::{Event, Journal};
use crate::api::convert::update_state;
use crate::api::docker::containers::show;
use crate::api::{Backend, Container, LocalVolume};
use crate::spec::*;
use crate::state::watch::{Difference, ObjectChange, changes};
use crate::state::{NodeHealth, State, UpdateStatus};

/// Between two looks at what is not told one by one.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a look is waited for where nothing is said to have changed.
const AT_MOST: Duration = Duration::from_secs(1);

/// Tells of the swarm's objects, for as long as the API is served.
pub async fn follow_swarm<B: Backend>(backend: Arc<B>, journal: Journal) {
    let (state, leader) = (backend.seen(), backend.leader());
    let mut followed = Followed { backend, journal, state, leader };
    loop {
        // Before it is looked at: what comes between is then told twice, and known by its index.
        let applied = followed.backend.applied();
        let seen = followed.backend.seen();
        followed.goes_on(seen);
        match applied {
            Some(applied) => followed.one_by_one(applied).await,
            None => {
                followed.backend.changed(AT_MOST).await;
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

struct Followed<B> {
    backend: Arc<B>,
    journal: Journal,
    /// All of it has been told.
    state: Option<Arc<State>>,
    /// The last one that there was.
    leader: Option<NodeId>,
}

impl<B: Backend> Followed<B> {
    /// Until the log is another one, or none.
    async fn one_by_one(&mut self, mut applied: broadcast::Receiver<Arc<State>>) {
        loop {
            match timeout(AT_MOST, applied.recv()).await {
                Ok(Ok(state)) => self.goes_on(Some(state)),
                // What was missed is told together with what follows it.
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => return,
                Err(_) => {
                    self.leader_goes_on();
                    let seen = self.backend.seen();
                    if applied.is_empty() && !self.is_up_to_date(seen.as_deref()) {
                        return;
                    }
                }
            }
        }
    }

    fn is_up_to_date(&self, seen: Option<&State>) -> bool {
        match (self.state.as_deref(), seen) {
            (Some(state), Some(seen)) => is_same_swarm(state, seen) && seen.applied() <= state.applied(),
            (state, seen) => state.is_none() == seen.is_none(),
        }
    }

    /// Tells what is new in a state, and nothing of another swarm's.
    fn goes_on(&mut self, new: Option<Arc<State>>) {
        if let (Some(old), Some(new)) = (&self.state, &new)
            && is_same_swarm(old, new)
        {
            if new.applied() <= old.applied() {
                return;
            }
            let at = self.backend.now();
            let told = changes(old, new);
            told.iter().filter_map(|change| of_swarm(change, at)).for_each(|event| self.journal.tell(event));
        }
        self.state = new;
        self.leader_goes_on();
    }

    /// Tells of a new leader, whose first entry it is that shows it.
    fn leader_goes_on(&mut self) {
        let (Some(state), Some(leader)) = (&self.state, self.backend.leader()) else { return };
        let before = self.leader.replace(leader);
        let at = self.backend.now();
        of_leader(state, before, leader, at).into_iter().for_each(|event| self.journal.tell(event));
    }
}

fn is_same_swarm(one: &State, other: &State) -> bool {
    let id = |state: &State| state.swarm().map(|swarm| swarm.id);
    id(one) == id(other)
}

/// Tells of this node's containers, and of what they use, for as long as the API is served.
pub async fn follow_containers<B: Backend>(backend: Arc<B>, journal: Journal) {
    let mut seen: BTreeMap<TaskId, Container> = by_task(backend.containers().await.unwrap_or_default());
    let mut volumes: BTreeSet<String> = backend.volumes().into_iter().map(|volume| volume.name).collect();
    let mut reported = backend.containers_changed();
    while reported.next().await.is_some() {
        if let Ok(containers) = backend.containers().await {
            let (containers, found, at) = (by_task(containers), backend.volumes(), backend.now());
            // What was made by a request has been told.
            let new = found.iter().filter(|volume| !volumes.contains(&volume.name));
            new.filter(|volume| !journal.has_told("volume", "create", &volume.name, volume.created))
                .for_each(|volume| journal.volume("create", &volume.name, at));
            of_containers(&seen, &containers, &found, at).into_iter().for_each(|event| journal.tell(event));
            volumes = found.into_iter().map(|volume| volume.name).collect();
            seen = containers;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn by_task(containers: Vec<Container>) -> BTreeMap<TaskId, Container> {
    containers.into_iter().map(|container| (container.task.task, container)).collect()
}

/// In the order in which Docker has them.
fn of_containers(
    old: &BTreeMap<TaskId, Container>,
    new: &BTreeMap<TaskId, Container>,
    volumes: &[LocalVolume],
    at: Timestamp,
) -> Vec<Event> {
    let mut events = Vec::new();
    for (task, container) in new {
        let before = old.get(task);
        let (was, is) = (before.map_or("", show::state), show::state(container));
        if before.is_none() {
            events.push(Event::of_container(container, "create", &[], at));
        }
        // One that was short may not have been seen to run.
        if matches!(is, "running" | "exited") && matches!(was, "" | "created") {
            events.extend(of_what_it_uses(container, volumes, true, at));
            events.push(Event::of_container(container, "start", &[], at));
        }
        let mut tell = |action: &str, more: &[(&str, String)]| {
            events.push(Event::of_container(container, action, more, at));
        };
        let healthy = before.map_or(Health::None, |before| before.health);
        if is == "running"
            && container.health != healthy
            && matches!(container.health, Health::Healthy | Health::Unhealthy)
        {
            tell(&format!("health_status: {}", show::health(container)), &[]);
        }
        if is == "exited" && was != "exited" {
            if container.message.contains("out of memory") {
                tell("oom", &[]);
            }
            tell("die", &[("exitCode", container.exit_code.unwrap_or(0).to_string())]);
            events.extend(of_what_it_uses(container, volumes, false, at));
        }
    }
    for container in old.values().filter(|container| !new.contains_key(&container.task.task)) {
        if show::state(container) == "running" {
            events.push(Event::of_container(container, "die", &[], at));
            events.extend(of_what_it_uses(container, volumes, false, at));
        }
        events.push(Event::of_container(container, "destroy", &[], at));
    }
    events
}

/// Its places on networks and its volumes, which it takes up with its start and gives back with its end.
fn of_what_it_uses(container: &Container, volumes: &[LocalVolume], starts: bool, at: Timestamp) -> Vec<Event> {
    let event = |kind, action: &str, id: String, attributes: &[(&str, &str)]| {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Event { kind, action: action.to_owned(), id, attributes, scope: "local", at }
    };
    let id = container.id.as_str();
    let mounted = container.process.mounts.iter().filter_map(|mount| {
        let volume = volume_of(&mount.source, volumes)?;
        let writable = mount.writable.to_string();
        let attributes = [
            ("container", id),
            ("destination", mount.target.as_str()),
            ("driver", "local"),
            ("name", volume.name.as_str()),
            ("read/write", writable.as_str()),
        ];
        Some(event("volume", if starts { "mount" } else { "unmount" }, volume.name.clone(), &attributes))
    });
    let places = container.networks.iter().map(|place| {
        let attributes = [("container", id), ("name", place.name.as_str()), ("type", "overlay")];
        event("network", if starts { "connect" } else { "disconnect" }, place.id.to_string(), &attributes)
    });
    mounted.chain(places).collect()
}

/// The volume that a mount's source is, or lies in: a mount may be of a part of it.
fn volume_of<'a>(source: &str, volumes: &'a [LocalVolume]) -> Option<&'a LocalVolume> {
    volumes.iter().find(|volume| Path::new(source).starts_with(&volume.mountpoint))
}

/// `None` where Docker has no event for it.
fn of_swarm(change: &ObjectChange, at: Timestamp) -> Option<Event> {
    let event = |kind, action: &str, id: String, attributes: Labels| Event {
        kind,
        action: action.to_owned(),
        id,
        attributes,
        scope: "swarm",
        at,
    };
    let named = |name: &str| Labels::from([("name".to_owned(), name.to_owned())]);
    Some(match change {
        ObjectChange::Swarm(_) | ObjectChange::Task(_) => return None,
        ObjectChange::Node(change) => {
            let mut attributes = named(change.latest().name());
            if let Difference::Updated { old, new } = change {
                differs(&mut attributes, "state", health(old.health), health(new.health));
                differs(&mut attributes, "role", word(&old.spec.role), word(&new.spec.role));
                differs(&mut attributes, "availability", word(&old.spec.availability), word(&new.spec.availability));
            }
            event("node", action(change), change.latest().id.to_string(), attributes)
        }
        ObjectChange::Service(change) => {
            let mut attributes = named(&change.latest().spec.name);
            if let Difference::Updated { old, new } = change {
                let replicas = |mode| match mode {
                    ServiceMode::Replicated { replicas } => replicas.to_string(),
                    _ => String::new(),
                };
                differs(&mut attributes, "replicas", replicas(old.spec.mode), replicas(new.spec.mode));
                differs(
                    &mut attributes,
                    "image",
                    old.spec.task.container.image.clone(),
                    new.spec.task.container.image.clone(),
                );
                differs(&mut attributes, "updatestate", updating(&old.update), updating(&new.update));
            }
            event("service", action(change), change.latest().id.to_string(), attributes)
        }
        ObjectChange::Network(change) => {
            let network = change.latest();
            let mut attributes = named(&network.spec.name);
            attributes.insert("type".to_owned(), "overlay".to_owned());
            event("network", action(change), network.id.to_string(), attributes)
        }
        ObjectChange::Secret(change) => {
            event("secret", action(change), change.latest().id.to_string(), named(&change.latest().spec.name))
        }
        ObjectChange::Config(change) => {
            event("config", action(change), change.latest().id.to_string(), named(&change.latest().spec.name))
        }
    })
}

/// Of the one that leads no more, and of the one that does.
fn of_leader(state: &State, before: Option<NodeId>, leader: NodeId, at: Timestamp) -> Vec<Event> {
    let Some(before) = before.filter(|before| *before != leader) else { return Vec::new() };
    let event = |id: NodeId, leads: bool| {
        let mut attributes = Labels::from([("name".to_owned(), state.node(id)?.name().to_owned())]);
        differs(&mut attributes, "leader", (!leads).to_string(), leads.to_string());
        Some(Event { kind: "node", action: "update".to_owned(), id: id.to_string(), attributes, scope: "swarm", at })
    };
    [event(before, false), event(leader, true)].into_iter().flatten().collect()
}

fn action<T>(change: &Difference<T>) -> &'static str {
    match change {
        Difference::Created(_) => "create",
        Difference::Updated { .. } => "update",
        Difference::Removed(_) => "remove",
    }
}

fn differs(attributes: &mut Labels, key: &str, old: String, new: String) {
    if old != new {
        attributes.insert(format!("{key}.old"), old);
        attributes.insert(format!("{key}.new"), new);
    }
}

/// In Docker's words.
fn updating(status: &Option<UpdateStatus>) -> String {
    status.as_ref().map(|status| update_state(status.state).to_string()).unwrap_or_default()
}

fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn health(health: NodeHealth) -> String {
    match health {
        NodeHealth::Up => "ready".to_owned(),
        _ => "down".to_owned(),
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
