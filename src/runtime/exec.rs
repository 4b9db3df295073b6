//! Running a further command in a task's container: what it prints and how it ends, for health checks and the like.
//! `attached` has those whose streams somebody holds.

use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, KillRequest, StartRequest, WaitRequest,
};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Process, Spec};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::client::{LONG, SHORT, call};
use super::containers::container_id;
use super::error::{Result, RuntimeError, gone_is_fine};
use super::rootfs::Rootfs;
use super::users::{Accounts, MAX_FILE_BYTES};
use super::{Runtime, host, oci};
use crate::spec::TaskId;

/// Most bytes that are kept of each stream; what is beyond them is read and dropped.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// How long output is waited for after the command's end.
pub(super) const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// What the names of commands, and of their pipes, begin with.
const EXEC: &str = "exec-";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

#[derive(Debug, Clone, Default)]
pub struct Exec {
    pub command: Vec<String>,
    /// Beside the container's own.
    pub env: Vec<String>,
    /// `None`: the container's.
    pub dir: Option<String>,
    /// `None`: the container's.
    pub user: Option<String>,
    /// With a terminal, which has one stream for all that is printed.
    pub tty: bool,
    /// With every capability there is.
    pub privileged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Runtime {
    /// Runs a command as the container's own user, with its rights, and waits for its end; after `within` it is killed and
    /// the call fails with [`RuntimeError::Timeout`].
    pub async fn exec(&self, task: TaskId, exec: &Exec, within: Duration) -> Result<ExecOutput> {
        let process = self.exec_process(task, exec).await?;
        let running = Running::new(self, task);
        let pipes = Pipes::make(&self.task_dir(task), &running.exec_id, Wanted { stdin: false, stderr: true })?;
        let result = running.run(process, &pipes, within).await;
        running.delete().await;
        result
    }

    /// What runc was told of the container.
    pub(super) async fn container_spec(&self, task: TaskId) -> Result<Spec> {
        let id = container_id(task);
        let request = GetContainerRequest { id: id.clone() };
        let found = call("looking for container", &id, SHORT, self.shared.client.containers().get(request)).await?;
        let spec = found.container.and_then(|container| container.spec).unwrap_or_default();
        serde_json::from_slice(&spec.value).map_err(|error| RuntimeError::BrokenImage {
            image: id,
            reason: format!("its container's specification does not read: {error}"),
        })
    }

    /// The container's own process, with another command.
    pub(super) async fn exec_process(&self, task: TaskId, exec: &Exec) -> Result<Process> {
        let mut process = self.container_spec(task).await?.process().clone().unwrap_or_default();
        let mut env = process.env().clone().unwrap_or_default();
        if exec.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        env.extend(exec.env.iter().cloned());
        process.set_args(Some(exec.command.clone())).set_env(Some(env)).set_terminal(Some(exec.tty));
        if let Some(dir) = exec.dir.as_ref().filter(|dir| !dir.is_empty()) {
            process.set_cwd(dir.into());
        }
        if let Some(user) = exec.user.as_ref().filter(|user| !user.is_empty()) {
            let accounts = self.accounts_in(task).await?;
            let resolved = accounts.resolve(user, &[]);
            let found = resolved.map_err(|reason| RuntimeError::User { user: user.clone(), reason })?;
            let mut user = process.user().clone();
            user.set_uid(found.uid).set_gid(found.gid).set_additional_gids(Some(found.additional_gids));
            process.set_user(user);
        }
        if exec.user.is_some() || exec.privileged {
            let own = process.capabilities().as_ref().and_then(|caps| caps.bounding().clone()).unwrap_or_default();
            let bounding = if exec.privileged { oci::all_capabilities(host::bounding_capabilities()) } else { own };
            process.set_capabilities(Some(oci::held_by(process.user().uid(), bounding)));
        }
        Ok(process)
    }

    /// The accounts as the running container has them.
    async fn accounts_in(&self, task: TaskId) -> Result<Accounts> {
        let pid = self.pid(task).await?;
        let read = move || {
            let root = Rootfs::of_process(pid, &container_id(task))?;
            let text = |path| {
                root.read(path, MAX_FILE_BYTES)
                    .map(|file| String::from_utf8_lossy(&file.unwrap_or_default()).into_owned())
            };
            Ok(Accounts { passwd: text("/etc/passwd")?, group: text("/etc/group")? })
        };
        let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        read.map_err(RuntimeError::io("looking for users in", container_id(task)))
    }
}

/// A command under containerd's name for it.
#[derive(Clone)]
pub(super) struct Running {
    pub runtime: Runtime,
    pub id: String,
    pub exec_id: String,
}

impl Running {
    pub fn new(runtime: &Runtime, task: TaskId) -> Running {
        let exec_id = format!("{EXEC}{:016x}", rand::random::<u64>());
        Running { runtime: runtime.clone(), id: container_id(task), exec_id }
    }

