//! Rolling updates and rollbacks: brings slots to the service's spec version, so many at a time, and watches the new
//! tasks. Only this loop changes a slot's spec version; whatever else replaces a task keeps it.
//!
//! Where an update stands is read off the tasks each time. A slot is
//! - *outdated*: none of its live tasks is of the service's spec version;
//! - *in flight*: its new task is not up yet, or for less than the update's delay; in flight are at most `parallelism`;
//! - *failed*: a task that this update made ended by itself within `monitor` of its start. When more than
//!   `max_failure_ratio` of the slots have failed, the failure action is taken. A failed slot holds its place for the
//!   delay only, so that an update that continues on failure is not held up.
//!
//! The update is complete when no slot is outdated or in flight and every new task has been up for `monitor`. In start-first
//! order the old task of a slot that failed, as some may, serves on until another try comes up.
//! A service that is held for what it depends on (see `start_order`) is updated when it is released.
//! `UpdateStatus` goes the way Docker shows it: updating, then completed or paused, or rolled back: rollback started, then
//! rollback completed or paused. A new spec clears it, and ends a pause.

use std::time::Duration;

use super::drain::{failed_try, retried};
use super::restart::{self, Next};
use super::slots::{Fleet, SlotTasks};
use super::{Birth, Tick, start_order};
use crate::spec::*;
use crate::state::{Change, Task, UpdateState, UpdateStatus};

const IN_PROGRESS: &str = "update in progress";

pub(super) fn plan(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    if fleet.service.spec.mode.is_job() || fleet.is_paused() {
        return;
    }
    let waits = if fleet.service.is_held() { start_order::waits_for(tick, fleet.service) } else { None };
    match (&fleet.service.update, waits) {
        (Some(status), Some(why)) if fleet.is_updating() => say(tick, fleet, status, format!("update {why}")),
        (Some(status), None) if fleet.is_updating() => {
            say(tick, fleet, status, IN_PROGRESS.to_owned());
            advance(tick, fleet, status);
        }
        _ => {
            if fleet.slots().any(|slot| is_outdated(fleet, &slot)) {
                let status = UpdateStatus {
                    state: UpdateState::Updating,
                    since: Version::default(),
                    started_at: tick.now.unix,
                    completed_at: None,
                    message: IN_PROGRESS.into(),
                };
                set_status(tick, fleet, status);
            }
        }
    }
}

/// Why a rollback began is worth more than how it goes.
fn say(tick: &mut Tick<'_>, fleet: &Fleet<'_>, status: &UpdateStatus, message: String) {
    if status.state == UpdateState::Updating && status.message != message {
        set_status(tick, fleet, UpdateStatus { message, ..status.clone() });
    }
}

impl Fleet<'_> {
    pub(super) fn is_updating(&self) -> bool {
        let update = self.service.update.as_ref().map(|update| update.state);
        matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted))
    }
}

fn set_status(tick: &mut Tick<'_>, fleet: &Fleet<'_>, status: UpdateStatus) {
    tick.change(&[], Change::SetUpdateStatus { service: fleet.service.id, status: Some(status) });
}

fn advance(tick: &mut Tick<'_>, fleet: &Fleet<'_>, status: &UpdateStatus) {
    let rolling_back = status.state == UpdateState::RollbackStarted;
    let config = if rolling_back { &fleet.service.spec.rollback } else { &fleet.service.spec.update };
    let progress = Progress::of(tick, fleet, config, status.since);
    if let Some(task) = progress.failure_to_act_on(config) {
        act_on_failure(tick, fleet, config.failure_action, status, task);
    } else if !progress.outdated.is_empty() {
        replace_next(tick, fleet, config, progress);
    } else if progress.in_flight == 0 && !progress.watched {
        let (state, message) = match rolling_back {
            true => (UpdateState::RollbackCompleted, "rollback completed"),
            false => (UpdateState::Completed, "update completed"),
        };
        let completed_at = Some(tick.now.unix);
        set_status(tick, fleet, UpdateStatus { state, completed_at, message: message.into(), ..status.clone() });
    }
}

/// None of its live tasks, or not its last one, is of the service's spec version, and there is one to be had.
pub(super) fn is_outdated(fleet: &Fleet<'_>, slot: &SlotTasks<'_>) -> bool {
    // A node that takes no tasks keeps the one it has.
    if let Slot::Node(node) = slot.slot()
        && !fleet.state.node(node).is_some_and(|node| fleet.eligible.may_come(node))
    {
        return false;
    }
    if !slot.has_live() {
        return slot.last_ended().is_some_and(|last| !fleet.is_current(last));
    }
    let given_up = failed_try(fleet, slot, fleet.service.spec_version)
        .is_some_and(|failed| restart::next(fleet.restart_policy(failed), failed) == Next::Never);
    !given_up && !slot.live().any(|task| fleet.is_current(task))
}

/// How far an update has come.
pub(super) struct Progress<'f> {
    slots: usize,
    pub outdated: Vec<SlotTasks<'f>>,
    pub in_flight: usize,
    /// The task that failed, of each slot in which one did.
    failed: Vec<TaskId>,
    /// A new task has not been up for `monitor` yet.
    watched: bool,
}

