//! Runs of services with a schedule. None of it touches the service's version: see [`CronStatus`].

use std::sync::Arc;

use super::{At, not_found};
use crate::spec::*;
use crate::state::{CronStatus, JobStatus, MAX_OPEN_RUNS, Passed, Refusal, Run, RunOutcome, Service, State};

impl State {
    pub(super) fn set_next_run(&mut self, id: ServiceId, next: UnixMs) -> Result<(), Refusal> {
        let mut service = self.scheduled(id)?;
        let cron = service.cron.as_mut().expect("it has a schedule");
        if cron.next.is_some() || next <= cron.handled {
            return Err(dealt_with(&service));
        }
        cron.next = Some(next);
        self.put_progress(service);
        Ok(())
    }

    /// `point` is the next one; `next` the one after it.
    pub(super) fn begin_due_run(
        &mut self,
        id: ServiceId,
        point: UnixMs,
        next: Option<UnixMs>,
        at: At,
    ) -> Result<(), Refusal> {
        let mut service = self.scheduled(id)?;
        let cron = service.cron.as_mut().expect("it has a schedule");
        if cron.next != Some(point) || next.is_some_and(|next| next <= point) {
            return Err(dealt_with(&service));
        }
        (cron.handled, cron.next) = (point, next);
        self.begin(service, Some(point), at)
    }

    /// By a user.
    pub(super) fn run_service(&mut self, id: ServiceId, at: At) -> Result<(), Refusal> {
        let service = self.scheduled(id)?;
        self.begin(service, None, at)
    }

    /// All points up to `until` are passed over.
    pub(super) fn pass_runs(
        &mut self,
        id: ServiceId,
        until: UnixMs,
        passed: (u64, Passed),
        next: Option<UnixMs>,
    ) -> Result<(), Refusal> {
        let mut service = self.scheduled(id)?;
        let cron = service.cron.as_mut().expect("it has a schedule");
        if cron.next.is_none_or(|due| due > until) || next.is_some_and(|next| next <= until) {
            return Err(dealt_with(&service));
        }
        (cron.handled, cron.next) = (until, next);
        match passed {
            (count, Passed::Missed) => cron.missed += count,
            (count, Passed::Skipped) => cron.skipped += count,
        }
        self.put_progress(service);
        Ok(())
    }

    pub(super) fn end_run(
        &mut self,
        id: ServiceId,
        iteration: u64,
        outcome: RunOutcome,
        at: At,
    ) -> Result<(), Refusal> {
        let mut service = self.scheduled(id)?;
        let history = history(&service);
        let cron = service.cron.as_mut().expect("it has a schedule");
        if cron.open_run(iteration).is_none() || outcome == RunOutcome::Running {
            return Err(Refusal::Precondition(format!("run {iteration} of service {} has ended", service.spec.name)));
        }
        let ended = close(cron, |run| run.iteration == iteration, outcome, at, history);
        self.put_progress(service);
        ended.into_iter().for_each(|version| self.release_task_spec(id, version));
        Ok(())
    }

    /// A run, by the rules for runs that overlap.
    fn begin(&mut self, mut service: Service, point: Option<UnixMs>, at: At) -> Result<(), Refusal> {
        let (name, history) = (service.spec.name.clone(), history(&service));
        let concurrency = service.spec.schedule.as_ref().map(|schedule| schedule.concurrency).unwrap_or_default();
        let cron = service.cron.as_mut().expect("it has a schedule");
        match (concurrency, cron.open.first()) {
            (Concurrency::Forbid, Some(run)) => {
                return Err(Refusal::Precondition(format!(
                    "run {} of service {name} goes on, and its runs may not overlap: wait for its end, or allow it with \
                     `flok service update --schedule-concurrency allow {name}`",
                    run.iteration
                )));
            }
            (Concurrency::Allow, _) if cron.open.len() >= MAX_OPEN_RUNS => {
                return Err(Refusal::Precondition(format!(
                    "{MAX_OPEN_RUNS} runs of service {name} go on, which is as many as there may be: wait for one to end"
                )));
            }
            _ => {}
        }
        let replaced = if concurrency == Concurrency::Replace {
            close(cron, |_| true, RunOutcome::Replaced, at, history)
        } else {
            Vec::new()
        };
        let id = service.id;
        let iteration = service.job.map_or(0, |job| job.iteration) + 1;
        let job = JobStatus { iteration, last_execution: at.time, completed: 0 };
        service.job = Some(job);
        cron.open.push(Run { point, ..Run::adopted(&job, service.spec_version, service.spec.mode) });
        self.put_progress(service);
        replaced.into_iter().for_each(|version| self.release_task_spec(id, version));
        Ok(())
    }

    fn scheduled(&self, id: ServiceId) -> Result<Service, Refusal> {
        let service = self.services.get(&id).ok_or_else(|| not_found("service", id))?;
        if service.cron.is_none() {
            return Err(Refusal::Precondition(format!(
                "service {0} has no schedule: give it one with `flok service update --schedule \"@daily\" {0}`, or run its job \
                 again with `flok service update --force {0}`",
                service.spec.name
            )));
        }
        Ok(service.as_ref().clone())
    }

    fn put_progress(&mut self, service: Service) {
        self.services.insert(service.id, Arc::new(service));
    }
}

/// Ends the runs that `which` names; what they were made of may be released.
fn close(
    cron: &mut CronStatus,
    which: impl Fn(&Run) -> bool,
    outcome: RunOutcome,
    at: At,
    history: usize,
) -> Vec<Version> {
    let closed: Vec<Run> = cron.open.extract_if(.., |run| which(run)).collect();
    if !closed.is_empty() {
        cron.last_end = Some(at.time);
    }
    let versions = closed.iter().map(|run| run.spec_version).collect();
    cron.ended.extend(closed.into_iter().map(|run| Run { outcome, ended: Some(at.time), ..run }));
    keep(cron, history);
    versions
}

fn keep(cron: &mut CronStatus, history: usize) {
    cron.ended.drain(..cron.ended.len().saturating_sub(history));
}

fn history(service: &Service) -> usize {
    let history = service.spec.schedule.as_ref().map_or(0, |schedule| schedule.history);
    usize::try_from(history).unwrap_or(usize::MAX)
}

fn dealt_with(service: &Service) -> Refusal {
    Refusal::Precondition(format!("this point of the schedule of service {} has been dealt with", service.spec.name))
}

/// `service` has a new spec in place of `old`, of which is what a job without a schedule runs. A point that was due by the old one begins nothing any
/// more; runs go on.
pub(super) fn follow_schedule(service: &mut Service, old: &ServiceSpec, old_version: Version, at: At) {
    let Some(schedule) = &service.spec.schedule else {
        service.cron = None;
        return;
    };
    let history = usize::try_from(schedule.history).unwrap_or(usize::MAX);
    let same = old.schedule.as_ref().is_some_and(|old| old.is_due_as(schedule));
    let job = service.job;
    let cron = service.cron.get_or_insert_with(|| {
        let adopted = job.map(|job| Run::adopted(&job, old_version, old.mode));
        CronStatus { open: adopted.into_iter().collect(), ..CronStatus::since(at.time) }
    });
    if !same {
        (cron.handled, cron.next) = (cron.handled.max(at.time), None);
    }
    keep(cron, history);
}
