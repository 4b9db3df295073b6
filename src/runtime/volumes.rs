//! Local volumes: `volumes/NAME/_data` below the data directory, as Docker lays them out. A new one begins with what the
//! image has at the place where it is mounted.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_client::types::Mount as ContainerdMount;

use super::error::{Result, RuntimeError};
use super::oci::{MountSource, ResolvedMount};
use super::rootfs::{Rootfs, with_rootfs};
use crate::program::Program;
use crate::spec::{Mount, MountKind};

const MAX_NAME_BYTES: usize = 255;
/// For an image's whole directory, on a slow disk.
const COPY_WITHIN: Duration = Duration::from_secs(900);

/// Cheap to clone.
#[derive(Clone)]
pub struct Volumes {
    dir: PathBuf,
    /// Two tasks that mount a new volume must not both fill it.
    filling: Arc<tokio::sync::Mutex<()>>,
}

/// Where an image can be looked at, should a volume need its content.
pub struct ImageRoot {
    pub mounts: Vec<ContainerdMount>,
    /// A directory to mount at, of this task's own.
    pub at: PathBuf,
}

impl Volumes {
    pub fn new(dir: PathBuf) -> Volumes {
        Volumes { dir, filling: Arc::default() }
    }

    pub(super) fn home(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Names of the volumes that are here.
    pub fn list(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().join("_data").is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Removes a volume with its data. Not there is success.
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let path = self.dir.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::io("removing volume", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Finds or makes the host's side of a task's mounts. `anonymous`: where volumes without a name live; they go with
    /// their task.
    pub async fn resolve(&self, mounts: &[Mount], anonymous: &Path, image: &ImageRoot) -> Result<Vec<ResolvedMount>> {
        let mut resolved = Vec::with_capacity(mounts.len());
        for (at, mount) in mounts.iter().enumerate() {
            let source = match mount.kind {
                MountKind::Bind => bind(mount)?,
                MountKind::Tmpfs => MountSource::Tmpfs { size_bytes: mount.tmpfs.size_bytes, mode: mount.tmpfs.mode },
                MountKind::Volume => self.volume(mount, anonymous.join(at.to_string()), image).await?,
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

    async fn volume(&self, mount: &Mount, anonymous: PathBuf, image: &ImageRoot) -> Result<MountSource> {
        let options = &mount.volume;
        if let Some(driver) = options.driver.as_deref().filter(|driver| !driver.is_empty() && *driver != "local") {
            return Err(RuntimeError::Unsupported(format!("volume driver {driver:?} at {}", mount.target)));
        }
        if let Some(option) = options.driver_options.keys().next() {
            return Err(RuntimeError::Unsupported(format!("volume option {option:?} at {}", mount.target)));
        }
        let home = match mount.source.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => {
                check_name(name)?;
                self.dir.join(name)
            }
            None => anonymous,
        };
        let data = home.join("_data");
        let _one_at_a_time = self.filling.lock().await;
        if is_missing_or_empty(&data) {
            self.fill(&home, &data, mount, image).await?;
        }
        let path = match options.subpath.as_deref().filter(|path| !path.is_empty()) {
            None => data,
            Some(subpath) => below(&data, subpath, &mount.target)?,
        };
        Ok(MountSource::Path { path, propagation: None, recursive: true })
    }

    /// Makes the volume beside its place and moves it there, so that a half-copied one is never taken for whole.
    async fn fill(&self, home: &Path, data: &Path, mount: &Mount, image: &ImageRoot) -> Result<()> {
        let new = home.join("_data.new");
        let making = |error| RuntimeError::io("making volume", &new)(error);
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new).map_err(making)?;
        if !mount.volume.no_copy {
            let (target, to) = (PathBuf::from(&mount.target), new.clone());
            with_rootfs(image.mounts.clone(), image.at.clone(), move |root| copy_up(root, &target, &to))
                .await
                .map_err(RuntimeError::io("copying the image's content to volume", &new))?;
        }
        let _ = fs::remove_dir(data);
        fs::rename(&new, data).map_err(making)
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
                "bind source path does not exist on this node: {source}; make it, or use a volume"
            )));
        }
        fs::create_dir_all(&path).map_err(RuntimeError::io("creating bind source", &path))?;
    }
    Ok(MountSource::Path { path, propagation: mount.bind.propagation.clone(), recursive: !mount.bind.non_recursive })
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
