//! The loops, driven over a small swarm: ticks, a scheduler of the plainest kind, and nodes that do as they are told.

mod cron;
mod explain;
mod failures;
mod random;
mod services;
mod start_order;
mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::gossip::{NodeRecord, RecordVersion, Table};
use crate::spec::*;
use crate::state::fixture::{Fixture, a_node, node};
use crate::state::*;

/// Images by which a test says how a task goes; any other runs for ever.
const CRASHES: &str = "crashes";
const MISSING: &str = "missing";
const COMPLETES: &str = "completes";
/// Starting until it has been up for two seconds, then healthy.
const SLOW: &str = "slow";
/// Never healthy: it fails after a second, in which it does not count as running.
const SICK: &str = "sick";

const SECOND: Duration = Duration::from_secs(1);

struct Sim {
    swarm: Fixture,
    table: Table,
    mono: MonoMs,
    rng: ChaCha8Rng,
    sequence: u64,
    /// When each task's process started, as its node remembers.
    started: BTreeMap<TaskId, UnixMs>,
    /// Nodes that do nothing and say nothing.
    silent: BTreeSet<NodeId>,
    /// The service was start-first at some time.
    starts_first: bool,
    /// Nothing is placed.
    no_scheduler: bool,
}

impl Sim {
    fn nodes(count: u128) -> Sim {
        Sim::with(Fixture::nodes(count), 1)
    }

    fn with(swarm: Fixture, seed: u64) -> Sim {
        Sim {
            swarm,
            table: Table::default(),
            mono: MonoMs(5_000),
            rng: ChaCha8Rng::seed_from_u64(seed),
            sequence: 0,
            started: BTreeMap::new(),
            silent: BTreeSet::new(),
            starts_first: false,
            no_scheduler: false,
        }
    }

    /// One tick of the loops, committed. The number of steps; none may be refused.
    fn tick(&mut self) -> usize {
        let mut draft = self.swarm.draft();
        let now = Now { mono: self.mono, unix: self.swarm.now };
        super::plan(&mut draft, &self.table, now, &mut self.rng);
        let steps = draft.into_steps();
        let count = steps.len();
        if count > 0 {
            let (_, refused) = self.swarm.plan(steps);
            assert_eq!(refused, 0, "a plan over an unchanged state is applied whole");
        }
        count
    }

    /// Time passes, the leader ticks, tasks are placed, nodes act and report.
    fn step(&mut self, by: Duration) {
        self.swarm.later(by);
        self.mono = self.mono + by;
        self.tick();
        let again = self.tick();
        assert_eq!(again, 0, "a second run on the same input adds nothing");
        self.check_calm();
        self.place();
        self.act();
    }

