//! One task in the machine: where it stands, and what it reports.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::Restarts;
use super::health::{Check, Prober};
use super::{Exit, KILL_BOUND, MAX_MESSAGE_CHARS};
use crate::spec::*;

/// Where a task stands. Each phase that waits for the executor has exactly one action under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// Parts of it were found when the daemon started; nobody has said yet that it is wanted.
    Found,
    Preparing {
        cancelled: bool,
    },
    Ready,
    /// `exit`: it ended before the executor could say that it had started.
    Starting {
        exit: Option<Exit>,
    },
    Running,
    /// Waits to be restarted in place.
    BackingOff {
        until: MonoMs,
    },
    /// To end soon: gets no new connections any more, and serves those it has. `instead` as in `Stopping`.
    Draining {
        until: MonoMs,
        instead: Option<String>,
    },
    /// Told to end. `instead`: why the outcome is not simply that it was asked to.
    Stopping {
        signal: Signal,
        instead: Option<String>,
    },
    Releasing(Outcome),
    Persisting(Outcome),
    /// The outcome could not be written.
    Unpersisted {
        outcome: Outcome,
        retry_at: MonoMs,
    },
    Ended(Outcome),
    Removing,
    /// Removal failed.
    Unremoved {
        retry_at: MonoMs,
    },
}

/// The signal that is to end a task: the one that asks, then, with `kills`, SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Others have their turn first.
    Waits { kills: bool },
    /// The executor sends it. `until` as in `Sent`: what comes of a call that hangs is not waited for.
    UnderWay { kills: bool, until: MonoMs },
    /// The grace, or the patience after SIGKILL, goes on until then.
    Sent { kills: bool, until: MonoMs },
}

impl Signal {
    fn until(self) -> Option<MonoMs> {
        match self {
            Signal::Waits { .. } => None,
            Signal::UnderWay { until, .. } | Signal::Sent { until, .. } => Some(until),
        }
    }
}

#[derive(Debug)]
pub(super) struct Task {
    pub id: TaskId,
    /// The last one seen; `None`: found on this node, and in no assignment so far.
    pub assignment: Option<Arc<Assignment>>,
    /// It is in the newest assignments.
    pub assigned: bool,
    pub phase: Phase,
    /// The furthest state reported; a task only moves forward.
    pub reached: TaskState,
    /// When it was first wanted running: its start delay counts from here.
    pub wanted_since: Option<MonoMs>,
    pub container_id: Option<String>,
    pub pid: Option<u32>,
    pub exit: Option<Exit>,
    pub running_since: Option<MonoMs>,
    /// Of earlier runs, and before the daemon started.
    pub ran_before: Duration,
    pub has_run: bool,
    pub health: Health,
    /// What its container is checked by.
    pub check: Option<Check>,
    /// While its process runs.
    pub prober: Option<Prober>,
    /// Probes begun, over all its runs.
    pub probes: u32,
    pub host_ports: Vec<PortConfig>,
    pub message: String,
    pub restarts: Restarts,
    pub restarts_in_place: u32,
    /// Failed attempts of the executor in a row, for back-off.
    pub failures: u32,
    /// Others have their turn first.
    pub waits: bool,
}

impl Task {
    pub fn new(id: TaskId, phase: Phase) -> Task {
        Task {
            id,
            assignment: None,
            assigned: false,
            phase,
            reached: TaskState::Accepted,
            wanted_since: None,
            container_id: None,
            pid: None,
            exit: None,
            running_since: None,
            ran_before: Duration::ZERO,
            has_run: false,
            health: Health::None,
            check: None,
            prober: None,
            probes: 0,
            host_ports: Vec::new(),
            message: String::new(),
            restarts: Restarts::default(),
            restarts_in_place: 0,
            failures: 0,
            waits: false,
        }
    }

    /// Whether it counts among those that the node makes ready to run.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. } | Phase::Starting { .. })
    }

    /// Whether it counts among those that the node sends a signal.
    pub fn is_signalled(&self) -> bool {
        matches!(self.phase, Phase::Stopping { signal: Signal::UnderWay { .. }, .. })
    }

    /// Time for a process to end after a signal.
    pub fn grace(&self, kills: bool) -> Duration {
        if kills {
            return KILL_BOUND;
        }
        let spec = self.assignment.as_ref().map(|assignment| &assignment.spec.container);
        spec.and_then(|container| container.stop_grace).unwrap_or(DEFAULT_STOP_GRACE)
    }

    pub fn reach(&mut self, state: TaskState) {
        self.reached = self.reached.max(state);
    }

    /// From now on it counts as running: its process does, and its health check has succeeded where it has one.
    pub fn runs(&mut self, now: MonoMs) {
        self.reach(TaskState::Running);
        self.has_run = true;
        self.running_since.get_or_insert(now);
    }

    pub fn ran_for(&self, now: MonoMs) -> Option<Duration> {
        let current = self.running_since.map_or(Duration::ZERO, |since| now - since);
        self.has_run.then_some(self.ran_before + current)
    }

    /// When it may start, counted from when it was first wanted, so that the delay runs while the image is pulled.
    pub fn start_at(&self) -> Option<MonoMs> {
        let delay = self.assignment.as_ref()?.start_delay;
        Some(self.wanted_since? + delay)
    }

    /// When time alone moves it on.
    pub fn deadline(&self) -> Option<MonoMs> {
        match &self.phase {
            Phase::Ready if self.waits => None,
            Phase::Ready => self.start_at(),
            Phase::Running => self.prober.as_ref()?.due(),
            Phase::BackingOff { until } => Some(*until),
            Phase::Draining { until, .. } => Some(*until),
            Phase::Stopping { signal, .. } => signal.until(),
            Phase::Unpersisted { retry_at, .. } | Phase::Unremoved { retry_at } => Some(*retry_at),
            _ => None,
        }
    }

    pub fn outcome(&self, state: TaskState, message: &str, now: MonoMs) -> Outcome {
        Outcome {
            state,
            message: shortened(message),
            exit_code: self.exit.map(|exit| exit.code),
            container_id: self.container_id.clone(),
            ran_for: self.ran_for(now),
        }
    }

    pub fn report(&self, now: MonoMs) -> TaskReport {
        let ended = match &self.phase {
            Phase::Ended(outcome) => Some(outcome),
            _ => None,
        };
        let message = match (&self.phase, ended) {
            (_, Some(outcome)) => outcome.message.clone(),
            // Not how many: that changes all the time, and each change travels in gossip.
            _ if self.waits => "waits for its turn: a node starts a few tasks at a time".to_owned(),
            (Phase::Ready, _) => match self.start_at() {
                Some(at) if at > now => format!("starting in {}s", (at - now).as_millis().div_ceil(1000)),
                _ => String::new(),
            },
            _ => shortened(&self.message),
        };
        let running = matches!(self.phase, Phase::Running | Phase::Draining { .. } | Phase::Stopping { .. });
        TaskReport {
            task: self.id,
            state: ended.map_or(self.reached, |outcome| outcome.state),
            message,
            container_id: self.container_id.clone(),
            pid: self.pid.filter(|_| running),
            exit_code: ended.map_or(self.exit.map(|exit| exit.code), |outcome| outcome.exit_code),
            ran_for: ended.map_or_else(|| self.ran_for(now), |outcome| outcome.ran_for),
            health: self.health,
            restarts_in_place: self.restarts_in_place,
            host_ports: self.host_ports.clone(),
        }
    }
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
}
