//! Replicated services: so many slots, each with a task or with the last word on why it has none.

use std::collections::{BTreeMap, BTreeSet};

use super::restart::{self, Next};
use super::slots::{Fleet, SlotTasks};
use super::{Birth, Tick};
use crate::spec::*;
use crate::state::Task;

pub(super) fn plan(tick: &mut Tick<'_>, fleet: &Fleet<'_>, replicas: u64) {
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    let (held, vacant): (Vec<_>, Vec<_>) = fleet.slots().partition(|slot| is_held(fleet, slot));
    if held.len() < wanted {
        fill(tick, fleet, wanted - held.len(), &held, &vacant);
        return;
    }
    for slot in &vacant {
        tick.purge(fleet, slot);
    }
    if held.len() > wanted {
        for slot in surplus(tick, fleet, &held, held.len() - wanted) {
            tick.purge(fleet, slot);
        }
    }
}

/// Counts as one of the wanted: it has a live task, or its last one ended for good, or an update will bring it a new one.
fn is_held(fleet: &Fleet<'_>, slot: &SlotTasks<'_>) -> bool {
    slot.has_live() || slot.last_ended().is_some_and(|last| fleet.is_left_empty(last))
}

/// Creates `missing` tasks in free slots, lowest first.
fn fill(tick: &mut Tick<'_>, fleet: &Fleet<'_>, missing: usize, held: &[SlotTasks<'_>], vacant: &[SlotTasks<'_>]) {
    let held: BTreeSet<Slot> = held.iter().map(SlotTasks::slot).collect();
    let vacant: BTreeMap<Slot, &SlotTasks<'_>> = vacant.iter().map(|slot| (slot.slot(), slot)).collect();
    for slot in (1..).map(Slot::Replica).filter(|slot| !held.contains(slot)).take(missing) {
        let birth = fleet.birth(vacant.get(&slot).and_then(|slot| slot.last_ended()), tick);
        if !tick.create(fleet, slot, birth) {
            return;
        }
    }
}

impl Fleet<'_> {
    /// The slot that `last` ended in gets no task from the loop that fills slots: the restart policy says no, or the task
    /// is of another spec version, and an update replaces it in its turn.
    pub(super) fn is_left_empty(&self, last: &Task) -> bool {
        let outdated = !self.is_current(last) && !self.keeps_versions();
        outdated || restart::next(self.restart_policy(last), last) == Next::Never
    }

    /// How the next task of a vacant slot starts, `last` being the one before.
    pub(super) fn birth(&self, last: Option<&Task>, tick: &mut Tick<'_>) -> Birth {
        let fresh = Birth { spec_version: self.version, ..Birth::default() };
        let Some(last) = last else { return fresh };
        let next = restart::next(self.restart_policy(last), last);
        restart::successor(next, last, tick.now.unix, tick.rng).unwrap_or(fresh)
    }
}

/// The slots to give up, `excess` of them: first those where nothing runs, then from the nodes with the most tasks of
/// the service, then the highest. Where slots have volumes, only the number counts: data in the low slots is data that
/// a later scaling up finds again.
fn surplus<'f, 's>(
    tick: &Tick<'_>,
    fleet: &Fleet<'_>,
    held: &'f [SlotTasks<'s>],
    excess: usize,
) -> Vec<&'f SlotTasks<'s>> {
    let from_the_top = held.iter().rev();
    if fleet.service.spec.task.named_local_volumes().next().is_some() {
        return from_the_top.take(excess).collect();
    }
    let mut chosen = Vec::new();
    let mut crowds: BTreeMap<NodeId, Vec<&SlotTasks<'_>>> = BTreeMap::new();
    for slot in from_the_top {
        match slot.live().find(|task| tick.up_for(task).is_some()).and_then(|task| task.node) {
            Some(node) => crowds.entry(node).or_default().push(slot),
            None => chosen.push(slot),
        }
    }
    chosen.truncate(excess);
    // Highest slots stand first in a crowd; `pop` takes from its end.
    crowds.values_mut().for_each(|crowd| crowd.reverse());
    let mut by_size: BTreeSet<(usize, NodeId)> = crowds.iter().map(|(node, crowd)| (crowd.len(), *node)).collect();
    while chosen.len() < excess
        && let Some((size, node)) = by_size.pop_last()
    {
        chosen.extend(crowds.get_mut(&node).and_then(Vec::pop));
        if size > 1 {
            by_size.insert((size - 1, node));
        }
    }
    chosen
}
