//! The table of every node's newest record, as one manager holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::{NodeRecord, RecordVersion};
use crate::spec::{MonoMs, NodeId, TaskId, TaskReport};

/// A record and when this manager got it (a receipt, not the owner's clock).
#[derive(Debug, Clone)]
pub struct Held {
    pub record: Arc<NodeRecord>,
    pub received: MonoMs,
}

#[derive(Debug, Clone, Default)]
pub struct Table {
    held: BTreeMap<NodeId, Held>,
    suspects: BTreeSet<NodeId>,
}

impl Table {
    /// Keeps `record` if it is newer than what is held; says whether it was.
    pub fn merge(&mut self, record: Arc<NodeRecord>, now: MonoMs) -> bool {
        if self.held.get(&record.node).is_some_and(|held| held.record.version >= record.version) {
            return false;
        }
        self.held.insert(record.node, Held { record, received: now });
        true
    }

    pub fn get(&self, node: NodeId) -> Option<&Held> {
        self.held.get(&node)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Held)> {
        self.held.iter().map(|(id, held)| (*id, held))
    }

    /// What `node` says of `task`.
    pub fn report(&self, node: NodeId, task: TaskId) -> Option<&TaskReport> {
        self.held.get(&node).and_then(|held| held.record.tasks.get(&task))
    }

    /// Versions of all that is held, for a digest exchange.
    pub fn versions(&self) -> BTreeMap<NodeId, RecordVersion> {
        self.held.iter().map(|(id, held)| (*id, held.record.version)).collect()
    }

    /// Forgets a node that is no member any more.
    pub fn forget(&mut self, node: NodeId) {
        self.held.remove(&node);
        self.suspects.remove(&node);
    }

    /// Whom the failure detector suspects now, as this manager has heard it: whole, each time it changes.
    pub fn set_suspects(&mut self, suspects: BTreeSet<NodeId>) {
        self.suspects = suspects;
    }

    /// A suspect gets no new tasks and no traffic; its tasks are left alone until there is a verdict.
    pub fn is_suspect(&self, node: NodeId) -> bool {
        self.suspects.contains(&node)
    }

    pub fn suspects(&self) -> &BTreeSet<NodeId> {
        &self.suspects
    }
}