    /// Makes and starts it. Returns its pid.
    pub async fn start(&self, process: Process, pipes: &Pipes) -> Result<u32> {
        let client = &self.runtime.shared.client;
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let request = ExecProcessRequest {
            container_id: self.id.clone(),
            stdin: pipes.stdin.as_ref().map(text).unwrap_or_default(),
            stdout: text(&pipes.stdout),
            stderr: pipes.stderr.as_ref().map(text).unwrap_or_default(),
            terminal: process.terminal().unwrap_or(false),
            spec: Some(prost_types::Any {
                type_url: PROCESS_TYPE.to_owned(),
                value: serde_json::to_vec(&process).expect("a process is plain data"),
            }),
            exec_id: self.exec_id.clone(),
        };
        call("making a command in", &self.id, SHORT, client.tasks().exec(request)).await?;
        let request = StartRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        Ok(call("starting a command in", &self.id, LONG, client.tasks().start(request)).await?.pid)
    }

    async fn run(&self, process: Process, pipes: &Pipes, within: Duration) -> Result<ExecOutput> {
        // Ours are opened first, without waiting for the shim's.
        let (stdout, stderr) = pipes.open_output()?;
        self.start(process, pipes).await?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit_code = {
            // Read from the start on, or a full pipe would hold the command up; before it, a pipe without writer is at its end.
            let mut output = pin!(async { tokio::join!(collect(Some(stdout), &mut out), collect(stderr, &mut err)) });
            let mut read = false;
            let mut ended = pin!(self.ended(within));
            let exit_code = loop {
                tokio::select! {
                    exit_code = &mut ended => break exit_code?,
                    _ = &mut output, if !read => read = true,
                }
            };
            // A grandchild may hold a stream open for ever.
            if !read {
                let _ = tokio::time::timeout(DRAIN_WITHIN, output).await;
            }
            exit_code
        };
        Ok(ExecOutput { exit_code, stdout: out, stderr: err })
    }

    pub async fn ended(&self, within: Duration) -> Result<i32> {
        let request = WaitRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        let mut tasks = self.runtime.shared.client.tasks();
        let ended = call("waiting for a command in", &self.id, within, tasks.wait(request)).await?;
        Ok(i32::try_from(ended.exit_status).unwrap_or(i32::MAX))
    }

    /// Kills what still runs, and clears the record away.
    pub async fn delete(&self) {
        let client = &self.runtime.shared.client;
        let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
        let kill = KillRequest { container_id, exec_id, signal: libc::SIGKILL.cast_unsigned(), all: false };
        let _ = call("killing a command in", &self.id, SHORT, client.tasks().kill(kill)).await;
        let wait = WaitRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        let _ = call("waiting for a command in", &self.id, SHORT, client.tasks().wait(wait)).await;
        let request = DeleteProcessRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        let deleted = call("clearing a command away in", &self.id, SHORT, client.tasks().delete_process(request)).await;
        if let Err(error) = gone_is_fine(deleted) {
            tracing::debug!(%error, "a command's record stays until its container goes");
        }
    }
}

/// The streams of a command beside its output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub stderr: bool,
}

/// Named pipes in the task's directory, removed with this.
pub(super) struct Pipes {
    pub stdin: Option<PathBuf>,
    stdout: PathBuf,
    stderr: Option<PathBuf>,
}

impl Pipes {
    pub fn make(dir: &Path, name: &str, wanted: Wanted) -> Result<Pipes> {
        let pipes = Pipes {
            stdin: wanted.stdin.then(|| dir.join(format!("{name}.in"))),
            stdout: dir.join(format!("{name}.out")),
            stderr: wanted.stderr.then(|| dir.join(format!("{name}.err"))),
        };
        for path in pipes.paths() {
            let made = nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR);
            made.map_err(|error| RuntimeError::io("making a pipe at", path)(error.into()))?;
        }
        Ok(pipes)
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.stdin.iter().chain([&self.stdout]).chain(&self.stderr)
    }

    pub fn open_output(&self) -> Result<(pipe::Receiver, Option<pipe::Receiver>)> {
        let open =
            |path: &PathBuf| pipe::OpenOptions::new().open_receiver(path).map_err(RuntimeError::io("opening", path));
        Ok((open(&self.stdout)?, self.stderr.as_ref().map(open).transpose()?))
    }
}

/// The pipes that another daemon's commands left in the tasks' directories: open at both ends, and removed with this.
pub(super) struct LeftPipes(Vec<(PathBuf, std::fs::File)>);

impl LeftPipes {
    /// `dir`: that of all tasks.
    pub fn open(dir: &Path) -> LeftPipes {
        let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let is_left = |entry: &std::fs::DirEntry| {
            let is_pipe = entry.file_type().is_ok_and(|kind| kind.is_fifo());
            is_pipe && entry.file_name().to_string_lossy().starts_with(EXEC)
        };
        let left = entries(dir).flat_map(|task| entries(&task.path())).filter(is_left);
        let open = |entry: std::fs::DirEntry| {
            let mut options = std::fs::OpenOptions::new();
            let opened = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(entry.path()).ok()?;
            Some((entry.path(), opened))
        };
        LeftPipes(left.filter_map(open).collect())
    }
}

impl Drop for LeftPipes {
    fn drop(&mut self) {
        for (path, _) in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        for path in self.paths() {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn collect(from: Option<pipe::Receiver>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let room = MAX_OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}
