//! Carries out the agent's actions on runtime and network, many at once, and answers each with its event.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::names;
use super::outcomes::Outcomes;
use crate::agent::{Action, Event, EventKind, Expander, NodeNames, TaskFile};
use crate::network::dns::{self, Resolver};
use crate::network::{NetworkError, TaskNetwork, TaskNetworks};
use crate::runtime::oci::Netns;
use crate::runtime::{Created, ImageInfo, Prepare, Progress, Runtime, RuntimeError, explained};
use crate::spec::{
    Assignment, Dependency, DependencyId, HOST_GATEWAY, NodeNetwork, Outcome, SecretBytes, TaskId, TaskSpec,
};

/// A pull's percentages are told this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Health checks that run at once; most of them sleep or wait for an answer.
const PROBES_AT_ONCE: usize = 32;

/// What an action needs beside itself.
pub struct Context {
    pub assignment: Option<Arc<Assignment>>,
    /// Of all tasks of this node.
    pub dependencies: Arc<BTreeMap<DependencyId, Dependency>>,
}

/// What actions are carried out with.
pub struct Hands {
    pub runtime: Runtime,
    pub networks: TaskNetworks,
    pub resolver: Resolver,
    pub outcomes: Outcomes,
    pub node: NodeNames,
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
    node: NodeNames,
    events: mpsc::Sender<Event>,
    /// Bounds what runs processes: creating and starting. Waiting for images is not work.
    work: Semaphore,
    /// Bounds what clears away: it waits for no start, and no start waits for the end of thousands.
    clearing: Semaphore,
    /// Bounds the health checks that run at once; a slow one must not hold up the work.
    probes: Semaphore,
}

impl Executor {
    pub fn new(hands: Hands, work_at_once: usize, events: mpsc::Sender<Event>) -> Executor {
        let Hands { runtime, networks, resolver, outcomes, node } = hands;
        let (work, clearing) = (Semaphore::new(work_at_once), Semaphore::new(work_at_once));
        let probes = Semaphore::new(PROBES_AT_ONCE);
        let tools = Tools { runtime, networks, resolver, outcomes, node, events, work, clearing, probes };
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
            Action::Probe { .. } | Action::NoteHealth { .. } => CancellationToken::new(),
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
            Action::Probe { number, command, timeout, .. } => {
                let _slot = self.probes.acquire().await.expect("the semaphore is never closed");
                let result = self.runtime.probe(task, command, timeout).await;
                Some(EventKind::Probed { number, result })
            }
            Action::NoteHealth { noted, .. } => {
                log_failure(task, "keeping the health of", self.runtime.note_health(task, &noted));
                None
            }
            Action::Stop { .. } => {
                log_failure(task, "signalling", self.runtime.stop_task(task).await);
                Some(EventKind::Signalled)
            }
            Action::Kill { .. } => {
                log_failure(task, "killing", self.runtime.kill_task(task).await);
                Some(EventKind::Signalled)
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
            prepared = self.prepare_whole(&assignment, &context.dependencies) => prepared,
            () = cancel.cancelled() => Err("given up".to_owned()),
        };
        match prepared {
            Ok((created, network)) => {
                let Created { id, check } = created;
                let host_ports = network.map(|network| network.host_ports).unwrap_or_default();
                EventKind::Prepared { container_id: id, host_ports, check }
            }
            Err(message) => {
                tracing::warn!(%task, message, "a task cannot be prepared");
                EventKind::PrepareFailed(message)
            }
        }
    }

