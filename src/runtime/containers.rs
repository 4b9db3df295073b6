//! Containers of tasks: created, started, signalled, released, removed, and found again after a restart. Each step may be
//! repeated: names follow from the task's id, and what is there already, or gone already, is success.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use containerd_client::services::v1::container::Runtime as ContainerRuntime;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest, GetRequest,
    KillRequest, ListContainersRequest, ListTasksRequest, StartRequest, UpdateContainerRequest, WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::{Process, Status};
use futures::future::join_all;
use prost::Message;

use super::anonymous_volumes;
use super::client::{LONG, SHORT, SNAPSHOTTER, call};
use super::error::{Result, RuntimeError, gone_is_fine};
use super::exec::LeftPipes;
use super::images::ImageInfo;
use super::images::manifest::digest_of;
use super::input::Streams;
use super::logs::{self, LogTarget};
use super::mounting::remove_tree;
use super::oci::{self, ContainerInputs, Netns, ResolvedUser};
use super::users::{Accounts, MAX_FILE_BYTES};
use super::volumes::{Holder, ImageRoot};
use super::{Runtime, cdi, files, host, rootfs};
use crate::agent::{Check, Exit, Found, FoundState, TaskFile};
use crate::spec::logging::LoggedContainer;
use crate::spec::{Assignment, ContainerSpec, MountKind, TaskId};

/// The task a container or a snapshot belongs to: what the next daemon finds it by.
pub(super) const TASK_LABEL: &str = "flok.task";
pub(super) const NAME_LABEL: &str = "flok.name";
pub(super) const SERVICE_NAME_LABEL: &str = "flok.service-name";
const STOP_SIGNAL_LABEL: &str = "flok.stop-signal";
/// Present in a task's directory from just before its first start: it is never started a second time by mistake.
pub(super) const STARTED: &str = "started";
const RUNC: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// How long a killed process may take to end when its container is removed.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How often, how long and how long after one another a container is asked for whose shim did not say how it is.
const ASKED_AGAIN: u32 = 4;
const ASK_WITHIN: Duration = Duration::from_secs(5);
const ASKED_AFTER: Duration = Duration::from_millis(500);

/// What is remembered of containers, to spare questions to containerd.
#[derive(Default)]
pub struct Known {
    rootfs: Mutex<BTreeMap<TaskId, Vec<Mount>>>,
}

/// All that a container needs beside its image.
#[derive(Debug, Clone, Copy)]
pub struct Prepare<'a> {
    pub assignment: &'a Assignment,
    pub image: &'a ImageInfo,
    /// Secrets and configs.
    pub files: &'a [TaskFile],
    pub netns: Netns<'a>,
    /// The task's own, for its `/etc/hosts`.
    pub addresses: &'a [IpAddr],
    /// The node's.
    pub hostname: &'a str,
    /// The swarm's resolver in the task's namespace, where it has one.
    pub resolver: Option<IpAddr>,
}

/// A container that was made.
#[derive(Debug, Clone)]
pub struct Created {
    pub id: String,
    /// The service's health check, or the image's.
    pub check: Option<Check>,
}

/// The options of containerd's runc shim that flok sets.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "7")]
    root: String,
}

/// The container of a task: as long as Docker's ids, and always the same.
pub fn container_id(task: TaskId) -> String {
    digest_of(format!("flok task {task}").as_bytes())["sha256:".len()..].to_owned()
}

impl Runtime {
    /// Mounts the volumes of a task that are file systems of their own. Their servers may be slow, and whoever waits for
    /// them holds up nobody.
    pub async fn mount_volumes(&self, assignment: &Assignment) -> Result<()> {
        let anonymous = anonymous_volumes::of_task(&self.task_dir(assignment.task));
        let holder = Holder { task: assignment.task, anonymous: &anonymous };
        self.shared.volumes.enter_all(&assignment.spec.container.mounts, holder).await
    }

    async fn leave_volumes(&self, task: TaskId) -> Result<()> {
        let anonymous = anonymous_volumes::of_task(&self.task_dir(task));
        self.shared.volumes.leave(Holder { task, anonymous: &anonymous }).await
    }

