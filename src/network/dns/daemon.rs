//! The daemon's hold on its node's resolver: starts it, adopts the one that runs, has one of another version replaced,
//! and tells it what changed.
//!
//! Level-triggered: [`plan`] compares what the resolver was told with what it should know. Until the daemon itself knows
//! its tasks or its networks, it says nothing of them, and the resolver goes on with what it has.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::RESOLVER_ARGUMENT;
use super::control::{self, FORMAT, Request, Response, ServedTask, Update, socket_path};
use crate::dispatcher::{Networks, NetworksUpdate};
use crate::network::NetworkError;
use crate::program;
use crate::spec::TaskId;

/// For a resolver to start, and to take over from another.
const READY_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a task waits for its look-ups to be served before it is given up.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// How long it waits for its networks to be known: without them its first look-ups would be taken for names of the
/// outside. A manager says them with the task, or a moment later.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The log is set aside when it has grown beyond this at a start.
const MAX_LOG_BYTES: u64 = 1024 * 1024;
/// The kernel's bound on a socket's path is 108 bytes, and a new one has a longer name for a moment.
const MAX_SOCKET_PATH: usize = 90;

#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// Its socket and its log are here; made where it is missing.
    pub dir: PathBuf,
    /// flok's own binary.
    pub binary: PathBuf,
}

/// Cheap to clone. Dropping the last one leaves the resolver running.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    wanted: watch::Sender<Wanted>,
    told: watch::Receiver<Told>,
    log: PathBuf,
    driver: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What the resolver should know, as far as the daemon knows itself.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wanted {
    tasks: Option<BTreeMap<TaskId, ServedTask>>,
    networks: Option<Networks>,
}

/// What it has been told and has confirmed.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    wanted: Wanted,
    /// What could not be done, and why.
    failed: BTreeMap<TaskId, String>,
}

impl Told {
    /// What failed before stays failed until it is told anew.
    fn after(&self, wanted: Wanted, failed: Vec<(TaskId, String)>) -> Told {
        let task = |wanted: &Wanted, id: &TaskId| wanted.tasks.as_ref().and_then(|tasks| tasks.get(id)).cloned();
        let still = self.failed.iter().filter(|(id, _)| {
            let now = task(&wanted, id);
            now.is_some() && now == task(&self.wanted, id)
        });
        let failed = still.map(|(id, why)| (*id, why.clone())).chain(failed).collect();
        Told { wanted, failed }
    }
}

impl Resolver {
    /// Nothing is started before there is somebody to serve.
    pub fn start(config: ResolverConfig) -> Resolver {
        let (wanted, wanted_in) = watch::channel(Wanted::default());
        let (told_out, told) = watch::channel(Told::default());
        let log = config.dir.join("resolver.log");
        let driver = Driver { config, wanted: wanted_in, told: told_out };
        let driver = tokio::spawn(driver.run());
        Resolver { shared: Arc::new(Shared { wanted, told, log, driver }) }
    }

    /// All tasks that are to be served, as an earlier run of the daemon left them. Said once, first of all.
    pub fn adopt(&self, tasks: Vec<ServedTask>) {
        self.change(|wanted| {
            wanted.get_or_insert_default().extend(tasks.into_iter().map(|task| (task.task, task)));
        });
    }

    /// Returns once the task's look-ups are answered, by what is known of its networks.
    pub async fn serve(&self, task: ServedTask) -> Result<(), NetworkError> {
        let id = task.task;
        let mut told = self.shared.told.clone();
        self.change(|wanted| drop(wanted.get_or_insert_default().insert(id, task.clone())));
        let served = timeout(SERVED_WITHIN, async {
            let is_told = |told: &Told| told.wanted.tasks.as_ref().and_then(|tasks| tasks.get(&id)) == Some(&task);
            told.wait_for(is_told).await.map(|told| told.failed.get(&id).cloned())
        });
        let served = served.await;
        let known = |told: &Told| {
            let has = |id| told.wanted.networks.as_ref().is_some_and(|known| known.list.contains_key(id));
            task.client.networks.iter().all(has)
        };
        match served {
            Ok(Ok(None)) => {
                if timeout(KNOWN_WITHIN, told.wait_for(known)).await.is_err() {
                    tracing::warn!(task = %id, "a task starts before anything is known of the networks it is on");
                }
                Ok(())
            }
            Ok(Ok(Some(why))) => Err(NetworkError::ResolverRefuses { task: id, why }),
            Ok(Err(_)) => Err(NetworkError::Stopped),
            Err(_) => Err(NetworkError::ResolverAway { log: self.shared.log.clone() }),
        }
    }

    pub fn forget(&self, task: TaskId) {
        self.change(|wanted| {
            if let Some(tasks) = wanted {
                tasks.remove(&task);
            }
        });
    }

