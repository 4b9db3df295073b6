//! The worker's half of a node: the real `agent::Machine` over a fake containerd.
//!
//! What stands in [`Runtime`] is the host's: it survives the daemon, and its files survive the host. The image's name says
//! how a task behaves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flok::agent::{
    Action, Check, Event, EventKind, Exit, Found, FoundHealth, FoundState, Machine, NotedHealth, ProbeResult,
};
use flok::dispatcher::View;
use flok::spec::*;
use rand::RngExt;

use crate::context::{Context, Effect, Ms};

pub type Outcomes = BTreeMap<TaskId, Outcome>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// Made, never started.
    Created,
    Running {
        pid: u32,
        since: Ms,
    },
    Exited(Exit),
    /// It was running when the host died.
    Lost,
}

#[derive(Debug, Clone)]
struct Container {
    process: Process,
    image: String,
    host_ports: Vec<PortConfig>,
    /// Ends only by SIGKILL.
    deaf: bool,
    noted: Option<NotedHealth>,
}

/// What one host runs and has on its disk.
#[derive(Debug, Default)]
pub struct Runtime {
    containers: BTreeMap<TaskId, Container>,
    outcomes: Outcomes,
    /// Every task that ever had a process here.
    started: BTreeSet<TaskId>,
    last_pid: u32,
    /// Jobs of the executor under way.
    pub under_way: BTreeMap<u64, Done>,
    last_job: u64,
    /// The chaos is over: whatever runs goes on running.
    pub calm: bool,
}

/// A job of the executor, to be done in a while.
#[derive(Debug, Clone)]
pub struct Done {
    pub action: Action,
    assignment: Option<Arc<Assignment>>,
    fails: bool,
    lives_for: Option<(Ms, i32)>,
    deaf: bool,
}

impl Done {
    /// When the process that was just started ends by itself.
    fn exit_after(&self, event: &EventKind) -> Option<Effect> {
        let (EventKind::Started { pid }, Some((after, code))) = (event, self.lives_for) else { return None };
        Some(Effect::Exit { after, task: self.action.task(), pid: *pid, code })
    }
}

impl Runtime {
    /// The host went down with everything that ran.
    pub fn host_died(&mut self) {
        self.under_way.clear();
        for container in self.containers.values_mut() {
            if matches!(container.process, Process::Running { .. }) {
                container.process = Process::Lost;
            }
        }
    }

    /// What the agent has written down of tasks that ended.
    pub fn outcomes(&self) -> Outcomes {
        self.outcomes.clone()
    }

    pub fn restore_outcomes(&mut self, outcomes: Outcomes) {
        self.outcomes = outcomes;
    }

    /// The daemon died: what it had under way happened or not. Processes that were started in that moment end by
    /// themselves like any other.
    pub fn daemon_died(&mut self, now: Ms, rng: &mut impl rand::Rng) -> Vec<Effect> {
        let mut exits = Vec::new();
        for (_, done) in std::mem::take(&mut self.under_way) {
            let event = if rng.random() { self.perform(&done, now) } else { None };
            exits.extend(event.and_then(|event| done.exit_after(&event)));
        }
        exits
    }

    /// Every task that ever had a process here.
    pub fn ever_started(&self) -> impl Iterator<Item = TaskId> {
        self.started.iter().copied()
    }

    pub fn running(&self) -> impl Iterator<Item = TaskId> {
        let runs = |container: &Container| matches!(container.process, Process::Running { .. });
        self.containers.iter().filter(move |(_, container)| runs(container)).map(|(task, _)| *task)
    }

    /// Host ports bound by running processes.
    pub fn bound_ports(&self) -> Vec<(TaskId, PortConfig)> {
        let running: Vec<TaskId> = self.running().collect();
        running
            .into_iter()
            .flat_map(|task| self.containers[&task].host_ports.iter().map(move |port| (task, port.clone())))
            .collect()
    }

    pub fn keep(&mut self, done: Done) -> u64 {
        self.last_job += 1;
        self.under_way.insert(self.last_job, done);
        self.last_job
    }

    fn found(&self, now: Ms) -> Vec<Found> {
        let mut found: BTreeMap<TaskId, Found> = BTreeMap::new();
        for (task, container) in &self.containers {
            let state = match container.process {
                Process::Created => FoundState::Prepared,
                Process::Running { pid, since } => FoundState::Running { pid, age: Duration::from_millis(now - since) },
                Process::Exited(exit) => FoundState::Exited(exit),
                Process::Lost => FoundState::Lost,
            };
            let container_id = format!("c-{task}");
            let health = check(&container.image).map(|check| FoundHealth { check, noted: container.noted });
            let host_ports = container.host_ports.clone();
            found.insert(*task, Found { task: *task, container_id, host_ports, state, health });
        }
        for (task, outcome) in &self.outcomes {
            let none = Found {
                task: *task,
                container_id: String::new(),
                host_ports: Vec::new(),
                state: FoundState::Ended(outcome.clone()),
                health: None,
            };
            found.entry(*task).or_insert(none).state = FoundState::Ended(outcome.clone());
        }
        found.into_values().collect()
    }

