//! What the API asks of the node: see [`Backend`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

use super::clock;
use super::daemon::Daemon;
use super::support;
use super::swarm::{Shared, doctor, forecast, logs};
use crate::api::*;
use crate::consensus::{Consensus, PROPOSE_DEADLINE, ProposeError, ReadError};
use crate::spec::*;
use crate::state::{Command, NodeHealth, Reply, Service, State};
use crate::transport::{JoinToken, TokenSecret};

/// A fresh read is waited for this long; then the local state answers, marked stale.
const READ_WITHIN: Duration = Duration::from_millis(1500);
/// A quorum that is missing for longer than this is not waited for: with it, a command that asks twice answers within
/// two seconds.
const GRACE: Duration = Duration::from_millis(1000);
/// A manager that has just joined gets its log within moments.
const LOG_WITHIN: Duration = Duration::from_millis(1500);
const LOG_POLL: Duration = Duration::from_millis(20);

impl Daemon {
    fn shared(&self) -> Result<Arc<Shared>, ApiError> {
        let session = self.session().ok_or_else(|| self.outside())?;
        Ok(Arc::clone(&session.shared))
    }

    async fn log(&self) -> Result<(Arc<Shared>, Consensus), ApiError> {
        let shared = self.shared()?;
        if !shared.is_manager() {
            return Err(ApiError::Unavailable(NOT_A_MANAGER.to_owned()));
        }
        let wait = async {
            loop {
                match shared.log() {
                    Some(log) if log.state().swarm().is_some() => return log,
                    _ => sleep(LOG_POLL).await,
                }
            }
        };
        let log = timeout(LOG_WITHIN, wait).await.map_err(|_| {
            ApiError::Unavailable(
                "this manager does not hold the swarm's log (yet): try again, or ask another manager".into(),
            )
        })?;
        Ok((shared, log))
    }

    fn no_quorum(&self, log: &Consensus, missing: &[NodeId], may_happen: bool) -> WriteError {
        let names = self.names(&log.state(), missing);
        let rest = if may_happen { "the change may still happen" } else { "nothing was changed" };
        WriteError::Unavailable(format!(
            "the swarm has no quorum of managers, {rest}; not answering: {}. It goes on when enough of them are back; if \
             they are lost for good, run `flok swarm init --force-new-cluster` on this node",
            if names.is_empty() { "unknown".to_owned() } else { names.join(", ") }
        ))
    }

    /// A node that is gone and to be removed must not count among the log's voters any more. What the log would refuse is left
    /// to it: one that is there keeps its vote.
    async fn release_log(&self, log: &Consensus, id: NodeId) -> Result<(), WriteError> {
        let state = log.state();
        let Some(node) = state.node(id) else { return Ok(()) };
        let gone = matches!(node.health, NodeHealth::Down { .. } | NodeHealth::Left { .. });
        let others = state.nodes().any(|other| other.id != id && other.raft.is_some());
        if node.raft.is_none() || !others || !gone {
            return Ok(());
        }
        log.change_membership(vec![(id, None)]).await.map_err(|error| match error {
            ProposeError::NoQuorum { missing, may_happen } => self.no_quorum(log, &missing, may_happen),
            error => WriteError::Unavailable(format!("{} still holds the log: {error}", node.name())),
        })
    }

    fn names(&self, state: &State, nodes: &[NodeId]) -> Vec<String> {
        let name = |id: &NodeId| state.node(*id).map_or_else(|| id.to_string(), |node| node.name().to_owned());
        nodes.iter().map(name).collect()
    }
}

impl Backend for Daemon {
    fn local(&self) -> LocalNode {
        let host = &self.host;
        let session = self.session();
        let shared = session.as_ref().map(|session| &session.shared);
        let membership = match shared {
            None if self.is_locked() => Membership::Locked,
            None => Membership::Inactive,
            Some(shared) => Membership::Active { swarm: shared.swarm, role: shared.role() },
        };
        let view = shared.map(|shared| shared.view());
        let members = view.iter().flat_map(|view| view.members.list.iter());
        let managers = members.clone().filter(|(_, member)| member.role == Role::Manager);
        let reports = host.reports();
        let reports = reports.borrow();
        LocalNode {
            id: host.node(),
            hostname: host.description().hostname,
            description: host.description(),
            data_dir: host.dir.root().display().to_string(),
            membership,
            managers: managers.map(|(id, member)| (*id, member.transport)).collect(),
            members: members.count(),
            containers: reports.tasks.values().filter(|report| report.container_id.is_some()).count(),
            running: reports.tasks.values().filter(|report| report.pid.is_some()).count(),
            images: reports.images.count,
            cgroup_version: host.facts.cgroup_version,
            kernel_version: host.facts.kernel_version.clone(),
            operating_system: host.facts.operating_system.clone(),
            containerd_version: host.facts.containerd_version.clone(),
        }
    }

    async fn read(&self) -> Result<Read, ApiError> {
        let (shared, log) = self.log().await?;
        // Where a quorum has been missing for a while nobody waits for it again.
        let patience = if shared.without_quorum() > Some(GRACE) { Duration::ZERO } else { READ_WITHIN };
        let (state, missing) = match timeout(patience, log.read()).await {
            Ok(Ok(state)) => (state, None),
            Ok(Err(ReadError::NoQuorum { missing, state })) => (state, Some(missing)),
            Ok(Err(ReadError::Stopped { why, .. })) => return Err(ApiError::Unavailable(why)),
            Err(_) => (log.state(), Some(log.status().borrow().missing.clone())),
        };
        let stale = missing.map(|missing| Stale {
            age: shared.without_quorum().unwrap_or(READ_WITHIN),
            missing: self.names(&state, &missing),
        });
        let leader = log.status().borrow().leader;
        Ok(Read { state, observed: shared.observed.table(), leader, stale })
    }

