//! What services promise, held against the log as it grows and against what the hosts really ran: the pace of updates, how they
//! end, what a rollback restores, what jobs record. No clock is asked: "since" is a place in the log.

use std::collections::{BTreeMap, BTreeSet};

use flok::gossip::Table;
use flok::spec::*;
use flok::state::watch::{Difference, ObjectChange};
use flok::state::{Change, MAX_OPEN_RUNS, Service, State, Step, Task, UpdateState};

/// Docker's default.
const DEFAULT_MONITOR_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub struct Semantics {
    /// Where in the log the update or rollback under way began.
    begun: BTreeMap<ServiceId, u64>,
    /// Where in the log each task was created.
    born: BTreeMap<TaskId, u64>,
    /// Tasks that really had a process.
    started: BTreeSet<TaskId>,
    /// Tasks whose process really ended with code 0.
    succeeded: BTreeSet<TaskId>,
    /// The last point of each service at which a run began.
    begun_points: BTreeMap<ServiceId, UnixMs>,
    pub ends: Ends,
}

/// How often updates ended how, for the summary of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ends {
    pub completed: u64,
    pub paused: u64,
    pub rolled_back: u64,
    pub replaced: u64,
    /// Services that waited for others, and went on.
    pub released: u64,
    /// Runs that a schedule began.
    pub runs: u64,
}

impl Semantics {
    pub fn started(&mut self, task: TaskId) {
        self.started.insert(task);
    }

    pub fn succeeded(&mut self, task: TaskId) {
        self.succeeded.insert(task);
    }

    /// What one entry did.
    pub fn look(&mut self, before: &State, after: &State, changes: &[ObjectChange]) {
        let index = after.applied();
        for change in changes {
            match change {
                ObjectChange::Task(Difference::Created(task)) => drop(self.born.insert(task.id, index)),
                ObjectChange::Task(Difference::Updated { old, new }) if old.outcome.is_none() => self.look_at_end(new),
                _ => {}
            }
        }
        for change in changes {
            match change {
                ObjectChange::Service(Difference::Updated { old, new }) => {
                    self.look_at_service([before, after], old, new)
                }
                ObjectChange::Service(Difference::Removed(service)) => drop(self.begun.remove(&service.id)),
                _ => {}
            }
        }
        for service in after.services() {
            self.check_pace(before, after, service);
            check_job(after, service);
            Semantics::check_overlap(after, service);
        }
    }

