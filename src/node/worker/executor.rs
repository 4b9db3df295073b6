//! Carries out the agent's actions on runtime and network, many at once, and answers each with its event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::names;
use super::outcomes::Outcomes;
use crate::agent::{Action, Event, EventKind};
use crate::network::dns::{self, Resolver};
use crate::network::{NetworkError, TaskNetwork, TaskNetworks};
use crate::runtime::{ImageInfo, Prepare, Progress, Runtime, RuntimeError, explained};
use crate::spec::{Assignment, Outcome, SecretBytes, TaskId};

/// A pull's percentages are told this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What an action needs beside itself.
pub struct Context {
    pub assignment: Option<Arc<Assignment>>,
    /// For the registry of its image.
    pub credentials: Option<SecretBytes>,
}

/// What actions are carried out with.
pub struct Hands {
    pub runtime: Runtime,
    pub networks: TaskNetworks,
    pub resolver: Resolver,
    pub outcomes: Outcomes,
}

pub struct Executor {
    tools: Arc<Tools>,
    jobs: JoinSet<()>,
    preparing: BTreeMap<TaskId, CancellationToken>,
}

/// What every job works with.
struct Tools {
    runtime: Runtime,
    networks: TaskNetworks,
    resolver: Resolver,
    outcomes: Outcomes,
    events: mpsc::Sender<Event>,
    /// Bounds what runs processes: creating, starting, deleting. Waiting for images is not work.
    work: Semaphore,
}

impl Executor {
    pub fn new(hands: Hands, work_at_once: usize, events: mpsc::Sender<Event>) -> Executor {
        let Hands { runtime, networks, resolver, outcomes } = hands;
        let work = Semaphore::new(work_at_once);
        let tools = Tools { runtime, networks, resolver, outcomes, events, work };
        Executor { tools: Arc::new(tools), jobs: JoinSet::new(), preparing: BTreeMap::new() }
    }

    pub fn execute(&mut self, action: Action, context: Context) {
        while self.jobs.try_join_next().is_some() {}
        let task = action.task();
        let cancel = match &action {
            Action::Cancel { .. } => {
                if let Some(cancel) = self.preparing.remove(&task) {
                    cancel.cancel();
                }
                return;
            }
            Action::Prepare { .. } => self.preparing.entry(task).or_default().clone(),
            _ => {
                self.preparing.remove(&task);
                CancellationToken::new()
            }
        };
        let tools = Arc::clone(&self.tools);
        self.jobs.spawn(async move {
            if let Some(kind) = tools.run(action, context, cancel).await {
                // A closed channel is a daemon that is shutting down.
                let _ = tools.events.send(Event { task, kind }).await;
            }
        });
    }

    /// Lets what is under way finish, for so long.
    pub async fn finish(mut self, within: Duration) {
        for cancel in self.preparing.values() {
            cancel.cancel();
        }
        let _ = tokio::time::timeout(within, async { while self.jobs.join_next().await.is_some() {} }).await;
    }
}

impl Tools {
    async fn run(&self, action: Action, context: Context, cancel: CancellationToken) -> Option<EventKind> {
        let task = action.task();
        match action {
            Action::Prepare { .. } => Some(self.prepare(task, context, cancel).await),
            Action::Start { again, .. } => Some(self.start(context, again).await),
            Action::Stop { .. } => {
                log_failure(task, "signalling", self.runtime.stop_task(task).await);
                None
            }
            Action::Kill { .. } => {
                log_failure(task, "killing", self.runtime.kill_task(task).await);
                None
            }
            Action::Release { .. } => {
                self.release(task).await;
                Some(EventKind::Released)
            }
            Action::Persist { outcome, .. } => Some(self.persist(task, outcome).await),
            Action::Remove { .. } => Some(self.remove(task).await),
            Action::Cancel { .. } => None,
        }
    }

    async fn prepare(&self, task: TaskId, context: Context, cancel: CancellationToken) -> EventKind {
        let Some(assignment) = context.assignment else {
            return EventKind::PrepareFailed("its assignment is gone".to_owned());
        };
        let prepared = tokio::select! {
            prepared = self.prepare_whole(&assignment, context.credentials.as_ref()) => prepared,
            () = cancel.cancelled() => Err("given up".to_owned()),
        };
        match prepared {
            Ok((container_id, network)) => EventKind::Prepared { container_id, host_ports: network.host_ports },
            Err(message) => {
                tracing::warn!(%task, message, "a task cannot be prepared");
                EventKind::PrepareFailed(message)
            }
        }
    }

    async fn prepare_whole(
        &self,
        assignment: &Assignment,
        credentials: Option<&SecretBytes>,
    ) -> Result<(String, TaskNetwork), String> {
        refuse_unsupported(assignment)?;
        let network = async { self.network(assignment).await.map_err(|error| explained(&error)) };
        let (image, network) = tokio::try_join!(self.image(assignment, credentials), network)?;
        match self.create(assignment, &image, &network).await {
            Ok(id) => Ok((id, network)),
            // What was believed unpacked is not: found again, it is unpacked anew.
            Err(RuntimeError::BrokenImage { .. }) => {
                let image = self.image(assignment, credentials).await?;
                let created = self.create(assignment, &image, &network).await;
                created.map(|id| (id, network)).map_err(|error| explained(&error))
            }
            Err(error) => Err(explained(&error)),
        }
    }