    /// Takes every service through the loops, the calm ones too.
    fn check_calm(&mut self) {
        let mut draft = self.swarm.draft();
        let now = Now { mono: self.mono, unix: self.swarm.now };
        let limit = super::MAX_STEPS;
        let mut tick = super::Tick { draft: &mut draft, table: &self.table, now, rng: &mut self.rng, steps: 0, limit };
        for service in self.swarm.state.services() {
            super::reconcile(&mut tick, service.id);
        }
        assert_eq!(tick.steps, 0, "a service that is passed over needs nothing");
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step(Duration::from_millis(100));
        }
    }

    /// Places every task that waits on the node with the fewest.
    fn place(&mut self) {
        if self.no_scheduler {
            return;
        }
        let held = |task: &Task| self.of(task.service).holds_back(task.spec_version);
        let waits = |task: &&Arc<Task>| task.is_live() && task.assigned_at.is_none() && !held(task);
        let waiting: Vec<_> = self.swarm.state.tasks().filter(waits).cloned().collect();
        for task in waiting {
            let state = &self.swarm.state;
            let spec = state.task_spec(task.service, task.spec_version).expect("kept");
            let eligible = super::eligible::Eligible::by(&spec.placement);
            let free =
                |n: &&Arc<Node>| n.takes_tasks() && eligible.fits(n) && task.node.is_none_or(|bound| bound == n.id);
            let load = |n: &&Arc<Node>| (state.tasks_of_node(n.id).filter(|t| t.holds_resources()).count(), n.id);
            if let Some(node) = state.nodes().filter(free).min_by_key(load) {
                let node = node.id;
                self.swarm.assign(task.id, node);
            }
        }
    }

    /// Every node that is not silent does what its tasks want, and says so.
    fn act(&mut self) {
        let nodes: Vec<Arc<Node>> = self.swarm.state.nodes().cloned().collect();
        for node in nodes {
            if self.silent.contains(&node.id) || matches!(node.health, NodeHealth::Left { .. }) {
                continue;
            }
            let state = self.swarm.state.clone();
            let told = state.tasks_of_node(node.id).filter(|task| task.assigned_at.is_some() && task.outcome.is_none());
            let reports = told.map(|task| self.report(&state, task)).collect();
            self.says(node.id, reports);
        }
    }

    /// A node's record, with these reports alone.
    fn says(&mut self, node: NodeId, reports: Vec<TaskReport>) {
        self.sequence += 1;
        let version = RecordVersion { incarnation: Incarnation(1), sequence: self.sequence };
        let description = self.swarm.state.node(node).expect("it is a member").description.clone();
        let tasks = reports.into_iter().map(|report| (report.task, report)).collect();
        let record = NodeRecord { tasks, ..NodeRecord::new(node, version, description) };
        self.table.merge(Arc::new(record), self.mono);
    }

    fn report(&mut self, state: &State, task: &Task) -> TaskReport {
        let spec = state.task_spec(task.service, task.spec_version).expect("kept");
        // The leader's clock may be set back, its nodes' are not.
        let due =
            self.started.contains_key(&task.id) || task.assigned_at.expect("told") + task.start_delay <= self.swarm.now;
        let (task_state, ran) = match task.desired {
            DesiredState::Shutdown | DesiredState::Remove => (TaskState::Shutdown, None),
            _ if spec.container.image == MISSING => (TaskState::Rejected, None),
            DesiredState::Ready => (TaskState::Ready, None),
            DesiredState::Running if !due => (TaskState::Ready, None),
            DesiredState::Running => {
                let since = *self.started.entry(task.id).or_insert(self.swarm.now);
                let ran = self.swarm.now - since;
                match spec.container.image.as_str() {
                    SLOW if ran < SECOND * 2 => (TaskState::Starting, None),
                    SLOW => (TaskState::Running, Some(ran - SECOND * 2)),
                    SICK if ran < SECOND => (TaskState::Starting, None),
                    SICK => (TaskState::Failed, None),
                    CRASHES if !ran.is_zero() => (TaskState::Failed, Some(ran)),
                    "short" if ran >= SECOND * 3 => (TaskState::Complete, Some(ran)),
                    COMPLETES if !ran.is_zero() => (TaskState::Complete, Some(ran)),
                    _ => (TaskState::Running, Some(ran)),
                }
            }
        };
        a_report(task.id, task_state, ran)
    }

    /// The tasks of a service that its nodes say are running.
    fn running(&self, service: ServiceId) -> Vec<Arc<Task>> {
        let runs = |task: &&Arc<Task>| {
            let report = task.node.and_then(|node| self.table.report(node, task.id));
            task.outcome.is_none() && report.is_some_and(|report| report.state == TaskState::Running)
        };
        self.swarm.state.tasks_of_service(service).filter(runs).cloned().collect()
    }

    fn live(&self, service: ServiceId) -> Vec<Arc<Task>> {
        self.swarm.state.tasks_of_service(service).filter(|task| task.is_live()).cloned().collect()
    }

    fn ended(&self, service: ServiceId) -> Vec<Arc<Task>> {
        self.swarm.state.tasks_of_service(service).filter(|task| task.outcome.is_some()).cloned().collect()
    }

    fn of(&self, service: ServiceId) -> Arc<Service> {
        Arc::clone(self.swarm.state.service(service).expect("the service exists"))
    }

    fn update_state(&self, service: ServiceId) -> Option<UpdateState> {
        self.of(service).update.as_ref().map(|status| status.state)
    }

    /// The slots of live tasks, in order.
    fn slots(&self, service: ServiceId) -> Vec<Slot> {
        self.live(service).iter().map(|task| task.slot).collect()
    }

    fn verdict(&mut self, id: NodeId) {
        let since = self.swarm.now;
        self.silent.insert(id);
        self.swarm.health(id, NodeHealth::Down { incarnation: Incarnation(1), since });
    }
}

fn a_report(task: TaskId, state: TaskState, ran_for: Option<Duration>) -> TaskReport {
    TaskReport {
        task,
        state,
        message: if state == TaskState::Failed { "task: non-zero exit (1)".into() } else { String::new() },
        container_id: None,
        pid: None,
        exit_code: None,
        ran_for,
        health: Health::None,
        restarts_in_place: 0,
        host_ports: Vec::new(),
    }
}

fn replicas(count: u64) -> impl FnOnce(&mut ServiceSpec) {
    move |spec| spec.mode = ServiceMode::Replicated { replicas: count }
}

fn image(image: &'static str) -> impl FnOnce(&mut ServiceSpec) {
    move |spec| spec.task.container.image = image.into()
}
