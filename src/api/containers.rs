//! What the API asks of its node about the containers there, and of other nodes about theirs.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{ApiError, LogLine, LogOptions};
use crate::spec::*;

/// Implemented by the composition root. A task is named only where it is, or was, on this node; the others are asked by
/// [`Containers::call`].
pub trait Containers: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// The id that the container of a task has, or will have.
    fn container_id(&self, task: TaskId) -> String;
    /// The containers of this node, whether they run or not.
    fn containers(&self) -> impl Future<Output = Result<Vec<Container>, ApiError>> + Send;
    /// Those that run, and where they are on networks; asks nobody. None on a node that is locked or in no swarm.
    fn connected(&self) -> Vec<Connected>;
    /// Gives something whenever what is known of them has changed.
    fn containers_changed(&self) -> BoxStream<'static, ()>;
    fn container_usage(&self, task: TaskId) -> impl Future<Output = Result<Usage, ApiError>> + Send;
    fn container_size(&self, task: TaskId) -> impl Future<Output = Result<ContainerSize, ApiError>> + Send;
    /// What `ps ARGS...` shows of its processes: the titles, and a row for each.
    fn container_top(
        &self,
        task: TaskId,
        args: Vec<String>,
    ) -> impl Future<Output = Result<(Vec<String>, Vec<Vec<String>>), ApiError>> + Send;
    /// Lines of its log on this node.
    fn container_log(&self, task: TaskId, options: LogOptions) -> BoxStream<'static, LogLine>;
    /// To its first process; `None`: the signal that asks it to stop.
    fn container_signal(
        &self,
        task: TaskId,
        signal: Option<String>,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Takes what the container is to read, where it was made with an input; dropped, that stays open.
    fn container_input(&self, task: TaskId) -> Result<mpsc::Sender<Bytes>, ApiError>;
    /// What it prints from now on, as it prints it: whether to stderr, and the bytes.
    fn container_live(
        &self,
        task: TaskId,
    ) -> impl Future<Output = Result<BoxStream<'static, (bool, Bytes)>, ApiError>> + Send;
    fn container_resize(&self, task: TaskId, size: TerminalSize) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// The exit code, once the task is in one of the later conditions; waits without bound.
    fn container_wait(&self, task: TaskId, until: WaitFor) -> impl Future<Output = i32> + Send;
    /// A connection to a port of the task, from within its network.
    fn container_dial(
        &self,
        task: TaskId,
        port: u16,
    ) -> impl Future<Output = Result<tokio::net::TcpStream, ApiError>> + Send;

    /// `None` where there is nothing at the path.
    fn file_stat(&self, task: TaskId, path: String) -> impl Future<Output = Result<Option<FileStat>, ApiError>> + Send;
    fn file_read(
        &self,
        task: TaskId,
        path: String,
    ) -> impl Future<Output = Result<Option<(FileStat, Archive)>, ApiError>> + Send;
    /// `None` where the path is no directory.
    fn file_write(
        &self,
        task: TaskId,
        path: String,
        archive: Archive,
        how: WriteFiles,
    ) -> impl Future<Output = Result<Option<()>, ApiError>> + Send;

    /// Remembers a command to be run; its id names this node.
    fn exec_create(&self, task: TaskId, command: ExecCommand) -> Result<String, ApiError>;
    fn exec_inspect(&self, id: &str) -> Result<ExecInspected, ApiError>;
    fn exec_start(&self, id: &str, detach: bool) -> impl Future<Output = Result<ExecStreams, ApiError>> + Send;
    fn exec_resize(&self, id: &str, size: TerminalSize) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// The node that a command's id names; `None`: it is no such id.
    fn exec_node(&self, id: &str) -> Option<NodeId>;

    /// Has a request answered by another node's own handlers, an upgraded connection included.
    fn call(&self, node: NodeId, request: Request) -> impl Future<Output = Result<Response, ApiError>> + Send;
}

