//! Local volumes as people look at them: made and labelled by hand, measured, removed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::Runtime;
use super::containers::container_id;
use super::error::{Result, RuntimeError};
use super::mounting::{is_mounted, remove_tree, unmount};
use super::volume_mounts::users;
use super::volumes::{DATA, Volumes, check_name};
use crate::spec::{Labels, UnixMs, VolumeMount};

/// What was given with a volume, beside its data.
const LABELS: &str = "labels.json";
/// For root alone: passwords may be in it. There is none for a plain directory.
const OPTIONS: &str = "options.json";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Where its data is.
    pub path: PathBuf,
    pub labels: Labels,
    /// Of the driver, passwords in clear; empty for a plain directory.
    pub options: Labels,
    pub created: UnixMs,
}

impl Runtime {
    /// The ids of the containers that have a volume mounted, whether they run or not, by its name: as they were made,
    /// whatever their services say by now. One without a name is its task's from before there is a container.
    pub async fn volume_users(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let of_tasks = self.anonymous_volumes().into_iter();
        let mut users: BTreeMap<String, Vec<String>> =
            of_tasks.map(|(task, volume)| (volume.name, vec![container_id(task)])).collect();
        for made in self.made().await? {
            for (source, ..) in made.process.iter().flat_map(|process| &process.mounts) {
                let Some(name) = self.volume_at(Path::new(source)) else { continue };
                let users = users.entry(name).or_default();
                if !users.contains(&made.id) {
                    users.push(made.id.clone());
                }
            }
        }
        Ok(users)
    }
}

impl Volumes {
    /// The volume that a path of the host is of, by its place alone: what is mounted there may not answer.
    pub fn name_at(&self, path: &Path) -> Option<String> {
        let real = self.dir().canonicalize().ok();
        let dirs = [Some(self.dir()), real.as_deref()];
        let below = dirs.into_iter().flatten().find_map(|dir| path.strip_prefix(dir).ok())?;
        below.components().next()?.as_os_str().to_str().map(str::to_owned)
    }

    /// Names of the volumes that are here.
    pub fn list(&self) -> Vec<String> {
        let homes = self.homes().into_iter().filter(|home| is_volume(home));
        let mut names: Vec<String> = homes.filter_map(|home| home.file_name()?.to_str().map(str::to_owned)).collect();
        names.sort();
        names
    }

    /// One that is there is given as it is; refused where other options are asked for.
    pub fn create(&self, name: &str, labels: &Labels, options: &Labels) -> Result<Volume> {
        check_name(name)?;
        let home = self.home(name);
        settle(name, &home, labels, options)?;
        let data = home.join(DATA);
        if options.is_empty() {
            fs::create_dir_all(&data).map_err(RuntimeError::io("creating", &data))?;
        }
        self.look(name).ok_or_else(|| RuntimeError::io("creating", data)(std::io::ErrorKind::NotFound.into()))
    }

    pub fn look(&self, name: &str) -> Option<Volume> {
        look_at(name, &self.home(name))
    }

    /// Bytes of its files; `None` where they are not this node's, or are more than can be walked.
    pub fn size(&self, name: &str) -> Option<u64> {
        size_of(&self.home(name))
    }

    /// Removes a volume with its data; what was mounted there is left as it is. Not there is success.
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let home = self.home(name);
        let failed = |error| RuntimeError::io("removing volume", &home)(error);
        if let Some(user) = users(&home).first() {
            return Err(RuntimeError::VolumeInUse { volume: name.to_owned(), task: *user });
        }
        if let Ok(real) = home.canonicalize() {
            let data = real.join(DATA);
            if is_mounted(&data).map_err(failed)? {
                unmount(&data).map_err(failed)?;
            }
        }
        remove_tree(&home).map_err(failed)
    }
}

/// The volume with this directory.
pub(super) fn look_at(name: &str, home: &Path) -> Option<Volume> {
    if !is_volume(home) {
        return None;
    }
    let made = fs::metadata(home).ok()?;
    let born = made.created().or_else(|_| made.modified()).ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let created = UnixMs(u64::try_from(born.as_millis()).unwrap_or(0));
    let (labels, options) = (read(home, LABELS), read(home, OPTIONS));
    Some(Volume { name: name.to_owned(), path: home.join(DATA), labels, options, created })
}

pub(super) fn size_of(home: &Path) -> Option<u64> {
    read(home, OPTIONS).is_empty().then(|| size(&home.join(DATA)))
}

