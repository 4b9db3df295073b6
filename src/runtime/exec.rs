//! Running a further command in a task's container: what it prints and how it ends, for health checks and the like.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, KillRequest, StartRequest, WaitRequest,
};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Process, Spec};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::Runtime;
use super::client::{LONG, SHORT, call};
use super::containers::container_id;
use super::error::{Result, RuntimeError, gone_is_fine};
use crate::spec::TaskId;

/// Most bytes that are kept of each stream; what is beyond them is read and dropped.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// How long output is waited for after the command's end.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

#[derive(Debug, Clone, Default)]
pub struct Exec {
    pub command: Vec<String>,
    /// Beside the container's own.
    pub env: Vec<String>,
    /// `None`: the container's.
    pub dir: Option<String>,
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
        let id = container_id(task);
        let process = self.exec_process(&id, exec).await?;
        let exec_id = format!("exec-{:016x}", rand::random::<u64>());
        let pipes = Pipes::make(self.task_dir(task), &exec_id)?;
        let running = Running { runtime: self, id: &id, exec_id: &exec_id };
        let result = running.run(process, &pipes, within).await;
        running.delete().await;
        result
    }

    /// The container's own process, with another command.
    async fn exec_process(&self, id: &str, exec: &Exec) -> Result<Process> {
        let request = GetContainerRequest { id: id.to_owned() };
        let found = call("looking for container", id, SHORT, self.shared.client.containers().get(request)).await?;
        let spec = found.container.and_then(|container| container.spec).unwrap_or_default();
        let spec: Spec = serde_json::from_slice(&spec.value).map_err(|error| RuntimeError::BrokenImage {
            image: id.to_owned(),
            reason: format!("its container's specification does not read: {error}"),
        })?;
        let mut process = spec.process().clone().unwrap_or_default();
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(exec.env.iter().cloned());
        process.set_args(Some(exec.command.clone())).set_env(Some(env)).set_terminal(Some(false));
        if let Some(dir) = &exec.dir {
            process.set_cwd(dir.into());
        }
        Ok(process)
    }
}

struct Running<'a> {
    runtime: &'a Runtime,
    id: &'a str,
    exec_id: &'a str,
}

impl Running<'_> {
    async fn run(&self, process: Process, pipes: &Pipes, within: Duration) -> Result<ExecOutput> {
        let client = &self.runtime.shared.client;
        // Ours are opened first, without waiting for the shim's.
        let (stdout, stderr) = pipes.open()?;
        let request = ExecProcessRequest {
            container_id: self.id.to_owned(),
            stdout: pipes.stdout.to_string_lossy().into_owned(),
            stderr: pipes.stderr.to_string_lossy().into_owned(),
            spec: Some(prost_types::Any {
                type_url: PROCESS_TYPE.to_owned(),
                value: serde_json::to_vec(&process).expect("a process is plain data"),
            }),
            exec_id: self.exec_id.to_owned(),
            ..Default::default()
        };
        call("making a command in", self.id, SHORT, client.tasks().exec(request)).await?;
        let request = StartRequest { container_id: self.id.to_owned(), exec_id: self.exec_id.to_owned() };
        call("starting a command in", self.id, LONG, client.tasks().start(request)).await?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit_code = {
            // Read from the start on, or a full pipe would hold the command up; before it, a pipe without writer is at its end.
            let mut output = pin!(async { tokio::join!(collect(stdout, &mut out), collect(stderr, &mut err)) });
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

    async fn ended(&self, within: Duration) -> Result<i32> {
        let request = WaitRequest { container_id: self.id.to_owned(), exec_id: self.exec_id.to_owned() };
        let mut tasks = self.runtime.shared.client.tasks();
        let ended = call("waiting for a command in", self.id, within, tasks.wait(request)).await?;
        Ok(i32::try_from(ended.exit_status).unwrap_or(i32::MAX))
    }

    /// Kills what still runs, and clears the record away.
    async fn delete(&self) {
        let client = &self.runtime.shared.client;
        let (container_id, exec_id) = (self.id.to_owned(), self.exec_id.to_owned());
        let kill = KillRequest { container_id, exec_id, signal: libc::SIGKILL.cast_unsigned(), all: false };
        let _ = call("killing a command in", self.id, SHORT, client.tasks().kill(kill)).await;
        let wait = WaitRequest { container_id: self.id.to_owned(), exec_id: self.exec_id.to_owned() };
        let _ = call("waiting for a command in", self.id, SHORT, client.tasks().wait(wait)).await;
        let request = DeleteProcessRequest { container_id: self.id.to_owned(), exec_id: self.exec_id.to_owned() };
        let deleted = call("clearing a command away in", self.id, SHORT, client.tasks().delete_process(request)).await;
        if let Err(error) = gone_is_fine(deleted) {
            tracing::debug!(%error, "a command's record stays until its container goes");
        }
    }
}

/// Two named pipes in the task's directory, removed with this.
struct Pipes {
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Pipes {
    fn make(dir: PathBuf, name: &str) -> Result<Pipes> {
        let pipes = Pipes { stdout: dir.join(format!("{name}.out")), stderr: dir.join(format!("{name}.err")) };
        for path in [&pipes.stdout, &pipes.stderr] {
            let made = nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR);
            made.map_err(|error| RuntimeError::io("making a pipe at", path)(error.into()))?;
        }
        Ok(pipes)
    }

    fn open(&self) -> Result<(pipe::Receiver, pipe::Receiver)> {
        let open =
            |path: &PathBuf| pipe::OpenOptions::new().open_receiver(path).map_err(RuntimeError::io("opening", path));
        Ok((open(&self.stdout)?, open(&self.stderr)?))
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        for path in [&self.stdout, &self.stderr] {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn collect(mut from: pipe::Receiver, kept: &mut Vec<u8>) {
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let room = MAX_OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}
