//! What one input means for one task. Every input ends in [`Step::advance`], which compares what is wanted with where the
//! task stands; nothing is remembered of what had changed.

use std::time::Duration;

use super::health::{ProbeResult, Prober};
use super::machine::ending;
use super::task::{Phase, Signal, Task};
use super::turns::Need;
use super::{Action, EventKind, Exit, KILL_BOUND};
use crate::spec::*;

/// First and longest wait before the executor is asked again for what it could not do.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is wanted of a task now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nobody has said.
    Unknown,
    Prepared,
    Running,
    Stopped,
    Gone,
}

pub(super) struct Step<'a> {
    pub task: &'a mut Task,
    pub actions: &'a mut Vec<Action>,
    pub wanted: Wanted,
    /// No manager with a quorum is heard.
    pub alone: bool,
    pub now: MonoMs,
}

impl<'a> Step<'a> {
    /// `heard`: the swarm has said what it wants. `alone`: no manager with a quorum is heard.
    pub fn new(
        task: &'a mut Task,
        actions: &'a mut Vec<Action>,
        (heard, alone): (bool, bool),
        now: MonoMs,
    ) -> Step<'a> {
        let wanted = match &task.assignment {
            _ if heard && !task.assigned => Wanted::Gone,
            None => Wanted::Unknown,
            Some(assignment) => match assignment.desired {
                DesiredState::Ready => Wanted::Prepared,
                DesiredState::Running => Wanted::Running,
                DesiredState::Remove if assignment.outcome_recorded => Wanted::Gone,
                DesiredState::Shutdown | DesiredState::Remove => Wanted::Stopped,
            },
        };
        Step { task, actions, wanted, alone, now }
    }
}

