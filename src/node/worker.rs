//! The worker's half of a node: the agent's machine, driven by the newest assignments, by containerd's events and by time,
//! with runtime and network as its hands.
//!
//! Whoever composes the node gives it assignments and takes its reports. When the daemon goes, the containers stay; the
//! next worker finds them, and the exits that happened meanwhile.

mod executor;
mod images;
mod names;
mod outcomes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::executor::{Context, Executor, Hands};
use self::outcomes::Outcomes;
use crate::agent::{Event, EventKind, Found, FoundState, HealthLog, Machine, NodeNames};
use crate::dispatcher::Networks;
use crate::network::dns::{Resolver, ResolverConfig};
use crate::network::{NetworkConfig, TaskNetworks};
use crate::runtime::{ContainerExit, Runtime, container_id};
use crate::spec::*;

/// Events of the executor not yet handled; jobs wait when it is full.
const EVENT_QUEUE: usize = 1024;
/// Questions about health that wait, and how long an answer is waited for.
const QUESTION_QUEUE: usize = 64;
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Tasks in the making for each that may create or start its container: the others have their networks and volumes made.
const ROOM_PER_WORK: usize = 2;
/// Until a listing of images that failed is made again.
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long a shutdown waits for what is under way.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Must exist; outcomes are kept below it.
    pub data_dir: PathBuf,
    pub network: NetworkConfig,
    pub resolver: ResolverConfig,
    /// This node, as templates have it.
    pub node: NodeNames,
    /// Containers created, started or removed at once; 0: by the number of CPUs.
    pub work_at_once: usize,
}

/// What the swarm wants of this node, whole.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub assignments: BTreeMap<TaskId, Assignment>,
    pub dependencies: BTreeMap<DependencyId, Dependency>,
}

/// What this node says of its work: the worker's part of its gossip record.
#[derive(Debug, Clone)]
pub struct WorkerReport {
    /// When it was made: `ran_for` of a running task counts up to here.
    pub at: Instant,
    pub tasks: BTreeMap<TaskId, TaskReport>,
    pub images: Images,
    pub volumes: Vec<String>,
}

/// The images of this node, as they were listed when one had last changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    /// Newest first; at most [`crate::gossip::MAX_RECORD_IMAGES`].
    pub names: Vec<String>,
    /// Of all images: one goes by several names.
    pub count: usize,
}

/// A handle on the running worker. Dropping it stops the work on the containers, not the containers.
pub struct Worker {
    wanted: watch::Sender<Option<Wanted>>,
    quorum: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    report: watch::Receiver<WorkerReport>,
    networks: TaskNetworks,
    resolver: Resolver,
    questions: mpsc::Sender<oneshot::Sender<HealthLogs>>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

/// What is known of the health of the tasks that are checked, and the machine's time at which it was.
#[derive(Debug, Clone, Default)]
pub struct HealthLogs {
    pub now: MonoMs,
    pub tasks: BTreeMap<TaskId, HealthLog>,
}

impl Worker {
    /// Finds what runs on this node, then carries on from there. Nothing that runs is touched before the first
    /// [`Self::assign`].
    pub async fn start(config: WorkerConfig, runtime: Runtime) -> anyhow::Result<Worker> {
        let dir = config.data_dir.join("outcomes");
        let outcomes = Outcomes::open(dir.clone()).with_context(|| format!("opening {}", dir.display()))?;
        // Before looking: an exit between the two is seen twice, and none is missed.
        let exits = runtime.exits().await.context("following containerd's events")?;
        let mut found = found(&runtime, &outcomes).await?;
        let running: BTreeSet<TaskId> = found
            .iter()
            .filter(|found| matches!(found.state, FoundState::Running { .. }))
            .map(|found| found.task)
            .collect();
        let networks = TaskNetworks::start(config.network, &running).await.context("preparing the tasks' network")?;
        for found in &mut found {
            found.host_ports = networks.get(found.task).map(|network| network.host_ports).unwrap_or_default();
        }
        let resolver = Resolver::start(config.resolver);
        let clock = Clock::start();
        let (events_out, events) = mpsc::channel(EVENT_QUEUE);
        let work = if config.work_at_once > 0 { config.work_at_once } else { work_at_once() };
        let (wanted, wanted_in) = watch::channel(None);
        let (quorum, quorum_in) = watch::channel(true);
        let (stop, stop_in) = watch::channel(false);
        let (questions, questions_in) = mpsc::channel(QUESTION_QUEUE);
        let tasks: BTreeSet<TaskId> = found.iter().map(|found| found.task).collect();
        let machine = Machine::new(found, work * ROOM_PER_WORK, clock.now());
        let (report_out, report) = watch::channel(WorkerReport {
            at: clock.instant(),
            tasks: machine.reports(clock.now()),
            images: Images::default(),
            volumes: Vec::new(),
        });
        let hands = Hands {
            runtime: runtime.clone(),
            networks: networks.clone(),
            resolver: resolver.clone(),
            outcomes,
            node: config.node,
        };
        let (lister, changes) = (runtime.images().clone(), runtime.images().changes());
        let listing = move || {
            let lister = lister.clone();
            async move { lister.list().await }
        };
        let driver = Driver {
            clock,
            machine,
            executor: Executor::new(hands, work, events_out),
            images: images::follow(listing, changes, LIST_AGAIN_AFTER),
            runtime,
            dependencies: Arc::default(),
            unadopted: Some((networks.clone(), resolver.clone())),
            containers: tasks.into_iter().map(|task| (container_id(task), task)).collect(),
            exited: BTreeMap::new(),
            inputs: Inputs {
                events,
                exits,
                wanted: wanted_in,
                quorum: quorum_in,
                questions: questions_in,
                stop: stop_in,
            },
            report: report_out,
        };
        let driver = Mutex::new(Some(tokio::spawn(driver.run())));
        Ok(Worker { wanted, quorum, stop, report, networks, resolver, questions, driver })
    }

