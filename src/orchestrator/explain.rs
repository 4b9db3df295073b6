//! Why a service's slots are as they are: what the loops see in them, in words. Makes no change and decides nothing; each
//! sentence rests on the very answers by which the loops act.

use std::time::Duration;

use rand::Rng;

use super::restart::{self, Next};
use super::slots::{Fleet, SlotTasks};
use super::update::{self, Progress};
use super::{Tick, job, start_order};
use crate::gossip::Table;
use crate::spec::quantity::format_duration;
use crate::spec::*;
use crate::state::{Draft, Service, State, Task, UpdateState};

/// Every slot that has or had a task, in order.
pub fn explain(state: &State, table: &Table, now: Now, service: &Service, rng: &mut impl Rng) -> Vec<SlotFate> {
    let mut draft = Draft::new(state, now.unix);
    let tick = Tick { draft: &mut draft, table, now, rng, steps: 0, limit: 0 };
    let fleet = Fleet::of(state, service).latest();
    let update = update_of(&tick, &fleet);
    fleet.slots().map(|slot| fate(&tick, &fleet, &slot, &update)).collect()
}

fn fate(tick: &Tick<'_>, fleet: &Fleet<'_>, slot: &SlotTasks<'_>, update: &str) -> SlotFate {
    let newest = slot.live().max_by_key(|task| (task.meta.created_at, task.id));
    let (task, why) = match (newest, slot.last_ended()) {
        (Some(task), _) => (Some(task.id), of_live(tick, fleet, slot, task, update)),
        (None, _) if slot.is_stopping() => {
            let stopping = slot.all().find(|task| task.outcome.is_none());
            (stopping.map(|task| task.id), "it is being stopped".to_owned())
        }
        (None, Some(last)) => (Some(last.id), of_ended(fleet, slot, last, update)),
        (None, None) => (None, "the leader has not looked at it yet".to_owned()),
    };
    SlotFate { slot: slot.slot(), task, why }
}

fn of_live(tick: &Tick<'_>, fleet: &Fleet<'_>, slot: &SlotTasks<'_>, task: &Task, update: &str) -> String {
    if update::is_outdated(fleet, slot) {
        return format!("of an earlier spec; {update}");
    }
    if task.assigned_at.is_none() {
        let reason = &task.pending_reason;
        return if reason.is_empty() { "waits for the leader to place it".to_owned() } else { reason.clone() };
    }
    if tick.up_for(task).is_some() {
        return String::new();
    }
    if task.desired == DesiredState::Ready {
        let before = slot.all().find(|other| super::slots::is_stopping(other));
        let which = before.map_or_else(String::new, |other| format!(" ({})", other.id));
        return format!("prepared; starts when the task before it{which} has stopped");
    }
    let report = task.node.and_then(|node| tick.table.report(node, task.id));
    let said = report.map(|report| report.message.clone()).filter(|message| !message.is_empty());
    let mut parts: Vec<String> = said.into_iter().collect();
    match report.map(|report| report.health) {
        Some(Health::Unhealthy) => parts.push("its health check fails".to_owned()),
        Some(Health::Starting) => parts.push("its health check has not succeeded yet".to_owned()),
        _ => {}
    }
    if report.is_none() {
        parts.push("its node has not said anything of it yet".to_owned());
    }
    if !task.start_delay.is_zero() {
        parts.push(format!("restart {}, held back for {}", task.restarts.len(), in_words(task.start_delay)));
    }
    parts.join("; ")
}

fn of_ended(fleet: &Fleet<'_>, slot: &SlotTasks<'_>, last: &Task, update: &str) -> String {
    let outcome = last.outcome.as_ref();
    let how = outcome.map_or_else(String::new, |outcome| {
        let state = format!("{:?}", outcome.state).to_lowercase();
        if outcome.message.is_empty() { state } else { format!("{state}: {}", outcome.message) }
    });
    if fleet.service.spec.mode.is_job() && job::is_completed(fleet, slot) {
        return format!("{how}; this job wants nothing more of it");
    }
    if update::is_outdated(fleet, slot) {
        return format!("{how}; {update}");
    }
    let policy = fleet.restart_policy(last);
    if restart::next(policy, last) != Next::Never {
        return match waits_for_its_node(fleet, slot) {
            true => format!("{how}; another one comes once the node is back, and takes tasks of this service"),
            false => format!("{how}; the leader makes another one"),
        };
    }
    let why = match (policy.condition, outcome.map(|outcome| outcome.state)) {
        (RestartCondition::None, _) => "its restart condition is none".to_owned(),
        (RestartCondition::OnFailure, Some(TaskState::Complete)) => {
            "its restart condition is on-failure, and it did not fail".to_owned()
        }
        _ => {
            let window = policy.window.filter(|window| !window.is_zero());
            let within = window.map_or_else(String::new, |window| format!(" within {}", in_words(window)));
            format!("all {} restarts that its policy allows{within} are used up", policy.max_attempts.unwrap_or(0))
        }
    };
    format!("{how}; not restarted: {why}. An update or scaling of the service brings the slot back")
}

/// A global service has a task for each node, and none elsewhere.
fn waits_for_its_node(fleet: &Fleet<'_>, slot: &SlotTasks<'_>) -> bool {
    let Slot::Node(node) = slot.slot() else { return false };
    !fleet.state.node(node).is_some_and(|node| fleet.eligible.may_come(node))
}

/// Where the service's update stands, for slots that wait for it.
fn update_of(tick: &Tick<'_>, fleet: &Fleet<'_>) -> String {
    let Some(status) = &fleet.service.update else { return "an update replaces it".to_owned() };
    if fleet.is_paused() {
        return format!("{}; `flok service update` or `flok service rollback` goes on", status.message);
    }
    if !fleet.is_updating() {
        return "an update replaces it".to_owned();
    }
    if let Some(why) = start_order::waits_for(tick, fleet.service).filter(|_| fleet.service.is_held()) {
        return format!("the update {why}");
    }
    let rolling_back = status.state == UpdateState::RollbackStarted;
    let (config, what) = match rolling_back {
        true => (&fleet.service.spec.rollback, "rollback"),
        false => (&fleet.service.spec.update, "update"),
    };
    let progress = Progress::of(tick, fleet, config, status.since);
    let at_once = match config.parallelism {
        0 => "all".to_owned(),
        some => some.to_string(),
    };
    format!(
        "the {what} replaces {at_once} at a time, and waits for {} to be up{}; {} are still to come",
        progress.in_flight,
        if config.delay.is_zero() { String::new() } else { format!(" for {}", in_words(config.delay)) },
        progress.outdated.len(),
    )
}

/// Without fractions of a millisecond.
fn in_words(duration: Duration) -> String {
    format_duration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}