impl<'f> Progress<'f> {
    pub fn of(tick: &Tick<'_>, fleet: &'f Fleet<'_>, config: &UpdateConfig, since: Version) -> Progress<'f> {
        let mut progress =
            Progress { slots: 0, outdated: Vec::new(), in_flight: 0, failed: Vec::new(), watched: false };
        let monitor = config.monitor.unwrap_or(UpdateConfig::DEFAULT_MONITOR);
        for slot in fleet.slots().filter(|slot| slot.has_live() || slot.last_ended().is_some()) {
            progress.slots += 1;
            let failed = early_failure(fleet, &slot, since, monitor);
            progress.failed.extend(failed.map(|task| task.id));
            if is_outdated(fleet, &slot) {
                progress.outdated.push(slot);
                continue;
            }
            let new = slot.live().find(|task| fleet.is_current(task) && task.created >= since);
            let Some(new) = new else {
                // An update before this one, to the same task, goes on here.
                let current = slot.live().filter(|task| fleet.is_current(task)).count();
                progress.in_flight += usize::from(current > 0 && current < slot.live().count());
                continue;
            };
            match (tick.up_for(new), failed) {
                (Some(up), _) => {
                    let alone = slot.live().count() == 1;
                    progress.in_flight += usize::from(!alone || up < config.delay);
                    progress.watched |= up < monitor;
                }
                (None, Some(failed)) => {
                    let (finished, now) = (failed.finished_at.unwrap_or_default(), tick.now.unix);
                    // Where the clock was set back, nothing waits for it to catch up.
                    let waits = now - finished < config.delay && finished <= now + config.delay;
                    progress.in_flight += usize::from(waits);
                }
                (None, None) => progress.in_flight += 1,
            }
        }
        progress
    }

    /// One of the failed tasks, if there are too many.
    fn failure_to_act_on(&self, config: &UpdateConfig) -> Option<TaskId> {
        let ratio = self.failed.len() as f32 / self.slots.max(1) as f32;
        let too_many = config.failure_action != FailureAction::Continue && ratio > config.max_failure_ratio;
        self.failed.first().copied().filter(|_| too_many)
    }
}

/// A task of this update in `slot` that ended by itself before it had been up for `monitor`.
fn early_failure<'s>(fleet: &Fleet<'_>, slot: &SlotTasks<'s>, since: Version, monitor: Duration) -> Option<&'s Task> {
    let failures = slot.ended().filter(|task| {
        let by_itself = |outcome: &Outcome| {
            let own = matches!(outcome.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
            own && outcome.ran_for.unwrap_or_default() <= monitor
        };
        fleet.is_current(task) && task.created >= since && task.outcome.as_ref().is_some_and(by_itself)
    });
    failures.max_by_key(|task| (task.meta.version, task.id))
}

fn act_on_failure(tick: &mut Tick<'_>, fleet: &Fleet<'_>, action: FailureAction, status: &UpdateStatus, task: TaskId) {
    let service = fleet.service.id;
    let rolling_back = status.state == UpdateState::RollbackStarted;
    let cause = format!("due to failure or early termination of task {task}");
    if action == FailureAction::Rollback && !rolling_back {
        let message = format!("update rolled back {cause}");
        // Refused where there is nothing to go back to, or it cannot be had any more: then a pause is the next best.
        if tick.change(&[], Change::AutoRollback { service, message }) {
            return;
        }
    }
    let (state, what) = match rolling_back {
        true => (UpdateState::RollbackPaused, "rollback"),
        false => (UpdateState::Paused, "update"),
    };
    set_status(tick, fleet, UpdateStatus { state, message: format!("{what} paused {cause}"), ..status.clone() });
}

/// As many of the outdated slots as `parallelism` allows: first those that serve nobody, last those where the new
/// task failed before.
fn replace_next(tick: &mut Tick<'_>, fleet: &Fleet<'_>, config: &UpdateConfig, progress: Progress<'_>) {
    let parallelism = match config.parallelism {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut outdated = progress.outdated;
    outdated.sort_by_cached_key(|slot| {
        let tried = failed_try(fleet, slot, fleet.service.spec_version).is_some();
        (tried, slot.live().any(|task| tick.up_for(task).is_some()), slot.slot())
    });
    for slot in outdated.iter().take(parallelism.saturating_sub(progress.in_flight)) {
        replace(tick, fleet, config.order, slot);
    }
}

fn replace(tick: &mut Tick<'_>, fleet: &Fleet<'_>, order: UpdateOrder, slot: &SlotTasks<'_>) {
    let birth = Birth { spec_version: fleet.service.spec_version, ..Birth::default() };
    let Some(birth) = retried(tick, fleet, slot, birth) else { return };
    let serves = slot.live().any(|task| tick.up_for(task).is_some());
    if order == UpdateOrder::StopFirst || !serves {
        for task in slot.live() {
            tick.stop(&[fleet.id()], task);
        }
    }
    tick.create(fleet, slot.slot(), birth);
}
