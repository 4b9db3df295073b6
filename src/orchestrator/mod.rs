//! The loops that make services true: wanted against actual, one tick at a time, on the leader.
//!
//! [`plan`] is level-triggered. It reads the draft of the desired state and the table of observed records, and adds the
//! changes that bring one nearer to the other; it gets no hint of what happened, and all it needs to know of the past
//! (restarts, the start of an update, how tasks ended) is in the state, so a new leader goes on where the last one stopped.
//!
//! A tick goes like this:
//! 1. `outcome`: what nodes report as ended, and what verdicts ended, is written down, together with the task that
//!    follows in its place.
//! 2. For each service that is not plainly as it should be (`census`), its `LOOPS` in their order. The first one that has something to do does it, and the service is
//!    looked at again: each loop sees the effect of the ones before it, and none has to reckon with another's half-done
//!    work. When no loop has anything to do, the service is as it should be, and a second tick adds nothing.
//!
//! To add a loop: a file here with a `plan(&mut Tick, &Fleet)` that does nothing when run again, and a line in `LOOPS`.

mod census;
mod cron;
mod drain;
mod eligible;
mod explain;
mod global;
mod job;
mod outcome;
mod reaper;
mod replicated;
mod restart;
mod slots;
mod start_order;
mod update;

use rand::{Rng, RngExt};

use crate::gossip::Table;
use crate::spec::*;
use crate::state::{Change, Draft, NewTask, ObjectId, Service, State, Task};

pub use self::explain::explain;
use self::slots::{Fleet, SlotTasks};

#[cfg(test)]
mod tests;

/// Changes in one tick. What is left over is found again by the next one.
const MAX_STEPS: usize = 5_000;
/// Of these, for one service, so that a large one does not make the others wait.
const MAX_STEPS_A_SERVICE: usize = 1_000;
/// How often one service is looked at again in one tick. Scale, then drain, release, update, then reap needs five.
const MAX_ROUNDS: usize = 16;

type Loop = fn(&mut Tick<'_>, &Fleet<'_>);

/// What a service goes through, in this order.
const LOOPS: [Loop; 5] = [fill, drain::plan, start_order::plan, update::plan, reaper::plan];

/// Adds to `draft` what the services need next, at most `MAX_STEPS` changes.
pub fn plan(draft: &mut Draft, table: &Table, now: Now, rng: &mut impl Rng) {
    let mut tick = Tick { draft, table, now, rng, steps: 0, limit: MAX_STEPS };
    outcome::plan(&mut tick);
    let state = tick.state().clone();
    for service in census::restless(&state) {
        tick.limit = MAX_STEPS.min(tick.steps + MAX_STEPS_A_SERVICE);
        reconcile(&mut tick, service);
    }
}

fn reconcile(tick: &mut Tick<'_>, id: ServiceId) {
    for _ in 0..MAX_ROUNDS {
        if tick.is_full() {
            return;
        }
        let state = tick.state().clone();
        let Some(service) = state.service(id) else { return };
        if !look(tick, &Fleet::of(&state, service)) {
            return;
        }
    }
}

/// The first of the loops that has something to do does it; of a service with a schedule, for each run that goes on. False: none has.
fn look(tick: &mut Tick<'_>, fleet: &Fleet<'_>) -> bool {
    let Some(cron) = &fleet.service.cron else { return first_of(&LOOPS, tick, fleet) };
    first_of(&[cron::plan, start_order::plan], tick, fleet)
        || cron.open.iter().any(|run| first_of(&LOOPS, tick, &fleet.of_run(run)))
}

fn first_of(loops: &[Loop], tick: &mut Tick<'_>, fleet: &Fleet<'_>) -> bool {
    let before = tick.steps;
    loops.iter().any(|run| {
        run(tick, fleet);
        tick.steps > before
    })
}

/// As many slots as the service's mode asks for, each with a task where one is due.
fn fill(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    match fleet.mode {
        ServiceMode::Replicated { replicas } => replicated::plan(tick, fleet, replicas),
        ServiceMode::Global => global::plan(tick, fleet),
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            job::plan_replicated(tick, fleet, max_concurrent, total_completions);
        }
        ServiceMode::GlobalJob => job::plan_global(tick, fleet),
    }
}

