//! The objects of desired state. Each carries the log index of its last change as its [`Version`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cron::CronStatus;
use super::data::DataHistory;
use crate::spec::*;

/// Created and changed: when, by the proposer's clock, and at which index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    pub version: Version,
    pub created_at: UnixMs,
    pub updated_at: UnixMs,
}

/// The swarm itself. There is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Swarm {
    pub id: SwarmId,
    pub meta: Meta,
    pub spec: SwarmSpec,
    /// ed25519 public key of the swarm's CA.
    pub ca_public_key: [u8; 32],
    /// Its secret half: any manager may admit. Encrypted at rest with the whole log.
    pub ca_secret_key: SecretBytes,
    /// Secrets of the two join tokens.
    pub worker_token: SecretBytes,
    pub manager_token: SecretBytes,
    /// Raised with every rotation of either token.
    pub token_generation: u64,
    /// 32 bytes that lock the managers' keys on their disks; `Some` exactly while `spec.autolock`.
    pub unlock_key: Option<SecretBytes>,
    pub feature_level: FeatureLevel,
    /// Raised with every change of who is a member or in which role; alarms and member lists carry it.
    pub membership_version: Version,
}

/// A member of the swarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub meta: Meta,
    pub spec: NodeSpec,
    /// ed25519; `id` is its hash.
    pub public_key: [u8; 32],
    pub description: NodeDescription,
    /// `Some` while the node holds the log.
    pub raft: Option<RaftMember>,
    pub health: NodeHealth,
    /// Times it went down and came back, for the hold-down; forgotten after a long healthy time.
    pub flaps: u32,
}

/// A log holder's place in Raft. A raft id is used once in a swarm's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RaftMember {
    pub raft_id: u64,
    pub standing: RaftStanding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RaftStanding {
    Voter,
    /// Holds the log, does not vote now.
    Standby,
}

/// The swarm's decision about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeHealth {
    /// Admitted, not heard yet.
    Unknown,
    Up,
    /// A verdict on this incarnation: its tasks are orphaned.
    Down {
        incarnation: Incarnation,
        since: UnixMs,
    },
    /// Back after a verdict: no new tasks until the hold-down ends.
    HeldDown {
        until: UnixMs,
    },
    /// Said goodbye: its tasks are replaced at once, it is not suspected.
    Left {
        since: UnixMs,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    pub meta: Meta,
    pub spec: ServiceSpec,
    /// The version at which `spec.task` (or the service) last changed: tasks of another one are replaced.
    pub spec_version: Version,
    /// For `service rollback`.
    pub previous: Option<Box<PreviousSpec>>,
    pub update: Option<UpdateStatus>,
    /// Ports as allocated: `spec.endpoint.ports` with published ports filled in.
    pub ports: Vec<PortConfig>,
    /// Virtual addresses by network, allocated.
    pub vips: Vec<(NetworkId, Vec<IpAddr>)>,
    pub job: Option<JobStatus>,
    /// Spec versions of which no task starts yet: what the service depends on has not come to it since they were put in force.
    pub held: Vec<Version>,
    /// `Some` while the spec has a schedule.
    pub cron: Option<CronStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviousSpec {
    pub spec: ServiceSpec,
    pub spec_version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    pub state: UpdateState,
    /// Log index at which the update, or the rollback, began. Filled in when it is stored.
    pub since: Version,
    pub started_at: UnixMs,
    pub completed_at: Option<UnixMs>,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Raised each time the job is to run again.
    pub iteration: u64,
    pub last_execution: UnixMs,
    pub completed: u64,
}

impl JobStatus {
    /// Whether `task` is one of the job's completions in its present iteration.
    pub fn counts(&self, task: &Task) -> bool {
        task.job_iteration == Some(self.iteration)
            && task.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Complete)
    }
}

