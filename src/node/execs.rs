//! The commands that clients run in this node's containers: between being made, started and asked how they ended. An id
//! names its node, so that any other knows whom to ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt};

use super::clock;
use crate::api::{ApiError, ExecCommand, ExecInspected, ExecStreams, TerminalSize};
use crate::runtime::{Attached, AttachedHandle, Exec, Runtime, RuntimeError, container_id, explained};
use crate::spec::*;

/// How often, and how many times, a command that is being started is looked at.
const STARTING_POLL: Duration = Duration::from_millis(50);
const STARTING_LOOKS: u32 = 40;

/// Commands that are remembered, those that run included.
const MAX_EXECS: usize = 1024;
/// How long one that has ended, or was never started, is remembered.
const KEPT: Duration = Duration::from_secs(600);

/// Docker's exit codes for what could not be run.
const CANNOT_INVOKE: i32 = 126;
const NOT_FOUND: i32 = 127;

#[derive(Default)]
pub struct Execs {
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

struct Known {
    task: TaskId,
    command: ExecCommand,
    state: State,
    since: MonoMs,
}

enum State {
    Made,
    Starting,
    Running { pid: u32, handle: AttachedHandle },
    Ended { pid: u32, code: i32 },
}

/// As long as Docker's ids: a random half, and the node's id.
fn exec_id(node: NodeId, random: u128) -> String {
    format!("{random:032x}{:032x}", node.0)
}

pub fn node_of(id: &str) -> Option<NodeId> {
    let node = id.get(32..).filter(|_| id.len() == 64)?;
    u128::from_str_radix(node, 16).ok().map(NodeId)
}

fn no_such(id: &str) -> ApiError {
    ApiError::NotFound(format!("No such exec instance: {id}"))
}

impl Execs {
    pub fn create(&self, node: NodeId, task: TaskId, command: ExecCommand, random: u128) -> Result<String, ApiError> {
        let mut known = lock(&self.known);
        let now = clock::mono();
        known.retain(|_, exec| !exec.is_over() || now - exec.since < KEPT);
        if known.len() >= MAX_EXECS {
            let oldest = known.iter().filter(|(_, exec)| exec.is_over()).min_by_key(|(_, exec)| exec.since);
            match oldest.map(|(id, _)| id.clone()) {
                Some(id) => drop(known.remove(&id)),
                None => {
                    return Err(ApiError::Unavailable(format!("{MAX_EXECS} commands run on this node already")));
                }
            }
        }
        let id = exec_id(node, random);
        known.insert(id.clone(), Known { task, command, state: State::Made, since: now });
        Ok(id)
    }

    pub fn inspect(&self, id: &str) -> Result<ExecInspected, ApiError> {
        let known = lock(&self.known);
        let exec = known.get(id).ok_or_else(|| no_such(id))?;
        let (running, pid, exit_code) = match exec.state {
            State::Made | State::Starting => (false, 0, None),
            State::Running { pid, .. } => (true, pid, None),
            State::Ended { pid, code } => (false, pid, Some(code)),
        };
        let container = container_id(exec.task);
        Ok(ExecInspected { container, command: exec.command.clone(), running, pid, exit_code })
    }

    /// Each is started once.
    pub async fn start(&self, runtime: &Runtime, id: &str, detach: bool) -> Result<ExecStreams, ApiError> {
        let (task, command) = {
            let mut known = lock(&self.known);
            let exec = known.get_mut(id).ok_or_else(|| no_such(id))?;
            match exec.state {
                State::Made => exec.state = State::Starting,
                State::Ended { .. } => {
                    return Err(ApiError::Conflict(format!("exec command {id} has already run")));
                }
                _ => return Err(ApiError::Conflict(format!("exec command {id} is already running"))),
            }
            (exec.task, exec.command.clone())
        };
        let tty = command.tty;
        let exec = Exec {
            command: command.command,
            env: command.env,
            dir: command.dir,
            user: command.user,
            tty,
            privileged: command.privileged,
        };
        let (known, own) = (Arc::clone(&self.known), id.to_owned());
        let ended = move |code| end(&known, &own, code);
        let (runtime, with_input) = (runtime.clone(), command.stdin && !detach);
        let attaching = async move { runtime.attach(task, &exec, with_input, ended).await };
        let attached = match self.attached(id, attaching).await {
            Ok(attached) => attached,
            Err(why) => {
                // Docker's clients read it where they would have read the output, and ask for the exit code.
                return match detach {
                    true => Err(ApiError::Invalid(why)),
                    false => {
                        let output = stream::iter([(true, format!("{why}\r\n").into())]).boxed();
                        Ok(ExecStreams { input: None, output, tty })
                    }
                };
            }
        };
        let (stdout, stderr) = (command.stdout, command.stderr);
        let output = stream::unfold(attached.output, |mut output| async move { Some((output.recv().await?, output)) });
        let wanted = move |piece: &crate::runtime::Printed| {
            std::future::ready(if piece.stderr { stderr } else { stdout || tty })
        };
        let output = output.filter(wanted).map(|piece| (piece.stderr, piece.bytes)).boxed();
        Ok(ExecStreams { input: attached.input, output, tty })
    }

