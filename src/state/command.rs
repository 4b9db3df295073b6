//! What may be asked of the log. A [`Command`] comes from a user or an operator and succeeds or fails as a whole;
//! a [`Change`] comes from the leader's loops, guarded by the versions of what it read, and many of them ride in one entry,
//! each valid alone. Everything `apply` needs (ids, time, random picks) is in the entry.

use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::cron::{Passed, RunOutcome};
use super::object::*;
use crate::spec::*;

/// What one log entry holds, after decoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub proposal: Proposal,
    /// The proposer's wall clock.
    pub at: UnixMs,
    pub command: Command,
}

/// The format that [`Entry::to_bytes`] writes. Another one comes with a feature level that every member knows; the types
/// of the older one then stay beside the new ones, since old entries remain in logs.
const ENTRY_FORMAT: u8 = 1;

/// Bytes of the log that are no entry this build can read.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("a log entry is empty")]
    Empty,
    #[error(
        "a log entry has format {0}, and this build of flok reads formats up to {ENTRY_FORMAT}: \
         upgrade flok on this node"
    )]
    Format(u8),
    #[error("a log entry cannot be read")]
    Malformed(#[from] CodecError),
}

impl Entry {
    /// What stands in the log: the format's number, then the entry.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = codec::encode(self);
        bytes.insert(0, ENTRY_FORMAT);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Entry, EntryError> {
        match bytes.split_first() {
            None => Err(EntryError::Empty),
            Some((&ENTRY_FORMAT, entry)) => Ok(codec::decode(entry)?),
            Some((&format, _)) => Err(EntryError::Format(format)),
        }
    }
}

/// Who proposes, so that a retry is applied once. One client may have many sequence numbers under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    pub client: ClientId,
    pub sequence: u64,
    /// Every sequence below this has been answered: its result may be forgotten.
    pub answered_below: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Nothing; a leader's first entry, and a fresh read's anchor.
    Noop,
    /// The first entry of a swarm: the swarm and its first node.
    InitSwarm {
        swarm: Box<Swarm>,
        node: Box<Node>,
    },
    UpdateSwarm {
        version: Version,
        spec: SwarmSpec,
        /// The key that locks managers from now on: wanted where autolock is turned on, another one where it is rotated.
        unlock_key: Option<SecretBytes>,
    },
    RotateToken {
        version: Option<Version>,
        role: Role,
        secret: SecretBytes,
    },
    RaiseFeatureLevel {
        to: FeatureLevel,
    },

    /// Admits a node, or renews the description of a member that joins again with the same key.
    AdmitNode {
        node: Box<Node>,
    },
    UpdateNode {
        id: NodeId,
        version: Version,
        spec: NodeSpec,
    },
    /// Refused for a node that is up, unless `force`.
    RemoveNode {
        id: NodeId,
        force: bool,
    },

    CreateService {
        id: ServiceId,
        spec: Box<ServiceSpec>,
        credentials: Option<SecretBytes>,
    },
    UpdateService {
        id: ServiceId,
        version: Version,
        spec: Box<ServiceSpec>,
        credentials: CredentialsUpdate,
    },
    /// Puts the previous spec in force.
    RollbackService {
        id: ServiceId,
        version: Version,
    },
    RemoveService {
        id: ServiceId,
    },
    /// Begins a run of a service with a schedule at once.
    RunService {
        id: ServiceId,
    },

    CreateNetwork {
        id: NetworkId,
        spec: NetworkSpec,
    },
    RemoveNetwork {
        id: NetworkId,
    },
    CreateSecret {
        id: SecretId,
        spec: SecretSpec,
    },
    UpdateSecret {
        id: SecretId,
        version: Version,
        spec: SecretSpec,
    },
    RemoveSecret {
        id: SecretId,
    },
    CreateConfig {
        id: ConfigId,
        spec: ConfigSpec,
    },
    UpdateConfig {
        id: ConfigId,
        version: Version,
        spec: ConfigSpec,
    },
    RemoveConfig {
        id: ConfigId,
    },

    /// All of these or none: a stack's deployment or removal.
    Transaction(Vec<Command>),
    /// From the leader's loops. Each step stands alone; the refused ones are counted, and the next tick computes them anew.
    Plan(Vec<Step>),
    /// Other data for a secret or config, which is a new version of it.
    ReplaceData {
        id: DataId,
        version: Version,
        new: Box<NewData>,
    },
}

