//! This machine as the daemon found it, and what runs tasks on it: what a node has in a swarm or not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use rand::{Rng, RngExt};
use tokio::sync::{mpsc, watch};

use super::clock;
use super::config::Config;
use super::execs::Execs;
use super::facts::Facts;
use super::standing::DataDir;
use super::worker::{Wanted, Worker, WorkerConfig, WorkerReport};
use crate::consensus;
use crate::dispatcher::{Members, Networks, View};
use crate::gossip::{Load, Surroundings};
use crate::network::dns::ResolverConfig;
use crate::network::{self, NetworkConfig, Overlay, SwarmView, TaskNetworks};
use crate::runtime::host::{LoadSampler, init_binary};
use crate::runtime::logs::LogDefaults;
use crate::runtime::{Runtime, RuntimeConfig};
use crate::spec::*;
use crate::transport::ByteStream;

/// Questions of other nodes that wait to be read.
const MAX_CALLS_WAITING: usize = 64;

/// This machine as the daemon found it, and what runs tasks on it.
pub struct Host {
    pub dir: DataDir,
    pub config: Config,
    pub facts: Facts,
    pub runtime: Runtime,
    /// What vendors described here when it was last looked for.
    devices: RwLock<Vec<GenericResource>>,
    pub worker: Worker,
    /// What the swarm last said of this node's networks; `None` until it has said something since the daemon started.
    /// The last word counts on while no manager is heard.
    pub networks: watch::Sender<Option<Arc<Networks>>>,
    members: std::sync::Mutex<Option<Arc<Members>>>,
    sampler: std::sync::Mutex<LoadSampler>,
    node: NodeId,
    /// Where this node listens and is reached; set when a swarm is made or joined.
    addresses: RwLock<Addresses>,
    orders: mpsc::Sender<Order>,
    pub execs: Execs,
    calls: mpsc::Sender<ByteStream>,
}

/// What reaches the daemon from its session.
pub struct Inbox {
    pub orders: mpsc::Receiver<Order>,
    /// Other nodes' questions about this one.
    pub calls: mpsc::Receiver<ByteStream>,
}

#[derive(Debug, Clone, Copy)]
struct Addresses {
    listen: SocketAddr,
    advertise: SocketAddr,
}

/// What a session asks of the daemon.
pub enum Order {
    /// The swarm does not list this node any more.
    Removed,
    /// This node cannot go on in its swarm.
    Stop(String),
}

impl Host {
    /// With what runs in or out of a swarm started.
    pub async fn start(config: Config, dir: DataDir) -> anyhow::Result<(Arc<Host>, Inbox)> {
        let node = dir.keyring().node();
        let runtime = Runtime::start(runtime_config(&config)?).await.context("start containerd")?;
        let facts = Facts::find(&config, &runtime).await?;
        let worker = Worker::start(worker_config(&config, node, &facts)?, runtime.clone()).await?;
        let (orders, orders_in) = mpsc::channel(8);
        let (calls, calls_in) = mpsc::channel(MAX_CALLS_WAITING);
        let listen = config.listen_addr;
        let advertise = configured_advertise(&config).unwrap_or(listen);
        let addresses = RwLock::new(Addresses { listen, advertise });
        let sampler = std::sync::Mutex::default();
        let (networks, members) = (watch::Sender::new(None), std::sync::Mutex::default());
        let host = Arc::new(Host {
            dir,
            config,
            facts,
            devices: RwLock::new(runtime.devices()),
            runtime,
            worker,
            networks,
            members,
            sampler,
            node,
            addresses,
            orders,
            execs: Execs::default(),
            calls,
        });
        Ok((host, Inbox { orders: orders_in, calls: calls_in }))
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn listen_addr(&self) -> SocketAddr {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).listen
    }

