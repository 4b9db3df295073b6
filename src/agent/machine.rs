//! The machine itself: the tasks of one node, and what comes in. What an input means for one task is in [`Step`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::health::{HealthLog, Prober};
use super::step::Step;
use super::task::{Phase, Task};
use super::turns::{Need, Turns};
use super::{Action, Event, Exit, Found, FoundState};
use crate::spec::*;

/// Of tasks that were found and are in no assignment: they are only to end.
const NO_SERVICE: ServiceId = ServiceId(0);

/// The tasks of one node. See the room's documentation for its promises.
#[derive(Debug)]
pub struct Machine {
    tasks: BTreeMap<TaskId, Task>,
    /// Tasks made ready to run, or started, at once, and tasks that are sent a signal at once.
    room: usize,
    /// Of the newest input.
    now: MonoMs,
    actions: Vec<Action>,
    /// The swarm has said what it wants at least once; before, nothing found running is touched.
    heard: bool,
    /// No manager with a quorum can be reached: failed tasks are restarted in place.
    alone: bool,
}

impl Machine {
    /// Starts from what was found on this node. It makes `room` tasks ready to run, or starts them, at once, and sends
    /// as many a signal; at least one.
    pub fn new(found: Vec<Found>, room: usize, now: MonoMs) -> Machine {
        let (tasks, actions) = (BTreeMap::new(), Vec::new());
        let mut machine = Machine { tasks, room: room.max(1), now, actions, heard: false, alone: false };
        for found in found {
            machine.adopt(found, now);
        }
        machine
    }

