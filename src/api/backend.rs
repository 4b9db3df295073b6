//! What the API asks of the node behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::broadcast;

use super::{ApiError, Containers, Store};
use crate::gossip::Table;
use crate::spec::*;
use crate::state::{Command, Refusal, Reply, Service, State};

/// Implemented by the composition root. Every call returns within a bound of about two seconds, save streams and joins,
/// which have bounds of their own.
pub trait Backend: Containers + Store {
    /// Facts about this node and its part in a swarm; never waits.
    fn local(&self) -> LocalNode;

    /// The state for a read: fresh where a quorum answers in time, else the local one with its age.
    /// Fails where this node is in no swarm, or is a worker.
    fn read(&self) -> impl Future<Output = Result<Read, ApiError>> + Send;

    /// The state as this node holds it, without asking anybody; `None` where it holds none.
    fn seen(&self) -> Option<Arc<State>>;

    /// Who leads, as far as this node knows without asking; `None` where nobody does, or it holds no log.
    fn leader(&self) -> Option<NodeId>;

    /// The state after each entry of the log from now on, each before [`Self::seen`] gives it; `None` where this node holds no
    /// log.
    fn applied(&self) -> Option<broadcast::Receiver<Arc<State>>>;

    /// Answers once the command is applied here. Retries within its bound are the backend's.
    fn propose(&self, command: Command) -> impl Future<Output = Result<Reply, WriteError>> + Send;

    /// What the swarm would do after `commands`, worked out on a copy; the error is the refusal they would get.
    fn foresee(&self, read: &Read, commands: Vec<Command>) -> impl Future<Output = Result<Forecast, ApiError>> + Send;

    /// Why the tasks of a service are where they are, or do not run.
    fn explain(&self, read: &Read, service: &Service) -> impl Future<Output = Result<Explained, ApiError>> + Send;

    /// A fresh random id.
    fn new_id(&self) -> u128;

    fn swarm_init(&self, request: InitSwarm) -> impl Future<Output = Result<NodeId, ApiError>> + Send;
    fn swarm_join(&self, request: JoinSwarm) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Stops this node's part in the swarm and forgets it.
    fn swarm_leave(&self, force: bool) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Takes up the part in the swarm that locked this node.
    fn swarm_unlock(&self, key: UnlockKey) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// `FLKTKN-...` for the role, from the state that was read.
    fn join_token(&self, state: &State, role: Role) -> Option<String>;
    fn new_token_secret(&self) -> SecretBytes;
    fn new_unlock_key(&self) -> UnlockKey;

    /// Lines of the tasks' logs, wherever the tasks ran.
    fn logs(
        &self,
        tasks: Vec<TaskId>,
        options: LogOptions,
    ) -> impl Future<Output = Result<BoxStream<'static, LogLine>, ApiError>> + Send;

    /// How this node's network stands. Takes up to seven seconds where members do not answer.
    fn examine(&self) -> impl Future<Output = Result<Vec<Finding>, ApiError>> + Send;
    /// One half of a way between tasks, as `node` sees it, which has one of them.
    fn examine_way(&self, node: NodeId, way: Way) -> impl Future<Output = Result<Vec<Finding>, ApiError>> + Send;

    /// What a node tells of itself for a support bundle; what cannot be had says so itself. Takes up to twelve seconds.
    fn support_files(&self, node: NodeId) -> impl Future<Output = Vec<SupportFile>> + Send;

    /// Resolves once the state or an observed record may have changed since the call, or after `at_most`.
    fn changed(&self, at_most: Duration) -> impl Future<Output = ()> + Send;
}

/// This node, as far as it knows itself.
#[derive(Debug, Clone)]
pub struct LocalNode {
    pub id: NodeId,
    pub hostname: String,
    pub description: NodeDescription,
    pub data_dir: String,
    pub membership: Membership,
    /// What this node knows of the members, oldest knowledge included; empty where it is in no swarm.
    pub managers: Vec<(NodeId, SocketAddr)>,
    pub members: usize,
    /// Of tasks, whether they run or not.
    pub containers: usize,
    /// Those of them that have a process.
    pub running: usize,
    /// As last listed, since asking for them takes long while many containers are made.
    pub images: usize,
    /// 1 or 2.
    pub cgroup_version: u8,
    pub kernel_version: String,
    pub operating_system: String,
    pub containerd_version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    Inactive,
    /// Joining, or joined and not connected yet.
    Pending,
    /// In a swarm that locks its managers, and not unlocked since the daemon started.
    Locked,
    Active {
        swarm: SwarmId,
        role: Role,
    },
}

/// A state to answer from.
#[derive(Clone)]
pub struct Read {
    pub state: Arc<State>,
    pub observed: Arc<Table>,
    pub leader: Option<NodeId>,
    /// `Some` where no quorum confirmed it: how old it is at the least, and which log holders do not answer.
    pub stale: Option<Stale>,
}

/// The swarm as it would become.
pub struct Forecast {
    pub state: State,
    /// There was nothing left to do.
    pub is_settled: bool,
}

/// What those who decide say of a service.
pub struct Explained {
    /// How each node stands to one more task; the error is a spec that no node could meet.
    pub nodes: Result<Vec<NodeFit>, String>,
    pub slots: Vec<SlotFate>,
    /// Tasks that are tied to a node, and the volume that is there.
    pub homes: Vec<(TaskId, String)>,
}

#[derive(Debug, Clone)]
pub struct Stale {
    pub age: Duration,
    pub missing: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The log took it and it changed nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing was written, or `uncertain` says that it may still be.
    #[error("{0}")]
    Unavailable(String),
}

#[derive(Debug, Clone)]
pub struct InitSwarm {
    pub advertise_addr: Option<String>,
    pub listen_addr: Option<String>,
    pub force_new_cluster: bool,
    pub availability: Availability,
    pub spec: SwarmSpec,
}

#[derive(Debug, Clone)]
pub struct JoinSwarm {
    pub advertise_addr: Option<String>,
    pub listen_addr: Option<String>,
    pub remote_addrs: Vec<String>,
    pub token: String,
    pub availability: Availability,
}

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    /// Lines from the end; `None`: all.
    pub tail: Option<u64>,
    pub since: Option<UnixMs>,
    pub until: Option<UnixMs>,
}

#[derive(Debug, Clone)]
pub struct LogLine {
    pub node: NodeId,
    pub task: TaskId,
    pub stderr: bool,
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// With its line end.
    pub line: Bytes,
    /// What the log's options keep with each line.
    pub attributes: Labels,
}
