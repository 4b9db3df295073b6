//! Takes a service's tasks off nodes they may no longer be on (drained, or a constraint that no longer holds), and brings
//! every hand-over in a slot, an update's too, to its end.
//!
//! A task that must move is stopped, and its successor is placed and prepared in the meantime but starts only when the
//! old one has ended, so that never more than the wanted number run. A service whose update order is start-first is moved
//! that way as well: the old task runs on until the new one does. Nobody is moved because of a pause.

use super::eligible::Eligible;
use super::restart::{self, Next};
use super::slots::{Fleet, SlotTasks};
use super::{Birth, Tick};
use crate::spec::*;
use crate::state::{Node, ObjectId, Task};

pub(super) fn plan(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    let bound = fleet.service.spec.mode.is_global();
    let fitness = Fitness::of(fleet);
    for slot in fleet.slots() {
        let mut live = slot.live();
        let Some(first) = live.next() else { continue };
        if live.next().is_some() {
            hand_over(tick, fleet, &fitness, &slot);
        } else if !bound && !fitness.may_stay(fleet, first) {
            move_away(tick, fleet, &slot, first);
            continue;
        }
        start_prepared(tick, fleet, &slot);
    }
}

/// What waited for another task of its slot to end may start.
fn start_prepared(tick: &mut Tick<'_>, fleet: &Fleet<'_>, slot: &SlotTasks<'_>) {
    if slot.live().any(|task| task.desired == DesiredState::Ready) && !slot.is_stopping() {
        for task in slot.live() {
            tick.set_desired(&[fleet.id()], task, DesiredState::Running);
        }
    }
}

/// Two live tasks in one slot: when the one to keep is up, the other one goes.
fn hand_over(tick: &mut Tick<'_>, fleet: &Fleet<'_>, fitness: &Fitness, slot: &SlotTasks<'_>) {
    let rank = |task: &&Task| {
        let up = tick.up_for(task).is_some();
        (fleet.is_current(task), fitness.may_stay(fleet, task), up, task.meta.created_at, task.id)
    };
    let Some(kept) = slot.live().max_by_key(rank) else { return };
    if tick.up_for(kept).is_some() {
        for other in slot.live().filter(|task| task.id != kept.id) {
            tick.stop(&[fleet.id()], other);
        }
    }
}

fn move_away(tick: &mut Tick<'_>, fleet: &Fleet<'_>, slot: &SlotTasks<'_>, task: &Task) {
    let Some(node) = task.node else { return };
    let birth = Birth { spec_version: task.spec_version, restarts: task.restarts.clone(), ..Birth::default() };
    let start_first = fleet.service.spec.update.order == UpdateOrder::StartFirst;
    if start_first
        && tick.up_for(task).is_some()
        && let Some(birth) = retried(tick, fleet, slot, birth.clone())
    {
        tick.create(fleet, slot.slot(), birth);
        return;
    }
    if tick.stop(&[fleet.id(), ObjectId::Node(node)], task) {
        tick.create(fleet, slot.slot(), birth);
    }
}

/// How to start a task beside one that runs on: like any restart, if an earlier try of this kind failed; `None` if the
/// restart policy allows no other try.
pub(super) fn retried(tick: &mut Tick<'_>, fleet: &Fleet<'_>, slot: &SlotTasks<'_>, birth: Birth) -> Option<Birth> {
    let Some(failed) = failed_try(fleet, slot, birth.spec_version) else { return Some(birth) };
    let next = restart::next(fleet.restart_policy(failed), failed);
    restart::successor(next, failed, tick.now.unix, tick.rng)
}

/// A task of this spec version that was started beside the live one to take over from it, and ended by itself.
pub(super) fn failed_try<'s>(fleet: &Fleet<'_>, slot: &SlotTasks<'s>, version: Version) -> Option<&'s Task> {
    let running_since = slot.live().map(|task| task.created).max()?;
    let last = slot.last_ended()?;
    let by_itself = !matches!(restart::next(fleet.restart_policy(last), last), Next::After { counts: false, .. });
    (by_itself && last.spec_version == version && last.created > running_since).then_some(last)
}

/// Which nodes the service's tasks may be on: each by the spec it was made from, since a spec with other constraints
/// reaches the old tasks by the update, in its pace.
struct Fitness {
    by_version: Vec<(Version, Eligible)>,
    /// No node is barred, so that no task needs a look.
    any: bool,
}

impl Fitness {
    fn of(fleet: &Fleet<'_>) -> Fitness {
        let mut by_version: Vec<(Version, Eligible)> = Vec::new();
        for task in fleet.slots().flat_map(|slot| slot.live().collect::<Vec<_>>()) {
            if by_version.iter().all(|(version, _)| *version != task.spec_version) {
                let spec = fleet.state.task_spec(task.service, task.spec_version);
                let spec = spec.expect("a task's spec is kept as long as the task");
                by_version.push((task.spec_version, Eligible::by(&spec.placement)));
            }
        }
        let drained = |node: &Node| node.spec.availability == Availability::Drain;
        let any = by_version.iter().all(|(_, e)| e.is_any()) && !fleet.state.nodes().any(|node| drained(node));
        Fitness { by_version, any }
    }

    fn may_stay(&self, fleet: &Fleet<'_>, task: &Task) -> bool {
        if self.any || task.assigned_at.is_none() {
            return true;
        }
        let Some(node) = task.node.and_then(|node| fleet.state.node(node)) else { return true };
        let of_version = self.by_version.iter().find(|(version, _)| *version == task.spec_version);
        of_version.is_none_or(|(_, eligible)| eligible.may_stay(node))
    }
}
