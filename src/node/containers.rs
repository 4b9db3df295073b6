//! What the API asks of this node about the containers on it: see [`Containers`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::clock;
use super::daemon::Daemon;
use super::swarm::{Shared, logs};
use crate::agent::{Expander, HealthLog};
use crate::api::*;
use crate::runtime::{self, Made, RuntimeError, explained, host};
use crate::spec::*;
use crate::state::NodeHealth;
use crate::transport::{Protocol, TransportError};

/// For a stream to another node.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// For a task to take a connection.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

impl Containers for Daemon {
    fn now(&self) -> Timestamp {
        timestamp(clock::unix())
    }

    fn container_id(&self, task: TaskId) -> String {
        runtime::container_id(task)
    }

    async fn containers(&self) -> Result<Vec<Container>, ApiError> {
        // They run on, and what they are stands in what is locked.
        if self.is_locked() {
            return Err(self.outside());
        }
        let Some(session) = self.session() else { return Ok(Vec::new()) };
        let runtime = &self.host.runtime;
        let (made, images, health) = tokio::join!(runtime.made(), runtime.images().list(), self.host.worker.health());
        let images = images.map_err(refused)?.into_iter().map(|image| (image.name, image.digest));
        let images: BTreeMap<String, String> = images.collect();
        let reports = self.host.reports().borrow().tasks_at(clock::instant());
        let view = session.shared.view();
        let show = |made: Made| {
            let mut task = view.assignments.get(&made.task)?.clone();
            // Its service may be gone by now, and with it the name in the log.
            task.name = made.name.unwrap_or(task.name);
            task.service_name = made.service_name.unwrap_or(task.service_name);
            let report = reports.get(&made.task);
            let process = made.process.unwrap_or_default();
            let mounts = process.mounts.into_iter().map(|(source, target, writable)| {
                let volume = runtime.volume_at(Path::new(&source));
                HostMount { source, target, writable, volume }
            });
            let mounts: Vec<HostMount> = mounts.collect();
            task.spec.container.mounts = self.mounted(&task, &mounts);
            Some(Container {
                id: made.id,
                node: self.host.node(),
                state: report.map_or(TaskState::Assigned, |report| report.state),
                message: report.map(|report| report.message.clone()).unwrap_or_default(),
                health: report.map(|report| report.health).unwrap_or_default(),
                health_log: health.tasks.get(&made.task).map(|log| health_shown(log, health.now)),
                pid: report.and_then(|report| report.pid),
                exit_code: report.and_then(|report| report.exit_code),
                ran_for: report.and_then(|report| report.ran_for),
                host_ports: report.map(|report| report.host_ports.clone()).unwrap_or_default(),
                networks: self.places(&task),
                process: ContainerProcess {
                    args: process.args,
                    env: process.env,
                    dir: process.dir,
                    hostname: process.hostname,
                    user: process.user,
                    mounts,
                },
                created: made.created,
                started: made.started,
                image_digest: images.get(&made.image).cloned().unwrap_or_default(),
                log_path: runtime.task_dir(made.task).join(runtime::logs::CURRENT).display().to_string(),
                task,
            })
        };
        Ok(made.map_err(refused)?.into_iter().filter_map(show).collect())
    }

    fn connected(&self) -> Vec<Connected> {
        let Some(session) = self.session() else { return Vec::new() };
        let view = session.shared.view();
        let reports = self.host.reports();
        let reports = reports.borrow();
        let running = reports.tasks.values().filter(|report| report.pid.is_some() && !report.state.is_final());
        let connected = running.filter_map(|report| {
            let task = view.assignments.get(&report.task)?;
            let (container, name, places) = (report.container_id.clone()?, task.name.clone(), self.places(task));
            let of_node = places.is_empty().then(|| task.spec.node_network().unwrap_or(NodeNetwork::Bridge));
            Some(Connected { container, name, of_node, places })
        });
        connected.collect()
    }