    /// Carries out a job; `None` where its event comes by another way.
    fn perform(&mut self, done: &Done, now: Ms) -> Option<EventKind> {
        let task = done.action.task();
        match &done.action {
            Action::Prepare { .. } => {
                let assignment = done.assignment.as_ref()?;
                if done.fails {
                    return Some(EventKind::PrepareFailed("no such image".into()));
                }
                let host_ports = assignment.spec.host_ports.clone();
                self.containers.entry(task).or_insert(Container {
                    process: Process::Created,
                    image: assignment.spec.container.image.clone(),
                    host_ports: host_ports.clone(),
                    deaf: done.deaf,
                    noted: None,
                });
                let check = check(&assignment.spec.container.image);
                Some(EventKind::Prepared { container_id: format!("c-{task}"), host_ports, check })
            }
            Action::Cancel { .. } => None,
            Action::Start { again, .. } => {
                if done.fails {
                    return Some(EventKind::StartFailed("out of luck".into()));
                }
                let Some(container) = self.containers.get_mut(&task) else {
                    return Some(EventKind::StartFailed("no such container".into()));
                };
                let anew = self.started.insert(task) && container.process == Process::Created;
                assert!(*again || anew, "{task} is started a second time");
                self.last_pid += 1;
                container.process = Process::Running { pid: self.last_pid, since: now };
                container.noted = None;
                Some(EventKind::Started { pid: self.last_pid })
            }
            Action::Probe { number, .. } => {
                let result = ProbeResult { exit_code: i32::from(done.fails), output: String::new() };
                Some(EventKind::Probed { number: *number, result })
            }
            Action::NoteHealth { noted, .. } => {
                if let Some(container) = self.containers.get_mut(&task) {
                    container.noted = Some(*noted);
                }
                None
            }
            Action::Stop { .. } => None,
            Action::Kill { .. } => None,
            Action::Release { .. } => Some(EventKind::Released),
            Action::Persist { outcome, .. } if !done.fails => {
                self.outcomes.insert(task, outcome.clone());
                Some(EventKind::Persisted)
            }
            Action::Persist { .. } => Some(EventKind::PersistFailed("the disk is full".into())),
            Action::Remove { .. } => {
                let container = self.containers.remove(&task);
                let runs = container.is_some_and(|container| matches!(container.process, Process::Running { .. }));
                assert!(!runs, "{task} is removed while it runs");
                self.outcomes.remove(&task);
                Some(EventKind::Removed)
            }
        }
    }

    /// A process ends, if it still is the one.
    pub fn exit(&mut self, task: TaskId, pid: u32, code: i32) -> Option<Exit> {
        let container = self.containers.get_mut(&task)?;
        if !matches!(container.process, Process::Running { pid: running, .. } if running == pid) {
            return None;
        }
        let exit = Exit { code, out_of_memory: false };
        container.process = Process::Exited(exit);
        Some(exit)
    }

    /// Whether a process that was to fail by now does so: none does once the world is calm, but jobs end.
    pub fn goes_on(&self, task: TaskId) -> bool {
        self.calm && self.containers.get(&task).is_some_and(|container| !container.image.contains("job"))
    }

    fn pid_of(&self, task: TaskId) -> Option<(u32, bool)> {
        let container = self.containers.get(&task)?;
        match container.process {
            Process::Running { pid, .. } => Some((pid, container.deaf)),
            _ => None,
        }
    }
}

/// The health check that an image has, by its name.
fn check(image: &str) -> Option<Check> {
    let checked = image.contains("checked") || image.contains("sick");
    checked.then(|| Check {
        command: vec!["check".into()],
        interval: Duration::from_millis(700),
        timeout: Duration::from_secs(1),
        start_period: Duration::from_secs(2),
        start_interval: Duration::from_millis(300),
        retries: 3,
    })
}

/// Tasks that a node prepares or starts at once.
const ROOM: usize = 3;
/// With those that services get beyond it which have nothing under way.
const MOST: usize = 4 * ROOM;

/// A restart in place is no new task.
fn takes_turn(action: &Action) -> bool {
    matches!(action, Action::Prepare { .. } | Action::Start { again: false, .. })
}

