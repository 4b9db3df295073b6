//! What happens, as Docker's `events` tell it: changes of the swarm's objects, seen by comparing one state with the next, and
//! of this node's containers, images and volumes. The last ones are kept, for who asks since when.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::docker::containers::show;
use super::{Backend, Container};
use crate::spec::*;
use crate::state::watch::{Difference, ObjectChange, changes};
use crate::state::{NodeHealth, State};

/// Events that are kept, and that may wait for a slow reader, who then misses the oldest.
const KEPT: usize = 1024;
/// Between two looks at what changed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a look is waited for where nothing is said to have changed.
const AT_MOST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: &'static str,
    pub action: String,
    pub id: String,
    pub attributes: Labels,
    /// `swarm` or `local`.
    pub scope: &'static str,
    pub at: Timestamp,
}

impl Event {
    /// As Docker's clients read it.
    pub fn shown(&self) -> Value {
        let mut shown = json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": self.scope,
            "time": self.at.as_second(),
            "timeNano": i64::try_from(self.at.as_nanosecond()).unwrap_or(i64::MAX),
        });
        if self.scope == "local" {
            shown["status"] = json!(self.action);
            shown["id"] = json!(self.id);
            if let Some(image) = self.attributes.get("image") {
                shown["from"] = json!(image);
            }
        }
        shown
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    kept: Arc<Mutex<VecDeque<Arc<Event>>>>,
    told: broadcast::Sender<Arc<Event>>,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { kept: Arc::default(), told: broadcast::Sender::new(KEPT) }
    }
}

impl Journal {
    pub fn tell(&self, event: Event) {
        let event = Arc::new(event);
        let mut kept = self.lock();
        kept.push_back(Arc::clone(&event));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        // Nobody listens now.
        let _ = self.told.send(event);
    }

    /// Of an image or a volume of this node.
    pub fn local(&self, kind: &'static str, action: &str, id: &str, at: Timestamp) {
        let attributes = Labels::from([("name".to_owned(), id.to_owned())]);
        self.tell(Event { kind, action: action.to_owned(), id: id.to_owned(), attributes, scope: "local", at });
    }

    /// What is kept, and all that follows it.
    pub fn listen(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.lock();
        (kept.iter().cloned().collect(), self.told.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at what changes, for as long as the API is served.
pub async fn follow<B: Backend>(backend: Arc<B>, journal: Journal) {
    let mut state: Option<Arc<State>> = backend.seen();
    let mut seen: BTreeMap<TaskId, Container> = by_task(backend.containers().await.unwrap_or_default());
    let mut reported = backend.containers_changed();
    loop {
        let of_containers_too = tokio::select! {
            told = reported.next() => told.is_some(),
            () = backend.changed(AT_MOST) => false,
        };
        let now = backend.seen();
        let at = backend.now();
        if let (Some(old), Some(new)) = (&state, &now)
            && !Arc::ptr_eq(old, new)
        {
            changes(old, new).iter().filter_map(|change| of_swarm(change, at)).for_each(|event| journal.tell(event));
        }
        state = now;
        if of_containers_too && let Ok(containers) = backend.containers().await {
            let containers = by_task(containers);
            of_containers(&seen, &containers, at).into_iter().for_each(|event| journal.tell(event));
            seen = containers;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn by_task(containers: Vec<Container>) -> BTreeMap<TaskId, Container> {
    containers.into_iter().map(|container| (container.task.task, container)).collect()
}

fn of_containers(old: &BTreeMap<TaskId, Container>, new: &BTreeMap<TaskId, Container>, at: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    let mut tell = |container: &Container, action: &str, more: &[(&str, String)]| {
        let mut attributes = show::labels(container, container.node);
        attributes.insert("name".to_owned(), container.task.name.clone());
        attributes.insert("image".to_owned(), container.task.spec.container.image.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let (action, id) = (action.to_owned(), container.id.clone());
        events.push(Event { kind: "container", action, id, attributes, scope: "local", at });
    };
    for (task, container) in new {
        let before = old.get(task);
        let (was, is) = (before.map_or("", show::state), show::state(container));
        if before.is_none() {
            tell(container, "create", &[]);
        }
        // One that was short may not have been seen to run.
        if matches!(is, "running" | "exited") && matches!(was, "" | "created") {
            tell(container, "start", &[]);
        }
        let healthy = before.map_or(Health::None, |before| before.health);
        if is == "running"
            && container.health != healthy
            && matches!(container.health, Health::Healthy | Health::Unhealthy)
        {
            tell(container, &format!("health_status: {}", show::health(container)), &[]);
        }
        if is == "exited" && was != "exited" {
            tell(container, "die", &[("exitCode", container.exit_code.unwrap_or(0).to_string())]);
        }
    }
    for container in old.values().filter(|container| !new.contains_key(&container.task.task)) {
        if show::state(container) == "running" {
            tell(container, "die", &[]);
        }
        tell(container, "destroy", &[]);
    }
    events
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
                let update = |status: &Option<crate::state::UpdateStatus>| {
                    status.as_ref().map(|status| word(&status.state)).unwrap_or_default()
                };
                differs(&mut attributes, "updatestate", update(&old.update), update(&new.update));
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
mod tests {
    use super::*;
    use crate::state::fixture::Fixture;

    #[test]
    fn changes_of_the_swarm_are_told_as_dockers() {
        let mut swarm = Fixture::nodes(1);
        let before = swarm.state.clone();
        swarm.service("web", 2, |_| {});
        let told: Vec<Event> = changes(&before, &swarm.state)
            .iter()
            .filter_map(|change| of_swarm(change, Timestamp::UNIX_EPOCH))
            .collect();
        let service = told.iter().find(|event| event.kind == "service").unwrap();
        assert_eq!((service.action.as_str(), service.scope), ("create", "swarm"));
        assert_eq!(service.attributes["name"], "web");
        assert_eq!(service.shown()["Actor"]["Attributes"]["name"], "web");
    }

    #[test]
    fn what_is_kept_has_a_limit_and_what_follows_is_told() {
        let journal = Journal::default();
        for at in 0..KEPT + 5 {
            journal.local("volume", "create", &at.to_string(), Timestamp::UNIX_EPOCH);
        }
        let (kept, mut told) = journal.listen();
        assert_eq!((kept.len(), kept[0].id.as_str()), (KEPT, "5"));
        journal.local("volume", "destroy", "x", Timestamp::UNIX_EPOCH);
        assert_eq!(told.try_recv().unwrap().action, "destroy");
    }
}