    /// The complete wish, newest wins; a task that is not in it is stopped and removed. Never blocks.
    pub fn assign(&self, wanted: Wanted) {
        self.wanted.send_replace(Some(wanted));
    }

    /// Whether a manager that reaches a quorum is heard; while none is, failed tasks are restarted in place.
    pub fn set_quorum(&self, quorum: bool) {
        self.quorum.send_if_modified(|now| std::mem::replace(now, quorum) != quorum);
    }

    /// Changes when something worth telling has changed; `ran_for` alone is not.
    pub fn reports(&self) -> watch::Receiver<WorkerReport> {
        self.report.clone()
    }

    /// Empty where the worker does not answer in time.
    pub async fn health(&self) -> HealthLogs {
        let (answer, told) = oneshot::channel();
        let asked = async {
            self.questions.send(answer).await.ok()?;
            told.await.ok()
        };
        tokio::time::timeout(ANSWER_WITHIN, asked).await.ok().flatten().unwrap_or_default()
    }

    pub fn networks(&self) -> &TaskNetworks {
        &self.networks
    }

    /// What the managers say of the networks of this node's tasks.
    pub fn set_networks(&self, networks: Networks) {
        self.resolver.set_networks(networks);
    }

    /// Ends the work on the containers, which go on.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver {
            // It ends by itself; a panic in it was logged.
            let _ = driver.await;
        }
    }
}

impl WorkerReport {
    /// The tasks' reports with `ran_for` counted up to `now`.
    pub fn tasks_at(&self, now: Instant) -> BTreeMap<TaskId, TaskReport> {
        let since = now.saturating_duration_since(self.at);
        let mut tasks = self.tasks.clone();
        for report in tasks.values_mut().filter(|report| report.pid.is_some()) {
            report.ran_for = report.ran_for.map(|ran| ran + since);
        }
        tasks
    }
}

/// What is on this node, with the outcomes that were saved.
async fn found(runtime: &Runtime, outcomes: &Outcomes) -> anyhow::Result<Vec<Found>> {
    let mut saved = outcomes.load().context("reading the saved outcomes")?;
    let mut found = runtime.found().await.context("looking for containers of an earlier run")?;
    for found in &mut found {
        if let Some(outcome) = saved.remove(&found.task) {
            found.state = FoundState::Ended(outcome);
        }
    }
    // Ended, and its container was removed by hand, say: the outcome still has to be told.
    found.extend(saved.into_iter().map(|(task, outcome)| Found {
        task,
        container_id: String::new(),
        host_ports: Vec::new(),
        state: FoundState::Ended(outcome),
        health: None,
    }));
    Ok(found)
}

/// Each start keeps a core busy, and half of the time waits for the disk.
fn work_at_once() -> usize {
    std::thread::available_parallelism().map_or(4, |cpus| (cpus.get() * 2).clamp(4, 16))
}

struct Inputs {
    events: mpsc::Receiver<Event>,
    exits: mpsc::Receiver<ContainerExit>,
    wanted: watch::Receiver<Option<Wanted>>,
    quorum: watch::Receiver<bool>,
    questions: mpsc::Receiver<oneshot::Sender<HealthLogs>>,
    stop: watch::Receiver<bool>,
}

/// The loop: take in, act, report.
struct Driver {
    clock: Clock,
    machine: Machine,
    executor: Executor,
    /// As they were listed last.
    images: watch::Receiver<Images>,
    runtime: Runtime,
    dependencies: Arc<BTreeMap<DependencyId, Dependency>>,
    /// Until the first assignments say what the networks that were found are for.
    unadopted: Option<(TaskNetworks, Resolver)>,
    /// Whose a container is.
    containers: BTreeMap<String, TaskId>,
    /// The process whose exit was handled last: exits may be told twice.
    exited: BTreeMap<TaskId, u32>,
    inputs: Inputs,
    report: watch::Sender<WorkerReport>,
}

