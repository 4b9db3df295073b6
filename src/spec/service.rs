//! What a user asks a service to be. The shape follows Docker's `ServiceSpec`, so that its clients' requests map
//! field by field; flok's additions stand in [`TaskSpec`] and [`ContainerSpec`] beside Docker's.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigId, DataVersion, DependsOn, Labels, NetworkId, NodeNetwork, Schedule, SecretId, template};
use crate::spec::template::{Budget, Words};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: Labels,
    pub mode: ServiceMode,
    pub task: TaskSpec,
    pub update: UpdateConfig,
    pub rollback: UpdateConfig,
    pub endpoint: EndpointSpec,
    /// What its tasks wait for, each time there is something new to run.
    pub depends_on: Vec<DependsOn>,
    /// When a job runs. `None`: once, when it is made and when it is changed.
    pub schedule: Option<Schedule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// So many tasks at all times.
    Replicated { replicas: u64 },
    /// One task on every node that fits.
    Global,
    /// So many tasks in all that complete, at most `max_concurrent` at a time.
    ReplicatedJob { max_concurrent: u64, total_completions: u64 },
    /// One task that completes, on every node that fits.
    GlobalJob,
}

impl ServiceMode {
    pub fn is_job(self) -> bool {
        matches!(self, ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob)
    }

    pub fn is_global(self) -> bool {
        matches!(self, ServiceMode::Global | ServiceMode::GlobalJob)
    }
}

/// What each task of a service is. A change to it means new tasks; a change elsewhere in the service does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    pub networks: Vec<NetworkAttachment>,
    pub log_driver: Option<LogDriver>,
    /// Raised to force new tasks although nothing else changed.
    pub force_update: u64,
    /// Published in `host` mode on the task's own node; part of the task because they bind where it may run.
    /// Derived from [`EndpointSpec::ports`] when the service is stored.
    pub host_ports: Vec<PortConfig>,
    pub volume_policy: VolumePolicy,
    /// Has ports published in `ingress` mode, so that its tasks are on the ingress network too. Derived as
    /// [`Self::host_ports`] is.
    pub ingress: bool,
}

/// In place of an address in [`ContainerSpec::hosts`]: the node's own, which is known where the task starts.
pub const HOST_GATEWAY: &str = "host-gateway";

/// What may stand in place of an address in [`ContainerSpec::hosts`].
pub fn is_host_address(text: &str) -> bool {
    text == HOST_GATEWAY || text.parse::<IpAddr>().is_ok()
}

impl ServiceSpec {
    /// Other data of a secret or config is nothing that would make it run again: it is no job, or runs by its schedule.
    pub fn may_get_new_data(&self) -> bool {
        !self.mode.is_job() || self.schedule.is_some()
    }
}

impl TaskSpec {
    /// Fills in what depends on the ports of the service: they bind where its tasks may run and what they are on.
    pub fn derive_from_ports(&mut self, ports: &[PortConfig]) {
        self.host_ports = ports.iter().filter(|port| port.mode == PublishMode::Host).cloned().collect();
        self.ingress = ports.iter().any(|port| port.mode == PublishMode::Ingress);
    }

    /// The network of the node's own that the task is on. It is on no other then.
    pub fn node_network(&self) -> Option<NodeNetwork> {
        self.networks.iter().find_map(|attachment| attachment.target.node_network())
    }

    /// Whether the task has addresses and ports of its own on its node.
    pub fn has_own_addresses(&self) -> bool {
        !matches!(self.node_network(), Some(NodeNetwork::Host | NodeNetwork::None))
    }

    pub fn uses_network(&self, id: NetworkId) -> bool {
        self.networks.iter().any(|attachment| attachment.target == NetworkTarget::Id(id))
    }

    /// Names of the volumes whose data lives on the node that first mounted them.
    pub fn named_local_volumes(&self) -> impl Iterator<Item = &str> {
        self.container.mounts.iter().filter(|mount| mount.is_local_volume()).filter_map(|mount| mount.source.as_deref())
    }
}

/// By which every node has taken a task that is to stop out of its balance, and requests that were on their way are in.
pub const DEFAULT_DRAIN: Duration = Duration::from_millis(500);
/// Longer ones would hold up every update of the service.
pub const MAX_DRAIN: Duration = Duration::from_secs(3600);