    /// A completion that is recorded was one.
    fn look_at_end(&self, task: &Task) {
        let completed = task.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Complete);
        if completed && task.job_iteration.is_some() {
            assert!(self.succeeded.contains(&task.id), "{} is recorded as completed, and is not", task.id);
        }
    }

    fn look_at_service(&mut self, states: [&State; 2], old: &Service, new: &Service) {
        self.look_at_runs(old, new);
        if let (Some(old), Some(new)) = (old.job, new.job) {
            assert!(new.iteration >= old.iteration, "a job goes back to iteration {}", new.iteration);
            assert!(new.iteration > old.iteration || new.completed >= old.completed, "a completion was taken back");
        }
        if old.spec_version == new.spec_version && old.is_held() && !new.is_held() {
            self.look_at_release(states, new);
        }
        if old.update == new.update {
            return;
        }
        let was = old.update.as_ref().map(|update| update.state);
        let Some(is) = new.update.as_ref().map(|update| update.state) else { return };
        // All of a rollback may be in one entry, where the old tasks are still there.
        let rolls_back = |state: UpdateState| {
            use UpdateState::{RollbackCompleted, RollbackPaused, RollbackStarted};
            matches!(state, RollbackStarted | RollbackPaused | RollbackCompleted)
        };
        if rolls_back(is) && (is == UpdateState::RollbackStarted || !was.is_some_and(rolls_back)) {
            check_restored(old, new);
        }
        let name = &new.spec.name;
        let action = old.spec.update.failure_action;
        match (was, is) {
            (Some(UpdateState::Updating), UpdateState::Paused) => {
                self.ends.paused += 1;
                let no_way_back = action == FailureAction::Rollback && old.previous.is_none();
                assert!(action == FailureAction::Pause || no_way_back, "{name} is paused, where it says {action:?}");
                self.check_failed(states, old, new);
            }
            (Some(UpdateState::Updating), is) if rolls_back(is) => {
                let by_hand = new.previous.is_some();
                if !by_hand {
                    self.ends.rolled_back += 1;
                    assert_eq!(action, FailureAction::Rollback, "{name} is rolled back");
                    if is != UpdateState::RollbackCompleted {
                        self.check_failed(states, old, new);
                    }
                }
            }
            (Some(UpdateState::RollbackStarted), UpdateState::RollbackPaused) => {
                let action = old.spec.rollback.failure_action;
                assert_ne!(action, FailureAction::Continue, "the rollback of {name} is paused");
                self.check_failed(states, old, new);
            }
            (Some(UpdateState::Updating), UpdateState::Completed) => {
                self.ends.completed += 1;
                self.check_complete(states[1], new, &old.spec.update);
            }
            (Some(UpdateState::RollbackStarted), UpdateState::RollbackCompleted) => {
                self.check_complete(states[1], new, &old.spec.rollback);
            }
            // It says what it waits for.
            (Some(UpdateState::Updating), UpdateState::Updating) => {}
            (_, UpdateState::RollbackStarted) => {}
            (was, UpdateState::Updating) => {
                let paused = matches!(was, Some(UpdateState::Paused | UpdateState::RollbackPaused));
                assert!(!paused, "the update of {name} goes on by itself");
            }
            (was, is) => panic!("the update of {name} is {is:?} after {was:?}"),
        }
        let since = |service: &Service| service.update.as_ref().map(|update| update.since);
        // A rollback that is rolled back begins anew, though it scales alone.
        if is_under_way(is) && (was != Some(is) || since(old) != since(new)) {
            self.begun.insert(new.id, states[1].applied());
        }
    }

    /// A point begins one run at most, on time or within the window, and dealing with points only goes forward.
    fn look_at_runs(&mut self, old: &Service, new: &Service) {
        let (Some(schedule), Some(was), Some(is)) = (&new.spec.schedule, &old.cron, &new.cron) else { return };
        let name = &new.spec.name;
        assert!(is.handled >= was.handled, "points of {name} are dealt with again");
        assert!(is.next.is_none_or(|next| next > is.handled), "a point of {name} is due that was dealt with");
        assert!(is.open.len() <= MAX_OPEN_RUNS && is.ended.len() <= schedule.history as usize, "{name}: {is:?}");
        let latest = old.job.map_or(0, |job| job.iteration);
        for run in is.open.iter().chain(&is.ended).filter(|run| run.iteration > latest) {
            self.ends.runs += 1;
            let Some(point) = run.point else { continue };
            let before = self.begun_points.insert(new.id, point);
            assert!(before.is_none_or(|before| before < point), "{name} runs at {point:?} after {before:?}");
            assert!(was.handled < point, "{name} runs again at {point:?}");
        }
        if schedule.concurrency != Concurrency::Allow {
            // A change of the rule does not undo what was begun.
            assert!(is.open.len() <= was.open.len().max(1), "runs of {name} overlap: {:?}", is.open);
        }
    }

    /// Where runs may not overlap, no two of them have tasks that are to run.
    fn check_overlap(state: &State, service: &Service) {
        let (Some(schedule), Some(cron)) = (&service.spec.schedule, &service.cron) else { return };
        let live = state.tasks_of_service(service.id).filter(|task| task.is_live());
        let iterations: BTreeSet<_> = live.map(|task| task.job_iteration).collect();
        let alone = schedule.concurrency != Concurrency::Forbid || iterations.len() <= cron.open.len().max(1);
        assert!(alone, "runs {iterations:?} of {} overlap", service.spec.name);
    }

    /// Nobody is let go before what it requires has really come to it; it may have in the same entry.
    fn look_at_release(&mut self, states: [&State; 2], service: &Service) {
        self.ends.released += 1;
        for required in service.spec.depends_on.iter().filter(|one| one.required) {
            let so = states.iter().any(|state| self.has_come(state, required)) || ran_anew(states, required);
            assert!(so, "{} is let go, and waits for {required}", service.spec.name);
        }
    }

    /// Of a service whose tasks are many, one says enough.
    fn has_come(&self, state: &State, required: &DependsOn) -> bool {
        let Some(other) = state.service_by_name(&required.service) else { return false };
        let of_spec = |task: &&std::sync::Arc<Task>| task.spec_version == other.spec_version;
        let mut started = state.tasks_of_service(other.id).filter(of_spec).map(|task| self.started.contains(&task.id));
        let so = match (required.condition, other.spec.mode) {
            (StartCondition::Completed, ServiceMode::ReplicatedJob { total_completions, .. }) => {
                other.job.is_some_and(|job| job.completed == total_completions)
            }
            (_, ServiceMode::Replicated { replicas }) => replicas == 0 || started.any(|started| started),
            // No node may be eligible.
            _ => true,
        };
        so && !other.update.as_ref().is_some_and(|update| is_under_way(update.state))
    }

    /// Of the service's present spec version, and created since its update began.
    fn is_of_update(&self, service: &Service, task: &Task) -> bool {
        let since = self.begun.get(&service.id).copied().unwrap_or(u64::MAX);
        task.spec_version == service.spec_version && self.born.get(&task.id).is_some_and(|born| *born >= since)
    }

    /// The slots in which a task of the update ended by itself in the time in which it was watched.
    fn failed_slots(&self, state: &State, service: &Service, config: &UpdateConfig) -> BTreeSet<Slot> {
        let monitor = config.monitor.map_or(DEFAULT_MONITOR_MS, |monitor| monitor.as_millis() as u64);
        let failed = |task: &&std::sync::Arc<Task>| {
            let by_itself = task.outcome.as_ref().is_some_and(|outcome| {
                let own = matches!(outcome.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
                own && outcome.ran_for.is_none_or(|ran| ran.as_millis() as u64 <= monitor)
            });
            by_itself && self.is_of_update(service, task)
        };
        state.tasks_of_service(service.id).filter(failed).map(|task| task.slot).collect()
    }

    /// No failure action without a failure. What is said to have failed may be forgotten in the same entry: a rollback takes
    /// slots away.
    fn check_failed(&self, states: [&State; 2], service: &Service, acted_on: &Service) {
        let config = if service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating) {
            &service.spec.update
        } else {
            &service.spec.rollback
        };
        let failed = states.iter().any(|state| !self.failed_slots(state, service, config).is_empty());
        let message = acted_on.update.as_ref().map_or("", |update| update.message.as_str());
        let named = message.rsplit(' ').next().and_then(|word| word.parse::<TaskId>().ok());
        let since = self.begun.get(&service.id).copied().unwrap_or(u64::MAX);
        let is_gone =
            |task: TaskId| states[1].task(task).is_none() && self.born.get(&task).is_some_and(|born| *born >= since);
        let failed = failed || named.is_some_and(is_gone);
        assert!(failed, "the update of {} failed, and none of its tasks did", service.spec.name);
    }

    /// An update is complete when no old task is left, all new ones have run, and not more failed than may.
    fn check_complete(&self, state: &State, service: &Service, config: &UpdateConfig) {
        let name = &service.spec.name;
        let failed = self.failed_slots(state, service, config);
        let slots: BTreeSet<Slot> = state.tasks_of_service(service.id).map(|task| task.slot).collect();
        if config.failure_action != FailureAction::Continue {
            let ratio = failed.len() as f32 / slots.len().max(1) as f32;
            assert!(ratio <= config.max_failure_ratio, "{} of {} of {name} failed", failed.len(), slots.len());
        }
        for task in state.tasks_of_service(service.id).filter(|task| task.is_live()) {
            let current = task.spec_version == service.spec_version;
            // A node that takes no tasks keeps the one it has. Where the new task failed, and may, the old one serves on until
            // another try comes up.
            let serves_on = config.order == UpdateOrder::StartFirst && failed.contains(&task.slot);
            let may_be_old = service.spec.mode.is_global() || serves_on;
            assert!(current || may_be_old, "{} of {name} is of another spec", task.id);
            if self.is_of_update(service, task) && !failed.contains(&task.slot) {
                assert!(self.started.contains(&task.id), "{} of {name} never ran", task.id);
            }
        }
    }

    /// When an update replaces tasks, no more than `parallelism` of its new ones have still to come up.
    fn check_pace(&mut self, before: &State, after: &State, service: &Service) {
        let Some(update) = service.update.as_ref().map(|update| update.state).filter(|update| is_under_way(*update))
        else {
            return;
        };
        let new = |task: &&std::sync::Arc<Task>| task.is_live() && self.is_of_update(service, task);
        let new: Vec<&std::sync::Arc<Task>> = after.tasks_of_service(service.id).filter(new).collect();
        let replaces = |task: &&&std::sync::Arc<Task>| {
            self.born.get(&task.id) == Some(&after.applied()) && was_outdated(before, service, task.slot)
        };
        let replaced = new.iter().filter(replaces).count() as u64;
        self.ends.replaced += replaced;
        let config = if update == UpdateState::Updating { &service.spec.update } else { &service.spec.rollback };
        if replaced == 0 || config.parallelism == 0 {
            return;
        }
        let tried = |slot: Slot| {
            let mut tasks = after.tasks_in_slot(service.id, slot);
            tasks.any(|task| task.outcome.is_some() && self.is_of_update(service, task))
        };
        let to_come = new.iter().filter(|task| !self.started.contains(&task.id) && !tried(task.slot));
        let slots: BTreeSet<Slot> = to_come.map(|task| task.slot).collect();
        assert!(
            slots.len() as u64 <= config.parallelism,
            "{} slots of {} are without a task, its update takes {} at a time",
            slots.len(),
            service.spec.name,
            config.parallelism
        );
    }
}