    /// The complete set of this node's assignments. A task that is in it no more is stopped and removed.
    pub fn handle_assignments(&mut self, assignments: &BTreeMap<TaskId, Arc<Assignment>>, now: MonoMs) {
        (self.heard, self.now) = (true, now);
        let gone: Vec<TaskId> = self.tasks.keys().filter(|id| !assignments.contains_key(id)).copied().collect();
        for id in gone {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.assigned = false;
            }
            self.advance(id, now);
        }
        for (id, assignment) in assignments {
            let known = self.tasks.contains_key(id);
            if !known && assignment.outcome_recorded {
                continue;
            }
            let task = self.tasks.entry(*id).or_insert_with(|| Task::new(*id, Phase::Found));
            task.assignment = Some(Arc::clone(assignment));
            task.assigned = true;
            if assignment.desired == DesiredState::Running {
                task.wanted_since.get_or_insert(now);
            }
            self.advance(*id, now);
        }
    }

    /// Whether a manager that reaches a quorum can be heard.
    pub fn handle_quorum(&mut self, quorum: bool) {
        self.alone = !quorum;
    }

    pub fn handle_tick(&mut self, now: MonoMs) {
        self.now = now;
        let due: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| task.deadline().is_some_and(|at| at <= now))
            .map(|task| task.id)
            .collect();
        for id in due {
            self.advance(id, now);
        }
    }

    pub fn handle_event(&mut self, event: Event, now: MonoMs) {
        self.now = now;
        if let Some(mut step) = self.step(event.task, now) {
            let forget = step.handle(event.kind);
            step.advance();
            if forget {
                self.tasks.remove(&event.task);
            }
        }
    }

    /// What is to be done now. Each is given once.
    pub fn poll_actions(&mut self) -> Vec<Action> {
        self.take_turns();
        std::mem::take(&mut self.actions)
    }

    /// Tasks that could go on do, as many as there is room for, and few are told to end at a time.
    fn take_turns(&mut self) {
        let (heard, alone, now) = (self.heard, self.alone, self.now);
        let (mut turns, mut signals) = (Turns::new(self.room), Turns::new(self.room));
        for task in self.tasks.values_mut() {
            task.waits = false;
            let service = task.assignment.as_ref().map_or(NO_SERVICE, |assignment| assignment.service);
            let (id, is_under_way, is_signalled) = (task.id, task.is_under_way(), task.is_signalled());
            match Step::new(task, &mut self.actions, (heard, alone), now).need() {
                Some(Need::Signal) => signals.waits(service, Need::Signal, id),
                Some(need) => turns.waits(service, need, id),
                None if is_under_way => turns.under_way(service),
                None if is_signalled => signals.under_way(service),
                None => {}
            }
        }
        while let Some(id) = signals.next().or_else(|| turns.next()) {
            if let Some(mut step) = self.step(id, now) {
                step.go_on();
            }
        }
        for id in turns.left() {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.waits = true;
            }
        }
    }

    /// When [`Self::handle_tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<MonoMs> {
        self.tasks.values().filter_map(Task::deadline).min()
    }

    pub fn reports(&self, now: MonoMs) -> BTreeMap<TaskId, TaskReport> {
        let told = self.tasks.values().filter(|task| !matches!(task.phase, Phase::Removing | Phase::Unremoved { .. }));
        told.map(|task| (task.id, task.report(now))).collect()
    }

    /// The assignment an action is about, the last one seen; `None` for what was found on the node and never was in any.
    pub fn assignment(&self, task: TaskId) -> Option<&Arc<Assignment>> {
        self.tasks.get(&task)?.assignment.as_ref()
    }

    /// Tasks that have a process, as far as the machine knows.
    pub fn running(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.values().filter(|task| task.pid.is_some()).map(|task| task.id)
    }

    /// What is known of the health of a task that is checked and runs.
    pub fn health(&self, task: TaskId) -> Option<HealthLog> {
        Some(self.tasks.get(&task)?.prober.as_ref()?.log())
    }

    fn adopt(&mut self, found: Found, now: MonoMs) {
        let mut task = Task::new(found.task, Phase::Found);
        task.container_id = Some(found.container_id).filter(|id| !id.is_empty());
        task.host_ports = found.host_ports;
        task.check = found.health.as_ref().map(|health| health.check.clone());
        let mut lost = None;
        match found.state {
            FoundState::Prepared => {}
            FoundState::Running { pid, age } => {
                task.phase = Phase::Running;
                task.pid = Some(pid);
                task.reach(TaskState::Starting);
                let noted = found.health.as_ref().and_then(|health| health.noted);
                task.health = match &found.health {
                    None => Health::None,
                    Some(_) => noted.map_or(Health::Starting, |noted| noted.health),
                };
                let healthy_after = match &found.health {
                    None => Some(Duration::ZERO),
                    Some(_) => noted.map(|noted| noted.after),
                };
                task.prober = found.health.map(|found| Prober::new(found.check, noted, age, now));
                if let Some(after) = healthy_after {
                    task.runs(now);
                    task.ran_before = age.saturating_sub(after);
                }
            }
            FoundState::Exited(exit) => {
                task.reach(TaskState::Running);
                task.has_run = true;
                task.exit = Some(exit);
                lost = Some(ending(exit));
            }
            FoundState::Lost => {
                task.reach(TaskState::Running);
                lost = Some((TaskState::Failed, "task: its process was gone when the node came back".to_owned()));
            }
            FoundState::Ended(outcome) => {
                task.reach(TaskState::Running);
                task.container_id.clone_from(&outcome.container_id);
                task.phase = Phase::Ended(outcome);
            }
        }
        self.tasks.insert(found.task, task);
        if let (Some((state, message)), Some(mut step)) = (lost, self.step(found.task, now)) {
            step.end(state, &message);
        }
    }

    fn step(&mut self, id: TaskId, now: MonoMs) -> Option<Step<'_>> {
        let task = self.tasks.get_mut(&id)?;
        Some(Step::new(task, &mut self.actions, (self.heard, self.alone), now))
    }

    fn advance(&mut self, id: TaskId, now: MonoMs) {
        if let Some(mut step) = self.step(id, now) {
            step.advance();
        }
    }
}

/// The state a process's end leads to, in Docker's words.
pub(super) fn ending(exit: Exit) -> (TaskState, String) {
    match exit {
        Exit { code: 0, .. } => (TaskState::Complete, "finished".to_owned()),
        Exit { code, out_of_memory: false } => (TaskState::Failed, format!("task: non-zero exit ({code})")),
        Exit { code, out_of_memory: true } => (
            TaskState::Failed,
            format!("task: non-zero exit ({code}): killed for want of memory; raise its memory limit"),
        ),
    }
}