    /// Records how a start went, though whoever waits for it should go meanwhile.
    async fn attached(
        &self,
        id: &str,
        attaching: impl Future<Output = Result<Attached, RuntimeError>> + Send + 'static,
    ) -> Result<Attached, String> {
        let (known, own) = (Arc::clone(&self.known), id.to_owned());
        let recorded = async move {
            let attached = attaching.await.map_err(|error| explained(&error));
            match &attached {
                Ok(attached) => run(&known, &own, attached),
                Err(why) => end(&known, &own, code_of(why)),
            }
            attached
        };
        tokio::spawn(recorded).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Clients send the size of their window right behind the start: what is being started is waited for.
    pub async fn resize(&self, id: &str, size: TerminalSize) -> Result<(), ApiError> {
        let not_running = || ApiError::Conflict(format!("exec command {id} is not running"));
        let mut looks = 0..STARTING_LOOKS;
        let handle = loop {
            match &lock(&self.known).get(id).ok_or_else(|| no_such(id))?.state {
                State::Running { handle, .. } => break handle.clone(),
                State::Ended { .. } => return Err(not_running()),
                State::Made | State::Starting => looks.next().ok_or_else(not_running)?,
            };
            tokio::time::sleep(STARTING_POLL).await;
        };
        handle.resize(size.width, size.height).await.map_err(super::containers::refused)
    }
}

impl Known {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Made | State::Ended { .. })
    }
}

fn lock(known: &Mutex<BTreeMap<String, Known>>) -> MutexGuard<'_, BTreeMap<String, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that is over already stays so.
fn run(known: &Mutex<BTreeMap<String, Known>>, id: &str, attached: &Attached) {
    if let Some(exec) = lock(known).get_mut(id)
        && matches!(exec.state, State::Starting)
    {
        exec.state = State::Running { pid: attached.pid, handle: attached.handle.clone() };
    }
}

fn end(known: &Mutex<BTreeMap<String, Known>>, id: &str, code: i32) {
    if let Some(exec) = lock(known).get_mut(id) {
        let pid = if let State::Running { pid, .. } = exec.state { pid } else { 0 };
        (exec.state, exec.since) = (State::Ended { pid, code }, clock::mono());
    }
}

fn code_of(why: &str) -> i32 {
    let missing = why.contains("executable file not found") || why.contains("no such file or directory");
    if missing { NOT_FOUND } else { CANNOT_INVOKE }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn how_a_start_went_is_known_though_who_asked_has_gone() {
        let execs = Execs::default();
        let id = execs.create(NodeId(1), TaskId(7), ExecCommand::default(), 0).unwrap();
        lock(&execs.known).values_mut().for_each(|exec| exec.state = State::Starting);
        let (tell, told) = oneshot::channel::<()>();
        let attaching = async move {
            let _ = told.await;
            Err(RuntimeError::NotRunning(TaskId(7)))
        };
        // Asked for, and dropped.
        assert!(execs.attached(&id, attaching).now_or_never().is_none());
        tell.send(()).unwrap();
        while execs.inspect(&id).unwrap().exit_code.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(execs.inspect(&id).unwrap().exit_code, Some(CANNOT_INVOKE));
    }

    #[test]
    fn an_id_names_its_node() {
        let node = NodeId(0xfeed);
        let execs = Execs::default();
        let id = execs.create(node, TaskId(7), ExecCommand::default(), 3).unwrap();
        assert_eq!((id.len(), node_of(&id)), (64, Some(node)));
        assert_eq!(node_of("abc"), None);
        assert_eq!(node_of(&"ä".repeat(32)), None);
        let found = execs.inspect(&id).unwrap();
        assert!(!found.running && found.exit_code.is_none());
        assert!(matches!(execs.inspect("abc"), Err(ApiError::NotFound(_))));
    }

    #[test]
    fn what_has_ended_makes_room_and_what_runs_does_not() {
        let execs = Execs::default();
        let first = execs.create(NodeId(1), TaskId(7), ExecCommand::default(), 0).unwrap();
        for random in 1..=MAX_EXECS as u128 {
            execs.create(NodeId(1), TaskId(7), ExecCommand::default(), random).unwrap();
        }
        assert_eq!(lock(&execs.known).len(), MAX_EXECS);
        assert!(execs.inspect(&first).is_err());
        lock(&execs.known).values_mut().for_each(|exec| exec.state = State::Starting);
        let full = execs.create(NodeId(1), TaskId(7), ExecCommand::default(), u128::MAX);
        assert!(matches!(full, Err(ApiError::Unavailable(_))));
    }
}
