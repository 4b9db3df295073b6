//! Commands in a task's container whose streams somebody holds, with or without a terminal. A command goes on when its
//! holder goes away: what it prints from then on is dropped.

use std::time::Duration;

use bytes::Bytes;
use containerd_client::services::v1::{CloseIoRequest, ResizePtyRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{SHORT, call};
use super::error::{Result, RuntimeError};
use super::exec::{DRAIN_WITHIN, Pipes, Running, Wanted};
use super::{Exec, Runtime};
use crate::spec::TaskId;

/// Pieces that wait for a reader or for the command; then the writer waits.
const QUEUE: usize = 8;
const PIECE_BYTES: usize = 32 * 1024;
/// One call's wait for the end; then it is asked again.
const ENDS_WITHIN: Duration = Duration::from_secs(3600);

/// A piece of what a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    pub stderr: bool,
    pub bytes: Bytes,
}

/// A command that runs.
pub struct Attached {
    pub pid: u32,
    pub handle: AttachedHandle,
    /// `None` where it was not asked for. Dropped, the command reads the end of its input.
    pub input: Option<mpsc::Sender<Bytes>>,
    /// Ends when the command has ended and its output has been read.
    pub output: mpsc::Receiver<Printed>,
}

/// For its terminal.
#[derive(Clone)]
pub struct AttachedHandle(Running);

impl AttachedHandle {
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let Running { runtime, id, exec_id } = &self.0;
        runtime.resize(id, exec_id, width, height).await
    }
}

impl Runtime {
    /// Starts a command. `ended` is told its exit code before `output` ends.
    pub async fn attach(
        &self,
        task: TaskId,
        exec: &Exec,
        with_input: bool,
        ended: impl FnOnce(i32) + Send + 'static,
    ) -> Result<Attached> {
        let process = self.exec_process(task, exec).await?;
        let running = Running::new(self, task);
        let wanted = Wanted { stdin: with_input, stderr: !exec.tty };
        let pipes = Pipes::make(&self.task_dir(task), &running.exec_id, wanted)?;
        // Ours are opened first, without waiting for the shim's; held for both ends, opening an input waits for nobody.
        let (stdout, stderr) = pipes.open_output()?;
        let open = |path| {
            pipe::OpenOptions::new().read_write(true).open_sender(path).map_err(RuntimeError::io("opening", path))
        };
        let stdin = pipes.stdin.as_ref().map(open).transpose()?;
        let pid = match running.start(process, &pipes).await {
            Ok(pid) => pid,
            Err(error) => {
                running.delete().await;
                return Err(error);
            }
        };
        let (printing, output) = mpsc::channel(QUEUE);
        let input = stdin.map(|stdin| {
            let (input, pieces) = mpsc::channel(QUEUE);
            (input, tokio::spawn(feed(running.clone(), stdin, pieces)))
        });
        let (input, feeding) = input.unzip();
        let handle = AttachedHandle(running.clone());
        tokio::spawn(async move {
            let mut readers = JoinSet::new();
            readers.spawn(read(stdout, false, printing.clone()));
            if let Some(stderr) = stderr {
                readers.spawn(read(stderr, true, printing.clone()));
            }
            let exit_code = end_of(&running).await;
            if let Some(feeding) = feeding {
                feeding.abort();
            }
            drain(&mut readers, &printing).await;
            ended(exit_code);
            drop((printing, pipes));
            running.delete().await;
        });
        Ok(Attached { pid, handle, input, output })
    }

    /// Sets the size of the terminal of a container's process (`exec_id` empty) or of a command in it.
    pub(super) async fn resize(&self, id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
        let request = ResizePtyRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned(), width, height };
        call("resizing the terminal of", id, SHORT, self.shared.client.tasks().resize_pty(request)).await.map(|_| ())
    }
}

/// Waits for what was printed to be read. A grandchild may hold a stream open for ever, and is not waited for; a holder that
/// reads slowly is.
async fn drain(readers: &mut JoinSet<()>, printing: &mpsc::Sender<Printed>) {
    loop {
        match timeout(DRAIN_WITHIN, readers.join_next()).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) if printing.capacity() == 0 && !printing.is_closed() => {}
            Err(_) => return,
        }
    }
}

/// A command whose end cannot be heard of has ended badly.
async fn end_of(running: &Running) -> i32 {
    loop {
        match running.ended(ENDS_WITHIN).await {
            Ok(code) => return code,
            Err(RuntimeError::Timeout { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, "how a command ended is not known");
                return 137;
            }
        }
    }
}

async fn feed(running: Running, mut stdin: pipe::Sender, mut pieces: mpsc::Receiver<Bytes>) {
    while let Some(piece) = pieces.recv().await {
        if stdin.write_all(&piece).await.is_err() {
            return;
        }
    }
    drop(stdin);
    // The shim holds the pipe open, too.
    let request = CloseIoRequest { container_id: running.id.clone(), exec_id: running.exec_id.clone(), stdin: true };
    let mut tasks = running.runtime.shared.client.tasks();
    if let Err(error) = call("closing the input in", &running.id, SHORT, tasks.close_io(request)).await {
        tracing::debug!(%error, "the input of a command stays open");
    }
}

async fn read(mut from: pipe::Receiver, stderr: bool, to: mpsc::Sender<Printed>) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        // Nobody listens any more: the command must not stand still for that.
        let _ = to.send(Printed { stderr, bytes: Bytes::copy_from_slice(&buffer[..count]) }).await;
    }
}