/// Looks at nothing that is mounted there: it might not answer.
pub(super) fn is_volume(home: &Path) -> bool {
    home.join(OPTIONS).exists() || home.join(DATA).is_dir()
}

/// Keeps what a volume is made with, where it is not there yet, and gives its options. `name` is for people.
pub(super) fn settle(name: &str, home: &Path, labels: &Labels, options: &Labels) -> Result<Labels> {
    let wrong = |reason| RuntimeError::VolumeOptions { volume: name.to_owned(), reason };
    VolumeMount::read(options).map_err(wrong)?;
    if is_volume(home) {
        let known = read(home, OPTIONS);
        let differs = |key: &&str| known.get(*key) != options.get(*key);
        let different: Vec<&str> = ["type", "o", "device"].into_iter().filter(differs).collect();
        return match options.is_empty() || different.is_empty() {
            true => Ok(known),
            false => Err(RuntimeError::VolumeDiffers { volume: name.to_owned(), options: different.join(", ") }),
        };
    }
    fs::create_dir_all(home).map_err(RuntimeError::io("creating", home))?;
    write(home, LABELS, labels)?;
    // Last: by it the volume is there.
    write(home, OPTIONS, options)?;
    Ok(options.clone())
}

fn write(home: &Path, name: &str, values: &Labels) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let (path, new) = (home.join(name), home.join(format!("{name}.new")));
    let text = serde_json::to_vec(values).expect("texts are JSON");
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let written = written.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&new, &path));
    written.map_err(RuntimeError::io("writing", path))
}

fn read(home: &Path, name: &str) -> Labels {
    fs::read(home.join(name)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The options a volume was made with.
pub(super) fn options_of(home: &Path) -> Labels {
    read(home, OPTIONS)
}

/// No link is followed.
fn size(path: &Path) -> u64 {
    let mut todo = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => todo.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn volumes(folder: &tempfile::TempDir) -> Volumes {
        Volumes::new(folder.path().to_owned(), "/bin/false".into())
    }

    #[test]
    fn a_volume_is_made_once_and_keeps_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = volumes(&folder);
        let given = labels(&[("a", "b")]);
        let made = volumes.create("data", &given, &Labels::new()).unwrap();
        assert_eq!((made.name.as_str(), &made.labels), ("data", &given));
        fs::write(made.path.join("file"), "12345").unwrap();
        assert_eq!(volumes.create("data", &Labels::new(), &Labels::new()).unwrap(), made);
        assert_eq!((volumes.size("data"), volumes.list()), (Some(5), vec!["data".to_owned()]));
        assert!(volumes.create("../out", &given, &Labels::new()).is_err());
        volumes.remove("data").unwrap();
        assert!(volumes.look("data").is_none());
    }

    #[test]
    fn a_volume_is_found_by_any_path_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, link) = (folder.path().join("volumes"), folder.path().join("link"));
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let volumes = Volumes::new(link.clone(), "/bin/false".into());
        for path in [link.join("db/_data"), dir.join("db/_data/sub"), dir.join("db")] {
            assert_eq!(volumes.name_at(&path).as_deref(), Some("db"), "{}", path.display());
        }
        for path in [dir.as_path(), folder.path(), Path::new("/db/_data")] {
            assert_eq!(volumes.name_at(path), None, "{}", path.display());
        }
    }

    #[test]
    fn other_options_are_refused_and_none_of_them_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = volumes(&folder);
        let first = labels(&[("type", "cifs"), ("device", "//s/x"), ("o", "password=hush")]);
        let made = volumes.create("db", &Labels::new(), &first).unwrap();
        assert_eq!((made.options, volumes.size("db")), (first.clone(), None));
        assert!(
            volumes.create("db", &Labels::new(), &first).is_ok()
                && volumes.create("db", &first, &Labels::new()).is_ok()
        );
        let second = labels(&[("type", "cifs"), ("device", "//s/x"), ("o", "password=quiet")]);
        let refused = volumes.create("db", &Labels::new(), &second).unwrap_err().to_string();
        assert!(refused.contains("db") && refused.contains("(o)"), "{refused}");
        assert!(!refused.contains("hush") && !refused.contains("quiet"), "{refused}");
        let bad = volumes.create("x", &Labels::new(), &labels(&[("device", "/x")])).unwrap_err().to_string();
        assert_eq!(bad, "volume x: missing required option: \"type\"");
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.path().join("db/options.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
