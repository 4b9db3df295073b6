//! The machine itself: the tasks of one node, and what comes in. What an input means for one task is in [`Step`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::health::{HealthLog, Prober};
use super::step::{Step, Wanted};
use super::task::{Phase, Task};
use super::{Action, Event, Exit, Found, FoundState};
use crate::spec::*;

/// The tasks of one node. See the room's documentation for its promises.
#[derive(Debug, Default)]
pub struct Machine {
    tasks: BTreeMap<TaskId, Task>,
    actions: Vec<Action>,
    /// The swarm has said what it wants at least once; before, nothing found running is touched.
    heard: bool,
    /// No manager with a quorum can be reached: failed tasks are restarted in place.
    alone: bool,
}

impl Machine {
    /// Starts from what was found on this node.
    pub fn new(found: Vec<Found>, now: MonoMs) -> Machine {
        let mut machine = Machine::default();
        for found in found {
            machine.adopt(found, now);
        }
        machine
    }

    /// The complete set of this node's assignments. A task that is in it no more is stopped and removed.
    pub fn handle_assignments(&mut self, assignments: &BTreeMap<TaskId, Arc<Assignment>>, now: MonoMs) {
        self.heard = true;
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
        std::mem::take(&mut self.actions)
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
        let wanted = match &task.assignment {
            _ if self.heard && !task.assigned => Wanted::Gone,
            None => Wanted::Unknown,
            Some(assignment) => match assignment.desired {
                DesiredState::Ready => Wanted::Prepared,
                DesiredState::Running => Wanted::Running,
                DesiredState::Remove if assignment.outcome_recorded => Wanted::Gone,
                DesiredState::Shutdown | DesiredState::Remove => Wanted::Stopped,
            },
        };
        Some(Step { task, actions: &mut self.actions, wanted, alone: self.alone, now })
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
