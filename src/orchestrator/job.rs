//! Jobs: tasks that are to complete, each slot once in an iteration of the job. A task that fails is tried again under the
//! restart policy; one that completed stays as the record of it.

use std::collections::BTreeMap;

use super::slots::{Fleet, SlotTasks};
use super::{Tick, global};
use crate::spec::{Slot, TaskState};
use crate::state::Task;

/// `total` completions, in slots from 0, at most `concurrent` tasks at a time (0: no limit).
pub(super) fn plan_replicated(tick: &mut Tick<'_>, fleet: &Fleet<'_>, concurrent: u64, total: u64) {
    purge_earlier_iterations(tick, fleet);
    stop_what_is_done(tick, fleet);
    let mut slots = BTreeMap::new();
    let mut busy = 0;
    for slot in fleet.slots() {
        if slot.slot() >= Slot::Replica(total) {
            tick.purge(fleet, &slot);
            continue;
        }
        busy += u64::from(slot.has_live() || slot.is_stopping());
        slots.insert(slot.slot(), slot);
    }
    for slot in (0..total).map(Slot::Replica) {
        if tick.is_full() || (concurrent > 0 && busy >= concurrent) {
            return;
        }
        let tasks = slots.get(&slot);
        if tasks.is_none_or(|tasks| !tasks.has_live() && !is_over(fleet, tasks)) {
            let birth = fleet.birth(tasks.and_then(|tasks| last(fleet, tasks)), tick);
            let was_busy = tasks.is_some_and(SlotTasks::is_stopping);
            busy += u64::from(tick.create(fleet, slot, birth) && !was_busy);
        }
    }
}

/// One completion on every node that fits.
pub(super) fn plan_global(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    purge_earlier_iterations(tick, fleet);
    stop_what_is_done(tick, fleet);
    global::on_each_node(tick, fleet, |tick, node, slot| {
        if slot.is_none_or(|slot| !is_over(fleet, slot)) {
            let birth = fleet.birth(slot.and_then(|slot| last(fleet, slot)), tick);
            tick.create(fleet, Slot::Node(node.id), birth);
        }
    });
}

fn is_of_this_iteration(fleet: &Fleet<'_>, task: &Task) -> bool {
    task.job_iteration == fleet.iteration
}

fn purge_earlier_iterations(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    // Runs by a schedule are history for a while: see `cron`.
    if fleet.service.cron.is_some() {
        return;
    }
    for task in fleet.slots().flat_map(|slot| slot.all().collect::<Vec<_>>()) {
        if !is_of_this_iteration(fleet, task) {
            tick.remove(&[fleet.id()], task);
        }
    }
}

fn last<'s>(fleet: &Fleet<'_>, slot: &SlotTasks<'s>) -> Option<&'s Task> {
    slot.last_ended().filter(|last| is_of_this_iteration(fleet, last))
}

/// Work that was told to stop may complete all the same: what waits in its slot to do it again is not wanted any more.
fn stop_what_is_done(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    for slot in fleet.slots().filter(|slot| slot.has_live() && is_completed(fleet, slot)) {
        for task in slot.live().filter(|task| is_of_this_iteration(fleet, task)) {
            tick.stop(&[fleet.id()], task);
        }
    }
}

/// Completed, or given up under the restart policy.
pub(super) fn is_over(fleet: &Fleet<'_>, slot: &SlotTasks<'_>) -> bool {
    is_completed(fleet, slot) || last(fleet, slot).is_some_and(|last| fleet.is_left_empty(last))
}

pub(super) fn is_completed(fleet: &Fleet<'_>, slot: &SlotTasks<'_>) -> bool {
    let completed = |task: &Task| task.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Complete);
    slot.ended().filter(|task| is_of_this_iteration(fleet, task)).any(completed)
}