    fn containers_changed(&self) -> BoxStream<'static, ()> {
        let next = |mut reports: tokio::sync::watch::Receiver<_>| async move {
            reports.changed().await.ok()?;
            Some(((), reports))
        };
        stream::unfold(self.host.reports(), next).boxed()
    }

    async fn container_usage(&self, task: TaskId) -> Result<Usage, ApiError> {
        let stats = self.host.runtime.stats(task).await.map_err(refused)?;
        let pid = self.host.reports().borrow().tasks.get(&task).and_then(|report| report.pid);
        let memory = host::memory_bytes();
        Ok(Usage {
            cpu_total_ns: stats.cpu_total_ns,
            cpu_user_ns: stats.cpu_user_ns,
            cpu_system_ns: stats.cpu_system_ns,
            throttled_periods: stats.throttled_periods,
            throttled_ns: stats.throttled_ns,
            host_cpu_ns: runtime::usage::host_cpu_ns(),
            cpus: host::nano_cpus() / 1_000_000_000,
            memory_bytes: stats.memory_bytes,
            // Without a limit of its own it has all there is.
            memory_limit_bytes: if memory > 0 {
                stats.memory_limit_bytes.min(memory)
            } else {
                stats.memory_limit_bytes
            },
            processes: stats.processes,
            processes_limit: stats.processes_limit,
            read_bytes: stats.read_bytes,
            written_bytes: stats.written_bytes,
            interfaces: pid.map(runtime::usage::interfaces).unwrap_or_default().into_iter().map(interface).collect(),
        })
    }

    async fn container_size(&self, task: TaskId) -> Result<ContainerSize, ApiError> {
        let runtime::DiskUsage { written_bytes, whole_bytes } =
            self.host.runtime.disk_usage(task).await.map_err(refused)?;
        Ok(ContainerSize { written_bytes, whole_bytes })
    }

    async fn container_top(
        &self,
        task: TaskId,
        args: Vec<String>,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), ApiError> {
        let table = self.host.runtime.processes(task, &args).await.map_err(refused)?;
        Ok((table.titles, table.rows))
    }

    fn container_log(&self, task: TaskId, options: LogOptions) -> BoxStream<'static, LogLine> {
        logs::local(&self.host, vec![task], options)
    }

    async fn container_signal(&self, task: TaskId, signal: Option<String>) -> Result<(), ApiError> {
        let runtime = &self.host.runtime;
        let done = match signal {
            None => runtime.stop_task(task).await,
            Some(name) => {
                let number = host::signal_number(&name);
                let number = number.ok_or_else(|| ApiError::invalid(format!("Invalid signal: {name}")))?;
                runtime.signal_task(task, number).await
            }
        };
        done.map_err(refused)
    }

    fn container_input(&self, task: TaskId) -> Result<mpsc::Sender<Bytes>, ApiError> {
        self.host.runtime.input(task).map_err(refused)
    }

    async fn container_live(&self, task: TaskId) -> Result<BoxStream<'static, (bool, Bytes)>, ApiError> {
        let pieces = self.host.runtime.live(task).await.map_err(refused)?;
        Ok(stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) }).boxed())
    }

    async fn container_resize(&self, task: TaskId, size: TerminalSize) -> Result<(), ApiError> {
        self.host.runtime.resize_task(task, size.width, size.height).await.map_err(refused)
    }

    async fn container_wait(&self, task: TaskId, until: WaitFor) -> i32 {
        let mut reports = self.host.reports();
        let (mut code, mut runs) = (0, false);
        loop {
            match reports.borrow_and_update().tasks.get(&task) {
                None => return code,
                // A container runs once: one that has ended has no next exit, and what is left is its removal.
                Some(report) => {
                    code = report.exit_code.unwrap_or(code);
                    let ended = report.state.is_final();
                    let counts = match until {
                        WaitFor::NotRunning => true,
                        WaitFor::NextExit => runs,
                        WaitFor::Removed => false,
                    };
                    runs |= !ended;
                    if ended && counts {
                        return code;
                    }
                }
            }
            if reports.changed().await.is_err() {
                return code;
            }
        }
    }

    async fn container_dial(&self, task: TaskId, port: u16) -> Result<TcpStream, ApiError> {
        let dialing = self.host.task_networks().dial(task, port);
        let refused = |why: String| {
            ApiError::Unavailable(format!(
                "port {port} of task {task} takes no connection: {why}; does it listen there?"
            ))
        };
        match timeout(DIAL_WITHIN, dialing).await {
            Ok(stream) => stream.map_err(|error| refused(error.to_string())),
            Err(_) => Err(refused(format!("no answer within {} s", DIAL_WITHIN.as_secs()))),
        }
    }

    async fn file_stat(&self, task: TaskId, path: String) -> Result<Option<FileStat>, ApiError> {
        let stat = self.host.runtime.stat_path(task, PathBuf::from(path)).await.map_err(refused)?;
        Ok(stat.map(file_stat))
    }

    async fn file_read(&self, task: TaskId, path: String) -> Result<Option<(FileStat, Archive)>, ApiError> {
        let found = self.host.runtime.copy_out(task, PathBuf::from(path)).await.map_err(refused)?;
        Ok(found.map(|(stat, pieces)| {
            let pieces = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
            (file_stat(stat), pieces.boxed())
        }))
    }

    async fn file_write(
        &self,
        task: TaskId,
        path: String,
        archive: Archive,
        how: WriteFiles,
    ) -> Result<Option<()>, ApiError> {
        let archive = SyncIoBridge::new(Box::pin(StreamReader::new(archive)));
        let WriteFiles { replace_kinds, owner } = how;
        let how = runtime::Unpack { replace_kinds, owner };
        let done = self.host.runtime.copy_in(task, PathBuf::from(path), archive, how).await;
        done.map_err(|error| match error {
            // What is in the archive is the client's.
            RuntimeError::Io { .. } => ApiError::Invalid(explained(&error)),
            error => refused(error),
        })
    }

    fn exec_create(&self, task: TaskId, command: ExecCommand) -> Result<String, ApiError> {
        self.host.execs.create(self.host.node(), task, command, self.host.random_u128())
    }

    fn exec_inspect(&self, id: &str) -> Result<ExecInspected, ApiError> {
        self.host.execs.inspect(id)
    }

    async fn exec_start(&self, id: &str, detach: bool) -> Result<ExecStreams, ApiError> {
        self.host.execs.start(&self.host.runtime, id, detach).await
    }

    async fn exec_resize(&self, id: &str, size: TerminalSize) -> Result<(), ApiError> {
        self.host.execs.resize(id, size).await
    }

    fn exec_node(&self, id: &str) -> Option<NodeId> {
        super::execs::node_of(id)
    }

    async fn call(&self, node: NodeId, request: Request) -> Result<Response, ApiError> {
        let session = self.session().ok_or_else(|| self.outside())?;
        let opened = session.shared.transport.open(node, Protocol::Call, OPEN_WITHIN).await;
        let stream = opened.map_err(|error| ApiError::Unavailable(unreachable(&session.shared, node, &error)))?;
        let answer = send(stream.into_bytes(), request).await;
        answer.map_err(|error| ApiError::Unavailable(format!("node {node} cannot be asked: {}", explained(&error))))
    }
}