/// Docker's grace between the stop signal and SIGKILL, where the spec names none.
pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// As the user wrote it, with a digest where one was resolved (`repo:tag@sha256:...`).
    pub image: String,
    /// Docker's `Command`: replaces the image's entrypoint. Empty: the image's.
    pub command: Vec<String>,
    /// Docker's `Args`: replaces the image's command. Empty: the image's.
    pub args: Vec<String>,
    /// `KEY=value`; a bare `KEY` removes the image's variable.
    pub env: Vec<String>,
    pub dir: Option<String>,
    /// `name|uid[:group|gid]`.
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub hostname: Option<String>,
    pub labels: Labels,
    pub mounts: Vec<Mount>,
    pub stop_signal: Option<String>,
    /// Docker's default is 10 s.
    pub stop_grace: Option<Duration>,
    /// How long it goes on serving the connections it has, after it gets no new ones and before the stop signal.
    /// `None`: [`DEFAULT_DRAIN`] where it is on a network, else not at all.
    pub drain: Option<Duration>,
    pub healthcheck: Option<Healthcheck>,
    pub hosts: Vec<String>,
    pub dns: DnsConfig,
    pub secrets: Vec<SecretReference>,
    pub configs: Vec<ConfigReference>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub sysctls: Labels,
    pub ulimits: Vec<Ulimit>,
    pub read_only: bool,
    pub init: Option<bool>,
    pub tty: bool,
    pub stdin_open: bool,
    pub isolation: Option<String>,
    pub oom_score_adj: i64,
    pub privileged: bool,
    pub security_opt: Vec<String>,
    pub devices: Vec<DeviceMapping>,
    pub shm_size: Option<u64>,
    pub ipc: Option<String>,
    pub pid: Option<String>,
}

const HOSTNAME: &str = "hostname";

impl ContainerSpec {
    /// With the templates of its hostname, environment and mounts filled in; an error says where one cannot be.
    pub fn expanded(&self, words: &Words) -> Result<ContainerSpec, String> {
        let mut spec = self.clone();
        let failed = spec.expand(words).into_iter().next();
        failed.map_or(Ok(spec), |(_, why)| Err(why))
    }

    /// Fills in the templates. Gives those that cannot be, each with its place in a stack file's keys, and why.
    pub fn expand(&mut self, words: &Words) -> Vec<(Vec<String>, String)> {
        let (whole, name) = (Budget::of_task(), Budget::of_name());
        self.each_template(|what, text| {
            let budget = if what == HOSTNAME { &name } else { &whole };
            *text = template::expand(text, words, None, budget)?;
            Ok(())
        })
    }

    /// The templates that cannot be filled in for any task of a service with `labels`, as [`expand`](Self::expand) has them.
    pub fn bad_templates(&self, labels: &Labels) -> Vec<(Vec<String>, String)> {
        let words = Words::of_any_task(labels);
        self.clone().each_template(|_, text| template::check_field(text, &words))
    }