    /// What the managers say now.
    pub fn set_networks(&self, networks: Networks) {
        self.shared.wanted.send_if_modified(|wanted| {
            let changed = wanted.networks.as_ref() != Some(&networks);
            wanted.networks = Some(networks);
            changed
        });
    }

    fn change(&self, change: impl FnOnce(&mut Option<BTreeMap<TaskId, ServedTask>>)) {
        self.shared.wanted.send_modify(|wanted| change(&mut wanted.tasks));
    }
}

struct Driver {
    config: ResolverConfig,
    wanted: watch::Receiver<Wanted>,
    told: watch::Sender<Told>,
}

impl Driver {
    async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            if !self.is_needed() {
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let error = match self.connect().await {
                Ok(stream) => {
                    backoff = BACKOFF_FIRST;
                    match self.keep_told(stream).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(%error, log = %self.log().display(), "the resolver of this node's tasks is away; starting it");
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Whether anybody is to be served, or is being served.
    fn is_needed(&self) -> bool {
        let any = self.wanted.borrow().tasks.as_ref().is_some_and(|tasks| !tasks.is_empty());
        any || socket_path(&self.config.dir).exists()
    }

    fn log(&self) -> PathBuf {
        self.config.dir.join("resolver.log")
    }

    /// To the resolver that runs, where it is of this very program, or to a new one.
    async fn connect(&self) -> io::Result<UnixStream> {
        match greet(&self.config.dir).await {
            Ok((stream, pid)) if is_program(pid, &self.config.binary) => return Ok(stream),
            Ok((_, pid)) => tracing::info!(pid, "the resolver that runs is of another version; replacing it"),
            Err(error) => tracing::debug!(%error, "no resolver runs"),
        }
        self.launch().await?;
        greet(&self.config.dir).await.map(|(stream, _)| stream)
    }

    /// Returns when the new one serves all that an old one did.
    async fn launch(&self) -> io::Result<()> {
        let mut child = self.spawn()?;
        let mut ready = child.stdout.take().expect("stdout is piped");
        let mut byte = [0];
        match timeout(READY_WITHIN, ready.read_exact(&mut byte)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => {
                let ended = child.wait().await?;
                Err(io::Error::other(format!("it does not start: {ended}")))
            }
            Err(_) => {
                child.kill().await?;
                Err(io::Error::other(format!("it was not ready within {} s", READY_WITHIN.as_secs())))
            }
        }
    }

    fn spawn(&self) -> io::Result<tokio::process::Child> {
        let dir = &self.config.dir;
        let length = socket_path(dir).as_os_str().len();
        if length > MAX_SOCKET_PATH {
            let what = format!(
                "the path of its socket in {} has {length} bytes, and a socket's may have {MAX_SOCKET_PATH}: choose a \
                 shorter data directory",
                dir.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let log = self.log();
        if fs::metadata(&log).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            fs::rename(&log, log.with_extension("log.1"))?;
        }
        let log = fs::File::options().create(true).append(true).open(&log)?;
        let mut command = std::process::Command::new(&self.config.binary);
        command.arg(RESOLVER_ARGUMENT).arg(dir).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        program::without_own_settings(&mut command);
        // SAFETY: between fork and exec only setsid is called, which is async-signal-safe. A session of its own keeps the
        // resolver from the signals of the daemon's terminal and process group.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(io::Error::from));
        }
        Command::from(command).spawn()
    }

    /// Ends without an error when the daemon does.
    async fn keep_told(&mut self, stream: UnixStream) -> io::Result<()> {
        let (mut reader, mut writer) = stream.into_split();
        let mut told = Told::default();
        let mut number = 0;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if let Some(mut update) = plan(&told, &wanted) {
                number += 1;
                update.number = number;
                let exchange = async {
                    control::send(&mut writer, &Request::Update(update)).await?;
                    control::receive::<Response>(&mut reader).await
                };
                let answer = timeout(ANSWER_WITHIN, exchange).await.map_err(|_| io::ErrorKind::TimedOut)??;
                match answer {
                    Response::Applied { number: of, failed, lost: false } if of == number => {
                        told = told.after(wanted, failed);
                        self.told.send_replace(told.clone());
                        continue;
                    }
                    Response::Applied { lost: true, .. } => {
                        told.wanted.networks = None;
                        continue;
                    }
                    _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it answers something else")),
                }
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() {
                    return Ok(());
                },
                // It says nothing unasked: this is its end.
                end = reader.read_u8() => return Err(end.err().unwrap_or(io::ErrorKind::InvalidData.into())),
            }
        }
    }
}

/// What is still to be said; `None`: nothing.
fn plan(told: &Told, wanted: &Wanted) -> Option<Update> {
    let networks = match (&told.wanted.networks, &wanted.networks) {
        (_, None) => None,
        (None, Some(new)) => Some(NetworksUpdate::snapshot(new)),
        (Some(old), Some(new)) => Some(old.update_to(new)).filter(|update| !update.is_empty()),
    };
    let none = BTreeMap::new();
    let old = told.wanted.tasks.as_ref().unwrap_or(&none);
    let new = wanted.tasks.as_ref().unwrap_or(&none);
    let all = told.wanted.tasks.is_none() && wanted.tasks.is_some();
    let tasks: Vec<ServedTask> = new.values().filter(|task| old.get(&task.task) != Some(task)).cloned().collect();
    let removed: Vec<TaskId> = old.keys().filter(|id| !new.contains_key(id)).copied().collect();
    let any = all || !tasks.is_empty() || !removed.is_empty() || networks.is_some();
    any.then_some(Update { number: 0, all, tasks, removed, networks })
}

async fn greet(dir: &Path) -> io::Result<(UnixStream, i32)> {
    let greeting = async {
        let mut stream = UnixStream::connect(socket_path(dir)).await?;
        let pid = stream.peer_cred()?.pid().unwrap_or_default();
        control::send(&mut stream, &Request::Hello { format: FORMAT }).await?;
        match control::receive(&mut stream).await? {
            Response::Hello { .. } => Ok((stream, pid)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not greet")),
        }
    };
    timeout(ANSWER_WITHIN, greeting).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Whether the process runs the program that is at `binary` now, and not one that it has replaced.
fn is_program(pid: i32, binary: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((file(Path::new(&format!("/proc/{pid}/exe"))), file(binary)), (Ok(runs), Ok(is)) if runs == is)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dispatcher::NetworkView;
    use crate::network::dns::Client;
    use crate::spec::NetworkId;

    fn task(id: u128) -> ServedTask {
        ServedTask { task: TaskId(id), netns: "/run/x".into(), client: Client::default() }
    }

    fn tasks(ids: &[u128]) -> Option<BTreeMap<TaskId, ServedTask>> {
        Some(ids.iter().map(|id| (TaskId(*id), task(*id))).collect())
    }

    fn networks(name: &str) -> Networks {
        let view = NetworkView {
            mtu: None,
            name: name.into(),
            subnets: Vec::new(),
            internal: false,
            ingress: false,
            services: Default::default(),
            endpoints: Default::default(),
        };
        Networks { list: BTreeMap::from([(NetworkId(1), Arc::new(view))]) }
    }

    #[test]
    fn what_the_daemon_does_not_know_yet_it_says_nothing_of() {
        assert_eq!(plan(&Told::default(), &Wanted::default()), None);
        let wanted = Wanted { tasks: None, networks: Some(networks("a")) };
        let update = plan(&Told::default(), &wanted).unwrap();
        assert!(!update.all && update.networks.unwrap().snapshot);
        let wanted = Wanted { tasks: tasks(&[]), networks: None };
        let update = plan(&Told::default(), &wanted).unwrap();
        assert!(update.all && update.networks.is_none());
    }

    #[test]
    fn only_differences_are_told_and_nothing_twice() {
        let first = Wanted { tasks: tasks(&[1, 2]), networks: Some(networks("a")) };
        let told = Told { wanted: first.clone(), failed: BTreeMap::new() };
        assert_eq!(plan(&told, &first), None);
        let wanted = Wanted { tasks: tasks(&[2, 3]), networks: Some(networks("b")) };
        let update = plan(&told, &wanted).unwrap();
        assert_eq!((update.all, update.tasks, update.removed), (false, vec![task(3)], vec![TaskId(1)]));
        assert!(!update.networks.unwrap().snapshot);
    }

    #[test]
    fn a_failure_is_known_until_its_task_is_told_anew_or_goes() {
        let wanted = |ids: &[u128]| Wanted { tasks: tasks(ids), networks: None };
        let told = Told::default().after(wanted(&[1, 2]), vec![(TaskId(1), "no".into())]);
        let told = told.after(wanted(&[1, 3]), Vec::new());
        assert!(told.failed.contains_key(&TaskId(1)));
        assert!(told.after(wanted(&[3]), Vec::new()).failed.is_empty());
        let mut other = wanted(&[1]);
        other.tasks.as_mut().unwrap().get_mut(&TaskId(1)).unwrap().netns = "/run/y".into();
        assert!(told.after(other, Vec::new()).failed.is_empty());
    }

    #[test]
    fn what_is_said_is_understood() {
        let wanted = Wanted { tasks: tasks(&[1]), networks: Some(networks("a")) };
        let request = Request::Update(plan(&Told::default(), &wanted).unwrap());
        let bytes = control::encode(&request).unwrap();
        assert_eq!(control::decode::<Request>(&bytes[4..]).unwrap(), request);
    }
}