/// Why a node does not answer, in the words of who looks after it.
fn unreachable(shared: &Shared, node: NodeId, error: &TransportError) -> String {
    let state = shared.log().map(|log| log.state());
    let Some(known) = state.as_ref().and_then(|state| state.node(node)) else { return explained(error) };
    let name = &known.description.hostname;
    match known.health {
        NodeHealth::Down { since, .. } => {
            let since = timestamp(since);
            format!("node {name} is down since {since:.0}, and what is on it cannot be asked: see flok node ls")
        }
        _ => format!("node {name}: {}", explained(error)),
    }
}

impl Daemon {
    /// A task's mounts with their templates filled in. A volume's name is the one that is mounted: the words that it was
    /// made of, such as its service's labels, may be others by now.
    fn mounted(&self, task: &Assignment, there: &[HostMount]) -> Vec<Mount> {
        let names = self.host.facts.names(self.host.node());
        let filled_in = Expander::new(task, &names, &BTreeMap::new()).container();
        let mut mounts = filled_in.map_or_else(|_| task.spec.container.mounts.clone(), |container| container.mounts);
        for mount in mounts.iter_mut().filter(|mount| mount.kind == MountKind::Volume && mount.source.is_some()) {
            let name = there.iter().find(|there| there.target == mount.target).and_then(|there| there.volume.clone());
            mount.source = name.or(mount.source.take());
        }
        mounts
    }

