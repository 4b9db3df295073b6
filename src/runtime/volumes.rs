//! Local volumes: `volumes/NAME/_data` below the data directory, as Docker lays them out. A new one begins with what the
//! image has at the place where it is mounted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use containerd_client::types::Mount as ContainerdMount;
use tokio::sync::OwnedMutexGuard;

use super::error::{Result, RuntimeError};
use super::mounting::MOUNT_WITHIN;
use super::oci::{MountSource, ResolvedMount};
use super::rootfs::{Rootfs, with_rootfs};
use crate::program::Program;
use crate::spec::{Mount, MountKind, TaskId};

const MAX_NAME_BYTES: usize = 255;
/// Below a volume's own directory: what is in it, or what is mounted there.
pub(super) const DATA: &str = "_data";
/// For an image's whole directory, on a slow disk.
const COPY_WITHIN: Duration = Duration::from_secs(900);

/// Cheap to clone.
#[derive(Clone)]
pub struct Volumes {
    dir: PathBuf,
    /// flok's own binary, as which volumes are mounted.
    pub(super) program: PathBuf,
    pub(super) turns: Turns,
}

/// Two tasks that mount a new volume must not both fill it; a server that does not answer holds up no other volume.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>>);

impl Turns {
    pub async fn of(&self, home: &Path) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().expect("nothing panics while it is held");
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(home.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

/// Where an image can be looked at, should a volume need its content.
pub struct ImageRoot {
    pub mounts: Vec<ContainerdMount>,
    /// A directory to mount at, of this task's own.
    pub at: PathBuf,
}

/// Whose mounts are found or made.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    pub task: TaskId,
    /// Where volumes without a name live; they go with their task.
    pub anonymous: &'a Path,
}

impl Volumes {
    pub fn new(dir: PathBuf, program: PathBuf) -> Volumes {
        Volumes { dir, program, turns: Turns::default() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn home(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Directories of all volumes, and of what else may be there.
    pub(super) fn homes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Finds or makes the host's side of a task's mounts.
    pub async fn resolve(&self, mounts: &[Mount], holder: Holder<'_>, image: &ImageRoot) -> Result<Vec<ResolvedMount>> {
        let mut resolved = Vec::with_capacity(mounts.len());
        for (at, mount) in mounts.iter().enumerate() {
            let source = match mount.kind {
                MountKind::Bind => bind(mount)?,
                MountKind::Tmpfs => MountSource::Tmpfs {
                    size_bytes: mount.tmpfs.size_bytes,
                    mode: mount.tmpfs.mode,
                    exec: mount.tmpfs.exec.unwrap_or(false),
                },
                MountKind::Volume => self.volume(mount, at, holder, image).await?,
                MountKind::Cluster => {
                    return Err(RuntimeError::Unsupported(format!("cluster volume at {}", mount.target)));
                }
                MountKind::NamedPipe => {
                    return Err(RuntimeError::Unsupported(format!("named pipe at {}", mount.target)));
                }
            };
            resolved.push(ResolvedMount { target: mount.target.clone(), source, read_only: mount.read_only });
        }
        Ok(resolved)
    }

    /// Of the mount with the index `at` in its spec.
    pub(super) fn home_of(&self, mount: &Mount, at: usize, anonymous: &Path) -> Result<PathBuf> {
        match mount.source.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => check_name(name).map(|()| self.dir.join(name)),
            None => Ok(anonymous.join(at.to_string())),
        }
    }

    async fn volume(&self, mount: &Mount, at: usize, holder: Holder<'_>, image: &ImageRoot) -> Result<MountSource> {
        let home = self.home_of(mount, at, holder.anonymous)?;
        let is_mounted = self.enter(holder.task, &home, mount).await?;
        let data = home.join(DATA);
        let _turn = self.turns.of(&home).await;
        let looked = data.clone();
        if aside(&home, move || Ok(is_missing_or_empty(&looked))).await? {
            match is_mounted {
                true => self.copy(&data, mount, image).await?,
                false => self.fill(&home, &data, mount, image).await?,
            }
        }
        let path = match mount.volume.subpath.clone().filter(|path| !path.is_empty()) {
            None => data,
            Some(subpath) => {
                let target = mount.target.clone();
                aside(&home, move || below(&data, &subpath, &target)).await?
            }
        };
        Ok(MountSource::Path { path, propagation: None, recursive: true, submounts_stay: false })
    }

    /// Makes the volume beside its place and moves it there, so that a half-copied one is never taken for whole.
    async fn fill(&self, home: &Path, data: &Path, mount: &Mount, image: &ImageRoot) -> Result<()> {
        let new = home.join("_data.new");
        let making = |error| RuntimeError::io("making volume", &new)(error);
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new).map_err(making)?;
        self.copy(&new, mount, image).await?;
        let _ = fs::remove_dir(data);
        fs::rename(&new, data).map_err(making)
    }

    /// What the image has there, unless the mount says not to.
    async fn copy(&self, to: &Path, mount: &Mount, image: &ImageRoot) -> Result<()> {
        if mount.volume.no_copy {
            return Ok(());
        }
        let (target, into) = (PathBuf::from(&mount.target), to.to_owned());
        let copied =
            with_rootfs(image.mounts.clone(), image.at.clone(), move |root| copy_up(root, &target, &into)).await;
        copied.map_err(RuntimeError::io("copying the image's content to volume (unless nocopy is given)", to))
    }
}

/// Looks at what may be a server's, and is not waited for without end.
async fn aside<T: Send + 'static>(home: &Path, look: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let slow = || RuntimeError::io("looking into volume", home)(io::ErrorKind::TimedOut.into());
    match tokio::time::timeout(MOUNT_WITHIN, tokio::task::spawn_blocking(look)).await {
        Ok(Ok(looked)) => looked,
        Ok(Err(error)) => Err(RuntimeError::io("looking into volume", home)(io::Error::other(error))),
        Err(_) => Err(slow()),
    }
}

/// Copies a directory of the image with owners, modes and attributes. No such directory: nothing to copy.
fn copy_up(root: &Rootfs, target: &Path, to: &Path) -> io::Result<()> {
    let from = match root.open(target, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(from) => from,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
    };
    // SAFETY: gettid has no preconditions.
    let thread = unsafe { libc::gettid() };
    // Through the descriptor: it cannot lead out of the image, whatever links the image has on the way.
    let from_path = format!("/proc/{}/task/{thread}/fd/{}/.", std::process::id(), from.as_raw_fd());
    let paths = [OsStr::new("-a"), OsStr::new("--"), OsStr::new(&from_path), to.as_os_str()];
    let copied = Program::new("cp", COPY_WITHIN).args(paths).run();
    copied.map(drop).map_err(|error| match error.said() {
        Some(said) if said.contains("No space left on device") => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => io::Error::other(error),
    })
}

fn bind(mount: &Mount) -> Result<MountSource> {
    let wrong = |reason: String| RuntimeError::Mount { target: mount.target.clone(), reason };
    let source = mount.source.as_deref().unwrap_or("");
    let path = PathBuf::from(source);
    if !path.is_absolute() {
        return Err(wrong(format!("bind source {source:?} must be an absolute path on the node")));
    }
    if !path.exists() {
        if !mount.bind.create_host_path {
            return Err(wrong(format!(
                "bind source path does not exist on this node: {source}; {}",
                if source.ends_with("/docker.sock") {
                    "docker-socket in flok's configuration puts flok's API there"
                } else {
                    "make it, or use a volume"
                }
            )));
        }
        fs::create_dir_all(&path).map_err(RuntimeError::io("creating bind source", &path))?;
    }
    Ok(MountSource::Path {
        path,
        propagation: mount.bind.propagation.clone(),
        recursive: !mount.bind.non_recursive,
        submounts_stay: mount.bind.read_only_non_recursive,
    })
}

fn below(data: &Path, subpath: &str, target: &str) -> Result<PathBuf> {
    let wrong = |reason: &str| RuntimeError::Mount {
        target: target.to_owned(),
        reason: format!("volume subpath {subpath:?} {reason}"),
    };
    let path = data.join(subpath).canonicalize().map_err(|_| wrong("does not exist in the volume"))?;
    let data = data.canonicalize().map_err(RuntimeError::io("opening volume", data))?;
    if path.starts_with(&data) { Ok(path) } else { Err(wrong("leads out of the volume")) }
}

fn is_missing_or_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// Docker's rule; it also keeps the name inside the volumes' directory.
pub(super) fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && name.len() <= MAX_NAME_BYTES && name.chars().all(allowed) {
        return Ok(());
    }
    Err(RuntimeError::VolumeName(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_the_directory_is_refused() {
        for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "é"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("stack_db-data.v1").is_ok());
    }

    #[test]
    fn a_subpath_stays_in_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        assert!(below(dir.path(), "in", "/x").is_ok());
        assert!(below(dir.path(), "out", "/x").is_err());
        assert!(below(dir.path(), "../..", "/x").is_err());
        assert!(below(dir.path(), "none", "/x").is_err());
    }
}