impl Step<'_> {
    /// Takes in what the executor says. True when nothing is left of the task.
    pub fn handle(&mut self, event: EventKind) -> bool {
        match event {
            EventKind::Progress(message) => self.task.message = message,
            EventKind::Prepared { container_id, host_ports, check } => {
                self.task.check = check;
                self.prepared(container_id, host_ports);
            }
            EventKind::PrepareFailed(message) => self.prepare_failed(&message),
            EventKind::Started { pid } => self.started(pid),
            EventKind::StartFailed(message) => {
                self.end(TaskState::Failed, &format!("starting container failed: {message}"));
            }
            EventKind::Exited(exit) => self.exited(exit),
            EventKind::Probed { number, result } => self.probed(number, result),
            EventKind::Signalled => self.signalled(),
            EventKind::Released => self.released(),
            EventKind::Persisted => {
                if let Phase::Persisting(outcome) = &self.task.phase {
                    self.task.failures = 0;
                    self.task.phase = Phase::Ended(outcome.clone());
                }
            }
            EventKind::PersistFailed(message) => self.persist_failed(&message),
            EventKind::Removed => return matches!(self.task.phase, Phase::Removing),
            EventKind::RemoveFailed(message) => {
                self.task.message = format!("cannot be removed: {message}");
                self.task.phase = Phase::Unremoved { retry_at: self.retry_at() };
            }
        }
        false
    }

    /// Does what is due, as far as it goes without the executor, more time, or a turn among the others.
    pub fn advance(&mut self) {
        let unwanted = matches!(self.wanted, Wanted::Stopped | Wanted::Gone);
        match &self.task.phase {
            Phase::Found => match self.wanted {
                Wanted::Unknown => {}
                Wanted::Gone => self.remove(),
                Wanted::Stopped => self.end(TaskState::Shutdown, "stopped before it was started"),
                // When it has its turn.
                Wanted::Prepared | Wanted::Running => {}
            },
            Phase::Preparing { cancelled: false } if unwanted => {
                self.task.phase = Phase::Preparing { cancelled: true };
                self.act(Action::Cancel { task: self.task.id });
            }
            Phase::Ready if unwanted => self.end(TaskState::Shutdown, "stopped before it was started"),
            Phase::Running if unwanted => self.drain(None),
            Phase::Running if self.task.health == Health::Unhealthy && self.wanted != Wanted::Unknown => self.give_up(),
            Phase::Running => self.probe(),
            Phase::Draining { until, instead } if *until <= self.now => {
                let instead = instead.clone();
                self.stop(instead);
            }
            Phase::BackingOff { .. } if unwanted => self.end(TaskState::Shutdown, ""),
            Phase::BackingOff { until } if *until <= self.now => {
                self.task.restarts_in_place += 1;
                self.start(true);
            }
            Phase::Stopping { signal: Signal::UnderWay { kills, until } | Signal::Sent { kills, until }, instead }
                if *until <= self.now =>
            {
                let (kills, instead) = (*kills, instead.clone());
                self.out_of_patience(kills, instead);
            }
            // Nobody asks for the outcome any more, and removing makes room.
            Phase::Unpersisted { .. } if self.wanted == Wanted::Gone => self.remove(),
            Phase::Unpersisted { outcome, retry_at } if *retry_at <= self.now => self.persist(outcome.clone()),
            Phase::Ended(_) if self.wanted == Wanted::Gone => self.remove(),
            Phase::Unremoved { retry_at } if *retry_at <= self.now => self.remove(),
            _ => {}
        }
    }

    /// What it needs a turn for, now.
    pub fn need(&self) -> Option<Need> {
        match (&self.task.phase, self.wanted) {
            (Phase::Found, Wanted::Prepared | Wanted::Running) => Some(Need::Preparation),
            (Phase::Stopping { signal: Signal::Waits { .. }, .. }, _) => Some(Need::Signal),
            (Phase::Ready, Wanted::Running) => self.task.start_at().filter(|at| *at <= self.now).map(|_| Need::Start),
            _ => None,
        }
    }

    /// It has its turn.
    pub fn go_on(&mut self) {
        match self.need() {
            Some(Need::Preparation) => {
                self.task.reach(TaskState::Preparing);
                self.task.phase = Phase::Preparing { cancelled: false };
                self.act(Action::Prepare { task: self.task.id });
            }
            Some(Need::Start) => self.start(false),
            Some(Need::Signal) => self.signal(),
            None => {}
        }
    }

    /// The task has no process any more, or never had: what it holds is given back, then its outcome is made durable.
    pub fn end(&mut self, state: TaskState, message: &str) {
        self.task.pid = None;
        self.task.phase = Phase::Releasing(self.task.outcome(state, message, self.now));
        self.act(Action::Release { task: self.task.id });
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn prepared(&mut self, container_id: String, host_ports: Vec<PortConfig>) {
        let Phase::Preparing { cancelled } = self.task.phase else {
            return;
        };
        self.task.container_id = Some(container_id);
        self.task.host_ports = host_ports;
        self.task.message.clear();
        if cancelled {
            self.end(TaskState::Shutdown, "stopped before it was started");
        } else {
            self.task.reach(TaskState::Ready);
            self.task.phase = Phase::Ready;
        }
    }

    fn prepare_failed(&mut self, message: &str) {
        match self.task.phase {
            Phase::Preparing { cancelled: true } => self.end(TaskState::Shutdown, "stopped before it was started"),
            Phase::Preparing { cancelled: false } => self.end(TaskState::Rejected, message),
            _ => {}
        }
    }

    fn start(&mut self, again: bool) {
        self.task.reach(TaskState::Starting);
        self.task.phase = Phase::Starting { exit: None };
        self.act(Action::Start { task: self.task.id, again });
    }

    fn started(&mut self, pid: u32) {
        let Phase::Starting { exit } = self.task.phase else {
            return;
        };
        self.task.phase = Phase::Running;
        self.task.pid = Some(pid);
        self.task.exit = None;
        self.task.message.clear();
        match self.task.check.clone() {
            Some(check) => {
                self.task.health = Health::Starting;
                self.task.prober = Some(Prober::new(check, None, Duration::ZERO, self.now));
            }
            None => self.task.runs(self.now),
        }
        if let Some(exit) = exit {
            self.exited(exit);
        }
    }

    /// A process ended: is it run again, or is this the end?
    fn exited(&mut self, exit: Exit) {
        match &self.task.phase {
            Phase::Starting { .. } => self.task.phase = Phase::Starting { exit: Some(exit) },
            Phase::Draining { instead, .. } | Phase::Stopping { instead, .. } => {
                let instead = instead.clone();
                let ran_for = self.note_exit(exit);
                match instead {
                    Some(why) => self.failed_or_again(exit, ran_for, (TaskState::Failed, unhealthy(exit, &why))),
                    None => self.end(TaskState::Shutdown, ""),
                }
            }
            Phase::Running => {
                let ran_for = self.note_exit(exit);
                self.failed_or_again(exit, ran_for, ending(exit));
            }
            _ => {}
        }
    }

    fn failed_or_again(&mut self, exit: Exit, ran_for: Duration, (state, message): (TaskState, String)) {
        // One that was stopped for its health has failed, whatever code it ended with.
        let code = if state == TaskState::Failed { exit.code.max(1) } else { exit.code };
        match self.restart_delay(code, ran_for) {
            Some(delay) => {
                self.task.message = format!("{message}; restarting in place, no manager with a quorum is heard");
                self.task.phase = Phase::BackingOff { until: self.now + delay };
            }
            None => self.end(state, &message),
        }
    }

    /// Returns how long this run lasted.
    fn note_exit(&mut self, exit: Exit) -> Duration {
        let ran_for = self.task.running_since.take().map_or(Duration::ZERO, |since| self.now - since);
        self.task.ran_before += ran_for;
        self.task.pid = None;
        self.task.prober = None;
        self.task.exit = Some(exit);
        ran_for
    }

    fn restart_delay(&mut self, code: i32, ran_for: Duration) -> Option<Duration> {
        if !self.alone || self.wanted != Wanted::Running {
            return None;
        }
        let assignment = self.task.assignment.as_ref()?;
        self.task.restarts.next(&assignment.spec.restart, code, ran_for, self.now)
    }

    /// Has the next probe run, if it is time.
    fn probe(&mut self) {
        let Some(prober) = self.task.prober.as_mut().filter(|prober| prober.due().is_some_and(|at| at <= self.now))
        else {
            return;
        };
        self.task.probes = self.task.probes.wrapping_add(1);
        prober.begin(self.task.probes, self.now);
        let (command, timeout) = (prober.check().command.clone(), prober.check().timeout);
        self.act(Action::Probe { task: self.task.id, number: self.task.probes, command, timeout });
    }

    /// What came in before says nothing any more once the task is being stopped.
    fn probed(&mut self, number: u32, result: ProbeResult) {
        let Some(prober) = self.task.prober.as_mut().filter(|_| self.task.phase == Phase::Running) else { return };
        let changed = prober.ended(number, result, self.now);
        let noted = prober.noted();
        self.task.message = match (changed.unwrap_or(self.task.health), prober.complaint()) {
            (Health::Healthy, None) => String::new(),
            (_, complaint) => format!("health check failed: {}", complaint.unwrap_or_default()),
        };
        let Some(health) = changed else { return };
        self.task.health = health;
        if health == Health::Healthy {
            self.task.runs(self.now);
        }
        if let Some(noted) = noted {
            self.act(Action::NoteHealth { task: self.task.id, noted });
        }
    }

    /// Its health check failed too often: it is stopped, and has failed.
    fn give_up(&mut self) {
        let complaint = self.task.prober.as_ref().and_then(Prober::complaint);
        let why =
            complaint.map_or_else(|| "unhealthy container".to_owned(), |why| format!("unhealthy container: {why}"));
        self.drain(Some(why));
    }

    /// The managers know already that it is to end, or hear it with the next report, and take it out of every node's
    /// balance; the stop signal waits until that has been done and what was under way is answered.
    fn drain(&mut self, instead: Option<String>) {
        let time = self.task.assignment.as_ref().map_or(Duration::ZERO, |assignment| {
            let on_networks = !assignment.attachments.is_empty();
            assignment.spec.container.drain.unwrap_or(if on_networks { DEFAULT_DRAIN } else { Duration::ZERO })
        });
        // Nobody is sent to one that has not been healthy yet.
        if time.is_zero() || self.task.running_since.is_none() {
            return self.stop(instead);
        }
        self.task.message = "draining".to_owned();
        self.task.phase = Phase::Draining { until: self.now + time, instead };
    }

    fn stop(&mut self, instead: Option<String>) {
        self.task.phase = Phase::Stopping { signal: Signal::Waits { kills: false }, instead };
    }

    fn signal(&mut self) {
        let task = self.task.id;
        let Phase::Stopping { signal: Signal::Waits { kills }, instead } = &self.task.phase else { return };
        let (kills, instead) = (*kills, instead.clone());
        let until = self.now + self.task.grace(kills);
        self.task.phase = Phase::Stopping { signal: Signal::UnderWay { kills, until }, instead };
        self.act(if kills { Action::Kill { task } } else { Action::Stop { task } });
    }

    /// The process has its whole grace, however long the signal was on its way.
    fn signalled(&mut self) {
        let Phase::Stopping { signal: Signal::UnderWay { kills, .. }, instead } = &self.task.phase else { return };
        let (kills, instead) = (*kills, instead.clone());
        let until = self.now + self.task.grace(kills);
        self.task.phase = Phase::Stopping { signal: Signal::Sent { kills, until }, instead };
    }

    fn out_of_patience(&mut self, killed: bool, instead: Option<String>) {
        if killed {
            let message = format!("did not end within {} s of SIGKILL; given up", KILL_BOUND.as_secs());
            self.end(TaskState::Failed, &message);
        } else {
            self.task.phase = Phase::Stopping { signal: Signal::Waits { kills: true }, instead };
        }
    }

    fn released(&mut self) {
        if let Phase::Releasing(outcome) = &self.task.phase {
            self.task.failures = 0;
            self.persist(outcome.clone());
        }
    }

    fn persist(&mut self, outcome: Outcome) {
        self.act(Action::Persist { task: self.task.id, outcome: outcome.clone() });
        self.task.phase = Phase::Persisting(outcome);
    }

    fn persist_failed(&mut self, message: &str) {
        if let Phase::Persisting(outcome) = self.task.phase.clone() {
            self.task.message = format!("ended, but its outcome cannot be saved: {message}");
            self.task.phase = Phase::Unpersisted { outcome, retry_at: self.retry_at() };
        }
    }

    fn remove(&mut self) {
        self.task.phase = Phase::Removing;
        self.act(Action::Remove { task: self.task.id });
    }

    fn retry_at(&mut self) -> MonoMs {
        let wait = RETRY_FIRST.saturating_mul(1 << self.task.failures.min(16)).min(RETRY_MAX);
        self.task.failures = self.task.failures.saturating_add(1);
        self.now + wait
    }
}

/// In Docker's words.
fn unhealthy(exit: Exit, why: &str) -> String {
    match exit.code {
        0 => format!("task: {why}"),
        code => format!("task: non-zero exit ({code}): {why}"),
    }
}
