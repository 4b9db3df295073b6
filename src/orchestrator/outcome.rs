//! Writes down how tasks ended, and in the same step what follows.
//!
//! A task ends by the word of the node that has it, in that node's own record; or by a verdict on that node, in which
//! case it is orphaned. A node that is merely silent changes nothing.

use std::collections::BTreeMap;

use super::eligible::Eligible;
use super::{Birth, Tick, restart};
use crate::spec::*;
use crate::state::{Change, NewTask, NodeHealth, ObjectId, Service, State, Task};

pub(super) fn plan(tick: &mut Tick<'_>) {
    let state = tick.state().clone();
    for (task, outcome) in reported(&state, tick).into_values() {
        finish(tick, &state, task, outcome, &[]);
    }
    for node in state.nodes() {
        let message = match node.health {
            NodeHealth::Down { .. } => format!("node {} is down", node.name()),
            NodeHealth::Left { .. } => format!("node {} has left the swarm", node.name()),
            NodeHealth::Unknown | NodeHealth::Up | NodeHealth::HeldDown { .. } => continue,
        };
        for task in state.tasks_of_node(node.id).filter(|task| task.outcome.is_none()) {
            // Its own report, where it managed to send one, says more than the verdict.
            if tick.state().task(task.id).is_some_and(|task| task.outcome.is_none()) {
                finish(tick, &state, task, orphaned(&message), &[ObjectId::Node(node.id)]);
            }
        }
    }
}

/// Tasks that their nodes report as ended and that have no outcome yet, in the order of their ids.
fn reported<'s>(state: &'s State, tick: &Tick<'_>) -> BTreeMap<TaskId, (&'s Task, Outcome)> {
    let mut ended = BTreeMap::new();
    for (node, held) in tick.table.iter() {
        for (id, report) in held.record.tasks.iter().filter(|(_, report)| is_end(report.state)) {
            let Some(task) = state.task(*id) else { continue };
            if task.node == Some(node) && task.outcome.is_none() && is_due(task, report, tick.now.unix) {
                ended.insert(*id, (task.as_ref(), outcome(!task.is_live(), task, report)));
            }
        }
    }
    ended
}

fn is_end(state: TaskState) -> bool {
    state.is_final() && state != TaskState::Remove
}

/// A node prepares a task while its start delay runs, and may find at once that it cannot be run. Its end counts when the
/// delay has passed: else a task that is rejected each time would be tried again without any delay between. A clock that
/// stands so far before the assignment was set back, or is another leader's: nothing waits for it to catch up.
fn is_due(task: &Task, report: &TaskReport, now: UnixMs) -> bool {
    let Some(assigned) = task.assigned_at else { return false };
    let (delay, set_back) = (task.start_delay, assigned > now + task.start_delay);
    report.ran_for.is_some() || !task.is_live() || set_back || assigned + delay <= now
}

/// `task` has just been told to stop. An end that was not due yet (see [`is_due`]) is due now.
pub(super) fn write_down_early_end(tick: &mut Tick<'_>, task: &Task) {
    let Some(report) = task.node.and_then(|node| tick.table.report(node, task.id)) else { return };
    if task.assigned_at.is_some() && task.outcome.is_none() && is_end(report.state) {
        let outcome = outcome(true, task, report);
        tick.change(&[], Change::Finish { task: task.id, outcome, replacement: None });
    }
}

/// `told`: the task was wanted stopped. A process that is told to stop may well end with an error, or with none: it was
/// shut down all the same. But work that a job's task completed is completed.
fn outcome(told: bool, task: &Task, report: &TaskReport) -> Outcome {
    let completed = report.state == TaskState::Complete && task.job_iteration.is_some();
    Outcome {
        state: if told && !completed { TaskState::Shutdown } else { report.state },
        message: report.message.clone(),
        exit_code: report.exit_code,
        container_id: report.container_id.clone(),
        ran_for: report.ran_for,
    }
}

fn orphaned(message: &str) -> Outcome {
    Outcome {
        state: TaskState::Orphaned,
        message: message.to_owned(),
        exit_code: None,
        container_id: None,
        ran_for: None,
    }
}

fn finish(tick: &mut Tick<'_>, state: &State, task: &Task, outcome: Outcome, reads: &[ObjectId]) {
    if tick.is_full() {
        return;
    }
    let service = state.service(task.service);
    let replacement = service.and_then(|service| replacement(tick, service, task, &outcome)).map(Box::new);
    let follows = replacement.is_some();
    let ended = tick.change(reads, Change::Finish { task: task.id, outcome: outcome.clone(), replacement });
    if !ended && follows {
        // Whatever speaks against the replacement, the end is a fact.
        tick.change(reads, Change::Finish { task: task.id, outcome, replacement: None });
    }
}

/// The task that follows at once in the same slot and with the same spec. Where it is less plain (the slot is no longer
/// wanted, another task already takes over, the node takes none), nothing: the service's loops look at the slot next.
fn replacement(tick: &mut Tick<'_>, service: &Service, task: &Task, outcome: &Outcome) -> Option<NewTask> {
    let beside = |other: &Task| service.runs_beside() && other.job_iteration != task.job_iteration;
    let in_the_way = |other: &Task| other.id != task.id && other.is_live() && !beside(other);
    let alone = !tick.state().tasks_in_slot(service.id, task.slot).any(|other| in_the_way(other));
    if !task.is_live() || !alone || !is_wanted(tick.state(), service, task) {
        return None;
    }
    let policy = &tick.state().task_spec(task.service, task.spec_version)?.restart;
    let next = restart::next_after(policy, task, outcome, tick.now.unix);
    let birth: Birth = restart::successor(next, task, tick.now.unix, tick.rng)?;
    Some(tick.new_task((service, task.job_iteration), task.slot, birth, Some(task.id)))
}

fn is_wanted(state: &State, service: &Service, task: &Task) -> bool {
    if !service.takes(task.job_iteration) {
        return false;
    }
    match (task.slot, service.mode_of(task.job_iteration)) {
        (Slot::Replica(_), ServiceMode::Replicated { replicas }) => replicas > 0,
        (Slot::Replica(slot), ServiceMode::ReplicatedJob { total_completions, .. }) => slot < total_completions,
        (Slot::Node(node), ServiceMode::Global | ServiceMode::GlobalJob) => {
            let eligible = Eligible::by(&service.spec.task.placement);
            state.node(node).is_some_and(|node| eligible.may_come(node))
        }
        _ => false,
    }
}
