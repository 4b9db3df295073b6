//! The networks of the tasks on this node: made, removed, adopted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{RwLock, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::kernel::routing::{Routing, task_interfaces};
use super::kernel::{sysctl, veth};
use super::plane::{Plane, SwarmView, Wired};
use super::pool::Subnet;
use super::ports::{self, HeldPorts};
use super::records::{Record, Records};
use super::state::{Interface, Mac};
use super::turns::Turns;
use super::wiring::{addresses_of, interface, namespace_path, place, task_mac, wired};
use super::{NetworkError, doctor, firewall, namespace, probe};
use crate::dispatcher::Networks;
use crate::spec::{Attachment, Condition, Finding, NetworkId, PortConfig, Protocol, TaskId, Way};

/// A task's place on a network may be known before the network is.
const NETWORK_KNOWN_WITHIN: Duration = Duration::from_secs(15);
/// Tasks that are asked whether the resolver answers them, where all of it is examined.
const LOOK_UPS: usize = 64;

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
    /// The host-local one first.
    pub addresses: Vec<IpAddr>,
    /// Of its one interface, whatever networks it is on.
    pub mac: Mac,
    /// Ports bound on this node, the automatic ones chosen.
    pub host_ports: Vec<PortConfig>,
}

/// Cheap to clone. What is begun for a task goes on to its end, whoever still waits for it: half a network is nobody's.
/// Calls for one task take turns.
#[derive(Clone)]
pub struct TaskNetworks {
    shared: Arc<Shared>,
}

struct Shared {
    config: NetworkConfig,
    records: Records,
    plane: Plane,
    ipv6: bool,
    /// `None` until the swarm is heard of.
    networks: watch::Sender<Option<Networks>>,
    /// Shared while a task's network is made or removed; held alone while tasks follow a change, so that neither is
    /// under way then.
    gate: RwLock<()>,
    turns: Turns,
    inner: Mutex<Inner>,
    /// Subnets of the swarm's networks, by name, as they were written down last.
    noted: Mutex<Option<BTreeMap<String, Vec<crate::spec::Subnet>>>>,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<TaskId, Record>,
    taken: BTreeSet<Ipv4Addr>,
    next: u32,
    ports: HeldPorts,
    /// Tasks of which something is left that could not be removed: their networks are nobody's any more.
    half: BTreeSet<TaskId>,
}

impl Inner {
    fn whole(&self) -> impl Iterator<Item = &Record> {
        self.tasks.values().filter(|record| !self.half.contains(&record.task))
    }
}

impl TaskNetworks {
    /// Prepares the host, and takes over what an earlier run of the daemon made for the tasks in `keep`: no connection is
    /// cut. The rest of it is removed. What cannot be taken over whole (after a reboot, say) is removed too, and its task
    /// is not in [`Self::all`].
    pub async fn start(config: NetworkConfig, keep: &BTreeSet<TaskId>) -> Result<TaskNetworks, NetworkError> {
        let records = Records::open(config.dir.clone())?;
        if records.local_subnet() != Some(config.subnet) {
            let known = records.networks();
            apart(config.subnet, known.iter().map(|(name, subnets)| (name.as_str(), &subnets[..])))?;
        }
        let mut inner = Inner::default();
        for record in records.all()? {
            let whole = namespace::is_held(&namespace_path(&config, record.task)) && veth::exists(interface(&record));
            if whole && keep.contains(&record.task) {
                if let Err(error) = inner.ports.take(record.task, &record.ports) {
                    tracing::warn!(task = %record.task, %error, "a published port of a running task is not ours alone");
                }
                inner.taken.insert(record.address);
                inner.tasks.insert(record.task, record);
            } else {
                undo(&config, &records, &record)?;
            }
        }
        remove_strays(&config, &records, &inner)?;
        let taken = inner.taken.iter().copied().collect();
        change_subnet(&records, config.subnet, taken)?;

        let ipv6 = sysctl::has_ipv6();
        let wired = inner.tasks.values().map(|record| (record.task, wired(&config, record, ipv6))).collect();
        let plane = Plane::start(config.subnet, wired).await?;
        let (networks, gate, inner) = (watch::Sender::new(None), RwLock::new(()), Mutex::new(inner));
        let (turns, noted) = (Turns::default(), Mutex::default());
        let shared = Arc::new(Shared { config, records, plane, ipv6, networks, gate, turns, inner, noted });
        tokio::spawn(follow_mtu(Arc::downgrade(&shared), shared.plane.mtu()));
        Ok(TaskNetworks { shared })
    }