    /// With look-ups that are answered, before anything runs there.
    async fn network(&self, assignment: &Assignment) -> Result<TaskNetwork, NetworkError> {
        let (task, ports) = (assignment.task, &assignment.spec.host_ports);
        let network = self.networks.create(task, ports, &assignment.attachments).await?;
        if let Some(served) = names::served(assignment, &network.namespace) {
            self.resolver.serve(served).await?;
        }
        Ok(network)
    }

    async fn create(
        &self,
        assignment: &Assignment,
        image: &ImageInfo,
        network: &TaskNetwork,
    ) -> Result<String, RuntimeError> {
        let _slot = self.work.acquire().await.expect("the semaphore is never closed");
        let prepare = Prepare {
            assignment,
            image,
            netns: &network.namespace,
            addresses: &names::addresses(assignment, &network.addresses),
            resolver: names::served(assignment, &network.namespace).map(|_| dns::ADDRESS.into()),
        };
        self.runtime.create(prepare).await
    }

    async fn image(
        &self,
        assignment: &Assignment,
        credentials: Option<&SecretBytes>,
    ) -> Result<Arc<ImageInfo>, String> {
        let task = assignment.task;
        let mut told: Option<(Instant, Progress)> = None;
        let progress = |now: Progress| {
            let due = told.is_none_or(|(at, last)| at.elapsed() >= PROGRESS_EVERY || last.unpacking != now.unpacking);
            if due && told.is_none_or(|(_, last)| last != now) {
                told = Some((clock(), now));
                // A full queue has something better to tell.
                let _ = self.events.try_send(Event { task, kind: EventKind::Progress(now.to_string()) });
            }
        };
        let ensured = self.runtime.images().ensure(&assignment.spec.container.image, credentials, progress).await;
        ensured.map_err(|error| explained(&error))
    }

    async fn start(&self, context: Context, again: bool) -> EventKind {
        let Some(assignment) = context.assignment else {
            return EventKind::StartFailed("its assignment is gone".to_owned());
        };
        let _slot = self.work.acquire().await.expect("the semaphore is never closed");
        match self.runtime.start_task(&assignment, again).await {
            Ok(pid) => EventKind::Started { pid },
            Err(error) => {
                tracing::warn!(task = %assignment.task, error = explained(&error), "a task does not start");
                EventKind::StartFailed(explained(&error))
            }
        }
    }

    /// Both halves are tried, and what fails is tried again when the task is removed.
    async fn release(&self, task: TaskId) {
        let _slot = self.work.acquire().await.expect("the semaphore is never closed");
        self.resolver.forget(task);
        let (process, network) = tokio::join!(self.runtime.release_task(task), self.networks.remove(task));
        log_failure(task, "clearing away the process of", process);
        log_failure(task, "removing the network of", network);
    }

    async fn persist(&self, task: TaskId, outcome: Outcome) -> EventKind {
        match self.outcomes.save(task, outcome).await {
            Ok(()) => EventKind::Persisted,
            Err(error) => {
                tracing::error!(%task, error = explained(&error), "an outcome cannot be saved; it is tried again");
                EventKind::PersistFailed(explained(&error))
            }
        }
    }

    async fn remove(&self, task: TaskId) -> EventKind {
        let _slot = self.work.acquire().await.expect("the semaphore is never closed");
        self.resolver.forget(task);
        let removed = self.runtime.remove_task(task).await.map_err(|error| explained(&error));
        let network = self.networks.remove(task).await.map_err(|error| explained(&error));
        let forgotten = match (removed, network) {
            (Ok(()), Ok(())) => self.outcomes.forget(task).map_err(|error| explained(&error)),
            (removed, network) => removed.and(network),
        };
        match forgotten {
            Ok(()) => EventKind::Removed,
            Err(message) => {
                tracing::warn!(%task, message, "a task cannot be removed; it is tried again");
                EventKind::RemoveFailed(message)
            }
        }
    }
}

/// What another part of the swarm may already accept and this node cannot do is refused by name.
fn refuse_unsupported(assignment: &Assignment) -> Result<(), String> {
    let container = &assignment.spec.container;
    let unsupported = [
        (!container.secrets.is_empty(), "secrets"),
        (!container.configs.is_empty(), "configs"),
        (container.stdin_open && !container.tty, "an open stdin"),
    ];
    match unsupported.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(RuntimeError::Unsupported((*what).to_owned()).to_string()),
        None => Ok(()),
    }
}

fn log_failure<E: std::error::Error>(task: TaskId, operation: &str, result: Result<(), E>) {
    if let Err(error) = result {
        tracing::warn!(%task, error = explained(&error), "{operation} a task failed");
    }
}

#[expect(clippy::disallowed_methods, reason = "paces what is told of a pull")]
fn clock() -> Instant {
    Instant::now()
}
