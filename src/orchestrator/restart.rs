//! What follows when a task has ended: nothing, or another one in its slot after a while.
//!
//! - The restart policy speaks of tasks that ended by themselves: completed, failed, or rejected by their node. One that
//!   the swarm ended (its node was drained or lost, it was moved) is replaced at once whatever the policy says, and does
//!   not count as an attempt.
//! - `condition`: `any` restarts after every end, `on-failure` after a failure or a rejection, `none` never. A job's task
//!   that completed has done its work: for jobs, `any` means `on-failure`.
//! - `max_attempts` counts the restarts in `window` before the end (all of them without a window). When they are used up,
//!   the slot stays empty, its last task shows why, and it comes alive again with the next update or scaling of the
//!   service. At most [`MAX_RESTART_HISTORY`] restarts are known, so a greater number means that many.
//! - No `delay` given: the first restart is immediate; a task that goes on failing quickly (in less than [`QUICK`]) is
//!   restarted after 1 s, 2 s, 4 s and so on up to [`MAX_BACK_OFF`]. One longer run, and the next restart is immediate.
//! - A `delay` given is what Docker means by it: the time before each restart. Only a task that failed quickly
//!   [`PATIENCE`] times in a row is slowed down further, doubling up to [`MAX_BACK_OFF`] or the delay itself, if that is
//!   longer. A task that completes (code 0) is never slowed down: `any` with a delay is how people run a thing every so often.
//!
//! The streak of quick failures is not counted anywhere: the delay that the ended task itself was given says how far
//! the back-off had come.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::Birth;
use crate::spec::*;
use crate::state::{MAX_RESTART_HISTORY, Task};

/// A run shorter than this is a quick end.
const QUICK: Duration = Duration::from_secs(10);
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// Quick failures in a row before an explicit delay grows.
const PATIENCE: usize = 5;
/// Time that a quick failure may take beside its delay: its run, and its preparation.
const QUICK_CYCLE: Duration = Duration::from_secs(20);

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the work is done, or the policy says no.
    Never,
    /// Another task; its node counts the delay.
    After {
        delay: Duration,
        /// As a restart, in the history of the slot.
        counts: bool,
        /// The delay is the back-off's own, not the user's.
        backs_off: bool,
    },
}

/// What follows `ended`, a task with an outcome, by the policy of its own spec.
pub(super) fn next(policy: &RestartPolicy, ended: &Task) -> Next {
    let outcome = ended.outcome.as_ref().expect("only ended tasks are asked about");
    next_after(policy, ended, outcome, ended.finished_at.unwrap_or_default())
}

/// The same for a task whose outcome is about to be written down.
pub(super) fn next_after(policy: &RestartPolicy, task: &Task, outcome: &Outcome, at: UnixMs) -> Next {
    let by_condition = match outcome.state {
        TaskState::Shutdown | TaskState::Orphaned => {
            return Next::After { delay: Duration::ZERO, counts: false, backs_off: false };
        }
        TaskState::Complete => policy.condition == RestartCondition::Any && task.job_iteration.is_none(),
        _ => policy.condition != RestartCondition::None,
    };
    if !by_condition || attempts_used_up(policy, task, at) {
        return Next::Never;
    }
    let (delay, backs_off) = delay(policy, task, outcome);
    Next::After { delay, counts: true, backs_off }
}

/// A task to follow `task` in its slot, with the same spec; `None` if nothing follows.
pub(super) fn successor(next: Next, task: &Task, at: UnixMs, rng: &mut dyn Rng) -> Option<Birth> {
    let Next::After { delay, counts, backs_off } = next else { return None };
    let mut restarts = task.restarts.clone();
    if counts {
        restarts.push(at);
        restarts.drain(..restarts.len().saturating_sub(MAX_RESTART_HISTORY));
    }
    let start_delay = if backs_off { jittered(delay, rng) } else { delay };
    Some(Birth { spec_version: task.spec_version, start_delay, restarts })
}

fn attempts_used_up(policy: &RestartPolicy, task: &Task, at: UnixMs) -> bool {
    let Some(max) = policy.max_attempts.filter(|max| *max > 0) else { return false };
    let window = policy.window.filter(|window| !window.is_zero());
    let counted = task.restarts.iter().filter(|restart| window.is_none_or(|window| at - **restart <= window)).count();
    counted >= usize::try_from(max).unwrap_or(usize::MAX).min(MAX_RESTART_HISTORY)
}

/// The delay, and whether it is the back-off's.
fn delay(policy: &RestartPolicy, task: &Task, outcome: &Outcome) -> (Duration, bool) {
    let quick = outcome.ran_for.unwrap_or_default() < QUICK;
    match policy.delay {
        None if !quick || task.restarts.is_empty() => (Duration::ZERO, false),
        None => (doubled(task.start_delay, FIRST_BACK_OFF).min(MAX_BACK_OFF), true),
        Some(delay) if !quick || outcome.state == TaskState::Complete => (delay, false),
        Some(delay) if is_backing_off(task, delay) || failed_in_a_row(task, delay) => {
            let base = delay.max(FIRST_BACK_OFF);
            (doubled(task.start_delay, base).min(MAX_BACK_OFF.max(delay)), true)
        }
        Some(delay) => (delay, false),
    }
}

/// It was given clearly more than the user's delay.
fn is_backing_off(task: &Task, delay: Duration) -> bool {
    task.start_delay > delay + delay / 2
}

/// Its last restarts followed one another as fast as only quick failures do.
fn failed_in_a_row(task: &Task, delay: Duration) -> bool {
    let Some(first) = task.restarts.len().checked_sub(PATIENCE) else { return false };
    let cycles = u32::try_from(PATIENCE - 1).expect("a small number");
    task.restarts[task.restarts.len() - 1] - task.restarts[first] <= (delay + QUICK_CYCLE) * cycles
}

/// The step after `last` in base, 2 base, 4 base...; `last` may be up to a tenth above its step.
fn doubled(last: Duration, base: Duration) -> Duration {
    if last < base {
        return base;
    }
    let steps = (last.as_millis() / base.as_millis()).ilog2();
    base.saturating_mul(1 << (steps + 1).min(16))
}

/// Up to a tenth more, so that tasks that fell together do not rise together.
fn jittered(delay: Duration, rng: &mut dyn Rng) -> Duration {
    let tenth = u64::try_from(delay.as_millis() / 10).unwrap_or(u64::MAX);
    delay + Duration::from_millis(rng.random_range(0..=tenth))
}
