//! Start order: nothing of a new spec starts before what its service depends on has come to it.
//!
//! A service is held from the moment a spec with something new to run is put in force until every condition of its `depends_on`
//! holds at once; then it is released, in the log, and is not asked again for that spec. So what becomes of a dependency later
//! holds nobody up: a task that failed, was drained or lost its node comes back at once, as it does in Compose.
//!
//! While it is held, its new tasks have no node and say what they wait for, and its update replaces nothing: the tasks of the
//! spec before go on, and are replaced by their like where they end.
//!
//! A dependency holds by the tasks of its own present spec, and not before its update has ended: in a deployment of several
//! services the new task of one waits for the new tasks of the other. Services in a ring are refused, so somebody can always
//! go on; a rollback goes back to a spec that was released before.

use super::Tick;
use super::eligible::Eligible;
use super::slots::{Fleet, SlotTasks, is_stopping};
use crate::spec::*;
use crate::state::{Change, ObjectId, Service, State, Task, UpdateState};

/// Of a task of an earlier spec which was replaced before what it depends on had come to it.
pub(super) const NEVER_STARTED: &str =
    "was not started before an update, and the update is paused: update the service again, or roll it back";

pub(super) fn plan(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    if fleet.service.held.is_empty() {
        return;
    }
    if fleet.service.is_held() {
        match waits_for(tick, fleet.service) {
            None => {
                let read = dependencies(tick.state(), fleet.service);
                tick.change(&read, Change::ReleaseService { service: fleet.service.id });
            }
            Some(why) => say(tick, fleet, &why),
        }
    } else if fleet.is_paused() {
        say(tick, fleet, NEVER_STARTED);
    } else {
        say(tick, fleet, "was not started before an update: waits to be replaced");
    }
}

/// What the release rests on: where one of them gets another spec in the meantime, it is void.
fn dependencies(state: &State, service: &Service) -> Vec<ObjectId> {
    let found = |one: &DependsOn| Some(ObjectId::Service(state.service_by_name(&one.service)?.id));
    service.spec.depends_on.iter().filter_map(found).collect()
}

/// Every task that is held back says why.
fn say(tick: &mut Tick<'_>, fleet: &Fleet<'_>, why: &str) {
    let held =
        |task: &&Task| task.is_live() && task.assigned_at.is_none() && fleet.service.holds_back(task.spec_version);
    let silent = fleet.slots().flat_map(|slot| slot.all().filter(held).collect::<Vec<_>>());
    for task in silent.filter(|task| task.pending_reason != why) {
        tick.change(&[], Change::SetPendingReason { task: task.id, reason: why.to_owned() });
    }
}

/// What the service waits for. `None`: nothing that it depends on is missing.
pub(super) fn waits_for(tick: &Tick<'_>, service: &Service) -> Option<String> {
    let mut missing = Vec::new();
    for dependency in &service.spec.depends_on {
        match standing(tick, dependency) {
            Standing::Holds => {}
            Standing::Stuck(_) if !dependency.required => {}
            Standing::Coming => missing.push(format!("waits for {dependency}")),
            Standing::Stuck(why) => missing.push(format!("waits for {dependency}: {why}")),
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

enum Standing {
    Holds,
    Coming,
    /// It comes to nothing without somebody's help.
    Stuck(&'static str),
}

fn standing(tick: &Tick<'_>, dependency: &DependsOn) -> Standing {
    let Some(service) = tick.state().service_by_name(&dependency.service) else {
        return Standing::Stuck("there is no such service");
    };
    match service.update.as_ref().map(|update| update.state) {
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => return Standing::Coming,
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => return Standing::Stuck("its update is paused"),
        _ => {}
    }
    if service.is_held() && is_stuck(tick, service) {
        return Standing::Stuck("it waits itself");
    }
    let fleet = Fleet::of(tick.state(), service);
    let slots = Slots::count(tick, &fleet, dependency.condition);
    let wanted = wanted(&fleet);
    let excused = if dependency.condition == StartCondition::Completed { 0 } else { slots.without_place };
    if slots.good >= wanted || (slots.good > 0 && slots.good + excused >= wanted) {
        Standing::Holds
    } else if slots.given_up > 0 {
        Standing::Stuck("its restart policy allows no other try")
    } else {
        Standing::Coming
    }
}

/// Held by something that comes to nothing without somebody's help. Services that wait for one another are refused, so this
/// comes to an end.
fn is_stuck(tick: &Tick<'_>, service: &Service) -> bool {
    let stuck = |one: &DependsOn| one.required && matches!(standing(tick, one), Standing::Stuck(_));
    service.spec.depends_on.iter().any(stuck)
}

/// How many slots the service is to have.
fn wanted(fleet: &Fleet<'_>) -> u64 {
    match fleet.service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::ReplicatedJob { total_completions, .. } => total_completions,
        ServiceMode::Global | ServiceMode::GlobalJob => {
            let eligible = Eligible::by(&fleet.service.spec.task.placement);
            fleet.state.nodes().filter(|node| eligible.may_come(node)).count() as u64
        }
    }
}

/// How the slots of a dependency stand to a condition.
#[derive(Default)]
struct Slots {
    good: u64,
    /// No node takes their task: they are not waited for, as long as there is another one.
    without_place: u64,
    /// Nothing more comes of them.
    given_up: u64,
}

impl Slots {
    fn count(tick: &Tick<'_>, fleet: &Fleet<'_>, condition: StartCondition) -> Slots {
        let mut slots = Slots::default();
        for slot in fleet.slots() {
            if slot.all().any(|task| is_good(tick, fleet, task, condition)) {
                slots.good += 1;
            } else if slot.live().any(|task| has_no_place(fleet, task)) {
                slots.without_place += 1;
            } else if !slot.has_live() && !slot.all().any(is_stopping) && is_given_up(fleet, &slot) {
                slots.given_up += 1;
            }
        }
        slots
    }
}

fn is_good(tick: &Tick<'_>, fleet: &Fleet<'_>, task: &Task, condition: StartCondition) -> bool {
    let completed = task.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Complete);
    let this_time = fleet.is_current(task) && task.job_iteration == fleet.service.job.map(|job| job.iteration);
    let so = match condition {
        StartCondition::Completed => completed,
        StartCondition::Started => completed || has_started(tick, task),
        StartCondition::Healthy => (completed && task.job_iteration.is_some()) || is_up(tick, task),
    };
    this_time && so
}

fn is_up(tick: &Tick<'_>, task: &Task) -> bool {
    task.is_live() && tick.up_for(task).is_some()
}

/// Its process is there, healthy or not, or was.
fn has_started(tick: &Tick<'_>, task: &Task) -> bool {
    if let Some(outcome) = &task.outcome {
        return outcome.ran_for.is_some();
    }
    let report = task.node.and_then(|node| tick.table.report(node, task.id));
    report.is_some_and(|report| report.state == TaskState::Running || report.pid.is_some())
}

/// The scheduler looked at it, and found no node.
fn has_no_place(fleet: &Fleet<'_>, task: &Task) -> bool {
    let looked_at = task.assigned_at.is_none() && !task.pending_reason.is_empty();
    fleet.is_current(task) && looked_at && !fleet.service.holds_back(task.spec_version)
}

fn is_given_up(fleet: &Fleet<'_>, slot: &SlotTasks<'_>) -> bool {
    slot.last_ended().is_some_and(|last| fleet.is_current(last) && fleet.is_left_empty(last))
}
