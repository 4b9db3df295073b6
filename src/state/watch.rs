//! What changed between two states, for event streams and long polls. Maps that were cloned from one another share the
//! parts that did not change, and the comparison skips those: its cost follows the number of changes.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::command::ObjectId;
use super::object::*;
use super::store::State;

/// One object's change, from an older to a newer state.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectChange {
    Swarm(Difference<Swarm>),
    Node(Difference<Node>),
    Service(Difference<Service>),
    Task(Difference<Task>),
    Network(Difference<Network>),
    Secret(Difference<Secret>),
    Config(Difference<Config>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Difference<T> {
    Created(Arc<T>),
    Updated { old: Arc<T>, new: Arc<T> },
    Removed(Arc<T>),
}

impl<T> Difference<T> {
    /// The object as it is now, or as it last was.
    pub fn latest(&self) -> &Arc<T> {
        match self {
            Difference::Created(object) | Difference::Removed(object) => object,
            Difference::Updated { new, .. } => new,
        }
    }
}

impl ObjectChange {
    pub fn id(&self) -> ObjectId {
        match self {
            ObjectChange::Swarm(_) => ObjectId::Swarm,
            ObjectChange::Node(change) => ObjectId::Node(change.latest().id),
            ObjectChange::Service(change) => ObjectId::Service(change.latest().id),
            ObjectChange::Task(change) => ObjectId::Task(change.latest().id),
            ObjectChange::Network(change) => ObjectId::Network(change.latest().id),
            ObjectChange::Secret(change) => ObjectId::Secret(change.latest().id),
            ObjectChange::Config(change) => ObjectId::Config(change.latest().id),
        }
    }
}

/// Every object that differs between `old` and `new`, kind by kind and in id order within a kind.
pub fn changes(old: &State, new: &State) -> Vec<ObjectChange> {
    let mut changes: Vec<ObjectChange> = swarm(old, new).map(ObjectChange::Swarm).into_iter().collect();
    changes.extend(differences(&old.nodes, &new.nodes).map(ObjectChange::Node));
    changes.extend(differences(&old.services, &new.services).map(ObjectChange::Service));
    changes.extend(differences(&old.tasks, &new.tasks).map(ObjectChange::Task));
    changes.extend(differences(&old.networks, &new.networks).map(ObjectChange::Network));
    changes.extend(differences(&old.secrets, &new.secrets).map(ObjectChange::Secret));
    changes.extend(differences(&old.configs, &new.configs).map(ObjectChange::Config));
    changes
}

fn swarm(old: &State, new: &State) -> Option<Difference<Swarm>> {
    match (&old.swarm, &new.swarm) {
        (None, Some(new)) => Some(Difference::Created(new.clone())),
        (Some(old), None) => Some(Difference::Removed(old.clone())),
        (Some(old), Some(new)) if old != new => Some(Difference::Updated { old: old.clone(), new: new.clone() }),
        _ => None,
    }
}

fn differences<K: Ord, T: PartialEq>(
    old: &OrdMap<K, Arc<T>>,
    new: &OrdMap<K, Arc<T>>,
) -> impl Iterator<Item = Difference<T>> {
    old.diff(new).map(|item| match item {
        DiffItem::Add(_, object) => Difference::Created(object.clone()),
        DiffItem::Remove(_, object) => Difference::Removed(object.clone()),
        DiffItem::Update { old: (_, old), new: (_, new) } => Difference::Updated { old: old.clone(), new: new.clone() },
    })
}
