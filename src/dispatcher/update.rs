//! What a stream carries: the way from one view of a node to a newer one, or a whole view.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::members::{Member, Members};
use super::view::{Generation, View};
use crate::spec::{Assignment, Dependency, DependencyId, NodeId, SecretBytes, TaskId, Version};

/// A change to a view. With a `base` it holds what differs from that generation; without, it is a snapshot, and what
/// it does not hold is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    pub base: Option<Generation>,
    pub generation: Generation,
    pub assignments: Vec<Assignment>,
    pub removed_assignments: Vec<TaskId>,
    pub dependencies: Vec<Dependency>,
    pub removed_dependencies: Vec<DependencyId>,
    /// `None`: as before.
    pub members: Option<MembersUpdate>,
    /// `None`: as before.
    pub unlock_key: Option<Option<SecretBytes>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MembersUpdate {
    pub version: Version,
    pub changed: Vec<(NodeId, Member)>,
    pub removed: Vec<NodeId>,
    pub data_path_port: u16,
}

/// Why an update was refused. The view is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// From a manager that lags behind: wait for a newer one, or ask another manager.
    #[error("update to generation {got} is older than generation {have}, which this node has")]
    Older { have: u64, got: u64 },
    /// An update between was lost: ask for a snapshot.
    #[error("update starts from generation {base}, this node has {have}: a snapshot is needed")]
    Gap { have: u64, base: u64 },
}

/// What takes a holder of `old` to `new`, both views of one node.
pub fn diff(old: &View, new: &View) -> Update {
    let (assignments, removed_assignments) = changes(&old.assignments, &new.assignments);
    let (dependencies, removed_dependencies) = changes(&old.dependencies, &new.dependencies);
    Update {
        base: Some(old.generation),
        generation: new.generation,
        assignments: assignments.into_iter().map(|(_, assignment)| assignment).collect(),
        removed_assignments,
        dependencies: dependencies.into_iter().map(|(_, dependency)| dependency).collect(),
        removed_dependencies,
        members: members_diff(&old.members, &new.members),
        unlock_key: (old.unlock_key != new.unlock_key).then(|| new.unlock_key.clone()),
    }
}

impl Update {
    /// All of `view`, whatever its receiver has.
    pub fn snapshot(view: &View) -> Update {
        let members = MembersUpdate {
            version: view.members.version,
            changed: view.members.list.iter().map(|(id, member)| (*id, member.clone())).collect(),
            removed: Vec::new(),
            data_path_port: view.members.data_path_port,
        };
        Update { base: None, members: Some(members), ..diff(&View::default(), view) }
    }

    /// Changes nothing but the generation: need not be sent, if the next one is made from the view last sent.
    pub fn is_empty(&self) -> bool {
        self.base.is_some()
            && self.assignments.is_empty()
            && self.removed_assignments.is_empty()
            && self.dependencies.is_empty()
            && self.removed_dependencies.is_empty()
            && self.members.is_none()
            && self.unlock_key.is_none()
    }

    /// Brings `view` to this update's generation.
    pub fn apply(self, view: &mut View) -> Result<(), UpdateError> {
        let have = view.generation.0;
        if self.generation < view.generation {
            return Err(UpdateError::Older { have, got: self.generation.0 });
        }
        match self.base {
            Some(base) if base != view.generation => return Err(UpdateError::Gap { have, base: base.0 }),
            Some(_) => {}
            None => *view = View::default(),
        }
        view.generation = self.generation;
        for task in &self.removed_assignments {
            view.assignments.remove(task);
        }
        view.assignments.extend(self.assignments.into_iter().map(|assignment| (assignment.task, assignment)));
        for id in &self.removed_dependencies {
            view.dependencies.remove(id);
        }
        view.dependencies.extend(self.dependencies.into_iter().map(|dependency| (dependency.id, dependency)));
        if let Some(update) = self.members {
            let members = Arc::make_mut(&mut view.members);
            members.version = update.version;
            for node in &update.removed {
                members.list.remove(node);
            }
            members.list.extend(update.changed);
            members.data_path_port = update.data_path_port;
        }
        if let Some(key) = self.unlock_key {
            view.unlock_key = key;
        }
        Ok(())
    }
}

fn members_diff(old: &Arc<Members>, new: &Arc<Members>) -> Option<MembersUpdate> {
    if Arc::ptr_eq(old, new) {
        return None;
    }
    let (changed, removed) = changes(&old.list, &new.list);
    let same = old.version == new.version && changed.is_empty() && removed.is_empty();
    let same = same && old.data_path_port == new.data_path_port;
    (!same).then_some(MembersUpdate { version: new.version, changed, removed, data_path_port: new.data_path_port })
}

/// What is new or different in `new`, and what is no longer there.
fn changes<K: Ord + Copy, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> (Vec<(K, V)>, Vec<K>) {
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    let removed = old.keys().filter(|key| !new.contains_key(key));
    (changed.map(|(key, value)| (*key, value.clone())).collect(), removed.copied().collect())
}