    /// What the swarm is, anew: the newest counts. Never blocks; a node in no swarm tells the default.
    pub fn set_swarm(&self, view: SwarmView) {
        let networks = view.networks.clone();
        self.shared.plane.set_swarm(view);
        self.shared.networks.send_replace(Some(networks.clone()));
        self.follow(&networks);
    }

    /// Where the node's tasks reach what its host serves.
    pub fn host_address(&self) -> Ipv4Addr {
        self.shared.config.subnet.host()
    }

    /// Writes down which subnets the swarm's networks have, all that this node knows of, for its next start. On an error it
    /// goes by what it knew before.
    pub fn note_networks(&self, networks: BTreeMap<String, Vec<crate::spec::Subnet>>) {
        let mut noted = self.shared.noted.lock().expect("no holder of this lock panics");
        if noted.as_ref() == Some(&networks) {
            return;
        }
        match self.shared.records.write_networks(&networks) {
            Ok(()) => *noted = Some(networks),
            Err(error) => tracing::warn!(%error, "the swarm's networks are not written down"),
        }
    }

    /// Returns once all that was told so far is in force.
    pub async fn settled(&self) -> Result<(), NetworkError> {
        self.shared.plane.settled().await
    }

    /// Published ports that another process on this node has: they are not taken from it.
    pub fn taken_ports(&self) -> watch::Receiver<BTreeSet<(Protocol, u16)>> {
        self.shared.plane.taken()
    }

    /// Whether the overlay could have this UDP port. Asked before there is an overlay: one that is there has its own.
    pub async fn check_data_path_port(&self, port: u16) -> Result<(), NetworkError> {
        // That of a swarm this node has just left is gone then.
        self.settled().await?;
        let check = move || ports::check_data_path(port);
        spawn_blocking(check).await.unwrap_or(Err(NetworkError::Stopped))
    }

    /// What this node's operator has to mend, as it was looked at last.
    pub fn conditions(&self) -> watch::Receiver<Vec<Condition>> {
        self.shared.plane.conditions()
    }

    /// What the path to the other nodes leaves to a packet of a network; `None` in no swarm.
    pub fn overlay_mtu(&self) -> Option<u32> {
        *self.shared.plane.mtu().borrow()
    }

    /// How this node's network stands, looked at from the kernel's side.
    pub async fn examine(&self) -> Result<Vec<Finding>, NetworkError> {
        let conditions = self.shared.plane.look().await;
        let mut findings = doctor::node(&*self.shared.plane.examine().await?, &conditions);
        let served: Vec<(TaskId, IpAddr)> = {
            let inner = self.inner();
            inner.whole().filter_map(|record| Some((record.task, record.routes.first()?.1))).collect()
        };
        let asked = served.iter().take(LOOK_UPS).map(|(task, own)| self.look_up(*task, *own));
        let answers = join_all(asked).await;
        let asked = answers.len();
        let silent: Vec<Finding> = answers.into_iter().filter(|finding| !finding.ok).collect();
        match silent.is_empty() {
            true => findings.push(Finding::ok("resolver", format!("answers {asked} of {asked} tasks asked for"))),
            false => findings.extend(silent),
        }
        Ok(findings)
    }

    /// This node's half of the way between two tasks, and an attempt to go it.
    pub async fn examine_way(&self, way: Way) -> Result<Vec<Finding>, NetworkError> {
        let seen = self.shared.plane.examine().await?;
        let mut findings = doctor::way(&seen, &way);
        findings.extend(firewalls(seen, way.clone()).await);
        if self.get(way.own).is_none() {
            return Ok(findings);
        }
        if let Some((own, _)) = way.pairs.first() {
            findings.push(self.look_up(way.own, *own).await);
        }
        let namespace = namespace_path(&self.shared.config, way.own);
        for (own, other) in way.pairs {
            let namespace = namespace.clone();
            let echoed = spawn_blocking(move || probe::echo(&namespace, own, other)).await;
            findings.push(match echoed.unwrap_or_else(|error| Err(error.into())) {
                Ok(()) => Finding::ok("echo", format!("{own} to {other} and back")),
                Err(error) => Finding::broken("echo", format!("{own} to {other}: {}", told(&error))),
            });
        }
        Ok(findings)
    }

