//! What happens, as Docker's `events` tell it: changes of the swarm's objects and of this node's containers, by those who look
//! ([`follow`]), and what requests do to containers, images and volumes. The last ones are kept, for who asks since when.

mod follow;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast;

pub use self::follow::{follow_containers, follow_swarm};
use super::Container;
use super::docker::containers::show;
use crate::spec::{Labels, UnixMs};

/// Events that are kept, and that may wait for a slow reader, who then misses the oldest.
const KEPT: usize = 1024;
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
    pub fn of_container(container: &Container, action: &str, more: &[(&str, String)], at: Timestamp) -> Event {
        let mut attributes = show::labels(container, container.node);
        attributes.insert("name".to_owned(), container.task.name.clone());
        attributes.insert("image".to_owned(), container.task.spec.container.image.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let (action, id) = (action.to_owned(), container.id.clone());
        Event { kind: "container", action, id, attributes, scope: "local", at }
    }

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

    /// Of a volume of this node.
    pub fn volume(&self, action: &str, name: &str, at: Timestamp) {
        let attributes = [("driver", "local"), ("name", name)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let (action, id) = (action.to_owned(), name.to_owned());
        self.tell(Event { kind: "volume", action, id, attributes: attributes.into(), scope: "local", at });
    }

    /// Of an image of this node: its id, and the name that it goes by.
    pub fn image(&self, action: &str, id: &str, name: &str, at: Timestamp) {
        let attributes = Labels::from([("name".to_owned(), name.to_owned())]);
        let (action, id) = (action.to_owned(), id.to_owned());
        self.tell(Event { kind: "image", action, id, attributes, scope: "local", at });
    }

    /// What a request does to a container of this node.
    pub fn container(&self, container: &Container, action: &str, more: &[(&str, String)], at: Timestamp) {
        self.tell(Event::of_container(container, action, more, at));
    }

    /// Whether it was told of an object, at a time or later.
    fn has_told(&self, kind: &str, action: &str, id: &str, since: UnixMs) -> bool {
        let late = |event: &Event| u64::try_from(event.at.as_millisecond()).is_ok_and(|at| at >= since.0);
        self.lock().iter().any(|event| event.kind == kind && event.action == action && event.id == id && late(event))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_a_limit_and_what_follows_is_told() {
        let journal = Journal::default();
        for at in 0..KEPT + 5 {
            journal.volume("create", &at.to_string(), Timestamp::UNIX_EPOCH);
        }
        let (kept, mut told) = journal.listen();
        assert_eq!((kept.len(), kept[0].id.as_str()), (KEPT, "5"));
        journal.volume("destroy", "x", Timestamp::UNIX_EPOCH);
        assert_eq!(told.try_recv().unwrap().action, "destroy");
    }
}