/// A container on this node.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    pub node: NodeId,
    pub task: Assignment,
    pub state: TaskState,
    pub message: String,
    pub health: Health,
    pub health_log: Option<HealthShown>,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    pub ran_for: Option<Duration>,
    pub host_ports: Vec<PortConfig>,
    pub networks: Vec<Place>,
    pub process: ContainerProcess,
    pub created: UnixMs,
    pub started: Option<UnixMs>,
    /// `sha256:...`; empty where the image is gone.
    pub image_digest: String,
    pub log_path: String,
}

/// A container's place on a network of the swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub id: NetworkId,
    pub name: String,
    /// With the prefix of their network.
    pub addresses: Vec<(IpAddr, u8)>,
    pub aliases: Vec<String>,
    /// Of the container's one interface; empty where it has none any more.
    pub mac: String,
}

/// A container that runs on this node, by its places on networks alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    pub container: String,
    /// Its task's.
    pub name: String,
    /// One that its node has of its own.
    pub of_node: Option<NodeNetwork>,
    /// Those of the swarm.
    pub places: Vec<Place>,
}

/// The newest probes of a health check, the last one last.
#[derive(Debug, Clone, Default)]
pub struct HealthShown {
    pub failing_streak: u32,
    pub probes: Vec<ProbeShown>,
}

#[derive(Debug, Clone)]
pub struct ProbeShown {
    pub begun: UnixMs,
    pub ended: UnixMs,
    pub exit_code: i32,
    pub output: String,
}

/// What runs in it, image and spec put together.
#[derive(Debug, Clone, Default)]
pub struct ContainerProcess {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub dir: String,
    pub hostname: String,
    /// User and group.
    pub user: (u32, u32),
    /// What is mounted from the host.
    pub mounts: Vec<HostMount>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostMount {
    pub source: String,
    pub target: String,
    pub writable: bool,
    /// The volume that it is of, under the name by which volumes are listed.
    pub volume: Option<String>,
}

/// Totals since its start, but for memory and processes, which are as of now.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub cpu_total_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    /// Of all CPUs of the host.
    pub host_cpu_ns: u64,
    pub cpus: u64,
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub processes: u64,
    pub processes_limit: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub interfaces: Vec<InterfaceUsage>,
}

/// What the container's files take; volumes are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerSize {
    /// In its writable layer.
    pub written_bytes: u64,
    /// Its image's layers with it.
    pub whole_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    pub name: String,
    /// Bytes, packets, errors, drops.
    pub received: [u64; 4],
    pub sent: [u64; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// It does not run now, or has ended.
    NotRunning,
    /// It ends from now on.
    NextExit,
    Removed,
}

/// A tar stream.
pub type Archive = BoxStream<'static, io::Result<Bytes>>;

/// How an archive goes into a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteFiles {
    /// A directory may take a file's place.
    pub replace_kinds: bool,
    /// User and group that all of it is to belong to; `None`: as the archive says.
    pub owner: Option<(u32, u32)>,
}

/// What stands at a path in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    pub name: String,
    pub size: u64,
    /// As `stat(2)` has it.
    pub mode: u32,
    pub modified_unix_ns: i128,
    /// Where a symbolic link leads, as a path from the container's root where there is something.
    pub link: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecCommand {
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub dir: Option<String>,
    pub user: Option<String>,
    pub tty: bool,
    pub privileged: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Clone)]
pub struct ExecInspected {
    pub container: String,
    pub command: ExecCommand,
    pub running: bool,
    pub pid: u32,
    pub exit_code: Option<i32>,
}

/// A command's streams. It goes on without them, and where it cannot be started, its output says why.
pub struct ExecStreams {
    /// Dropped, the command reads the end of its input.
    pub input: Option<mpsc::Sender<Bytes>>,
    /// Whether it is of stderr, and the bytes.
    pub output: BoxStream<'static, (bool, Bytes)>,
    pub tty: bool,
}