/// One run of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    /// Log index of its creation: what came before what, whatever the clocks say.
    pub created: Version,
    pub service: ServiceId,
    pub slot: Slot,
    /// Names the [`TaskSpec`] in [`State::task_spec`](super::State::task_spec).
    pub spec_version: Version,
    pub node: Option<NodeId>,
    pub assigned_at: Option<UnixMs>,
    pub desired: DesiredState,
    /// `Some` once it has ended, never changed after.
    pub outcome: Option<Outcome>,
    pub finished_at: Option<UnixMs>,
    /// Why no node has it, with counts: `3 nodes: insufficient memory`. Empty once it has a node.
    pub pending_reason: String,
    /// Counted by the node between ready and starting.
    pub start_delay: Duration,
    /// When earlier tasks of this slot and spec version were restarted, newest last; at most [`MAX_RESTART_HISTORY`].
    pub restarts: Vec<UnixMs>,
    pub attachments: Vec<Attachment>,
    /// Ports of `host` mode that the swarm chose or was told, on `node`.
    pub host_ports: Vec<PortConfig>,
    /// Generic resources handed to it on `node`.
    pub generic: Vec<GenericResource>,
    pub job_iteration: Option<u64>,
}

pub const MAX_RESTART_HISTORY: usize = 64;

impl Task {
    /// Counts towards its service: wanted to run and not ended.
    pub fn is_live(&self) -> bool {
        self.outcome.is_none() && self.desired <= DesiredState::Running
    }

    /// Nothing of it can run any more: it has ended, or no node was ever told of it.
    pub fn may_be_forgotten(&self) -> bool {
        self.outcome.is_some() || self.assigned_at.is_none()
    }

    /// May still hold its node's resources, ports and addresses.
    pub fn holds_resources(&self) -> bool {
        self.outcome.is_none() && self.node.is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// CIDR text of the subnets in use, allocated or asked for.
    pub subnets: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Secret {
    pub id: SecretId,
    pub meta: Meta,
    /// With the newest data.
    pub spec: SecretSpec,
    pub history: DataHistory,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub id: ConfigId,
    pub meta: Meta,
    /// With the newest data.
    pub spec: ConfigSpec,
    pub history: DataHistory,
}

/// A named local volume's home: written when a task that mounts it is first assigned, so that the data's node is known
/// although that node is down. Keyed by service, slot and volume name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeHome {
    pub service: ServiceId,
    pub slot: Slot,
    pub volume: String,
    pub node: NodeId,
}

/// Credentials for the registry that a service's image comes from, as the client sent them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryCredentials {
    pub service: ServiceId,
    pub version: Version,
    /// Docker's `X-Registry-Auth`: JSON in base64url.
    pub auth: SecretBytes,
}

/// Shared, since every task of a service refers to one.
pub type SharedTaskSpec = Arc<TaskSpec>;

impl UpdateStatus {
    /// Tasks are being replaced, or wait for that.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, UpdateState::Updating | UpdateState::RollbackStarted)
    }
}

impl Service {
    /// No task of this spec version may start yet.
    pub fn holds_back(&self, version: Version) -> bool {
        self.held.contains(&version)
    }

    /// Nothing of the spec in force may start yet.
    pub fn is_held(&self) -> bool {
        self.holds_back(self.spec_version)
    }

    /// A slot may have a second live task while the first is being replaced, in an update or in its rollback. A job's may
    /// not: both could complete.
    pub fn starts_first(&self) -> bool {
        if self.spec.mode.is_job() {
            return false;
        }
        self.spec.update.order == UpdateOrder::StartFirst || self.spec.rollback.order == UpdateOrder::StartFirst
    }
}

impl Node {
    /// Not said to be gone, and not kept back by its operator or by a hold-down. One not heard yet may be given tasks.
    pub fn takes_tasks(&self) -> bool {
        self.spec.availability == Availability::Active && matches!(self.health, NodeHealth::Unknown | NodeHealth::Up)
    }

    /// The operator's name for it, or its hostname.
    pub fn name(&self) -> &str {
        self.spec.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.description.hostname)
    }

    /// What placement constraints look at.
    pub fn facts(&self) -> NodeFacts<'_> {
        NodeFacts {
            id: self.id,
            hostname: &self.description.hostname,
            role: self.spec.role,
            addr: self.description.addr,
            platform: &self.description.platform,
            labels: &self.spec.labels,
            engine_labels: &self.description.engine_labels,
        }
    }

    pub fn is_manager(&self) -> bool {
        self.spec.role == Role::Manager
    }

    pub fn transport_addr(&self) -> SocketAddr {
        SocketAddr::new(self.description.addr, self.description.transport_port)
    }

    pub fn probe_addr(&self) -> SocketAddr {
        SocketAddr::new(self.description.addr, self.description.probe_port)
    }
}
