//! What the log knows of a service with a schedule: up to where its points have been dealt with, and its runs.
//!
//! A run is an iteration of the job. A point is dealt with once, in one entry, which also names the point after it: a
//! leader that did not see the entry, or sees it twice, is refused. So no point begins twice, whoever leads.

use serde::{Deserialize, Serialize};

use super::object::{JobStatus, Service, Task};
use super::store::State;
use crate::spec::{Concurrency, ServiceMode, TaskState, UnixMs, Version};

/// Runs of one service that go on at the same time.
pub const MAX_OPEN_RUNS: usize = 16;

/// No part of the service's version: what its user changes is not in the way of its runs, nor the reverse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronStatus {
    /// Every point up to this has been dealt with.
    pub handled: UnixMs,
    /// The first point after it, by the leader's time zones. `None`: it has not said yet.
    pub next: Option<UnixMs>,
    /// Runs that go on, oldest first; at most [`MAX_OPEN_RUNS`].
    pub open: Vec<Run>,
    /// Runs that have ended, in this order; at most as many as the schedule's history.
    pub ended: Vec<Run>,
    /// When the last of them ended.
    pub last_end: Option<UnixMs>,
    /// Points at which nobody led, or nothing could be begun, for longer than the window.
    pub missed: u64,
    /// Points that were passed over because an earlier run went on.
    pub skipped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Of the job; its tasks have the same.
    pub iteration: u64,
    /// `None`: begun by hand.
    pub point: Option<UnixMs>,
    /// Of what its tasks are, whatever is put in force while it goes on.
    pub spec_version: Version,
    /// How many there are of them, the same.
    pub mode: ServiceMode,
    pub began: UnixMs,
    pub ended: Option<UnixMs>,
    pub outcome: RunOutcome,
    /// Slots that have completed.
    pub completed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunOutcome {
    /// It goes on.
    Running,
    /// Every slot of the job has completed.
    Completed,
    /// The restart policy gave a slot up.
    Failed,
    /// Another run took its place.
    Replaced,
}

impl RunOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            RunOutcome::Running => "running",
            RunOutcome::Completed => "completed",
            RunOutcome::Failed => "failed",
            RunOutcome::Replaced => "replaced",
        }
    }
}

/// Why a point begins nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passed {
    Missed,
    Skipped,
}

impl CronStatus {
    /// Nothing before `now` is due.
    pub(super) fn since(now: UnixMs) -> CronStatus {
        CronStatus {
            handled: now,
            next: None,
            open: Vec::new(),
            ended: Vec::new(),
            last_end: None,
            missed: 0,
            skipped: 0,
        }
    }

    /// The run of `iteration`, while it goes on.
    pub fn open_run(&self, iteration: u64) -> Option<&Run> {
        self.open.iter().find(|run| run.iteration == iteration)
    }
}

impl Run {
    pub(super) fn adopted(job: &JobStatus, spec_version: Version, mode: ServiceMode) -> Run {
        Run {
            iteration: job.iteration,
            point: None,
            spec_version,
            mode,
            began: job.last_execution,
            ended: None,
            outcome: RunOutcome::Running,
            completed: job.completed,
        }
    }
}

impl State {
    /// When time alone makes a run due, after `now`.
    pub fn next_run_after(&self, now: UnixMs) -> Option<UnixMs> {
        let next = |service: &std::sync::Arc<Service>| service.cron.as_ref()?.next;
        self.services().filter_map(next).filter(|next| *next > now).min()
    }
}

impl Service {
    /// Tasks of this iteration of the job may be created; `None` of what is no job.
    pub fn takes(&self, iteration: Option<u64>) -> bool {
        match (&self.cron, iteration) {
            (Some(cron), Some(iteration)) => cron.open_run(iteration).is_some(),
            _ => self.job.map(|job| job.iteration) == iteration,
        }
    }

    /// How many tasks there are to be of an iteration: a run keeps what it began with.
    pub fn mode_of(&self, iteration: Option<u64>) -> ServiceMode {
        let run = self.cron.as_ref().and_then(|cron| cron.open_run(iteration?));
        run.map_or(self.spec.mode, |run| run.mode)
    }

    /// `task` is a completion that the job, or a run of it that goes on, counts.
    pub fn counts(&self, task: &Task) -> bool {
        let completed = task.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Complete);
        let runs = |iteration| self.cron.as_ref().is_some_and(|cron| cron.open_run(iteration).is_some());
        self.job.is_some_and(|job| job.counts(task)) || (completed && task.job_iteration.is_some_and(runs))
    }

    /// Tasks of other iterations may be in the same slot.
    pub fn runs_beside(&self) -> bool {
        let concurrency = self.spec.schedule.as_ref().map(|schedule| schedule.concurrency);
        concurrency == Some(Concurrency::Allow)
    }
}
