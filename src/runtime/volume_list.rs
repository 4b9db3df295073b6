//! Local volumes as people look at them: made and labelled by hand, measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::{Result, RuntimeError};
use super::volumes::{Volumes, check_name};
use crate::spec::{Labels, UnixMs};

/// What was given with a volume that was made by hand, beside its data.
const LABELS: &str = "labels.json";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Where its data is.
    pub path: PathBuf,
    pub labels: Labels,
    pub created: UnixMs,
}

impl Volumes {
    /// One that is there is given as it is.
    pub fn create(&self, name: &str, labels: &Labels) -> Result<Volume> {
        check_name(name)?;
        if let Some(found) = self.look(name) {
            return Ok(found);
        }
        let home = self.home(name);
        let data = home.join("_data");
        fs::create_dir_all(&data).map_err(RuntimeError::io("creating", &data))?;
        if !labels.is_empty() {
            let path = home.join(LABELS);
            let text = serde_json::to_vec(labels).expect("texts are JSON");
            fs::write(&path, text).map_err(RuntimeError::io("writing", &path))?;
        }
        self.look(name).ok_or_else(|| RuntimeError::io("creating", data)(std::io::ErrorKind::NotFound.into()))
    }

    pub fn look(&self, name: &str) -> Option<Volume> {
        let home = self.home(name);
        let path = home.join("_data");
        let made = fs::metadata(&path).ok().filter(fs::Metadata::is_dir)?;
        let labels = fs::read(home.join(LABELS)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let born = made.created().or_else(|_| made.modified()).ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = UnixMs(u64::try_from(born.as_millis()).unwrap_or(0));
        Some(Volume { name: name.to_owned(), path, labels: labels.unwrap_or_default(), created })
    }

    /// Bytes of its files.
    pub fn size(&self, name: &str) -> u64 {
        size(&self.home(name).join("_data"))
    }
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

    #[test]
    fn a_volume_is_made_once_and_keeps_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(folder.path().to_owned());
        let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
        let made = volumes.create("data", &labels).unwrap();
        assert_eq!((made.name.as_str(), &made.labels), ("data", &labels));
        fs::write(made.path.join("file"), "12345").unwrap();
        assert_eq!(volumes.create("data", &Labels::new()).unwrap(), made);
        assert_eq!((volumes.size("data"), volumes.list()), (5, vec!["data".to_owned()]));
        assert!(volumes.create("../out", &labels).is_err());
        volumes.remove("data").unwrap();
        assert!(volumes.look("data").is_none());
    }
}
