//! What was made for each task, one small JSON file a task, written before it is made and deleted after it is gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::task_interface;
use super::{NetworkError, pool};
use crate::spec::{Attachment, PortConfig, Subnet, TaskId};

/// Of the tasks on this node, in a file beside their records.
const LOCAL_SUBNET: &str = "local-subnet";
/// The swarm's networks that this node knew last, in another one.
const NETWORKS: &str = "networks";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub task: TaskId,
    pub interface: String,
    pub address: Ipv4Addr,
    pub ports: Vec<PortConfig>,
    /// Its places on overlay networks.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// To the networks' subnets, each from the task's own address there, as they were known last.
    #[serde(default)]
    pub routes: Vec<(Subnet, IpAddr)>,
    /// Of those subnets, the ones whose network's maker asked for smaller packets.
    #[serde(default)]
    pub smaller: Vec<(Subnet, u32)>,
    /// Its addresses on networks that are gone, where others have their place now: it speaks from there no more.
    #[serde(default)]
    pub lost: Vec<IpAddr>,
    /// On internal networks only.
    #[serde(default)]
    pub confined: bool,
    /// Its addresses on the ingress network, as which it speaks to all that is on no network of its own: whoever came by
    /// a published port is answered from where the datagram went.
    #[serde(default)]
    pub outward: Vec<IpAddr>,
    /// What a packet on the overlay may be, as it was known last.
    #[serde(default)]
    pub mtu: Option<u32>,
}

impl Record {
    /// Of a task that nothing is known of yet but its places.
    pub fn new(task: TaskId, address: Ipv4Addr, ports: Vec<PortConfig>, attachments: Vec<Attachment>) -> Record {
        Record {
            task,
            interface: task_interface(task),
            address,
            ports,
            attachments,
            routes: Vec::new(),
            smaller: Vec::new(),
            lost: Vec::new(),
            confined: false,
            outward: Vec::new(),
            mtu: None,
        }
    }
}

/// The extension of a namespace's file, beside its record.
pub const NAMESPACE: &str = "netns";

#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    pub fn open(dir: PathBuf) -> Result<Records, NetworkError> {
        fs::create_dir_all(&dir).map_err(|source| NetworkError::Write { path: dir.clone(), source })?;
        Ok(Records { dir })
    }

    /// The host-local subnet of the last run, if there was one.
    pub fn local_subnet(&self) -> Option<pool::Subnet> {
        fs::read_to_string(self.dir.join(LOCAL_SUBNET)).ok()?.trim().parse().ok()
    }

    pub fn write_local_subnet(&self, subnet: pool::Subnet) -> Result<(), NetworkError> {
        let path = self.dir.join(LOCAL_SUBNET);
        fs::write(&path, format!("{subnet}\n")).map_err(|source| NetworkError::Write { path, source })
    }

    /// Subnets of the swarm's networks, by name, as this node knew them last.
    pub fn networks(&self) -> BTreeMap<String, Vec<Subnet>> {
        let text = fs::read(self.dir.join(NETWORKS)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub fn write_networks(&self, networks: &BTreeMap<String, Vec<Subnet>>) -> Result<(), NetworkError> {
        let text = serde_json::to_vec(networks).expect("names and subnets are plain data");
        self.replace(self.dir.join(NETWORKS), &text)
    }

    pub fn write(&self, record: &Record) -> Result<(), NetworkError> {
        let text = serde_json::to_vec(record).expect("a record is plain data");
        self.replace(self.path(record.task), &text)
    }

    /// As a whole. No fsync: after a power cut the namespaces are gone too.
    fn replace(&self, path: PathBuf, text: &[u8]) -> Result<(), NetworkError> {
        let new = path.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|source| NetworkError::Write { path, source })
    }

    pub fn delete(&self, task: TaskId) -> Result<(), NetworkError> {
        let path = self.path(task);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(NetworkError::Write { path, source }),
            _ => Ok(()),
        }
    }

    /// Every record that reads well. One that does not is of a write cut short, before anything was made: it is deleted.
    pub fn all(&self) -> Result<Vec<Record>, NetworkError> {
        let read = |source| NetworkError::Read { path: self.dir.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            let path = entry.map_err(read)?.path();
            // The namespaces themselves are held here too.
            if path.extension().is_none_or(|extension| extension != "json" && extension != "new") {
                continue;
            }
            match fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok()) {
                Some(record) if path == self.path(record.task) => records.push(record),
                _ => {
                    tracing::warn!(path = %path.display(), "deleting an unreadable task network record");
                    let _ = fs::remove_file(&path);
                }
            }
        }
        records.sort_by_key(|record| record.task);
        Ok(records)
    }

    /// Whose namespaces are held beside the records.
    pub fn namespaces(&self) -> Result<Vec<TaskId>, NetworkError> {
        let read = |source| NetworkError::Read { path: self.dir.clone(), source };
        let entries: Result<Vec<_>, _> = fs::read_dir(&self.dir).and_then(Iterator::collect).map_err(read);
        let of = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(NAMESPACE)?.strip_suffix('.')?.parse().ok()
        };
        Ok(entries?.iter().filter_map(of).collect())
    }

    fn path(&self, task: TaskId) -> PathBuf {
        self.dir.join(format!("{task}.json"))
    }
}
