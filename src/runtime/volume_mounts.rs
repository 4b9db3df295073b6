//! Volumes that are file systems of their own: mounted for the first task that uses one, unmounted after the last. Who
//! uses a volume stands as a file for each task beside its data, so that the next daemon knows it too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Result, RuntimeError};
use super::mounting::{MOUNT_WITHIN, is_mounted, mount_volume, unmount};
use super::volume_list::{options_of, settle};
use super::volumes::{DATA, Holder, Volumes};
use crate::spec::{Mount, MountKind, TaskId, VolumeMount};

const USERS: &str = "users";

impl Volumes {
    /// Mounts what a task's spec needs mounted; each volume may take as long as its server is waited for.
    pub async fn enter_all(&self, mounts: &[Mount], holder: Holder<'_>) -> Result<()> {
        for (at, mount) in mounts.iter().enumerate().filter(|(_, mount)| mount.kind == MountKind::Volume) {
            let home = self.home_of(mount, at, holder.anonymous)?;
            self.enter(holder.task, &home, mount).await?;
        }
        Ok(())
    }

    /// Makes a volume known and mounts it where it is more than a directory; says whether it is.
    pub(super) async fn enter(&self, task: TaskId, home: &Path, mount: &Mount) -> Result<bool> {
        let options = &mount.volume;
        crate::spec::volume::check_driver(options.driver.as_deref())
            .map_err(|reason| RuntimeError::Mount { target: mount.target.clone(), reason })?;
        let name = mount.source.as_deref().filter(|name| !name.is_empty());
        let name = name.map_or_else(|| format!("at {}", mount.target), str::to_owned);
        let turn = self.turns.of(home).await;
        let settled = settle(&name, home, &options.labels, &options.driver_options)?;
        let wrong = |reason| RuntimeError::VolumeOptions { volume: name.clone(), reason };
        let Some(wanted) = VolumeMount::read(&settled).map_err(wrong)? else { return Ok(false) };
        let user = home.join(USERS).join(task.to_string());
        let noted = fs::create_dir_all(home.join(USERS)).and_then(|()| fs::write(&user, []));
        noted.map_err(RuntimeError::io("noting the use of volume", home))?;
        let (volumes, home) = (self.clone(), home.to_owned());
        // Goes on to its end, and keeps its turn, should nobody wait for it any more: who leaves then finds it mounted.
        let mounting = tokio::spawn(async move {
            let mounted = volumes.mount(&name, &home, &wanted).await;
            if mounted.is_err() {
                let _ = fs::remove_file(&user);
            }
            drop(turn);
            mounted
        });
        let mounted = mounting.await.unwrap_or_else(|error| {
            Err(RuntimeError::Mount { target: mount.target.clone(), reason: error.to_string() })
        });
        mounted.map(|()| true)
    }

    /// Mounts again what a task uses, should a restart of the host have unmounted it.
    pub async fn enter_again(&self, holder: Holder<'_>) -> Result<()> {
        for home in self.used_by(holder) {
            let _turn = self.turns.of(&home).await;
            let name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let wrong = |reason| RuntimeError::VolumeOptions { volume: name.clone(), reason };
            if let Some(wanted) = VolumeMount::read(&options_of(&home)).map_err(wrong)? {
                self.mount(&name, &home, &wanted).await?;
            }
        }
        Ok(())
    }

    /// The task uses its volumes no more. All are tried; the first error is told.
    pub async fn leave(&self, holder: Holder<'_>) -> Result<()> {
        let mut left = Ok(());
        for home in self.used_by(holder) {
            left = left.and(self.leave_one(&home, holder.task).await);
        }
        left
    }

    /// Unmounts what was left by tasks that are on this node no more.
    pub async fn keep_only(&self, known: impl Fn(TaskId) -> bool) {
        for home in self.homes() {
            let users = users(&home);
            let gone: Vec<TaskId> = users.iter().copied().filter(|task| !known(*task)).collect();
            for task in gone {
                if let Err(error) = self.leave_one(&home, task).await {
                    tracing::warn!(%task, error = super::explained(&error), "a volume of a task that is gone stays mounted");
                }
            }
        }
    }

    fn used_by(&self, holder: Holder<'_>) -> Vec<PathBuf> {
        let own = fs::read_dir(holder.anonymous).into_iter().flatten().flatten().map(|entry| entry.path());
        let homes = self.homes().into_iter().chain(own);
        homes.filter(|home| home.join(USERS).join(holder.task.to_string()).exists()).collect()
    }

    async fn mount(&self, name: &str, home: &Path, wanted: &VolumeMount) -> Result<()> {
        let failed = |error| RuntimeError::io("mounting volume", home)(error);
        let data = home.canonicalize().map_err(failed)?.join(DATA);
        if is_mounted(&data).map_err(failed)? {
            return Ok(());
        }
        fs::create_dir_all(&data).map_err(failed)?;
        mount_volume(&self.program, name, wanted, &data).await
    }

    /// Unmounted first: a daemon that dies in between leaves the user noted, and leaves again.
    async fn leave_one(&self, home: &Path, task: TaskId) -> Result<()> {
        let failed = |error| RuntimeError::io("unmounting volume", home)(error);
        let _turn = self.turns.of(home).await;
        if users(home).iter().all(|user| *user == task) {
            let data = home.canonicalize().map_err(failed)?.join(DATA);
            // What is not written yet may wait for a server; the place itself is free at once.
            let unmounting = tokio::task::spawn_blocking(move || unmount(&data));
            match tokio::time::timeout(MOUNT_WITHIN, unmounting).await {
                Ok(Ok(unmounted)) => unmounted.map_err(failed)?,
                Ok(Err(error)) => return Err(failed(io::Error::other(error))),
                Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
            }
        }
        match fs::remove_file(home.join(USERS).join(task.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// The tasks that use a volume which is mounted for them.
pub(super) fn users(home: &Path) -> Vec<TaskId> {
    let entries = fs::read_dir(home.join(USERS)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