/// What a secret or config is to be, but for its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewData {
    pub labels: Labels,
    pub data: SecretBytes,
    pub templating: Option<String>,
    /// The data is that of an earlier version.
    pub restored: Option<DataVersion>,
    /// Services that use it get it in the same entry; otherwise at their next update.
    pub roll_out: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialsUpdate {
    Keep,
    Replace(SecretBytes),
}

/// One change of the leader's loops: applied only while every object in `reads` still has the version that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub reads: Vec<(ObjectId, Version)>,
    pub change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectId {
    Swarm,
    Node(NodeId),
    Service(ServiceId),
    Task(TaskId),
    Network(NetworkId),
    Secret(SecretId),
    Config(ConfigId),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Into a slot that has no live task, unless the service's update order is start-first.
    CreateTask(Box<NewTask>),
    Assign(Box<Placed>),
    /// Only forward: `Ready` to `Running` to `Shutdown` to `Remove`.
    SetDesired {
        task: TaskId,
        desired: DesiredState,
    },
    /// The terminal outcome, and in the same step what follows from it.
    Finish {
        task: TaskId,
        outcome: Outcome,
        replacement: Option<Box<NewTask>>,
    },
    /// Forgets a task that has ended.
    ForgetTask {
        task: TaskId,
    },
    SetPendingReason {
        task: TaskId,
        reason: String,
    },

    SetUpdateStatus {
        service: ServiceId,
        status: Option<UpdateStatus>,
    },
    /// What the service depends on has come to it: tasks of the spec in force may start.
    ReleaseService {
        service: ServiceId,
    },
    /// Of a service with a schedule: the first point that has not been dealt with.
    SetNextRun {
        service: ServiceId,
        next: UnixMs,
    },
    /// Its next point is due, and a run begins; `next` is the point after it.
    BeginRun {
        service: ServiceId,
        point: UnixMs,
        next: Option<UnixMs>,
    },
    /// `count` points up to `until` begin nothing.
    PassRuns {
        service: ServiceId,
        until: UnixMs,
        count: u64,
        why: Passed,
        next: Option<UnixMs>,
    },
    EndRun {
        service: ServiceId,
        iteration: u64,
        outcome: RunOutcome,
    },
    /// By the update's failure action.
    AutoRollback {
        service: ServiceId,
        message: String,
    },
    SetServicePorts {
        service: ServiceId,
        ports: Vec<PortConfig>,
    },
    SetServiceVips {
        service: ServiceId,
        vips: Vec<(NetworkId, Vec<std::net::IpAddr>)>,
    },
    SetNetworkSubnets {
        network: NetworkId,
        subnets: Vec<String>,
    },
    ScaleService {
        service: ServiceId,
        replicas: u64,
    },

    SetNodeHealth {
        node: NodeId,
        health: NodeHealth,
        flaps: u32,
    },
    DescribeNode {
        node: NodeId,
        description: Box<NodeDescription>,
    },
    /// Follows a Raft membership change that has been applied, or assigns a raft id before it.
    SetRaft {
        node: NodeId,
        raft: Option<RaftMember>,
    },
}

/// A task to be created. It has no node yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    pub id: TaskId,
    pub service: ServiceId,
    pub slot: Slot,
    pub spec_version: Version,
    pub desired: DesiredState,
    pub start_delay: std::time::Duration,
    pub restarts: Vec<UnixMs>,
    pub job_iteration: Option<u64>,
    /// Of a global service: the task is bound to its node from the start, and still passes the scheduler's filters.
    pub node: Option<NodeId>,
}

/// The scheduler's and the allocator's decision for one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    pub task: TaskId,
    pub node: NodeId,
    pub host_ports: Vec<PortConfig>,
    pub generic: Vec<GenericResource>,
    pub attachments: Vec<Attachment>,
}

/// What an applied entry answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// A transaction's number of changed objects, a plan's number of steps applied and refused.
    Plan {
        applied: u32,
        refused: u32,
    },
}

/// Why an entry changed nothing. Texts are what a user reads; the kind is what the API turns into a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    /// Docker's clients look for these words.
    #[error("update out of sequence")]
    OutOfSequence,
    #[error("{0}")]
    Invalid(String),
    /// The request makes sense, but not in this state.
    #[error("{0}")]
    Precondition(String),
    #[error("feature level {need} is needed, the swarm is at {have}")]
    Unsupported { need: FeatureLevel, have: FeatureLevel },
    /// A copy of a proposal that arrived after its client had the answer; this copy was not applied.
    #[error("the answer to this request is no longer kept: read the state to see what it did")]
    AnswerForgotten,
    /// What there is stays so, whatever the state.
    #[error("{0}")]
    NotImplemented(String),
}

pub type Applied = Result<Reply, Refusal>;