/// One run of the loops: the draft they write to and the rest of their world.
struct Tick<'a> {
    draft: &'a mut Draft,
    table: &'a Table,
    now: Now,
    rng: &'a mut dyn Rng,
    /// Made so far.
    steps: usize,
    /// What `steps` may reach at present.
    limit: usize,
}

/// How a new task comes to be.
#[derive(Debug, Clone, Default)]
struct Birth {
    spec_version: Version,
    start_delay: std::time::Duration,
    restarts: Vec<UnixMs>,
}

impl Tick<'_> {
    fn state(&self) -> &State {
        self.draft.state()
    }

    fn is_full(&self) -> bool {
        self.steps >= self.limit
    }

    /// Makes a change, if there is room for it. `false`: not made, now or because the state refuses it.
    fn change(&mut self, reads: &[ObjectId], change: Change) -> bool {
        let made = !self.is_full() && self.draft.change(reads, change).is_ok();
        self.steps += usize::from(made);
        made
    }

    /// Wants a task stopped and kept as history; one that no node was told of is forgotten at once.
    fn stop(&mut self, reads: &[ObjectId], task: &Task) -> bool {
        let desired = if task.may_be_forgotten() { DesiredState::Remove } else { DesiredState::Shutdown };
        self.set_desired(reads, task, desired)
    }

    /// Wants a task stopped and forgotten.
    fn remove(&mut self, reads: &[ObjectId], task: &Task) -> bool {
        self.set_desired(reads, task, DesiredState::Remove)
    }

    fn set_desired(&mut self, reads: &[ObjectId], task: &Task, desired: DesiredState) -> bool {
        if task.desired >= desired || !self.change(reads, Change::SetDesired { task: task.id, desired }) {
            return false;
        }
        if desired > DesiredState::Running {
            outcome::write_down_early_end(self, task);
        }
        true
    }

    /// Creates a task in a slot of `service`. It waits in `Ready` while another one of its slot is being stopped.
    fn create(&mut self, fleet: &Fleet<'_>, slot: Slot, birth: Birth) -> bool {
        let new = self.new_task((fleet.service, fleet.iteration), slot, birth, None);
        self.change(&[], Change::CreateTask(Box::new(new)))
    }

    /// Of an iteration of the service's, if it is a job. `instead_of`: a task that ends in the same step, and is not waited for.
    fn new_task(
        &mut self,
        (service, iteration): (&Service, Option<u64>),
        slot: Slot,
        birth: Birth,
        instead_of: Option<TaskId>,
    ) -> NewTask {
        let waited_for = |task: &Task| task.job_iteration == iteration || !service.runs_beside();
        let stopping = self
            .state()
            .tasks_in_slot(service.id, slot)
            .any(|task| slots::is_stopping(task) && Some(task.id) != instead_of && waited_for(task));
        NewTask {
            id: TaskId(self.rng.random()),
            service: service.id,
            slot,
            spec_version: birth.spec_version,
            desired: if stopping { DesiredState::Ready } else { DesiredState::Running },
            start_delay: birth.start_delay,
            restarts: birth.restarts,
            job_iteration: iteration,
            node: match slot {
                Slot::Node(node) => Some(node),
                Slot::Replica(_) => None,
            },
        }
    }

    /// How long `task` has been running and not unhealthy, by its node's word and the time since that came; `None` if it
    /// is not. A new leader may have got the word late, and then reckons short.
    fn up_for(&self, task: &Task) -> Option<std::time::Duration> {
        let held = self.table.get(task.node?)?;
        let report = held.record.tasks.get(&task.id)?;
        let healthy = matches!(report.health, Health::None | Health::Healthy);
        let up = report.state == TaskState::Running && healthy;
        up.then(|| report.ran_for.unwrap_or_default() + (self.now.mono - held.received))
    }

    /// Forgets what is in a slot that is no longer wanted; its tasks are stopped first.
    fn purge(&mut self, fleet: &Fleet<'_>, slot: &SlotTasks<'_>) {
        for task in slot.all() {
            self.remove(&[fleet.id()], task);
        }
    }
}
