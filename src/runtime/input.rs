//! The input of containers that were made with one (`stdin_open`): a named pipe in the task's directory. The log writer holds
//! it open as long as the container runs, so that neither a client who goes nor a daemon that restarts ends it.
//!
//! containerd's shim gives a container without terminal no input beside a `binary://` logger; there the output goes through
//! named pipes too, and the daemon starts the log writer itself.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::stat::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Runtime;
use super::error::{Result, RuntimeError};
use super::logs::{CLOSED, LogTarget, PIPES_ARGUMENT};
use crate::program;
use crate::spec::{ContainerSpec, TaskId};

pub const STDIN: &str = "stdin";
pub const STDOUT: &str = "stdout";
pub const STDERR: &str = "stderr";

/// Pieces that wait for the container to read; then the client waits.
const QUEUE: usize = 8;
/// For the log writer to be there.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// For it to have written what a container that has ended printed last.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What containerd is told of a container's streams.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

impl Runtime {
    /// The streams of a container that is to start, with their pipes made and their reader there.
    pub(super) async fn streams(
        &self,
        container: &ContainerSpec,
        log: Option<LogTarget>,
        dir: &Path,
    ) -> Result<Streams> {
        let program = &self.shared.logger;
        if !container.stdin_open {
            let output = log.map(|log| log.uri(program)).unwrap_or_default();
            let stderr = if container.tty { String::new() } else { output.clone() };
            return Ok(Streams { stdin: String::new(), stdout: output, stderr });
        }
        let log = log.unwrap_or_else(|| LogTarget::nowhere(dir));
        let stdin = make(dir, STDIN)?;
        if container.tty {
            return Ok(Streams { stdin, stdout: log.uri(program), stderr: String::new() });
        }
        let (stdout, stderr) = (make(dir, STDOUT)?, make(dir, STDERR)?);
        start_writer(program, &log).await?;
        Ok(Streams { stdin, stdout, stderr })
    }

    /// Lets a log writer go whose container never started, and waits until one has written the last words.
    pub(super) async fn end_streams(&self, task: TaskId) {
        let dir = self.task_dir(task);
        let pipes = [STDOUT, STDERR].map(|name| dir.join(name));
        if !pipes.iter().all(|pipe| is_pipe(pipe)) {
            return;
        }
        // To have been opened and closed once is the end of what is read there.
        for pipe in &pipes {
            let _ = pipe::OpenOptions::new().open_sender(pipe);
        }
        let written = async {
            while !dir.join(CLOSED).exists() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if timeout(WRITTEN_WITHIN, written).await.is_err() {
            tracing::warn!(%task, "the end of a log is not written yet");
        }
    }

    /// Takes what the container is to read. Dropping it leaves the container's input open.
    pub fn input(&self, task: TaskId) -> Result<mpsc::Sender<Bytes>> {
        let path = self.task_dir(task).join(STDIN);
        let opened = pipe::OpenOptions::new().open_sender(&path);
        let mut input = opened.map_err(|_| RuntimeError::NotRunning(task))?;
        let (sender, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
        tokio::spawn(async move {
            while let Some(piece) = pieces.recv().await {
                if input.write_all(&piece).await.is_err() {
                    return;
                }
            }
        });
        Ok(sender)
    }

    /// What a task prints from now on.
    pub async fn live(&self, task: TaskId) -> Result<mpsc::Receiver<(bool, Bytes)>> {
        super::logs::live::listen(&self.task_dir(task)).await.map_err(|_| RuntimeError::NotRunning(task))
    }
}

fn is_pipe(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

/// Anew: what an earlier run left in it is not the next one's.
fn make(dir: &Path, name: &str) -> Result<String> {
    let path: PathBuf = dir.join(name);
    let _ = fs::remove_file(&path);
    let made = nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR);
    made.map_err(|error| RuntimeError::io("making a pipe at", &path)(error.into()))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Returns when it reads; it lives on beside the daemon.
async fn start_writer(program: &Path, log: &LogTarget) -> Result<()> {
    let mut command = std::process::Command::new(program);
    command.arg(PIPES_ARGUMENT).arg(log.argument()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    program::without_own_settings(&mut command);
    program::in_own_session(&mut command);
    let spawned = Command::from(command).spawn();
    let mut writer = spawned.map_err(|source| RuntimeError::Spawn { path: program.to_owned(), source })?;
    let mut ready = [0];
    let told = writer.stdout.take().expect("it was asked for");
    let said = timeout(READY_WITHIN, async { { told }.read_exact(&mut ready).await }).await;
    match said {
        Ok(Ok(_)) => Ok(()),
        _ => {
            // It is of no use, ended or not.
            let _ = writer.start_kill();
            Err(RuntimeError::io("starting the log writer for", &log.dir)(std::io::ErrorKind::BrokenPipe.into()))
        }
    }
}
