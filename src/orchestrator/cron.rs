//! Jobs with a schedule: runs that are due begin, and those that are over end.
//!
//! The log names the next point of each schedule. When it is due, one change begins the run and names the point after it;
//! the state refuses the change where that point has been dealt with, so whoever leads next neither repeats nor forgets it.
//! Of several points that have become due meanwhile only the last begins a run, and only within the schedule's window; the
//! others count as missed, or as skipped where a run went on that forbids another. A clock that is set back makes the next
//! point later, never the same one again.
//!
//! Each run is looked at by itself, as a job with the tasks of its iteration and the spec that was in force when it began.
//! When every slot has completed or is given up, it ends; after that nothing of it starts any more, on nodes that come
//! later neither.

use super::Tick;
use super::job;
use super::slots::Fleet;
use crate::spec::*;
use crate::state::{Change, CronStatus, MAX_OPEN_RUNS, Passed, Run, RunOutcome, Service};

/// Makes one step at most: what follows from it is looked at next.
pub(super) fn plan(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    let (Some(schedule), Some(cron)) = (&fleet.service.spec.schedule, &fleet.service.cron) else { return };
    let over = |run: &Run| Some((run.iteration, outcome(&fleet.of_run(run))?));
    if let Some((iteration, outcome)) = cron.open.iter().find_map(over) {
        tick.change(&[], Change::EndRun { service: fleet.service.id, iteration, outcome });
        return;
    }
    if !tidy(tick, fleet, cron) && !schedule.suspend {
        follow(tick, fleet.service, schedule, cron);
    }
}

/// How a run ended; `None` while there is more to come of it.
fn outcome(run: &Fleet<'_>) -> Option<RunOutcome> {
    let (mut over, mut completed) = (0, 0);
    for slot in run.slots() {
        if slot.has_live() || slot.is_stopping() {
            return None;
        }
        if is_wanted(run, slot.slot()) {
            completed += u64::from(job::is_completed(run, &slot));
            over += u64::from(job::is_over(run, &slot));
        }
    }
    // Nobody is there to run it: it waits.
    let nodes = || run.state.nodes().filter(|node| run.eligible.may_come(node)).count() as u64;
    let wanted = match run.mode {
        ServiceMode::ReplicatedJob { total_completions, .. } => total_completions,
        _ => nodes().max(1),
    };
    let outcome = if completed >= wanted { RunOutcome::Completed } else { RunOutcome::Failed };
    (over >= wanted).then_some(outcome)
}

/// Not so of a node that takes no task at present: it is not waited for.
fn is_wanted(run: &Fleet<'_>, slot: Slot) -> bool {
    match (slot, run.mode) {
        (Slot::Replica(slot), ServiceMode::ReplicatedJob { total_completions, .. }) => slot < total_completions,
        (Slot::Node(node), _) => run.state.node(node).is_some_and(|node| run.eligible.may_come(node)),
        _ => false,
    }
}

/// Stops what runs of a run that was replaced, and forgets the tasks of runs that are no history any more.
fn tidy(tick: &mut Tick<'_>, fleet: &Fleet<'_>, cron: &CronStatus) -> bool {
    let before = tick.steps;
    let latest = fleet.service.job.map(|job| job.iteration);
    let kept = |iteration| iteration == latest || cron.ended.iter().any(|run| Some(run.iteration) == iteration);
    for task in fleet.slots().flat_map(|slot| slot.all().collect::<Vec<_>>()) {
        if fleet.service.takes(task.job_iteration) {
            continue;
        }
        if task.is_live() {
            tick.stop(&[fleet.id()], task);
        } else if task.outcome.is_some() && !kept(task.job_iteration) {
            tick.remove(&[fleet.id()], task);
        }
    }
    tick.steps > before
}

fn follow(tick: &mut Tick<'_>, service: &Service, schedule: &Schedule, cron: &CronStatus) {
    let now = tick.now.unix;
    if cron.next.is_some_and(|next| next > now) {
        return;
    }
    // One that this build cannot read was stored by a build that knows more.
    let Ok(rule) = schedule.rule() else { return };
    let id = service.id;
    let Some(due) = cron.next else {
        if let Some(next) = rule.next_after(cron.handled) {
            tick.change(&[], Change::SetNextRun { service: id, next });
        }
        return;
    };
    let blocked = match schedule.concurrency {
        Concurrency::Allow => cron.open.len() >= MAX_OPEN_RUNS,
        Concurrency::Forbid => !cron.open.is_empty(),
        Concurrency::Replace => false,
    };
    let was_blocked = schedule.concurrency == Concurrency::Forbid && cron.last_end.is_some_and(|end| end > due);
    let why = if blocked || was_blocked { Passed::Skipped } else { Passed::Missed };
    let last = rule.last_until(due, now);
    let change = if last > due {
        let count = rule.count(due, last);
        Change::PassRuns { service: id, until: UnixMs(last.0 - 1), count, why, next: Some(last) }
    } else if now - due > schedule.window {
        Change::PassRuns { service: id, until: due, count: 1, why, next: rule.next_after(due) }
    } else if blocked {
        return;
    } else {
        Change::BeginRun { service: id, point: due, next: rule.next_after(due) }
    };
    tick.change(&[], change);
}

impl<'s> Fleet<'s> {
    /// The tasks of one run, and of earlier ones what still stops in its slots, where runs do not go beside one another.
    pub(super) fn of_run(&self, run: &Run) -> Fleet<'s> {
        let beside = self.service.runs_beside();
        let own = |task: &crate::state::Task| task.job_iteration == Some(run.iteration);
        let mut fleet = Fleet::of(self.state, self.service);
        fleet.keep(|task| own(task) || (!beside && super::slots::is_stopping(task)));
        fleet.iteration = Some(run.iteration);
        fleet.version = run.spec_version;
        fleet.mode = run.mode;
        fleet
    }

    /// The latest run of a service with a schedule; of others all that there is.
    pub(super) fn latest(self) -> Fleet<'s> {
        let Some(cron) = &self.service.cron else { return self };
        match cron.open.last().or(cron.ended.last()) {
            Some(run) => self.of_run(run),
            None => self,
        }
    }
}
