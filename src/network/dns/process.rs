//! `flok`, as the resolver of one node: a process in a session of its own that outlives the daemon, listens to it, and
//! answers by what it heard last while there is none.
//!
//! A daemon of another version starts a new resolver, which takes everything from this one and lets it go.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::SeedableRng;
use rand::rngs::{ChaCha8Rng, StdRng};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::control::{self, FORMAT, Request, Response, ServedTask, State, Update};
use super::handover::{self, Taken};
use super::listener::{Core, Listener, Sockets};
use crate::dispatcher::{Networks, NetworksUpdate};
use crate::network::namespace;
use crate::spec::TaskId;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Answers and updates run beside each other; more than two cores are the tasks'.
const THREADS: usize = 2;
/// How long a resolver that was replaced goes on with what it has taken.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// How often namespaces that are gone are looked for, and whether anybody can still reach this process.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// After so many in a row with nobody to serve, it ends; the daemon starts one when there is somebody.
const IDLE_SWEEPS: u32 = 4;

struct Resolver {
    core: Arc<Core>,
    listeners: Mutex<BTreeMap<TaskId, Listener>>,
    rng: Mutex<ChaCha8Rng>,
    /// Nothing is left to do.
    over: CancellationToken,
}

/// Runs until it is replaced; returns the process's exit code. `dir` is where its socket is.
pub fn run(dir: &Path) -> i32 {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).with_max_level(tracing::Level::INFO).init();
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let ended = runtime.and_then(|runtime| {
        let ended = runtime.block_on(serve(dir));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the resolver cannot run");
            1
        }
    }
}

async fn serve(dir: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "numbers of questions and the order of answers, for no core")]
    let mut seed = StdRng::from_rng(&mut rand::rng());
    let rng = ChaCha8Rng::from_rng(&mut seed);
    let resolver = Arc::new(Resolver {
        core: Arc::new(Core::new(Path::new(RESOLV_CONF), seed)),
        listeners: Mutex::default(),
        rng: Mutex::new(rng),
        over: CancellationToken::new(),
    });
    let path = control::socket_path(dir);
    let predecessor = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || Taken::from(&path)).await.map_err(io::Error::other)?
    };
    let taken = predecessor.unwrap_or_else(|error| {
        tracing::warn!(%error, "the resolver that runs gives nothing; its tasks are served anew");
        None
    });
    let taken = taken.map(|taken| resolver.take(taken));
    let (listener, inode) = bind(&path)?;
    if let Some(taken) = taken {
        // One that cannot hear it has ended already.
        let _ = taken.confirm();
    }
    tracing::info!(tasks = resolver.listeners().len(), version = env!("CARGO_PKG_VERSION"), "ready");
    // The daemon waits for this byte, or for the end of the stream.
    let _ = io::stdout().write_all(&[1]).and_then(|()| io::stdout().flush());
    resolver.answer_daemons(listener, &path, inode).await;
    resolver.core.work.close();
    let _ = timeout(FINISH_WITHIN, resolver.core.work.wait()).await;
    Ok(())
}

/// The socket appears whole, in the place of another's.
fn bind(path: &Path) -> io::Result<(UnixListener, u64)> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    let inode = fs::metadata(&new)?.ino();
    fs::rename(&new, path)?;
    Ok((listener, inode))
}

impl Resolver {
    fn listeners(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves everything that the predecessor does, beside it.
    fn take(&self, mut taken: Taken) -> Taken {
        let nothing = NetworksUpdate::snapshot(&Networks::default());
        let networks = std::mem::replace(&mut taken.state.networks, nothing);
        let applied = self.core.zone.write().unwrap_or_else(PoisonError::into_inner).apply(networks);
        applied.expect("a snapshot speaks of no other networks");
        for (task, sockets) in taken.state.tasks.drain(..).zip(taken.sockets.drain(..)) {
            if let Err(error) = self.listen(task, sockets) {
                tracing::error!(%error, "a task's sockets cannot be taken over");
            }
        }
        taken
    }

    fn listen(&self, task: ServedTask, sockets: Sockets) -> io::Result<()> {
        let rng = ChaCha8Rng::from_rng(&mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner));
        let id = task.task;
        let listener = Listener::start(&self.core, task, sockets, rng)?;
        self.listeners().insert(id, listener);
        Ok(())
    }