    async fn prepare_whole(
        &self,
        assignment: &Assignment,
        dependencies: &BTreeMap<DependencyId, Dependency>,
    ) -> Result<(Created, Option<TaskNetwork>), String> {
        let expander = Expander::new(assignment, &self.node, dependencies);
        let mut container = expander.container()?;
        resolve_host_gateway(&mut container.hosts, self.networks.host_address());
        let files = expander.files(&container)?;
        let credentials = dependencies.get(&DependencyId::Credentials(assignment.service)).map(|found| &found.data);
        let spec = TaskSpec { container, ..assignment.spec.clone() };
        let assignment = &Assignment { spec, ..assignment.clone() };
        let network = async { self.network(assignment).await.map_err(|error| explained(&error)) };
        let volumes = async { self.runtime.mount_volumes(assignment).await.map_err(|error| explained(&error)) };
        let (image, network, ()) = tokio::try_join!(self.image(assignment, credentials), network, volumes)?;
        match self.create(assignment, &image, &files, network.as_ref()).await {
            Ok(created) => Ok((created, network)),
            // What was believed unpacked is not: found again, it is unpacked anew.
            Err(RuntimeError::BrokenImage { .. }) => {
                let image = self.image(assignment, credentials).await?;
                let created = self.create(assignment, &image, &files, network.as_ref()).await;
                created.map(|created| (created, network)).map_err(|error| explained(&error))
            }
            Err(error) => Err(explained(&error)),
        }
    }

    /// With look-ups that are answered, before anything runs there. `None`: the task has no addresses of its own.
    async fn network(&self, assignment: &Assignment) -> Result<Option<TaskNetwork>, NetworkError> {
        if !assignment.spec.has_own_addresses() {
            return Ok(None);
        }
        let (task, ports) = (assignment.task, &assignment.spec.host_ports);
        let network = self.networks.create(task, ports, &assignment.attachments).await?;
        if let Some(served) = names::served(assignment, &network.namespace) {
            self.resolver.serve(served).await?;
        }
        Ok(Some(network))
    }

    async fn create(
        &self,
        assignment: &Assignment,
        image: &ImageInfo,
        files: &[TaskFile],
        network: Option<&TaskNetwork>,
    ) -> Result<Created, RuntimeError> {
        let netns = match (network, assignment.spec.node_network()) {
            (Some(network), _) => Netns::Made(&network.namespace),
            (None, Some(NodeNetwork::Host)) => Netns::Host,
            (None, _) => Netns::Empty,
        };
        let resolver = network.and_then(|network| names::served(assignment, &network.namespace));
        let on_host = network.map_or(&[][..], |network| &network.addresses);
        let _slot = self.work.acquire().await.expect("the semaphore is never closed");
        let prepare = Prepare {
            assignment,
            image,
            files,
            netns,
            hostname: &self.node.hostname,
            addresses: &names::addresses(assignment, on_host),
            resolver: resolver.map(|_| dns::ADDRESS.into()),
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
            let turn = |last: &Progress| last.unpacking != now.unpacking || last.trouble != now.trouble;
            let due = told.as_ref().is_none_or(|(at, last)| at.elapsed() >= PROGRESS_EVERY || turn(last));
            if due && told.as_ref().is_none_or(|(_, last)| *last != now) {
                // A full queue has something better to tell.
                let _ = self.events.try_send(Event { task, kind: EventKind::Progress(now.to_string()) });
                told = Some((clock(), now));
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
        let _slot = self.clearing.acquire().await.expect("the semaphore is never closed");
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
        let _slot = self.clearing.acquire().await.expect("the semaphore is never closed");
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

/// Entries of `/etc/hosts` that mean the node get the address at which its tasks reach it.
fn resolve_host_gateway(hosts: &mut [String], node: Ipv4Addr) {
    for host in hosts.iter_mut().filter(|host| host.split_whitespace().next() == Some(HOST_GATEWAY)) {
        *host = host.replacen(HOST_GATEWAY, &node.to_string(), 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_gateway_is_the_nodes_address_for_its_tasks() {
        let mut hosts = vec!["host-gateway host.docker.internal".to_owned(), "10.0.0.1 host-gateway".to_owned()];
        resolve_host_gateway(&mut hosts, [198, 19, 0, 1].into());
        assert_eq!(hosts, ["198.19.0.1 host.docker.internal", "10.0.0.1 host-gateway"]);
    }
}