    /// Makes the container, up to but without its process.
    pub async fn create(&self, prepare: Prepare<'_>) -> Result<Created> {
        let task = prepare.assignment.task;
        let id = container_id(task);
        let dir = self.task_dir(task);
        make_task_dir(&dir)?;
        let container = &prepare.assignment.spec.container;
        // Refused before anything is made for it.
        LogTarget::new(prepare.assignment.spec.log_driver.as_ref(), self.shared.log_defaults, &dir)?;
        let mounts = self.snapshot(task, &id, prepare.image).await?;
        self.shared.known.rootfs.lock().expect("nothing panics while it is held").insert(task, mounts.clone());
        let user = self.user(container, prepare.image, &mounts, &dir).await?;
        let image_config = prepare.image.config.config().clone().unwrap_or_default();
        let image_root = ImageRoot { mounts, at: dir.join("rootfs") };
        let wanted = with_image_volumes(container, image_config.volumes().as_deref().unwrap_or_default());
        let anonymous = anonymous_volumes::of_task(&dir);
        let holder = Holder { task, anonymous: &anonymous };
        let mut resolved = self.shared.volumes.resolve(&wanted, holder, &image_root).await?;
        resolved.extend(self.shared.task_files.put(task, prepare.files)?);
        // On the node's own network it is the node for whoever asks, as in Docker.
        let by_default = if prepare.netns == Netns::Host { prepare.hostname } else { &id[..12] };
        let hostname = container.hostname.clone().unwrap_or_else(|| by_default.to_owned());
        let on_host = prepare.netns == Netns::Host;
        let network = files::Network { addresses: prepare.addresses, resolver: prepare.resolver, on_host };
        let etc = files::write(&dir, container, &hostname, network)?;
        let devices = host::devices(container)?;
        let init = container.init.unwrap_or(false).then(host::init_binary).flatten();
        let mut spec = oci::build(&ContainerInputs {
            container,
            resources: &prepare.assignment.spec.resources,
            image: &image_config,
            user: &user,
            hostname: &hostname,
            mounts: &resolved,
            etc: &etc,
            devices: &devices,
            bounding: host::bounding_capabilities(),
            init: init.as_deref(),
            netns: prepare.netns,
            cgroup: self.shared.cgroup,
            cgroup_path: &format!("/flok/{id}"),
            architecture: std::env::consts::ARCH,
        })?;
        cdi::Devices::read(&self.shared.cdi_dirs).inject(&mut spec, &prepare.assignment.resources)?;
        let stop_signal = container.stop_signal.clone().or_else(|| image_config.stop_signal().clone());
        let check = self.make_check(task, container, prepare.image)?;
        self.write_log_context(prepare, &id, &spec, &dir)?;
        self.record(&id, prepare, stop_signal, &spec).await?;
        Ok(Created { id, check })
    }

    /// What the log's writer goes by, should the service's log driver want more than files.
    fn write_log_context(
        &self,
        prepare: Prepare<'_>,
        id: &str,
        spec: &oci_spec::runtime::Spec,
        dir: &Path,
    ) -> Result<()> {
        let assignment = prepare.assignment;
        let own = [
            ("com.docker.swarm.service.id", assignment.service.to_string()),
            ("com.docker.swarm.service.name", assignment.service_name.clone()),
            ("com.docker.swarm.task.id", assignment.task.to_string()),
            ("com.docker.swarm.task.name", assignment.name.clone()),
        ];
        let mut labels = assignment.spec.container.labels.clone();
        labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let env = spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
        let container = LoggedContainer {
            id,
            name: &assignment.name,
            image_name: &assignment.spec.container.image,
            image_id: &prepare.image.digest,
            labels: &labels,
            env: &env,
        };
        logs::write_context(assignment.spec.log_driver.as_ref(), container, prepare.hostname, dir)
    }