impl Driver {
    async fn run(mut self) {
        let mut volumes = self.runtime.volumes().list();
        loop {
            self.act();
            self.tell(&volumes);
            let due = self.machine.next_deadline().map(|at| self.clock.sleep_until(at));
            tokio::select! {
                Some(event) = self.inputs.events.recv() => {
                    let prepared = matches!(event.kind, EventKind::Prepared { .. });
                    self.machine.handle_event(event, self.clock.now());
                    while let Ok(event) = self.inputs.events.try_recv() {
                        self.machine.handle_event(event, self.clock.now());
                    }
                    if prepared {
                        volumes = self.runtime.volumes().list();
                    }
                }
                Some(exit) = self.inputs.exits.recv() => self.exited(exit),
                Ok(()) = self.inputs.wanted.changed() => self.assigned(),
                Ok(()) = self.inputs.quorum.changed() => {
                    let quorum = *self.inputs.quorum.borrow_and_update();
                    self.machine.handle_quorum(quorum);
                }
                Ok(()) = self.images.changed() => {
                    self.images.mark_unchanged();
                }
                () = async { due.expect("the branch is off without a deadline").await }, if due.is_some() => {
                    self.machine.handle_tick(self.clock.now());
                }
                Some(question) = self.inputs.questions.recv() => {
                    let logs = self.machine.running().filter_map(|task| Some((task, self.machine.health(task)?)));
                    // Who asked may have given up.
                    let _ = question.send(HealthLogs { now: self.clock.now(), tasks: logs.collect() });
                }
                // Told to, or the handle is gone.
                _ = self.inputs.stop.changed() => break,
            }
        }
        self.executor.finish(FINISH_WITHIN).await;
    }

    fn assigned(&mut self) {
        let Some(wanted) = self.inputs.wanted.borrow_and_update().clone() else {
            return;
        };
        self.dependencies = Arc::new(wanted.dependencies);
        let assignments: BTreeMap<TaskId, Arc<Assignment>> = wanted
            .assignments
            .into_iter()
            .map(|(task, new)| match self.machine.assignment(task) {
                Some(old) if **old == new => (task, Arc::clone(old)),
                _ => (task, Arc::new(new)),
            })
            .collect();
        if let Some((networks, resolver)) = self.unadopted.take() {
            let found = networks.all().into_iter();
            let served = found.filter_map(|network| names::served(assignments.get(&network.task)?, &network.namespace));
            resolver.adopt(served.collect());
        }
        for task in assignments.keys() {
            self.containers.entry(container_id(*task)).or_insert(*task);
        }
        self.machine.handle_assignments(&assignments, self.clock.now());
        self.exited.retain(|task, _| assignments.contains_key(task));
    }

    fn exited(&mut self, exit: ContainerExit) {
        let Some(task) = self.containers.get(&exit.container).copied() else {
            return;
        };
        if self.exited.insert(task, exit.pid) != Some(exit.pid) {
            let event = Event { task, kind: EventKind::Exited(exit.exit) };
            self.machine.handle_event(event, self.clock.now());
        }
    }

    fn act(&mut self) {
        for action in self.machine.poll_actions() {
            let assignment = self.machine.assignment(action.task()).cloned();
            let dependencies = Arc::clone(&self.dependencies);
            self.executor.execute(action, Context { assignment, dependencies });
        }
    }

    fn tell(&self, volumes: &[String]) {
        let tasks = self.machine.reports(self.clock.now());
        let images = self.images.borrow();
        let at = self.clock.instant();
        self.report.send_if_modified(|last| {
            let same = last.images == *images && last.volumes == volumes && same_reports(&last.tasks, &tasks);
            if !same {
                *last = WorkerReport { at, tasks, images: images.clone(), volumes: volumes.to_vec() };
            }
            !same
        });
    }
}

/// Equal but for the time that passes. Asked after each event, of all the node's tasks: nothing is copied.
fn same_reports(a: &BTreeMap<TaskId, TaskReport>, b: &BTreeMap<TaskId, TaskReport>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && is_same_report(a.1, b.1))
}

fn is_same_report(a: &TaskReport, b: &TaskReport) -> bool {
    let TaskReport {
        task,
        state,
        message,
        container_id,
        pid,
        exit_code,
        ran_for: _,
        health,
        restarts_in_place,
        host_ports,
    } = a;
    (task, state, message, container_id) == (&b.task, &b.state, &b.message, &b.container_id)
        && (pid, exit_code, health) == (&b.pid, &b.exit_code, &b.health)
        && (restarts_in_place, host_ports) == (&b.restarts_in_place, &b.host_ports)
}

/// The machine's clock: milliseconds since the worker's start.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn start() -> Clock {
        #[expect(clippy::disallowed_methods, reason = "the shell reads the clock")]
        let start = Instant::now();
        Clock { start }
    }

    fn now(&self) -> MonoMs {
        MonoMs(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self) -> Instant {
        self.start + self.start.elapsed()
    }

    fn sleep_until(&self, at: MonoMs) -> tokio::time::Sleep {
        tokio::time::sleep_until((self.start + Duration::from_millis(at.0)).into())
    }
}
