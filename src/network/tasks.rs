//! The networks of the tasks on this node: made, removed, adopted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::firewall::Firewall;
use super::link::{Links, names_with_prefix};
use super::plan::{TaskRules, VETH_PREFIX};
use super::pool::Subnet;
use super::ports::HeldPorts;
use super::records::{Record, Records};
use super::{NetworkError, namespace};
use crate::spec::{PortConfig, TaskId};

#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Namespaces and records live here; on a filesystem that a reboot may empty.
    pub dir: PathBuf,
    /// Host-local: may be the same on every node.
    pub subnet: Subnet,
}

/// One task's network as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskNetwork {
    pub task: TaskId,
    /// The namespace's path, for the OCI runtime.
    pub namespace: PathBuf,
    pub addresses: Vec<IpAddr>,
    /// Ports bound on this node, the automatic ones chosen.
    pub host_ports: Vec<PortConfig>,
}

/// Cheap to clone. Calls for different tasks may run at once; calls for one task must not.
#[derive(Clone)]
pub struct TaskNetworks {
    shared: Arc<Shared>,
}

struct Shared {
    config: NetworkConfig,
    records: Records,
    links: Links,
    firewall: Firewall,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<TaskId, Record>,
    taken: BTreeSet<Ipv4Addr>,
    next: u32,
    ports: HeldPorts,
}

impl TaskNetworks {
    /// Prepares the host, and takes over what an earlier run of the daemon made for the tasks in `keep`. The rest of it
    /// is removed. What cannot be taken over whole (after a reboot, say) is removed too, and its task is not in
    /// [`Self::all`].
    pub async fn start(config: NetworkConfig, keep: &BTreeSet<TaskId>) -> Result<TaskNetworks, NetworkError> {
        let records = Records::open(config.dir.clone())?;
        let links = Links::open().await?;
        links.prepare_host(config.subnet.host()).await?;

        let mut inner = Inner::default();
        for record in records.all()? {
            let path = namespace_path(&config, record.task);
            let whole = namespace::is_held(&path) && links.exists(&record.interface).await;
            if whole && keep.contains(&record.task) {
                if let Err(error) = inner.ports.take(record.task, &record.ports) {
                    tracing::warn!(task = %record.task, %error, "a published port of a running task is not ours alone");
                }
                inner.taken.insert(record.address);
                inner.tasks.insert(record.task, record);
            } else {
                undo(&config, &records, &links, &record).await?;
            }
        }
        remove_strays(&links, &inner).await?;

        let rules = inner.tasks.values().map(|record| (record.task, rules_of(record))).collect();
        let firewall = Firewall::start(config.subnet, rules).await?;
        let inner = Mutex::new(inner);
        Ok(TaskNetworks { shared: Arc::new(Shared { config, records, links, firewall, inner }) })
    }

    /// Makes the network of `task`, or returns it where it is there already. On an error nothing is left.
    pub async fn create(&self, task: TaskId, ports: &[PortConfig]) -> Result<TaskNetwork, NetworkError> {
        if let Some(network) = self.get(task) {
            return Ok(network);
        }
        let record = self.reserve(task, ports)?;
        match self.build(&record).await {
            Ok(()) => Ok(self.network_of(&record)),
            Err(error) => {
                if let Err(again) = self.remove(task).await {
                    tracing::warn!(%task, error = %again, "undoing a half-made task network failed");
                }
                Err(error)
            }
        }
    }

    /// Removes all there is of the task's network. Nothing there is success. Carries on past errors, returns the first.
    pub async fn remove(&self, task: TaskId) -> Result<(), NetworkError> {
        let Some(record) = self.inner().tasks.get(&task).cloned() else { return Ok(()) };
        let shared = &self.shared;
        let cleared = shared.firewall.set(task, None).await;
        let undone = undo(&shared.config, &shared.records, &shared.links, &record).await;
        if undone.is_ok() {
            let mut inner = self.inner();
            inner.tasks.remove(&task);
            inner.taken.remove(&record.address);
            inner.ports.release(task);
        }
        cleared.and(undone)
    }

    pub fn get(&self, task: TaskId) -> Option<TaskNetwork> {
        self.inner().tasks.get(&task).map(|record| self.network_of(record))
    }

    pub fn all(&self) -> Vec<TaskNetwork> {
        self.inner().tasks.values().map(|record| self.network_of(record)).collect()
    }

    fn reserve(&self, task: TaskId, ports: &[PortConfig]) -> Result<Record, NetworkError> {
        let mut inner = self.inner();
        let ports = inner.ports.take(task, ports)?;
        let Some(address) = self.shared.config.subnet.pick(inner.next, &inner.taken) else {
            inner.ports.release(task);
            return Err(NetworkError::Exhausted(self.shared.config.subnet.to_string()));
        };
        inner.next = inner.next.wrapping_add(1);
        let record = Record { task, interface: interface_of(task), address, ports };
        inner.taken.insert(address);
        inner.tasks.insert(task, record.clone());
        Ok(record)
    }

    async fn build(&self, record: &Record) -> Result<(), NetworkError> {
        let shared = &self.shared;
        shared.records.write(record)?;
        let path = namespace_path(&shared.config, record.task);
        let held = path.clone();
        tokio::task::spawn_blocking(move || namespace::create(&held))
            .await
            .map_err(|_| NetworkError::Stopped)?
            .map_err(NetworkError::Namespace)?;
        let connected = shared.links.connect(&path, &record.interface, record.address, shared.config.subnet.host());
        let (connected, allowed) = tokio::join!(connected, shared.firewall.set(record.task, Some(rules_of(record))));
        connected.and(allowed)
    }

    fn network_of(&self, record: &Record) -> TaskNetwork {
        TaskNetwork {
            task: record.task,
            namespace: namespace_path(&self.shared.config, record.task),
            addresses: vec![IpAddr::V4(record.address)],
            host_ports: record.ports.clone(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().expect("no holder of this lock panics")
    }
}

async fn undo(config: &NetworkConfig, records: &Records, links: &Links, record: &Record) -> Result<(), NetworkError> {
    let path = namespace_path(config, record.task);
    let disconnected = links.disconnect(&record.interface).await;
    let removed = namespace::remove(&path).map_err(|source| NetworkError::Write { path, source });
    let result = disconnected.and(removed);
    // The record stays until all it speaks of is gone.
    if result.is_ok() { records.delete(record.task) } else { result }
}

/// Links of tasks that nothing is known of: a record lost with its filesystem.
async fn remove_strays(links: &Links, inner: &Inner) -> Result<(), NetworkError> {
    let known: BTreeSet<&str> = inner.tasks.values().map(|record| record.interface.as_str()).collect();
    for name in names_with_prefix(links, VETH_PREFIX).await? {
        if !known.contains(name.as_str()) {
            tracing::warn!(interface = name, "removing a task interface that no task owns");
            links.disconnect(&name).await?;
        }
    }
    Ok(())
}

fn rules_of(record: &Record) -> TaskRules {
    TaskRules { interface: record.interface.clone(), address: record.address, ports: record.ports.clone() }
}

fn namespace_path(config: &NetworkConfig, task: TaskId) -> PathBuf {
    config.dir.join(format!("{task}.netns"))
}

/// At most 15 characters; the end of an id is as random as its start.
fn interface_of(task: TaskId) -> String {
    format!("{VETH_PREFIX}{}", &task.to_string()[12..])
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
