//! Forgets ended tasks beyond the history that the swarm keeps in each slot, the oldest first.
//!
//! A slot without a live task keeps at least its last one: it says why the slot is empty, and the restart policy and the
//! updater read it. So does every slot during an update, whose failures are counted from it.

use super::Tick;
use super::slots::{Fleet, SlotTasks};
use crate::spec::TaskState;
use crate::state::{Change, Task};

pub(super) fn plan(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    let history = fleet.state.swarm().map_or(0, |swarm| swarm.spec.task_history);
    let history = usize::try_from(history).unwrap_or(usize::MAX);
    for slot in fleet.slots() {
        let settled = slot.live().any(|task| fleet.is_current(task)) && !fleet.is_updating();
        let kept = if settled { history } else { history.max(1) };
        if slot.ended().count() > kept {
            forget_oldest(tick, &slot, kept);
        }
    }
}

fn forget_oldest(tick: &mut Tick<'_>, slot: &SlotTasks<'_>, kept: usize) {
    let mut ended: Vec<&Task> = slot.ended().collect();
    // A job's completion is the record of it, and outlives what came after.
    let completed = |task: &Task| task.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Complete);
    ended.sort_by_key(|task| (task.job_iteration.is_some() && completed(task), task.meta.version, task.id));
    for task in &ended[..ended.len() - kept] {
        tick.change(&[], Change::ForgetTask { task: task.id });
    }
}
