//! Outcomes of tasks on disk: one small file each, synced before the outcome is told to anybody, deleted with its task.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::spec::{Outcome, TaskId};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outcomes {
    dir: PathBuf,
}

impl Outcomes {
    pub fn open(dir: PathBuf) -> io::Result<Outcomes> {
        fs::create_dir_all(&dir)?;
        Ok(Outcomes { dir })
    }

    /// Every outcome that was saved. A file that does not read was never reported: it is removed.
    pub fn load(&self) -> io::Result<BTreeMap<TaskId, Outcome>> {
        let mut outcomes = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let task = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let outcome = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match (task, outcome) {
                (Some(task), Some(outcome)) if path.extension().is_some_and(|ext| ext == "json") => {
                    outcomes.insert(task, outcome);
                }
                _ => {
                    tracing::warn!(path = %path.display(), "removing an outcome that was cut short");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(outcomes)
    }

    /// On return it survives a power cut.
    pub async fn save(&self, task: TaskId, outcome: Outcome) -> io::Result<()> {
        let (dir, path) = (self.dir.clone(), self.path(task));
        blocking(move || {
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&outcome)?)?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
            File::open(&dir)?.sync_data()
        })
        .await
    }

    /// Needs no sync: an outcome that comes back is one that the swarm knows.
    pub fn forget(&self, task: TaskId) -> io::Result<()> {
        match fs::remove_file(self.path(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, task: TaskId) -> PathBuf {
        Path::new(&self.dir).join(format!("{task}.json"))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(io::Error::other("the daemon is shutting down")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::TaskState;

    #[tokio::test]
    async fn what_was_saved_is_loaded_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let outcomes = Outcomes::open(dir.path().to_owned()).unwrap();
        let outcome = Outcome {
            state: TaskState::Failed,
            message: "task: non-zero exit (1)".into(),
            exit_code: Some(1),
            container_id: Some("c".into()),
            ran_for: None,
        };
        outcomes.save(TaskId(7), outcome.clone()).await.unwrap();
        assert_eq!(outcomes.load().unwrap(), BTreeMap::from([(TaskId(7), outcome)]));
        outcomes.forget(TaskId(7)).unwrap();
        outcomes.forget(TaskId(7)).unwrap();
        assert!(outcomes.load().unwrap().is_empty());
    }

    #[test]
    fn a_file_cut_short_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let outcomes = Outcomes::open(dir.path().to_owned()).unwrap();
        fs::write(dir.path().join(format!("{}.json", TaskId(1))), "{\"state\":").unwrap();
        fs::write(dir.path().join(format!("{}.new", TaskId(2))), "").unwrap();
        assert!(outcomes.load().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