    /// Runs the container's process. Returns its pid. `again`: an earlier run has ended and is cleared away.
    pub async fn start_task(&self, assignment: &Assignment, again: bool) -> Result<u32> {
        let task = assignment.task;
        let id = container_id(task);
        if again {
            self.delete_process(&id).await?;
        }
        self.forget_health(task);
        let rootfs = self.rootfs(task, &id).await?;
        let dir = self.task_dir(task);
        self.shared.volumes.enter_again(Holder { task, anonymous: &anonymous_volumes::of_task(&dir) }).await?;
        let marker = dir.join(STARTED);
        fs::write(&marker, []).map_err(RuntimeError::io("marking the start in", &marker))?;
        let log = LogTarget::new(assignment.spec.log_driver.as_ref(), self.shared.log_defaults, &dir)?;
        let Streams { stdin, stdout, stderr } = self.streams(&assignment.spec.container, log, &dir).await?;
        let request = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdin,
            stdout,
            stderr,
            terminal: assignment.spec.container.tty,
            ..Default::default()
        };
        let mut tasks = self.shared.client.tasks();
        let created = call("creating the process of", &id, LONG, tasks.create(request)).await.map_err(plain);
        if created.is_err() {
            self.end_streams(task).await;
        }
        let pid = created?.pid;
        let request = StartRequest { container_id: id.clone(), ..Default::default() };
        if let Err(error) = call("starting", &id, LONG, tasks.start(request)).await {
            if let Err(again) = self.delete_process(&id).await {
                tracing::warn!(%task, error = %again, "clearing away a process that did not start failed");
            }
            return Err(plain(error));
        }
        Ok(pid)
    }

    /// Sends the stop signal: the spec's, else the image's, else SIGTERM.
    pub async fn stop_task(&self, task: TaskId) -> Result<()> {
        let id = container_id(task);
        let request = ListContainersRequest { filters: vec![format!("id=={id}")] };
        let found = call("looking for container", &id, SHORT, self.shared.client.containers().list(request)).await?;
        let named = found.containers.first().and_then(|found| found.labels.get(STOP_SIGNAL_LABEL));
        let signal = named.and_then(|name| host::signal_number(name)).unwrap_or(libc::SIGTERM);
        self.signal(&id, signal, false).await
    }

    /// SIGKILL to every process of the task.
    pub async fn kill_task(&self, task: TaskId) -> Result<()> {
        self.signal(&container_id(task), libc::SIGKILL, true).await
    }

    pub(super) async fn signal(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let request =
            KillRequest { container_id: id.to_owned(), signal: signal.cast_unsigned(), all, ..Default::default() };
        gone_is_fine(call("signalling", id, SHORT, self.shared.client.tasks().kill(request)).await)
    }

    /// Clears away the ended process, when its output is all in the log. The container and its files stay.
    pub async fn release_task(&self, task: TaskId) -> Result<()> {
        let deleted = self.delete_process(&container_id(task)).await;
        self.end_streams(task).await;
        let left = self.leave_volumes(task).await;
        self.shared.task_files.remove(task).and(deleted).and(left)
    }

    /// Removes all that is left of a task: process, container, file system, anonymous volumes, logs.
    pub async fn remove_task(&self, task: TaskId) -> Result<()> {
        let id = container_id(task);
        self.delete_process(&id).await?;
        self.end_streams(task).await;
        self.shared.task_files.remove(task)?;
        self.leave_volumes(task).await?;
        let request = DeleteContainerRequest { id: id.clone() };
        gone_is_fine(call("removing container", &id, SHORT, self.shared.client.containers().delete(request)).await)?;
        let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: id.clone() };
        gone_is_fine(call("removing the files of", &id, LONG, self.shared.client.snapshots().remove(request)).await)?;
        self.shared.known.rootfs.lock().expect("nothing panics while it is held").remove(&task);
        let dir = self.task_dir(task);
        remove_tree(&dir).map_err(RuntimeError::io("removing", dir))
    }

    /// Every task this node has something of. Host ports are the network room's to fill in.
    pub async fn found(&self) -> Result<Vec<Found>> {
        let request = ListContainersRequest { filters: vec![format!("labels.\"{TASK_LABEL}\"")] };
        let containers = call("listing", "containers", SHORT, self.shared.client.containers().list(request)).await?;
        let processes = self.listed_processes().await?;
        let mut found: BTreeMap<TaskId, Found> = BTreeMap::new();
        for container in containers.containers {
            let Some(task) = container.labels.get(TASK_LABEL).and_then(|task| task.parse::<TaskId>().ok()) else {
                continue;
            };
            let started = self.task_dir(task).join(STARTED).exists();
            let state = found_state(processes.get(&container.id), started);
            let health = self.found_health(task);
            let container_id = container.id;
            found.insert(task, Found { task, container_id, host_ports: Vec::new(), state, health });
        }
        // A directory without a container: a preparation or a removal that was cut short.
        for entry in fs::read_dir(&self.shared.dir).into_iter().flatten().flatten() {
            if let Some(task) = entry.file_name().to_str().and_then(|name| name.parse::<TaskId>().ok()) {
                let state = found_state(None, entry.path().join(STARTED).exists());
                let none = Found { task, container_id: String::new(), host_ports: Vec::new(), state, health: None };
                found.entry(task).or_insert(none);
            }
        }
        Ok(found.into_values().collect())
    }

    /// By their containers' ids.
    async fn listed_processes(&self) -> Result<HashMap<String, Process>> {
        // A daemon that was killed may have left commands that nobody reads from: their shims wait for that, and tell nothing
        // of the container until then.
        let _read = LeftPipes::open(&self.shared.dir);
        let request = ListTasksRequest::default();
        let listed = call("listing", "tasks", LONG, self.shared.client.tasks().list(request)).await?;
        let of_container = |process: Process| {
            let id = if process.container_id.is_empty() { &process.id } else { &process.container_id };
            (id.clone(), process)
        };
        let mut processes: HashMap<String, Process> = listed.tasks.into_iter().map(of_container).collect();
        let silent = processes.iter().filter(|(_, process)| process.status == Status::Unknown as i32);
        let silent = join_all(silent.map(|(id, _)| self.asked_again(id.clone()))).await;
        processes.extend(silent.into_iter().flatten());
        Ok(processes)
    }

    /// Of one whose shim did not say in time how it is; `None` where it still does not.
    async fn asked_again(&self, id: String) -> Option<(String, Process)> {
        for _ in 0..ASKED_AGAIN {
            let request = GetRequest { container_id: id.clone(), exec_id: String::new() };
            let answer = call("asking for", &id, ASK_WITHIN, self.shared.client.tasks().get(request)).await;
            match answer.map(|answer| answer.process) {
                Ok(Some(process)) if process.status != Status::Unknown as i32 => return Some((id, process)),
                Err(error) if error.is_not_found() => return None,
                _ => tokio::time::sleep(ASKED_AFTER).await,
            }
        }
        None
    }

    /// Where a task's own files are on the host.
    pub fn task_dir(&self, task: TaskId) -> PathBuf {
        self.shared.dir.join(task.to_string())
    }

    /// The container's writable layer. It is a root of containerd's garbage collector itself, so that no lease is needed;
    /// should the daemon die before the container is recorded, the task's directory tells the next one of it.
    async fn snapshot(&self, task: TaskId, id: &str, image: &ImageInfo) -> Result<Vec<Mount>> {
        let root = ("containerd.io/gc.root".to_owned(), "flok".to_owned());
        let labels = HashMap::from([root, (TASK_LABEL.to_owned(), task.to_string())]);
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.to_owned(),
            parent: image.chain_id.clone(),
            labels,
        };
        match call("making the file system of", id, SHORT, self.shared.client.snapshots().prepare(request)).await {
            Ok(prepared) => Ok(prepared.mounts),
            Err(error) if error.already_exists() => self.mounts(id).await,
            Err(error) if error.is_not_found() => {
                self.shared.images.invalidate(&image.name);
                Err(RuntimeError::BrokenImage {
                    image: image.name.clone(),
                    reason: "its unpacked layers are gone".to_owned(),
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn mounts(&self, id: &str) -> Result<Vec<Mount>> {
        let request = MountsRequest { snapshotter: SNAPSHOTTER.to_owned(), key: id.to_owned() };
        let mounts =
            call("finding the file system of", id, SHORT, self.shared.client.snapshots().mounts(request)).await?;
        Ok(mounts.mounts)
    }

    pub(super) async fn rootfs(&self, task: TaskId, id: &str) -> Result<Vec<Mount>> {
        let known = self.shared.known.rootfs.lock().expect("nothing panics while it is held").get(&task).cloned();
        match known {
            Some(mounts) => Ok(mounts),
            None => self.mounts(id).await,
        }
    }

    async fn user(
        &self,
        container: &ContainerSpec,
        image: &ImageInfo,
        mounts: &[Mount],
        dir: &Path,
    ) -> Result<ResolvedUser> {
        let image_user = image.config.config().as_ref().and_then(|config| config.user().clone());
        let user = container.user.clone().or(image_user).unwrap_or_default();
        let accounts = match self.shared.users.get(&image.chain_id) {
            Some(known) => known,
            None => {
                // The container's own layer is still empty: what is seen is the image's.
                let read = rootfs::with_rootfs(mounts.to_vec(), dir.join("rootfs"), |root| {
                    let text = |path| {
                        root.read(path, MAX_FILE_BYTES)
                            .map(|file| String::from_utf8_lossy(&file.unwrap_or_default()).into_owned())
                    };
                    Ok(Accounts { passwd: text("/etc/passwd")?, group: text("/etc/group")? })
                });
                let accounts = Arc::new(read.await.map_err(RuntimeError::io("looking for users in", &image.name))?);
                self.shared.users.remember(&image.chain_id, Arc::clone(&accounts));
                accounts
            }
        };
        accounts.resolve(&user, &container.groups).map_err(|reason| RuntimeError::User { user, reason })
    }

    async fn record(
        &self,
        id: &str,
        prepare: Prepare<'_>,
        stop_signal: Option<String>,
        spec: &oci_spec::runtime::Spec,
    ) -> Result<()> {
        let assignment = prepare.assignment;
        let names = [
            (TASK_LABEL, assignment.task.to_string()),
            (NAME_LABEL, assignment.name.clone()),
            (SERVICE_NAME_LABEL, assignment.service_name.clone()),
        ];
        let mut labels: HashMap<String, String> = names.map(|(key, value)| (key.to_owned(), value)).into();
        if let Some(signal) = stop_signal {
            labels.insert(STOP_SIGNAL_LABEL.to_owned(), signal);
        }
        let options = RuncOptions { root: self.shared.runc_root.to_string_lossy().into_owned() };
        let options =
            prost_types::Any { type_url: "containerd.runc.v1.Options".to_owned(), value: options.encode_to_vec() };
        let spec = serde_json::to_vec(spec).expect("a specification is plain data");
        let container = Container {
            id: id.to_owned(),
            labels,
            image: prepare.image.name.clone(),
            runtime: Some(ContainerRuntime { name: RUNC.to_owned(), options: Some(options) }),
            spec: Some(prost_types::Any { type_url: SPEC_TYPE.to_owned(), value: spec }),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.to_owned(),
            ..Default::default()
        };
        let mut containers = self.shared.client.containers();
        let request = CreateContainerRequest { container: Some(container.clone()) };
        match call("creating container", id, SHORT, containers.create(request)).await {
            // A preparation that was cut short: its specification may name another network namespace.
            Err(error) if error.already_exists() => {
                let request = UpdateContainerRequest { container: Some(container), update_mask: None };
                call("updating container", id, SHORT, containers.update(request)).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// Deletes the process's record in containerd, after killing what still runs.
    async fn delete_process(&self, id: &str) -> Result<()> {
        let delete = || {
            let request = DeleteTaskRequest { container_id: id.to_owned() };
            async { gone_is_fine(call("clearing away", id, LONG, self.shared.client.tasks().delete(request)).await) }
        };
        match delete().await {
            // What it says of a process that runs differs from version to version.
            Err(_) => {
                self.signal(id, libc::SIGKILL, true).await?;
                let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
                gone_is_fine(call("waiting for", id, END_WITHIN, self.shared.client.tasks().wait(request)).await)?;
                delete().await
            }
            other => other,
        }
    }
}

fn make_task_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(RuntimeError::io("creating", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).map_err(RuntimeError::io("protecting", dir))
}

fn found_state(process: Option<&Process>, started: bool) -> FoundState {
    match process {
        Some(process) if process.status == Status::Stopped as i32 => {
            let code = i32::try_from(process.exit_status).unwrap_or(i32::MAX);
            FoundState::Exited(Exit { code, out_of_memory: false })
        }
        // Created, and the start was cut short: it is cleared away as if it had ended.
        Some(process) if process.status == Status::Created as i32 => FoundState::Lost,
        Some(process) if process.status != Status::Unknown as i32 => {
            FoundState::Running { pid: process.pid, age: host::process_age(process.pid).unwrap_or_default() }
        }
        _ if started => FoundState::Lost,
        _ => FoundState::Prepared,
    }
}

/// The spec's mounts, and an anonymous volume for each the image declares and the spec does not mount.
fn with_image_volumes(container: &ContainerSpec, declared: &[String]) -> Vec<crate::spec::Mount> {
    let mut mounts = container.mounts.clone();
    for target in declared {
        if !mounts.iter().any(|mount| mount.target.trim_end_matches('/') == target.trim_end_matches('/')) {
            mounts.push(crate::spec::Mount {
                kind: MountKind::Volume,
                source: None,
                target: target.clone(),
                read_only: false,
                bind: Default::default(),
                volume: Default::default(),
                tmpfs: Default::default(),
            });
        }
    }
    mounts
}

/// What runc says is what a user needs; that it came through a shim is not.
fn plain(error: RuntimeError) -> RuntimeError {
    match error {
        RuntimeError::Containerd { operation, object, mut status } => {
            let said = status.message();
            let said = said.strip_prefix("failed to create shim task: ").unwrap_or(said);
            let said = said.strip_suffix(": unknown").unwrap_or(said).to_owned();
            *status = containerd_client::tonic::Status::new(status.code(), said);
            RuntimeError::Containerd { operation, object, status }
        }
        other => other,
    }
}