    /// A task's places on the networks of the swarm, as far as this node knows these.
    fn places(&self, task: &Assignment) -> Vec<Place> {
        let networks = self.host.networks.borrow();
        let mac = self.host.task_networks().get(task.task).map(|network| network.mac.to_string()).unwrap_or_default();
        let place = |attachment: &Attachment| {
            let network = networks.as_ref().and_then(|known| known.list.get(&attachment.network));
            let prefix = |address: &std::net::IpAddr| {
                let subnets = network.iter().flat_map(|network| network.subnets.iter());
                let of = subnets.filter(|subnet| subnet.contains(*address)).map(Subnet::prefix).next();
                of.unwrap_or(if address.is_ipv4() { 32 } else { 128 })
            };
            Place {
                id: attachment.network,
                name: network.map_or_else(|| attachment.network.to_string(), |network| network.name.clone()),
                addresses: attachment.addresses.iter().map(|address| (*address, prefix(address))).collect(),
                aliases: attachment.aliases.clone(),
                mac: mac.clone(),
            }
        };
        task.attachments.iter().map(place).collect()
    }
}

/// What the runtime says no to, with the status that Docker gives for it.
pub fn refused(error: RuntimeError) -> ApiError {
    let text = explained(&error);
    match error {
        RuntimeError::NotRunning(_) | RuntimeError::ImageInUse(..) => ApiError::Conflict(text),
        RuntimeError::InvalidReference(..)
        | RuntimeError::User { .. }
        | RuntimeError::VolumeName(_)
        | RuntimeError::Ps(_)
        | RuntimeError::Archive(_) => ApiError::Invalid(text),
        RuntimeError::NoImage { .. } => ApiError::NotFound(text),
        RuntimeError::TooManyCopies(_) => ApiError::Unavailable(text),
        error if error.is_not_found() => ApiError::NotFound(text),
        _ => ApiError::Internal(text),
    }
}

fn timestamp(at: UnixMs) -> Timestamp {
    i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

fn health_shown(log: &HealthLog, now: MonoMs) -> HealthShown {
    let unix = clock::unix();
    let at = |mono: MonoMs| UnixMs(unix.0.saturating_sub(now.0.saturating_sub(mono.0)));
    let probes = log.probes.iter().map(|probe| ProbeShown {
        begun: at(probe.begun),
        ended: at(probe.ended),
        exit_code: probe.result.exit_code,
        output: probe.result.output.clone(),
    });
    HealthShown { failing_streak: log.failing_streak, probes: probes.collect() }
}

fn file_stat(stat: runtime::PathStat) -> FileStat {
    let runtime::PathStat { name, size, mode, modified_unix_ns, link } = stat;
    FileStat { name, size, mode, modified_unix_ns, link }
}

fn interface(found: runtime::usage::Interface) -> InterfaceUsage {
    let runtime::usage::Interface { name, received, sent } = found;
    InterfaceUsage { name, received, sent }
}

/// Serves what other nodes ask of this one, until the daemon ends.
pub async fn serve(daemon: Arc<Daemon>, calls: mpsc::Receiver<crate::transport::ByteStream>, journal: Journal) {
    serve_calls(calls, for_nodes(daemon, journal)).await;
}