/// Where the order is start-first, nothing that serves is stopped before another one serves in its place; a run begins neither
/// before its point nor after its window. By what the leader that makes the plan knows.
pub fn check_plan(state: &State, table: &Table, now: Now, entries: &[Vec<Step>]) {
    let mut after = state.clone();
    for step in entries.iter().flatten() {
        if let Change::SetDesired { task, desired: DesiredState::Shutdown } = step.change
            && let Some(task) = after.task(task)
            && let Some(service) = after.service(task.service)
            && matches!(service.spec.mode, ServiceMode::Replicated { .. })
            && service.spec.update.order == UpdateOrder::StartFirst
            && service.spec.rollback.order == UpdateOrder::StartFirst
            && task.is_live()
            && serves(table, task)
        {
            let mut others = after.tasks_in_slot(task.service, task.slot).filter(|other| other.id != task.id);
            let other = others.any(|other| other.is_live() && serves(table, other));
            assert!(other, "{} of {} is stopped, and nobody serves in its place", task.id, service.spec.name);
        }
        if let Change::BeginRun { service, point, .. } = step.change {
            let schedule = after.service(service).and_then(|service| service.spec.schedule.as_ref());
            let window = schedule.expect("what runs has a schedule").window;
            assert!(point <= now.unix && now.unix - point <= window, "{service} runs at {:?}, not {point:?}", now.unix);
        }
        // What the draft took, another state may refuse.
        let _ = after.apply_change(&step.change, now.unix);
    }
}

