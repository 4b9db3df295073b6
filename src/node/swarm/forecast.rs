//! Questions to the loops that the leader runs: what the swarm would do after some commands, and why a service is as it is.
//!
//! The first is worked out on a copy of the state with the leader's own loops and without
//! proposing anything. No clock and no IO.
//!
//! The leader's tick runs over the copy again and again. Between two ticks the nodes are imagined to do at once what they
//! are told: what is new runs and has run for long, what is to stop has ended. So a rolling update goes through to its end,
//! and what finds no place at the end finds none.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::decisions::tasks_and_places;
use crate::api::{Explained, Forecast};
use crate::gossip::{NodeRecord, Table};
use crate::spec::*;
use crate::state::{Change, Command, Draft, Entry, Proposal, Refusal, Service, State, Task};
use crate::{orchestrator, scheduler};

/// A tick replaces `parallelism` tasks of an update; one that has more steps is shown as far as this.
const MAX_TICKS: usize = 256;
/// Longer than any update's delay or monitor.
const FOR_LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// All of `commands` or none, as a transaction in the log; the refusal is the one that it would get there.
pub fn forecast(state: &State, table: &Table, commands: Vec<Command>, now: Now) -> Result<Forecast, Refusal> {
    let index = state.applied() + 1;
    let mut after = state.clone();
    // One that no client has: the answer to another one's proposal must not be taken for this.
    let proposal = Proposal { client: ClientId(u128::MAX), sequence: index, answered_below: 0 };
    let entry = Entry { proposal, at: now.unix, command: Command::Transaction(commands) };
    after.apply(index, &entry).map_err(|beyond| Refusal::Precondition(beyond.to_string()))??;
    // The same question of the same state has the same answer.
    let mut rng = StdRng::seed_from_u64(index);
    let mut table = table.clone();
    for _ in 0..MAX_TICKS {
        let mut draft = Draft::new(&after, now.unix);
        tasks_and_places(&mut draft, &table, now, &mut rng);
        if draft.is_empty() && !release(&mut after, now) {
            return Ok(Forecast { state: after, is_settled: true });
        }
        let index = after.applied() + 1;
        if !draft.is_empty() {
            after = draft.state().clone();
        }
        after.advance(index);
        imagine(state, &after, &mut table, now);
    }
    Ok(Forecast { state: after, is_settled: false })
}

/// What the scheduler and the orchestrator say of a service as it is.
pub fn explain(state: &State, table: &Table, service: &Service, now: Now) -> Explained {
    let mut rng = StdRng::seed_from_u64(state.applied());
    let home = |task: &Arc<Task>| {
        let spec = state.task_spec(task.service, task.spec_version)?;
        Some((task.id, scheduler::volume_home(state, spec, task)?.0))
    };
    Explained {
        nodes: scheduler::fits(state, table, now, service, &mut rng),
        slots: orchestrator::explain(state, table, now, service, &mut rng),
        homes: state.tasks_of_service(service.id).filter_map(home).collect(),
    }
}

/// Lets those go on that wait for what is there and has not come to it in a forecast, such as a job. False: nobody does.
fn release(state: &mut State, now: Now) -> bool {
    let there = |one: &DependsOn| !one.required || state.service_by_name(&one.service).is_some();
    let waits = |service: &&Arc<Service>| service.is_held() && service.spec.depends_on.iter().all(there);
    let held: Vec<ServiceId> = state.services().filter(waits).map(|service| service.id).collect();
    let release = |id: &ServiceId| Change::ReleaseService { service: *id };
    held.iter().filter(|id| state.apply_change(&release(id), now.unix).is_ok()).count() > 0
}

/// Lets each node have done what it is told in `after`, where that is not what it was told before.
fn imagine(before: &State, after: &State, table: &mut Table, now: Now) {
    for node in after.nodes() {
        let Some(record) = table.get(node.id).map(|held| Arc::clone(&held.record)) else { continue };
        let mut imagined: Option<NodeRecord> = None;
        for task in after.tasks_of_node(node.id).filter(|task| is_to_act(before, task)) {
            let state = if task.is_live() { TaskState::Running } else { TaskState::Shutdown };
            if record.tasks.get(&task.id).is_none_or(|report| report.state != state) {
                imagined.get_or_insert_with(|| (*record).clone()).tasks.insert(task.id, report(task.id, state));
            }
        }
        if let Some(mut imagined) = imagined {
            imagined.version.sequence += 1;
            table.merge(Arc::new(imagined), now.mono);
        }
    }
}

