//! The private containerd: started in a session of its own with a generated configuration, watched, and started again
//! when it dies. It outlives the daemon, as the containers do; the next daemon adopts it by its socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::client::{Client, check_socket_path};
use super::error::{Result, RuntimeError, explained};
use crate::program;

/// How long a start may take: after a power cut containerd cleans up behind every container it had.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a containerd that accepts but does not answer is waited for before it is replaced.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Ran this long: its next death is a new one.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// The log is set aside when it has grown beyond this at a start.
const MAX_LOG_BYTES: u64 = 10 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Paths {
    dir: PathBuf,
}

impl Paths {
    pub fn new(data_dir: &Path) -> Paths {
        Paths { dir: data_dir.join("containerd") }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }

    /// Where `runc` keeps the state of this containerd's containers.
    pub fn runc_root(&self) -> PathBuf {
        self.dir.join("runc")
    }
}

/// Watches over the private containerd. Dropping it stops the watching, never containerd.
pub struct Supervisor {
    watch: JoinHandle<()>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Supervisor {
    /// Adopts the containerd that listens on the socket, or starts one; returns when it answers.
    pub async fn start(paths: Paths, binary: PathBuf) -> Result<(Supervisor, Client)> {
        check_socket_path(&paths.socket())?;
        prepare(&paths)?;
        let (mut process, client) = match adopt(&paths).await {
            Some(adopted) => adopted,
            None => launch(&paths, &binary).await?,
        };
        let watch = tokio::spawn(async move {
            let mut backoff = BACKOFF_FIRST;
            loop {
                let since = Instant::now();
                process.ended().await;
                if since.elapsed() >= STABLE_AFTER {
                    backoff = BACKOFF_FIRST;
                }
                tracing::error!(log = %paths.log().display(), "containerd ended; containers go on, starting it again");
                process = loop {
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    match launch(&paths, &binary).await {
                        Ok((process, _)) => break process,
                        Err(error) => tracing::error!(error = explained(&error), "containerd does not start"),
                    }
                };
            }
        });
        Ok((Supervisor { watch }, client))
    }
}

/// A containerd process: our child, or another daemon's that we adopted.
enum Process {
    Child(tokio::process::Child),
    Adopted(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>),
}

impl Process {
    async fn ended(&mut self) {
        match self {
            Process::Child(child) => {
                let _ = child.wait().await;
            }
            Process::Adopted(pidfd) => {
                let _ = pidfd.readable().await;
            }
        }
    }
}

fn prepare(paths: &Paths) -> Result<()> {
    for dir in [&paths.dir, &paths.runc_root()] {
        fs::create_dir_all(dir).map_err(RuntimeError::io("creating", dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).map_err(RuntimeError::io("protecting", dir))?;
    }
    let config = paths.config();
    fs::write(&config, configuration(paths)).map_err(RuntimeError::io("writing", &config))?;
    let log = paths.log();
    if fs::metadata(&log).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
        fs::rename(&log, log.with_extension("log.1")).map_err(RuntimeError::io("setting aside", &log))?;
    }
    Ok(())
}

/// Only what flok uses: no Kubernetes interface, no snapshotters that probe block devices.
fn configuration(paths: &Paths) -> String {
    let quoted = |path: PathBuf| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
    format!(
        r#"# Written by flok at every start; changes are lost.
version = 2
root = {root}
state = {state}
oom_score = -999
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
]

[grpc]
  address = {socket}

[debug]
  level = "warn"
"#,
        root = quoted(paths.dir.join("root")),
        state = quoted(paths.dir.join("state")),
        socket = quoted(paths.socket()),
    )
}

async fn adopt(paths: &Paths) -> Option<(Process, Client)> {
    let socket = paths.socket();
    let stream = UnixStream::connect(&socket).await.ok()?;
    let pid = stream.peer_cred().ok()?.pid()?;
    let pidfd = open_pidfd(pid).ok()?;
    // SAFETY: an owned descriptor gives the same open descriptor at every call.
    let pidfd = unsafe { tokio::io::unix::AsyncFd::register(pidfd).ok()? };
    let client = tokio::time::timeout(ANSWER_WITHIN, async {
        let client = Client::connect(&socket).await?;
        client.server_version().await.map(|_| client)
    });
    match client.await {
        Ok(Ok(client)) => {
            tracing::info!(pid, "adopted the containerd that was running");
            Some((Process::Adopted(pidfd), client))
        }
        failed => {
            let why = failed.map_or_else(
                |_| "no answer".to_owned(),
                |result| result.err().map_or_else(String::new, |e| e.to_string()),
            );
            tracing::warn!(pid, why, "the containerd that is running does not answer; replacing it");
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            let _ = tokio::time::timeout(ANSWER_WITHIN, pidfd.readable()).await;
            None
        }
    }
}

fn open_pidfd(pid: i32) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open takes two integers and returns a new descriptor, which nobody else owns.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            fd if fd >= 0 => Ok(std::os::fd::OwnedFd::from_raw_fd(fd as i32)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

async fn launch(paths: &Paths, binary: &Path) -> Result<(Process, Client)> {
    let mut child = spawn(paths, binary)?;
    let until = Instant::now() + READY_WITHIN;
    loop {
        let last = match Client::connect(&paths.socket()).await {
            Ok(client) => return Ok((Process::Child(child), client)),
            Err(error) => explained(&error),
        };
        let ended = child.try_wait().ok().flatten().map(|status| format!("it ended with {status}"));
        if ended.is_some() || Instant::now() >= until {
            let last = ended.unwrap_or(last);
            let _ = child.start_kill();
            return Err(RuntimeError::NotReady { after: READY_WITHIN, last, log: paths.log() });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn spawn(paths: &Paths, binary: &Path) -> Result<tokio::process::Child> {
    let log = paths.log();
    let open = || fs::File::options().create(true).append(true).open(&log);
    let out = open().map_err(RuntimeError::io("opening", &log))?;
    let err = open().map_err(RuntimeError::io("opening", &log))?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(paths.config()).current_dir("/");
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    program::without_own_settings(&mut command);
    program::in_own_session(&mut command);
    tokio::process::Command::from(command)
        .spawn()
        .map_err(|source| RuntimeError::Spawn { path: binary.to_owned(), source })
}