fn serves(table: &Table, task: &Task) -> bool {
    let report = task.node.and_then(|node| table.report(node, task.id));
    report.is_some_and(|report| {
        report.state == TaskState::Running && matches!(report.health, Health::None | Health::Healthy)
    })
}

/// A job with a schedule completed a run and began the next one in the same entry, and so is incomplete before and after.
fn ran_anew(states: [&State; 2], required: &DependsOn) -> bool {
    let [old, new] = states.map(|state| state.service_by_name(&required.service));
    let iteration = |service: Option<&std::sync::Arc<Service>>| Some(service?.job?.iteration);
    new.is_some_and(|new| new.cron.is_some()) && iteration(old).is_some() && iteration(old) != iteration(new)
}

fn is_under_way(update: UpdateState) -> bool {
    matches!(update, UpdateState::Updating | UpdateState::RollbackStarted)
}

/// The slot had tasks, and what was last in it was of another spec.
fn was_outdated(before: &State, service: &Service, slot: Slot) -> bool {
    let tasks: Vec<_> = before.tasks_in_slot(service.id, slot).collect();
    let current = |task: &Task| task.spec_version == service.spec_version;
    if tasks.iter().any(|task| task.is_live()) {
        return !tasks.iter().any(|task| task.is_live() && current(task));
    }
    tasks
        .iter()
        .filter(|task| task.outcome.is_some())
        .max_by_key(|task| task.meta.version)
        .is_some_and(|last| !current(last))
}

/// A rollback puts in force what was in force before, whole.
fn check_restored(old: &Service, new: &Service) {
    let name = &new.spec.name;
    let Some(previous) = &old.previous else { panic!("{name} is rolled back to nothing") };
    assert_eq!(previous.spec, new.spec, "{name} is rolled back to another spec");
    assert_eq!(previous.spec_version, new.spec_version, "{name} is rolled back to another version");
    if let Some(kept) = &new.previous {
        assert_eq!(kept.spec, old.spec, "{name} can be rolled forward to another spec than it had");
    }
}

/// Exactly the completions that are there, one a slot, no more than wanted, and no more at a time.
fn check_job(state: &State, service: &Service) {
    let Some(job) = service.job else { return };
    let name = &service.spec.name;
    let completed: Vec<Slot> =
        state.tasks_of_service(service.id).filter(|task| job.counts(task)).map(|task| task.slot).collect();
    let slots: BTreeSet<Slot> = completed.iter().copied().collect();
    assert_eq!(slots.len(), completed.len(), "a slot of job {name} has completed twice");
    // A run keeps the mode it began with; of one that is no history, nobody knows it.
    let mode = match &service.cron {
        None => Some(service.spec.mode),
        Some(cron) => {
            cron.open.iter().chain(&cron.ended).find(|run| run.iteration == job.iteration).map(|run| run.mode)
        }
    };
    if let Some(ServiceMode::ReplicatedJob { max_concurrent, total_completions }) = mode {
        assert_eq!(job.completed, completed.len() as u64, "completions of job {name}");
        assert!(job.completed <= total_completions, "{} of {total_completions} completions of {name}", job.completed);
        let live = |task: &&std::sync::Arc<Task>| task.is_live() && task.job_iteration == Some(job.iteration);
        let live = state.tasks_of_service(service.id).filter(live).count() as u64;
        assert!(
            max_concurrent == 0 || live <= max_concurrent,
            "{live} tasks of job {name}, {max_concurrent} at a time"
        );
    }
}