    async fn look_up(&self, task: TaskId, own: IpAddr) -> Finding {
        let namespace = namespace_path(&self.shared.config, task);
        let answered = spawn_blocking(move || probe::look_up(&namespace, own)).await;
        match answered.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => Finding::ok("resolver", format!("answers task {task}")),
            Err(error) => Finding::broken("resolver", format!("task {task}: {}", told(&error))),
        }
    }

    /// Makes the network of `task`, or returns it where it is there already. On an error nothing is left, nor where nobody
    /// waits any more when it is made.
    pub async fn create(
        &self,
        task: TaskId,
        ports: &[PortConfig],
        attachments: &[Attachment],
    ) -> Result<TaskNetwork, NetworkError> {
        let networks = self.networks_of(attachments).await?;
        let own = attachments.iter().filter_map(|at| networks.list.get(&at.network));
        apart(self.shared.config.subnet, own.map(|view| (view.name.as_str(), &view.subnets[..])))?;
        let (waited, answer) = oneshot::channel();
        let (own, ports, attachments) = (self.clone(), ports.to_vec(), attachments.to_vec());
        tokio::spawn(async move {
            let _turn = own.shared.turns.take(task).await;
            if waited.is_closed() {
                return;
            }
            let _shared = own.shared.gate.read().await;
            let (made, is_new) = match own.get(task) {
                Some(network) => (Ok(network), false),
                None => (own.make_anew(task, &ports, &attachments, &networks).await, true),
            };
            if let Err(Ok(_)) = waited.send(made)
                && is_new
            {
                own.undo_half(task).await;
            }
        });
        answer.await.unwrap_or(Err(NetworkError::Stopped))
    }

    /// After what an earlier attempt may have left.
    async fn make_anew(
        &self,
        task: TaskId,
        ports: &[PortConfig],
        attachments: &[Attachment],
        networks: &Networks,
    ) -> Result<TaskNetwork, NetworkError> {
        self.take_away(task).await?;
        self.make(task, ports, attachments, networks).await
    }

    async fn make(
        &self,
        task: TaskId,
        ports: &[PortConfig],
        attachments: &[Attachment],
        networks: &Networks,
    ) -> Result<TaskNetwork, NetworkError> {
        let record = self.reserve(task, ports, attachments, networks)?;
        let built = self.build(&record).await;
        if built.is_err() {
            self.undo_half(task).await;
        }
        built.map(|()| self.network_of(&record))
    }

    async fn undo_half(&self, task: TaskId) {
        if let Err(error) = self.take_away(task).await {
            tracing::warn!(%task, %error, "undoing a task network that was not wanted or not whole failed");
        }
    }

    /// Removes all there is of the task's network. Nothing there is success. Carries on past errors, returns the first.
    pub async fn remove(&self, task: TaskId) -> Result<(), NetworkError> {
        let own = self.clone();
        let removed = tokio::spawn(async move {
            let _turn = own.shared.turns.take(task).await;
            let _shared = own.shared.gate.read().await;
            own.take_away(task).await
        });
        removed.await.unwrap_or(Err(NetworkError::Stopped))
    }

    async fn take_away(&self, task: TaskId) -> Result<(), NetworkError> {
        let Some(record) = self.inner().tasks.get(&task).cloned() else { return Ok(()) };
        let cleared = self.shared.plane.set(task, None).await;
        let (config, records, gone) = (self.shared.config.clone(), self.shared.records.clone(), record.clone());
        let undone = spawn_blocking(move || undo(&config, &records, &gone)).await.unwrap_or(Err(NetworkError::Stopped));
        let mut inner = self.inner();
        if undone.is_ok() {
            inner.tasks.remove(&task);
            inner.half.remove(&task);
            inner.taken.remove(&record.address);
            inner.ports.release(task);
        } else {
            inner.half.insert(task);
        }
        drop(inner);
        cleared.and(undone)
    }

    pub fn get(&self, task: TaskId) -> Option<TaskNetwork> {
        let inner = self.inner();
        inner.tasks.get(&task).filter(|_| !inner.half.contains(&task)).map(|record| self.network_of(record))
    }

    pub fn all(&self) -> Vec<TaskNetwork> {
        self.inner().whole().map(|record| self.network_of(record)).collect()
    }

    /// Networks that hold all of `attachments`, waited for.
    async fn networks_of(&self, attachments: &[Attachment]) -> Result<Networks, NetworkError> {
        let mut known = self.shared.networks.subscribe();
        let unknown = |networks: &Option<Networks>| {
            let has = |id: &NetworkId| networks.as_ref().is_some_and(|networks| networks.list.contains_key(id));
            attachments.iter().map(|attachment| attachment.network).find(|id| !has(id))
        };
        let waited = timeout(NETWORK_KNOWN_WITHIN, known.wait_for(|networks| unknown(networks).is_none())).await;
        match waited {
            Ok(Ok(networks)) => Ok(networks.clone().unwrap_or_default()),
            _ => {
                let missing = unknown(&self.shared.networks.borrow());
                Err(missing.map_or(NetworkError::Stopped, NetworkError::UnknownNetwork))
            }
        }
    }

    fn reserve(
        &self,
        task: TaskId,
        ports: &[PortConfig],
        attachments: &[Attachment],
        networks: &Networks,
    ) -> Result<Record, NetworkError> {
        let mut inner = self.inner();
        let ports = inner.ports.take(task, ports)?;
        let Some(address) = self.shared.config.subnet.pick(inner.next, &inner.taken) else {
            inner.ports.release(task);
            return Err(NetworkError::Exhausted(self.shared.config.subnet.to_string()));
        };
        inner.next = inner.next.wrapping_add(1);
        let mut record = Record::new(task, address, ports, attachments.to_vec());
        record.mtu = *self.shared.plane.mtu().borrow();
        place(&mut record, networks);
        // They may have changed since; what changes from here on finds the record.
        self.shared.networks.borrow().iter().for_each(|now| place(&mut record, now));
        inner.taken.insert(address);
        inner.tasks.insert(task, record.clone());
        Ok(record)
    }

    async fn build(&self, record: &Record) -> Result<(), NetworkError> {
        self.shared.records.write(record)?;
        let wired = self.wired(record);
        let wire = wired.wire.clone();
        // Forwarding is allowed before there is anything to forward for.
        let made = spawn_blocking(move || {
            namespace::create(&wire.namespace).map_err(NetworkError::Namespace)?;
            veth::connect(&wire)
        });
        made.await.unwrap_or(Err(NetworkError::Stopped))?;
        self.shared.plane.set(record.task, Some(wired)).await
    }

    /// A network that grew, or that is internal now, changes its tasks.
    fn follow(&self, networks: &Networks) {
        self.change(|record| place(record, networks));
    }

    /// Wires those anew that are another after `change`.
    fn change(&self, change: impl Fn(&mut Record)) {
        let mut changed = Vec::new();
        let Inner { tasks, half, .. } = &mut *self.inner();
        let whole = tasks.values_mut().filter(|record| !half.contains(&record.task));
        for record in whole.filter(|record| !record.attachments.is_empty()) {
            let before = record.clone();
            change(record);
            if *record != before {
                changed.push(record.task);
            }
        }
        if !changed.is_empty() {
            tokio::spawn(self.clone().rewire(changed));
        }
    }

    /// As they are once nobody makes or removes one.
    async fn rewire(self, tasks: Vec<TaskId>) {
        let _alone = self.shared.gate.write().await;
        for task in tasks {
            let Some(record) = self.inner().whole().find(|record| record.task == task).cloned() else { continue };
            if let Err(error) = self.wire_anew(&record).await {
                tracing::warn!(%task, %error, "a task does not follow a change of its networks");
            }
        }
    }

    async fn wire_anew(&self, record: &Record) -> Result<(), NetworkError> {
        self.shared.records.write(record)?;
        let wired = self.wired(record);
        let wire = wired.wire.clone();
        let connected = spawn_blocking(move || veth::connect(&wire)).await;
        connected.unwrap_or(Err(NetworkError::Stopped))?;
        self.shared.plane.set(record.task, Some(wired)).await
    }

    fn wired(&self, record: &Record) -> Wired {
        wired(&self.shared.config, record, self.shared.ipv6)
    }

    fn network_of(&self, record: &Record) -> TaskNetwork {
        TaskNetwork {
            task: record.task,
            namespace: namespace_path(&self.shared.config, record.task),
            addresses: [IpAddr::V4(record.address)].into_iter().chain(addresses_of(record)).collect(),
            mac: task_mac(record.address),
            host_ports: record.ports.clone(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().expect("no holder of this lock panics")
    }
}

/// The overlay takes other sizes once the interface under it does.
async fn follow_mtu(shared: Weak<Shared>, mut mtu: watch::Receiver<Option<u32>>) {
    while mtu.changed().await.is_ok() {
        let (Some(shared), Some(known)) = (shared.upgrade(), *mtu.borrow_and_update()) else { continue };
        TaskNetworks { shared }.change(|record| record.mtu = Some(known));
    }
}

/// Whether rules of others are in the way.
async fn firewalls(seen: Box<doctor::Examined>, way: Way) -> Vec<Finding> {
    let look = move || {
        let uplink = seen.swarm.overlay.and_then(|overlay| firewall::uplink(overlay.address));
        firewall::hops(&seen, &way, &firewall::look(), uplink.as_deref())
    };
    spawn_blocking(look).await.unwrap_or_default()
}

fn told(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::TimedOut { "no answer".to_owned() } else { error.to_string() }
}

fn undo(config: &NetworkConfig, records: &Records, record: &Record) -> Result<(), NetworkError> {
    let path = namespace_path(config, record.task);
    let disconnected = veth::disconnect(interface(record));
    let removed = namespace::remove(&path).map_err(|source| NetworkError::Write { path, source });
    let result = disconnected.and(removed);
    // The record stays until all it speaks of is gone.
    if result.is_ok() { records.delete(record.task) } else { result }
}

/// Fails where a network has addresses that tasks get on this node alone.
fn apart<'a>(
    local: Subnet,
    mut networks: impl Iterator<Item = (&'a str, &'a [crate::spec::Subnet])>,
) -> Result<(), NetworkError> {
    let block = local.block();
    let met = networks.find_map(|(name, subnets)| Some((name, subnets.iter().find(|held| held.overlaps(&block))?)));
    met.map_or(Ok(()), |(network, held)| {
        Err(NetworkError::SubnetOfNetwork { subnet: local.to_string(), held: *held, network: network.to_owned() })
    })
}