/// The agent of one daemon's life.
pub struct Worker {
    machine: Machine,
    wanted: BTreeMap<TaskId, Assignment>,
    /// What the executor was given of preparing and starting, and has not done.
    begun: BTreeSet<TaskId>,
}

impl Worker {
    pub fn start(runtime: &Runtime, context: &Context<'_>) -> Worker {
        let machine = Machine::new(runtime.found(context.now), ROOM, context.mono());
        Worker { machine, wanted: BTreeMap::new(), begun: BTreeSet::new() }
    }

    pub fn assign(&mut self, view: &View, context: &Context<'_>) {
        self.wanted = view.assignments.clone();
        let assignments = self.wanted.iter().map(|(task, new)| match self.machine.assignment(*task) {
            Some(old) if **old == *new => (*task, Arc::clone(old)),
            _ => (*task, Arc::new(new.clone())),
        });
        let assignments: BTreeMap<TaskId, Arc<Assignment>> = assignments.collect();
        self.machine.handle_assignments(&assignments, context.mono());
    }

    pub fn set_quorum(&mut self, quorum: bool) {
        self.machine.handle_quorum(quorum);
    }

    pub fn reports(&self, context: &Context<'_>) -> BTreeMap<TaskId, TaskReport> {
        self.machine.reports(context.mono())
    }

    pub fn tick(&mut self, context: &Context<'_>) {
        if self.machine.next_deadline().is_some_and(|at| at <= context.mono()) {
            self.machine.handle_tick(context.mono());
        }
    }

    /// A job of this life's executor is done.
    pub fn job_done(&mut self, done: &Done, runtime: &mut Runtime, context: &mut Context<'_>) {
        let kind = runtime.perform(done, context.now);
        let task = done.action.task();
        if takes_turn(&done.action) {
            self.begun.remove(&task);
        }
        if let Some(kind) = kind {
            if matches!(kind, EventKind::Started { .. }) {
                context.check.semantics.started(task);
            }
            context.effects.extend(done.exit_after(&kind));
            self.machine.handle_event(Event { task, kind }, context.mono());
        }
    }

    pub fn exited(&mut self, task: TaskId, exit: Exit, context: &Context<'_>) {
        self.machine.handle_event(Event { task, kind: EventKind::Exited(exit) }, context.mono());
    }

    /// Hands the machine's actions to the executor. A signal is sent in no time, and makes room for the next.
    pub fn act(&mut self, runtime: &Runtime, context: &mut Context<'_>) {
        let mut actions = VecDeque::from(self.machine.poll_actions());
        while let Some(action) = actions.pop_front() {
            let task = action.task();
            if takes_turn(&action) {
                self.begun.insert(task);
                assert!(self.begun.len() <= MOST, "a node makes {} tasks ready to run at once", self.begun.len());
            }
            let assignment = self.machine.assignment(task).cloned();
            let image = assignment.as_ref().map_or("", |assignment| assignment.spec.container.image.as_str());
            let chaos = !runtime.calm;
            let rng = &mut *context.rng;
            let (least, most, fails) = match &action {
                Action::Prepare { .. } => (20, 900, chaos && (image.contains("broken") || rng.random_bool(0.02))),
                Action::Start { .. } => (10, 200, chaos && rng.random_bool(0.01)),
                Action::Stop { .. } | Action::Kill { .. } => {
                    let kills = matches!(action, Action::Kill { .. });
                    if let Some((pid, deaf)) = runtime.pid_of(task)
                        && (kills || !deaf)
                    {
                        let after = rng.random_range(2..400);
                        let code = if kills { 137 } else { 143 };
                        context.effects.push(Effect::Exit { after, task, pid, code });
                    }
                    self.machine.handle_event(Event { task, kind: EventKind::Signalled }, context.mono());
                    actions.extend(self.machine.poll_actions());
                    continue;
                }
                Action::Cancel { .. } => continue,
                Action::Probe { .. } => (5, 300, chaos && (image.contains("sick") || rng.random_bool(0.2))),
                Action::NoteHealth { .. } => (1, 20, false),
                Action::Persist { .. } => (1, 60, chaos && rng.random_bool(0.02)),
                Action::Release { .. } | Action::Remove { .. } => (5, 200, false),
            };
            let lives_for = if image.contains("job") {
                Some((rng.random_range(300..4000), i32::from(chaos && rng.random_bool(0.1))))
            } else if image.contains("flaky") && chaos {
                Some((rng.random_range(100..15_000), rng.random_range(0..3)))
            } else {
                None
            };
            let deaf = rng.random_bool(0.05);
            let after = rng.random_range(least..most);
            context.effects.push(Effect::Execute { after, done: Done { action, assignment, fails, lives_for, deaf } });
        }
    }
}