    /// `each` is told what a text is of.
    fn each_template(&mut self, each: impl Fn(&str, &mut String) -> Result<(), String>) -> Vec<(Vec<String>, String)> {
        let mut failed = Vec::new();
        let mut fill = |what: &str, at: &[&str], text: &mut String| {
            if let Err(why) = each(what, text) {
                // One of several is named.
                let name = at.get(1).map(|name| format!("{name}: ")).unwrap_or_default();
                let at = at.iter().map(|key| (*key).to_owned()).collect();
                failed.push((at, format!("expanding {what} failed: {name}{why}")));
            }
        };
        for variable in &mut self.env {
            let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name).to_owned();
            fill("env", &["environment", &name], variable);
        }
        if let Some(hostname) = &mut self.hostname {
            fill(HOSTNAME, &["hostname"], hostname);
        }
        for mount in &mut self.mounts {
            let target = mount.target.clone();
            let at = ["volumes", &target];
            fill("mounts", &at, &mut mount.target);
            mount.source.iter_mut().for_each(|source| fill("mounts", &at, source));
            mount.volume.labels.values_mut().for_each(|label| fill("mounts", &at, label));
            mount.volume.driver_options.values_mut().for_each(|option| fill("mounts", &at, option));
        }
        failed
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceMapping {
    pub host_path: String,
    pub container_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: MountKind,
    /// Host path of a bind, name of a volume; `None` for tmpfs and anonymous volumes.
    pub source: Option<String>,
    pub target: String,
    pub read_only: bool,
    pub bind: BindOptions,
    pub volume: VolumeOptions,
    pub tmpfs: TmpfsOptions,
}

impl Mount {
    /// A named volume of the node's own, whose data stays there; a server's is the same on every node.
    pub fn is_local_volume(&self) -> bool {
        self.kind == MountKind::Volume
            && self.source.is_some()
            && super::volume::check_driver(self.volume.driver.as_deref()).is_ok()
            && super::volume::is_of_node(&self.volume.driver_options)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
    Cluster,
    NamedPipe,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BindOptions {
    /// `private`, `rprivate`, `shared`, `rshared`, `slave` or `rslave`.
    pub propagation: Option<String>,
    /// Without what is mounted below the source.
    pub non_recursive: bool,
    pub create_host_path: bool,
    /// Where the mount is read-only: what is mounted below its source stays as writable as it is.
    pub read_only_non_recursive: bool,
    /// Read-only with all that is mounted below the source, or not at all.
    pub read_only_force_recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VolumeOptions {
    pub no_copy: bool,
    pub subpath: Option<String>,
    pub labels: Labels,
    pub driver: Option<String>,
    pub driver_options: Labels,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TmpfsOptions {
    pub size_bytes: Option<u64>,
    pub mode: Option<u32>,
    /// Whether programs in it can run; `None` is no.
    pub exec: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Healthcheck {
    /// Docker's form: `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", "..."]`; empty: the image's.
    pub test: Vec<String>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DnsConfig {
    pub nameservers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// Where a secret or config appears in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileTarget {
    pub name: String,
    pub uid: String,
    pub gid: String,
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretReference {
    pub id: SecretId,
    pub name: String,
    pub file: FileTarget,
    /// Which data its tasks get. Chosen when the service is created or updated, never by its user.
    #[serde(default)]
    pub data_version: DataVersion,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigReference {
    pub id: ConfigId,
    pub name: String,
    pub file: FileTarget,
    /// Which data its tasks get. Chosen when the service is created or updated, never by its user.
    #[serde(default)]
    pub data_version: DataVersion,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resources {
    pub limits: ResourceLimits,
    pub reservations: ResourceReservations,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Billionths of a CPU; 0: no limit.
    pub nano_cpus: u64,
    /// 0: no limit.
    pub memory_bytes: u64,
    /// 0: no limit.
    pub pids: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ResourceReservations {
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    pub generic: Vec<GenericResource>,
}

/// A resource the operator declared on nodes, such as `gpu=2` or `ssd=disk0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GenericResource {
    Discrete {
        kind: String,
        value: u64,
    },
    Named {
        kind: String,
        value: String,
    },
    /// All that a node has of the kind, at least one: only ever wished for.
    All {
        kind: String,
    },
}

impl GenericResource {
    /// Its name, which is what a user knows it by.
    pub fn kind(&self) -> &str {
        match self {
            GenericResource::Discrete { kind, .. }
            | GenericResource::Named { kind, .. }
            | GenericResource::All { kind } => kind,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    /// `None`: at once the first time, then backing off while the task keeps failing.
    pub delay: Option<Duration>,
    /// `None` or 0: no limit.
    pub max_attempts: Option<u64>,
    /// Attempts older than this no longer count; `None` or zero: all count.
    pub window: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartCondition {
    None,
    OnFailure,
    #[default]
    Any,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// As written, for example `node.labels.zone == a`; validated when the spec is accepted.
    pub constraints: Vec<String>,
    /// Node label paths to spread over, outermost first, for example `node.labels.rack`.
    pub spread: Vec<String>,
    /// 0: no limit.
    pub max_replicas: u64,
    /// Empty: any. From the image's index, where it was resolved.
    pub platforms: Vec<super::Platform>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// The network's id once the spec is stored; a name before.
    pub target: NetworkTarget,
    pub aliases: Vec<String>,
    pub driver_options: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkTarget {
    Id(NetworkId),
    Name(String),
}

impl NetworkTarget {
    pub fn node_network(&self) -> Option<NodeNetwork> {
        match self {
            NetworkTarget::Id(_) => None,
            NetworkTarget::Name(name) => NodeNetwork::named(name),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogDriver {
    pub name: String,
    pub options: Labels,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Tasks replaced at once; 0: all.
    pub parallelism: u64,
    pub delay: Duration,
    pub failure_action: FailureAction,
    /// How long a new task is watched for failure.
    pub monitor: Option<Duration>,
    /// 0.0 to 1.0.
    pub max_failure_ratio: f32,
    pub order: UpdateOrder,
}

impl UpdateConfig {
    /// Where `monitor` is not given.
    pub const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

    /// Whether it says nothing but what is so anyway.
    pub fn is_default(&self) -> bool {
        let monitor = self.monitor.filter(|monitor| *monitor != Self::DEFAULT_MONITOR);
        UpdateConfig { monitor, ..self.clone() } == UpdateConfig::default()
    }
}

impl Default for UpdateConfig {
    fn default() -> Self {
        UpdateConfig {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: None,
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateOrder {
    StopFirst,
    StartFirst,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EndpointSpec {
    pub mode: EndpointMode,
    pub ports: Vec<PortConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EndpointMode {
    #[default]
    Vip,
    Dnsrr,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortConfig {
    pub name: Option<String>,
    pub protocol: Protocol,
    /// The port in the container.
    pub target: u16,
    /// The port on the node; 0: chosen by the swarm.
    pub published: u16,
    pub mode: PublishMode,
}

impl PortConfig {
    /// Both cannot be bound at one place.
    pub fn collides(&self, other: &PortConfig) -> bool {
        self.published != 0 && self.published == other.published && self.protocol == other.protocol
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every node of the swarm.
    #[default]
    Ingress,
    /// Only on the node that runs the task.
    Host,
}

/// What to do where the node that holds a task's named local volume is gone. Set by `x-volume-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum VolumePolicy {
    /// Wait for the node.
    #[default]
    Wait,
    /// Start elsewhere with an empty volume.
    StartEmpty,
}