/// Tasks that run keep their addresses for good, so that they hold the subnet; without any, nothing of the former is left.
fn change_subnet(records: &Records, subnet: Subnet, taken: Vec<Ipv4Addr>) -> Result<(), NetworkError> {
    let former = records.local_subnet();
    let outside = taken.iter().filter(|address| !subnet.contains(**address)).count();
    if outside > 0 {
        let former = former.map_or_else(|| "another block".to_owned(), |former| former.to_string());
        return Err(NetworkError::OtherSubnet { tasks: outside, former, subnet: subnet.to_string() });
    }
    if let Some(former) = former.filter(|former| former.host() != subnet.host()) {
        Routing::open(former).and_then(|mut routing| routing.forget_host()).map_err(NetworkError::NetlinkSocket)?;
    }
    if former != Some(subnet) {
        records.write_local_subnet(subnet)?;
    }
    Ok(())
}

/// Namespaces and links of tasks that nothing is known of: a record lost with its filesystem, or never written.
fn remove_strays(config: &NetworkConfig, records: &Records, inner: &Inner) -> Result<(), NetworkError> {
    for task in records.namespaces()? {
        if !inner.tasks.contains_key(&task) {
            tracing::warn!(%task, "removing the network namespace of a task that nothing is known of");
            let path = namespace_path(config, task);
            namespace::remove(&path).map_err(|source| NetworkError::Write { path, source })?;
        }
    }
    let known: BTreeSet<Interface> = inner.tasks.values().map(interface).collect();
    let list = |source| NetworkError::Netlink { operation: "list the tasks' interfaces", source };
    for found in task_interfaces().map_err(list)? {
        if !known.contains(&found) {
            tracing::warn!(interface = %found, "removing a task interface that no task owns");
            veth::disconnect(found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
