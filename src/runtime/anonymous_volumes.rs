//! Volumes without a name: they live below their task's own directory and go with the task. They are shown under a name
//! that is made of the task and the mount, always the same, as long as those Docker makes up.

use std::fs;
use std::path::{Path, PathBuf};

use super::Runtime;
use super::images::manifest::digest_of;
use super::volume_list::{Volume, look_at, size_of};
use crate::spec::TaskId;

/// Below the task's directory; in it, one directory for each mount, by its place among the mounts.
const DIR: &str = "volumes";
/// By which Docker's clients know one.
const LABEL: &str = "com.docker.volume.anonymous";

/// Where those of the task with this directory are.
pub fn of_task(dir: &Path) -> PathBuf {
    dir.join(DIR)
}

fn name(task: TaskId, at: &str) -> String {
    digest_of(format!("flok volume {task} {at}").as_bytes())["sha256:".len()..].to_owned()
}

impl Runtime {
    /// The name of the volume that a path of the host is in, by its place alone: what is mounted there may not answer.
    pub fn volume_at(&self, path: &Path) -> Option<String> {
        self.shared.volumes.name_at(path).or_else(|| name_at(&self.shared.dir, path))
    }

    /// All that are here, each with its task.
    pub fn anonymous_volumes(&self) -> Vec<(TaskId, Volume)> {
        all(&self.shared.dir).into_iter().filter_map(|(task, name, home)| Some((task, shown(name, &home)?))).collect()
    }

    /// See [`super::Volumes::size`].
    pub fn volume_size(&self, wanted: &str) -> Option<u64> {
        let anonymous = all(&self.shared.dir).into_iter().find(|(_, name, _)| name == wanted);
        anonymous.map_or_else(|| self.shared.volumes.size(wanted), |(.., home)| size_of(&home))
    }
}

/// Of the volume that lies below the tasks' directories.
fn name_at(tasks: &Path, path: &Path) -> Option<String> {
    let real = tasks.canonicalize().ok();
    let below = [Some(tasks), real.as_deref()].into_iter().flatten().find_map(|dir| path.strip_prefix(dir).ok())?;
    let mut parts = below.components().map(|part| part.as_os_str().to_str());
    let (task, dir, at) = (parts.next()??, parts.next()??, parts.next()??);
    (dir == DIR).then(|| task.parse().ok().map(|task| name(task, at))).flatten()
}

/// The task, the volume's name, and its directory.
fn all(tasks: &Path) -> Vec<(TaskId, String, PathBuf)> {
    let mut all = Vec::new();
    for dir in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let Some(task) = dir.file_name().to_str().and_then(|name| name.parse::<TaskId>().ok()) else { continue };
        for home in fs::read_dir(of_task(&dir.path())).into_iter().flatten().flatten() {
            let Some(at) = home.file_name().to_str().map(str::to_owned) else { continue };
            all.push((task, name(task, &at), home.path()));
        }
    }
    all
}

fn shown(name: String, home: &Path) -> Option<Volume> {
    let mut volume = look_at(&name, home)?;
    volume.labels.insert(LABEL.to_owned(), String::new());
    Some(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_without_a_name_is_found_by_its_place_under_the_name_it_is_shown_by() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = folder.path().join("tasks");
        for (task, at) in [(TaskId(1), "0"), (TaskId(1), "2"), (TaskId(9), "0")] {
            let data = of_task(&tasks.join(task.to_string())).join(at).join("_data");
            fs::create_dir_all(&data).unwrap();
            fs::write(data.join("file"), "12345").unwrap();
        }
        fs::create_dir_all(tasks.join("no-task/volumes/0/_data")).unwrap();
        let found = all(&tasks);
        let names: std::collections::BTreeSet<&String> = found.iter().map(|(_, name, _)| name).collect();
        assert_eq!((found.len(), names.len()), (3, 3));
        for (_, name, home) in &found {
            assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
            assert_eq!(name_at(&tasks, &home.join("_data/sub")).as_ref(), Some(name));
            let volume = shown(name.clone(), home).unwrap();
            assert_eq!((volume.path, size_of(home)), (home.join("_data"), Some(5)));
            assert!(volume.labels.contains_key(LABEL));
        }
        let task = tasks.join(TaskId(1).to_string());
        for other in [task.join("hosts"), tasks.join("no-task/volumes/0"), task.join("volumes"), "/volumes/0".into()] {
            assert_eq!(name_at(&tasks, &other), None, "{}", other.display());
        }
    }
}
