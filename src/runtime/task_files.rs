//! Secrets and configs on the node: files of a tmpfs, so that they never reach a disk, each bound read-only into its
//! container. The tmpfs outlives the daemon, and goes with the last task that has a file there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::error::{Result, RuntimeError};
use super::oci::{MountSource, ResolvedMount};
use crate::agent::TaskFile;
use crate::spec::TaskId;

/// Where they are, below the data directory.
pub const DIR: &str = "secrets";

pub struct TaskFiles {
    dir: PathBuf,
    /// Making a file and unmounting what is empty must not meet.
    lock: Mutex<()>,
}

impl TaskFiles {
    pub fn new(dir: PathBuf) -> TaskFiles {
        TaskFiles { dir, lock: Mutex::default() }
    }

    /// Writes the files of a task anew, and says how its container mounts them.
    pub fn put(&self, task: TaskId, files: &[TaskFile]) -> Result<Vec<ResolvedMount>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let _alone = self.lock.lock().expect("nothing panics while it is held");
        self.mount().map_err(RuntimeError::io("mounting a tmpfs for secrets at", &self.dir))?;
        let dir = self.dir.join(task.to_string());
        let made = remove(&dir).and_then(|()| fs::DirBuilder::new().mode(0o700).create(&dir));
        made.map_err(RuntimeError::io("creating", &dir))?;
        let mut mounts = Vec::with_capacity(files.len());
        for (at, file) in files.iter().enumerate() {
            let path = dir.join(at.to_string());
            write(&path, file).map_err(RuntimeError::io("writing", &path))?;
            let source = MountSource::Path { path, propagation: None, recursive: false, submounts_stay: false };
            mounts.push(ResolvedMount { target: file.target.clone(), source, read_only: true });
        }
        Ok(mounts)
    }

    /// Removes the files of a task. None there is success.
    pub fn remove(&self, task: TaskId) -> Result<()> {
        let _alone = self.lock.lock().expect("nothing panics while it is held");
        let dir = self.dir.join(task.to_string());
        remove(&dir).map_err(RuntimeError::io("removing", &dir))?;
        let is_empty = fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty && self.is_mounted() {
            // Busy or not: it holds nothing.
            let _ = umount(&self.dir);
        }
        Ok(())
    }

    /// Removes what is left of tasks that are on this node no more.
    pub fn keep_only(&self, known: impl Fn(TaskId) -> bool) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let tasks: Vec<TaskId> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for task in tasks.into_iter().filter(|task| !known(*task)) {
            if let Err(error) = self.remove(task) {
                tracing::warn!(%task, %error, "files of a task that is gone stay");
            }
        }
    }

    fn mount(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
        if self.is_mounted() {
            return Ok(());
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let tmpfs = |options: &str| mount(Some("tmpfs"), &self.dir, Some("tmpfs"), flags, Some(options));
        // Kernels from 6.4 on can keep it out of the swap.
        tmpfs("mode=0700,noswap").or_else(|_| tmpfs("mode=0700")).map_err(io::Error::from)
    }

    fn is_mounted(&self) -> bool {
        statfs(&self.dir).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Nobody else can read it before it has its owner.
fn write(path: &Path, file: &TaskFile) -> io::Result<()> {
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    made.write_all(&file.data.0)?;
    fchown(&made, Some(file.uid), Some(file.gid))?;
    made.set_permissions(fs::Permissions::from_mode(file.mode))
}