    fn seen(&self) -> Option<Arc<State>> {
        Some(self.session()?.shared.log()?.state())
    }

    fn leader(&self) -> Option<NodeId> {
        self.session()?.shared.log()?.status().borrow().leader
    }

    fn applied(&self) -> Option<broadcast::Receiver<Arc<State>>> {
        Some(self.session()?.shared.log()?.applied())
    }

    async fn propose(&self, command: Command) -> Result<Reply, WriteError> {
        let (shared, log) = self.log().await.map_err(|error| WriteError::Unavailable(error.to_string()))?;
        if let Command::RemoveNode { id, .. } = &command {
            self.release_log(&log, *id).await?;
        }
        let within = if shared.without_quorum() > Some(GRACE) { GRACE / 2 } else { PROPOSE_DEADLINE };
        match log.propose_within(command, within).await {
            Ok(applied) => Ok(applied?),
            Err(ProposeError::Deadline { may_happen: false }) if within < GRACE => {
                let missing = log.status().borrow().missing.clone();
                Err(self.no_quorum(&log, &missing, false))
            }
            Err(ProposeError::NoQuorum { missing, may_happen }) => Err(self.no_quorum(&log, &missing, may_happen)),
            Err(error) => Err(WriteError::Unavailable(error.to_string())),
        }
    }

    async fn foresee(&self, read: &Read, commands: Vec<Command>) -> Result<Forecast, ApiError> {
        let (state, table) = (Arc::clone(&read.state), Arc::clone(&read.observed));
        let work = move || forecast::forecast(&state, &table, commands, clock::now());
        let done = tokio::task::spawn_blocking(work).await;
        Ok(done.map_err(|_| ApiError::Unavailable("the daemon is shutting down".to_owned()))??)
    }

    async fn explain(&self, read: &Read, service: &Service) -> Result<Explained, ApiError> {
        let (state, table, service) = (Arc::clone(&read.state), Arc::clone(&read.observed), service.clone());
        let work = move || forecast::explain(&state, &table, &service, clock::now());
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| ApiError::Unavailable("the daemon is shutting down".to_owned()))
    }

    fn new_id(&self) -> u128 {
        self.host.random_u128()
    }

    async fn swarm_init(&self, request: InitSwarm) -> Result<NodeId, ApiError> {
        self.init(request).await
    }

    async fn swarm_join(&self, request: JoinSwarm) -> Result<(), ApiError> {
        self.join(request).await
    }

    async fn swarm_leave(&self, force: bool) -> Result<(), ApiError> {
        self.leave(force).await
    }

    async fn swarm_unlock(&self, key: UnlockKey) -> Result<(), ApiError> {
        self.unlock(&key).await
    }

    fn join_token(&self, state: &State, role: Role) -> Option<String> {
        let swarm = state.swarm()?;
        let secret = match role {
            Role::Worker => &swarm.worker_token,
            Role::Manager => &swarm.manager_token,
        };
        JoinToken::from_state(&swarm.ca_public_key, secret).map(|token| token.to_string())
    }

    fn new_token_secret(&self) -> SecretBytes {
        TokenSecret::generate().to_bytes()
    }

    fn new_unlock_key(&self) -> UnlockKey {
        UnlockKey::new(self.host.random_bytes())
    }

    async fn logs(&self, tasks: Vec<TaskId>, options: LogOptions) -> Result<BoxStream<'static, LogLine>, ApiError> {
        let (shared, log) = self.log().await?;
        let state = log.state();
        let mut wanted: Vec<(NodeId, TaskId)> = Vec::new();
        for task in tasks {
            if let Some(node) = state.task(task).and_then(|task| task.node) {
                wanted.push((node, task));
            }
        }
        let nodes: BTreeSet<NodeId> = wanted.iter().map(|(node, _)| *node).collect();
        let mut streams = Vec::new();
        for node in nodes {
            let tasks: Vec<TaskId> = wanted.iter().filter(|(on, _)| *on == node).map(|(_, task)| *task).collect();
            streams.push(logs::from_node(&shared, node, tasks, options.clone()).await);
        }
        Ok(stream::select_all(streams).boxed())
    }

    async fn examine(&self) -> Result<Vec<Finding>, ApiError> {
        let examined = doctor::examine(&self.shared()?).await;
        examined.map_err(|error| ApiError::Internal(format!("the kernel's network cannot be read: {error}")))
    }

    async fn examine_way(&self, node: NodeId, way: Way) -> Result<Vec<Finding>, ApiError> {
        Ok(doctor::examine_way(&*self.shared()?, node, way).await)
    }

    async fn support_files(&self, node: NodeId) -> Vec<SupportFile> {
        let shared = self.session().map(|session| Arc::clone(&session.shared));
        match &shared {
            Some(shared) if node != shared.me => doctor::support_files(shared, node).await,
            _ => support::collect(&self.host, shared.as_ref()).await,
        }
    }

    async fn changed(&self, at_most: Duration) {
        let Ok((shared, log)) = self.log().await else { return sleep(at_most).await };
        let (mut state, mut table) = (log.changed(), shared.observed.changed());
        state.mark_unchanged();
        table.mark_unchanged();
        let _ = timeout(at_most, async {
            tokio::select! {
                _ = state.changed() => {}
                _ = table.changed() => {}
            }
        })
        .await;
    }
}