/// Its node has something new to do with it. What was there before goes on as it does: a task that crashes all the time is
/// not imagined to be well.
fn is_to_act(before: &State, task: &Task) -> bool {
    let is_told = task.assigned_at.is_some() && task.outcome.is_none();
    let starts = task.desired == DesiredState::Running && before.task(task.id).is_none();
    is_told && (starts || task.desired > DesiredState::Running)
}

fn report(task: TaskId, state: TaskState) -> TaskReport {
    TaskReport {
        task,
        state,
        message: String::new(),
        container_id: None,
        pid: None,
        exit_code: None,
        ran_for: Some(FOR_LONG),
        health: Health::None,
        restarts_in_place: 0,
        host_ports: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::RecordVersion;
    use crate::state::CredentialsUpdate;
    use crate::state::fixture::{Fixture, service_spec};

    fn now(swarm: &Fixture) -> Now {
        Now { mono: MonoMs(1_000_000), unix: swarm.now }
    }

    /// Every node is heard, and says that its tasks run.
    fn table(swarm: &Fixture) -> Table {
        let mut table = Table::default();
        for node in swarm.state.nodes() {
            let tasks = swarm.state.tasks_of_node(node.id).map(|task| (task.id, report(task.id, TaskState::Running)));
            let record = NodeRecord {
                tasks: tasks.collect(),
                ..NodeRecord::new(
                    node.id,
                    RecordVersion { incarnation: Incarnation(1), sequence: 1 },
                    node.description.clone(),
                )
            };
            table.merge(Arc::new(record), MonoMs(1));
        }
        table
    }

    fn live(state: &State) -> Vec<&Arc<Task>> {
        state.tasks().filter(|task| task.is_live()).collect()
    }

    fn create(name: &str, replicas: u64, adjust: impl FnOnce(&mut ServiceSpec)) -> Command {
        let mut spec = service_spec(name, replicas);
        adjust(&mut spec);
        Command::CreateService { id: ServiceId(9), spec: Box::new(spec), credentials: None }
    }

    #[test]
    fn a_new_service_is_placed_on_a_copy() {
        let swarm = Fixture::nodes(3);
        let seen = forecast(&swarm.state, &table(&swarm), vec![create("web", 3, |_| {})], now(&swarm)).unwrap();
        assert!(seen.is_settled);
        let nodes: std::collections::BTreeSet<_> = live(&seen.state).iter().filter_map(|task| task.node).collect();
        assert_eq!(nodes.len(), 3);
        assert_eq!(swarm.state.services().len(), 0);
    }

    #[test]
    fn what_finds_no_place_says_why() {
        let swarm = Fixture::nodes(2);
        let big = create("big", 3, |spec| spec.task.resources.reservations.memory_bytes = 8 << 30);
        let seen = forecast(&swarm.state, &table(&swarm), vec![big], now(&swarm)).unwrap();
        let waits: Vec<&str> = live(&seen.state)
            .into_iter()
            .filter(|task| task.assigned_at.is_none())
            .map(|task| task.pending_reason.as_str())
            .collect();
        assert_eq!(waits, ["no suitable node (2 nodes: insufficient memory)"]);
    }

    #[test]
    fn a_rolling_update_goes_through_to_its_end() {
        let mut swarm = Fixture::nodes(2);
        // Each node has room for one: the new task fits where the old one has gone.
        let id = swarm.service("web", 2, |spec| spec.task.resources.reservations.memory_bytes = 6 << 30);
        swarm.running(id, 1, crate::state::fixture::node(1));
        swarm.running(id, 2, crate::state::fixture::node(2));
        let service = swarm.state.service(id).unwrap();
        let mut spec = service.spec.clone();
        spec.task.container.image = "example.org/whoami:2".into();
        let update = Command::UpdateService {
            id,
            version: service.meta.version,
            spec: Box::new(spec),
            credentials: CredentialsUpdate::Keep,
        };
        let seen = forecast(&swarm.state, &table(&swarm), vec![update], now(&swarm)).unwrap();
        assert!(seen.is_settled);
        let live = live(&seen.state);
        assert_eq!(live.len(), 2);
        let version = seen.state.service(id).unwrap().spec_version;
        assert!(live.iter().all(|task| task.spec_version == version && task.assigned_at.is_some()), "{live:?}");
    }

    #[test]
    fn what_the_log_would_refuse_is_refused() {
        let mut swarm = Fixture::nodes(1);
        swarm.service("web", 1, |_| {});
        let refusal = forecast(&swarm.state, &table(&swarm), vec![create("web", 1, |_| {})], now(&swarm)).err();
        assert!(matches!(refusal, Some(Refusal::AlreadyExists(_))), "{refusal:?}");
    }
}