    async fn answer_daemons(self: &Arc<Self>, listener: UnixListener, path: &Path, inode: u64) {
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = 0;
        loop {
            tokio::select! {
                () = self.over.cancelled() => return,
                _ = sweep.tick() => {
                    self.sweep();
                    idle = if self.listeners().is_empty() { idle + 1 } else { 0 };
                    // Its directory was removed, or another took its place without asking.
                    let reachable = fs::metadata(path).is_ok_and(|found| found.ino() == inode);
                    if idle > IDLE_SWEEPS || idle > 0 && !reachable {
                        tracing::info!("there is nobody left to serve");
                        if reachable {
                            let _ = fs::remove_file(path);
                        }
                        return;
                    }
                }
                Ok((stream, _)) = listener.accept() => {
                    let resolver = Arc::clone(self);
                    tokio::spawn(async move {
                        if let Err(error) = resolver.answer_daemon(stream).await {
                            tracing::info!(%error, "the daemon is away; look-ups go on");
                        }
                    });
                }
            }
        }
    }

    /// What ended while no daemon could say so.
    fn sweep(&self) {
        self.listeners().retain(|_, listener| namespace::is_held(&listener.task.netns));
    }

    async fn answer_daemon(self: &Arc<Self>, mut stream: UnixStream) -> io::Result<()> {
        loop {
            match control::receive(&mut stream).await? {
                Request::Hello { .. } => {
                    let hello = Response::Hello { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned() };
                    control::send(&mut stream, &hello).await?;
                }
                Request::Update(update) => {
                    let response = self.update(update).await;
                    control::send(&mut stream, &response).await?;
                }
                Request::TakeOver => return self.give(stream.into_std()?).await,
            }
        }
    }

    async fn update(&self, update: Update) -> Response {
        let Update { number, all, tasks, removed, networks } = update;
        if let Some(networks) = networks {
            let applied = self.core.zone.write().unwrap_or_else(PoisonError::into_inner).apply(networks);
            if let Err(error) = applied {
                tracing::warn!(%error, "an update is refused");
                return Response::Applied { number, failed: Vec::new(), lost: true };
            }
        }
        {
            let mut listeners = self.listeners();
            if all {
                listeners.retain(|id, _| tasks.iter().any(|task| task.task == *id));
            }
            for id in &removed {
                listeners.remove(id);
            }
        }
        let mut failed = Vec::new();
        for task in tasks {
            let id = task.task;
            if let Err(error) = self.serve_task(task).await {
                tracing::warn!(task = %id, %error, "a task's look-ups cannot be served");
                failed.push((id, error.to_string()));
            }
        }
        Response::Applied { number, failed, lost: false }
    }

    /// Nothing to do for one that is served as it is to be.
    async fn serve_task(&self, task: ServedTask) -> io::Result<()> {
        let sockets = match self.listeners().get(&task.task) {
            Some(now) if now.task == task => return Ok(()),
            // The same sockets: nothing that waits in them is lost.
            Some(now) if now.task.netns == task.netns => Some(now.copies()?),
            _ => None,
        };
        let sockets = match sockets {
            Some(sockets) => sockets,
            None => {
                let netns: PathBuf = task.netns.clone();
                let opened = tokio::task::spawn_blocking(move || Sockets::open(&netns)).await;
                opened.map_err(io::Error::other)??
            }
        };
        self.listen(task, sockets)
    }

    /// To the successor; ends this process once that serves.
    async fn give(&self, stream: std::os::unix::net::UnixStream) -> io::Result<()> {
        let (tasks, sockets) = {
            let listeners = self.listeners();
            let tasks: Vec<ServedTask> = listeners.values().map(|listener| listener.task.clone()).collect();
            let sockets: io::Result<Vec<Sockets>> = listeners.values().map(Listener::copies).collect();
            (tasks, sockets?)
        };
        let networks = self.core.zone.read().unwrap_or_else(PoisonError::into_inner).snapshot();
        let given = tokio::task::spawn_blocking(move || {
            let descriptors: Vec<_> =
                sockets.iter().flat_map(|sockets| [sockets.udp.as_raw_fd(), sockets.tcp.as_raw_fd()]).collect();
            handover::give(stream, State { tasks, networks }, &descriptors)
        });
        given.await.map_err(io::Error::other)??;
        tracing::info!("replaced by another resolver");
        self.listeners().clear();
        self.over.cancel();
        Ok(())
    }
}