    pub fn advertise_addr(&self) -> SocketAddr {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).advertise
    }

    /// The address told to others, and where this node listens at the same port.
    pub fn set_addresses(&self, listen: IpAddr, advertise: SocketAddr) {
        let mut addresses = self.addresses.write().unwrap_or_else(PoisonError::into_inner);
        *addresses = Addresses { listen: SocketAddr::new(listen, advertise.port()), advertise };
    }

    pub fn description(&self) -> NodeDescription {
        let advertise = self.advertise_addr();
        NodeDescription {
            hostname: self.facts.hostname.clone(),
            platform: self.facts.platform.clone(),
            resources: NodeResources {
                nano_cpus: self.facts.nano_cpus.saturating_sub(self.config.reserve_nano_cpus),
                memory_bytes: self.facts.memory_bytes.saturating_sub(self.config.reserve_memory_bytes),
                generic: [self.config.generic_resources.as_slice(), &self.devices()].concat(),
            },
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            engine_labels: self.config.labels.clone(),
            addr: advertise.ip(),
            transport_port: advertise.port(),
            probe_port: advertise.port(),
            feature_level: FEATURE_LEVEL,
        }
    }

    fn devices(&self) -> Vec<GenericResource> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for devices that vendors describe. True where they are others than before. Reads files, blocking.
    pub fn look_for_devices(&self) -> bool {
        let found = self.runtime.devices();
        let mut known = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        let differs = *known != found;
        *known = found;
        differs
    }

    /// Whether there is an init for containers that ask for one. Reads files, blocking.
    pub fn has_init(&self) -> bool {
        init_binary().is_some()
    }

    pub fn log_key(&self) -> anyhow::Result<consensus::SealingKey> {
        self.dir.log_key(|| self.random_bytes())
    }

    pub fn random_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        clock::rng().fill_bytes(&mut bytes);
        bytes
    }

    pub fn random_u64(&self) -> u64 {
        clock::rng().random()
    }

    pub fn random_u128(&self) -> u128 {
        clock::rng().random()
    }

    pub fn crypto_rng(&self) -> Box<dyn rand::CryptoRng + Send> {
        Box::new(clock::rng())
    }

    // For sessions.

    pub fn reports(&self) -> watch::Receiver<WorkerReport> {
        self.worker.reports()
    }

    pub fn assign(&self, view: &View) {
        self.worker.assign(Wanted { assignments: view.assignments.clone(), dependencies: view.dependencies.clone() });
    }

    /// The networks of this node's tasks, and which subnets the networks of the swarm have, all that are known. What is as it
    /// was is not told again.
    pub fn set_networks(&self, networks: Networks, subnets: BTreeMap<String, Vec<Subnet>>) {
        self.worker.networks().note_networks(subnets);
        let told = self.networks.send_if_modified(|known| {
            let differs = known.as_deref() != Some(&networks);
            if differs {
                *known = Some(Arc::new(networks.clone()));
            }
            differs
        });
        if told {
            self.worker.set_networks(networks);
            self.tell_data_plane(self.lock_members().as_deref());
        }
    }

    /// Who the members are, and where: the other half of what the data plane has to know.
    pub fn set_members(&self, members: &Arc<Members>) {
        let mut known = self.lock_members();
        *known = Some(Arc::clone(members));
        self.tell_data_plane(known.as_deref());
    }

    /// With the members held, so that the newest is told last.
    fn tell_data_plane(&self, members: Option<&Members>) {
        let networks = self.networks.borrow().clone();
        let (Some(members), Some(networks)) = (members, networks) else { return };
        let Some(own) = members.list.get(&self.node).filter(|_| members.data_path_port != 0) else { return };
        let overlay = Overlay { node: self.node, address: own.transport.ip(), port: members.data_path_port };
        self.worker.networks().set_swarm(SwarmView {
            overlay: Some(overlay),
            members: members.list.iter().map(|(node, member)| (*node, member.transport.ip())).collect(),
            networks: Networks::clone(&networks),
        });
    }

    fn lock_members(&self) -> std::sync::MutexGuard<'_, Option<Arc<Members>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn task_networks(&self) -> &TaskNetworks {
        self.worker.networks()
    }

    pub fn forget_networks(&self) {
        *self.lock_members() = None;
        self.networks.send_replace(None);
        self.worker.networks().note_networks(BTreeMap::new());
        self.worker.networks().set_swarm(SwarmView::default());
    }

    pub fn set_quorum(&self, heard: bool) {
        self.worker.set_quorum(heard);
    }

    pub fn measure(&self) -> Load {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner).sample(self.dir.root(), clock::mono())
    }

    /// Which addresses mean something on this host beside the swarm. Reads the kernel's routes, blocking.
    pub fn surroundings(&self) -> std::io::Result<Surroundings> {
        let local = self.config.local_subnet.block();
        let around = Surroundings::new(network::others_routes()?.into_iter().collect(), Some(local));
        Ok(Surroundings { overlay_mtu: self.task_networks().overlay_mtu(), ..around })
    }

    pub fn removed_from_swarm(&self) {
        // A full queue has such an order in it already.
        let _ = self.orders.try_send(Order::Removed);
    }

    /// Hands over what another node asks; dropped where too much waits, which the other is told.
    pub fn take_call(&self, stream: ByteStream) {
        let _ = self.calls.try_send(stream);
    }

    pub fn stop_because(&self, reason: String) {
        let _ = self.orders.try_send(Order::Stop(reason));
    }
}

fn runtime_config(config: &Config) -> anyhow::Result<RuntimeConfig> {
    let mut runtime = RuntimeConfig::new(&config.data_dir).context("find this program")?;
    runtime.containerd.clone_from(&config.containerd);
    runtime.log_defaults = LogDefaults { max_bytes: config.task_log_max_bytes, max_files: config.task_log_max_files };
    for registry in &config.insecure_registries {
        runtime.registries.by_host.entry(registry.clone()).or_default().plain_http = true;
    }
    for (registry, path) in &config.registry_cas {
        let pem = std::fs::read(path).with_context(|| format!("read the CA certificate {}", path.display()))?;
        runtime.registries.by_host.entry(registry.clone()).or_default().ca_pem = Some(pem);
    }
    Ok(runtime)
}

fn worker_config(config: &Config, node: NodeId, facts: &Facts) -> anyhow::Result<WorkerConfig> {
    let network = NetworkConfig { dir: config.data_dir.join("network"), subnet: config.local_subnet };
    let binary = std::env::current_exe().context("find this program")?;
    let resolver = ResolverConfig { dir: config.data_dir.join("resolver"), binary };
    Ok(WorkerConfig { data_dir: config.data_dir.clone(), network, resolver, node: facts.names(node), work_at_once: 0 })
}

pub fn configured_advertise(config: &Config) -> Option<SocketAddr> {
    config.advertise_addr.map(|advertise| SocketAddr::new(advertise.addr, advertise.port))
}
