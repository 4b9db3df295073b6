//! What each entry does to the state. Every log holder runs this on the same entries in the same order, so it uses
//! nothing but its arguments: ids, times and random picks are in the entry.
//!
//! A refused command changes nothing. Checks come before the first write in every function here, so that a refusal
//! leaves the state as it was without a copy; only commands, several of which may fail half-way, keep the old state (a clone
//! is O(1)) and go back to it.

mod cron;
mod data;
mod network;
mod node;
mod secret;
mod service;
mod start_order;
mod swarm;
mod task;

use std::collections::BTreeSet;

use super::command::*;
use super::object::RaftMember;
use super::store::State;
use crate::spec::*;

/// The state, or an entry, is of a feature level that this build does not know. Nothing was changed; the node must stop,
/// because whatever it did next could differ from what the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the swarm is at feature level {level}, and this build of flok knows levels up to {FEATURE_LEVEL}: \
     upgrade flok on this node"
)]
pub struct BeyondBuild {
    pub level: FeatureLevel,
}

/// When a change happens: the log index, which becomes the version of all it touches, and the proposer's clock.
#[derive(Debug, Clone, Copy)]
struct At {
    version: Version,
    time: UnixMs,
}

impl State {
    /// Applies the entry at `index` and answers it; an entry that was applied before gets its first answer again.
    /// The error means that the node must stop: see [`BeyondBuild`].
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Result<Applied, BeyondBuild> {
        self.check_level()?;
        if let Some(answer) = self.sessions.recall(&entry.proposal) {
            self.advance(index);
            return Ok(answer);
        }
        let before = self.clone();
        let answer = self.command(&entry.command, At { version: Version(index), time: entry.at });
        if let Err(beyond) = self.check_level() {
            *self = before;
            return Err(beyond);
        }
        self.sessions.record(&entry.proposal, index, &answer);
        self.advance(index);
        Ok(answer)
    }

    /// Notes that the log has reached `index` by an entry that is no command, such as the one that opens a term.
    pub fn advance(&mut self, index: u64) {
        assert!(index > self.applied, "entry {index} comes after {} in the log", self.applied);
        self.applied = index;
    }

    /// Whether this build knows the level that the swarm is at.
    pub fn check_level(&self) -> Result<(), BeyondBuild> {
        let level = self.feature_level();
        if level > FEATURE_LEVEL { Err(BeyondBuild { level }) } else { Ok(()) }
    }

    /// A Raft membership change that was committed at `index`: which nodes hold the log now, and how. A node that is no
    /// member any more is passed over.
    pub fn apply_raft_membership(&mut self, index: u64, members: &[(NodeId, Option<RaftMember>)]) {
        for (id, raft) in members {
            if let Some(raft) = raft {
                self.last_raft_id = self.last_raft_id.max(raft.raft_id);
            }
            if let Some(node) = self.nodes.get(id).filter(|node| node.raft != *raft) {
                let mut node = node.as_ref().clone();
                node.raft = *raft;
                node.meta.version = Version(index);
                self.put_node(node);
            }
        }
        self.advance(index);
    }

    fn command(&mut self, command: &Command, at: At) -> Applied {
        if self.swarm.is_none() && !matches!(command, Command::Noop | Command::InitSwarm { .. }) {
            return Err(Refusal::Precondition(
                "there is no swarm yet: make one with `flok swarm init`, or join one with `flok swarm join`".into(),
            ));
        }
        match command {
            Command::Transaction(commands) => self.transaction(commands, at),
            Command::Plan(steps) => Ok(self.plan(steps, at)),
            single => self.all_of(std::slice::from_ref(single), at).map(|()| Reply::Done),
        }
    }

    /// All of the commands or none.
    fn transaction(&mut self, commands: &[Command], at: At) -> Applied {
        let is_single = |command: &Command| {
            !matches!(command, Command::Transaction(_) | Command::Plan(_) | Command::InitSwarm { .. })
        };
        if !commands.iter().all(is_single) {
            return Err(Refusal::Invalid("a transaction holds single commands on an existing swarm".into()));
        }
        self.all_of(commands, at)?;
        Ok(Reply::Plan { applied: count(commands.len()), refused: 0 })
    }

    /// One after another, and what follows from all of them together.
    fn all_of(&mut self, commands: &[Command], at: At) -> Result<(), Refusal> {
        let before = self.clone();
        let done = commands.iter().try_for_each(|command| self.single(command, at));
        let done = done.and_then(|()| {
            let rolled_out = self.roll_out_data(commands, at);
            self.settle_start_order(&before, commands, &rolled_out, at)
        });
        if done.is_err() {
            *self = before;
        }
        done
    }

    /// Each step whose guards held when the plan began; steps of one plan do not invalidate one another, because the
    /// leader computed them together.
    fn plan(&mut self, steps: &[Step], at: At) -> Reply {
        let before = self.clone();
        let (mut applied, mut refused) = (0, 0);
        // Services that were not released, or whose update does not stand as the leader thought: what it did next for them
        // rests on it.
        let mut void = BTreeSet::new();
        for step in steps {
            let fresh = step.reads.iter().all(|(id, version)| before.version_of(*id) == Some(*version));
            let stands = self.service_of(&step.change).is_none_or(|service| !void.contains(&service));
            if fresh && stands && self.change(&step.change, at).is_ok() {
                applied += 1;
            } else {
                refused += 1;
                if let Change::ReleaseService { service } | Change::SetUpdateStatus { service, .. } = step.change {
                    void.insert(service);
                }
            }
        }
        Reply::Plan { applied, refused }
    }

    /// Whose tasks a change makes, moves on or updates.
    fn service_of(&self, change: &Change) -> Option<ServiceId> {
        match change {
            Change::CreateTask(new) => Some(new.service),
            Change::SetDesired { task, .. } => Some(self.tasks.get(task)?.service),
            Change::SetUpdateStatus { service, .. } => Some(*service),
            _ => None,
        }
    }

    fn single(&mut self, command: &Command, at: At) -> Result<(), Refusal> {
        match command {
            Command::Noop => Ok(()),
            Command::InitSwarm { swarm, node } => self.init_swarm(swarm, node, at),
            Command::UpdateSwarm { version, spec, unlock_key } => {
                self.update_swarm(*version, spec, unlock_key.as_ref(), at)
            }
            Command::RotateToken { version, role, secret } => self.rotate_token(*version, *role, secret, at),
            Command::RaiseFeatureLevel { to } => self.raise_feature_level(*to, at),

            Command::AdmitNode { node } => self.admit_node(node, at),
            Command::UpdateNode { id, version, spec } => self.update_node(*id, *version, spec, at),
            Command::RemoveNode { id, force } => self.remove_node(*id, *force, at),

            Command::CreateService { id, spec, credentials } => {
                self.create_service(*id, spec, credentials.as_ref(), at)
            }
            Command::UpdateService { id, version, spec, credentials } => {
                self.update_service(*id, *version, spec, credentials, at)
            }
            Command::RollbackService { id, version } => self.rollback_service(*id, *version, at),
            Command::RemoveService { id } => self.remove_service(*id, at),
            Command::RunService { id } => self.run_service(*id, at),

            Command::CreateNetwork { id, spec } => self.create_network(*id, spec, at),
            Command::RemoveNetwork { id } => self.remove_network(*id),
            Command::CreateSecret { id, spec } => self.create_secret(*id, spec, at),
            Command::UpdateSecret { id, version, spec } => self.update_secret(*id, *version, spec, at),
            Command::RemoveSecret { id } => self.remove_secret(*id),
            Command::CreateConfig { id, spec } => self.create_config(*id, spec, at),
            Command::UpdateConfig { id, version, spec } => self.update_config(*id, *version, spec, at),
            Command::RemoveConfig { id } => self.remove_config(*id),
            Command::ReplaceData { id, version, new } => self.replace_data(*id, *version, new, at),

            Command::Transaction(_) | Command::Plan(_) => unreachable!("the callers take these apart"),
        }
    }

    /// Applies one change of the leader's loops outside the log, as a [`Draft`](super::Draft) does: what it touches gets
    /// the version after [`applied`](State::applied). A refusal leaves the state as it was.
    pub fn apply_change(&mut self, change: &Change, at: UnixMs) -> Result<(), Refusal> {
        self.change(change, At { version: Version(self.applied + 1), time: at })
    }

    fn change(&mut self, change: &Change, at: At) -> Result<(), Refusal> {
        match change {
            Change::CreateTask(new) => self.create_task(new, at),
            Change::Assign(placed) => self.assign(placed, at),
            Change::SetDesired { task, desired } => self.set_desired(*task, *desired, at),
            Change::Finish { task, outcome, replacement } => self.finish(*task, outcome, replacement.as_deref(), at),
            Change::ForgetTask { task } => self.forget(*task),
            Change::SetPendingReason { task, reason } => self.set_pending_reason(*task, reason, at),

            Change::SetUpdateStatus { service, status } => self.set_update_status(*service, status.as_ref(), at),
            Change::ReleaseService { service } => self.release_service(*service, at),
            Change::SetNextRun { service, next } => self.set_next_run(*service, *next),
            Change::BeginRun { service, point, next } => self.begin_due_run(*service, *point, *next, at),
            Change::PassRuns { service, until, count, why, next } => {
                self.pass_runs(*service, *until, (*count, *why), *next)
            }
            Change::EndRun { service, iteration, outcome } => self.end_run(*service, *iteration, *outcome, at),
            Change::AutoRollback { service, message } => self.auto_rollback(*service, message, at),
            Change::SetServicePorts { service, ports } => self.set_service_ports(*service, ports, at),
            Change::SetServiceVips { service, vips } => self.set_service_vips(*service, vips, at),
            Change::SetNetworkSubnets { network, subnets } => self.set_network_subnets(*network, subnets, at),
            Change::ScaleService { service, replicas } => self.scale_service(*service, *replicas, at),

            Change::SetNodeHealth { node, health, flaps } => self.set_node_health(*node, *health, *flaps, at),
            Change::DescribeNode { node, description } => self.describe_node(*node, description, at),
            Change::SetRaft { node, raft } => self.set_raft(*node, *raft, at),
        }
    }

    /// The version of an object, `None` if there is none.
    pub fn version_of(&self, id: ObjectId) -> Option<Version> {
        let meta = match id {
            ObjectId::Swarm => self.swarm.as_ref().map(|o| o.meta),
            ObjectId::Node(id) => self.nodes.get(&id).map(|o| o.meta),
            ObjectId::Service(id) => self.services.get(&id).map(|o| o.meta),
            ObjectId::Task(id) => self.tasks.get(&id).map(|o| o.meta),
            ObjectId::Network(id) => self.networks.get(&id).map(|o| o.meta),
            ObjectId::Secret(id) => self.secrets.get(&id).map(|o| o.meta),
            ObjectId::Config(id) => self.configs.get(&id).map(|o| o.meta),
        };
        meta.map(|meta| meta.version)
    }
}

impl Change {
    /// The objects a change names, whose versions guard it.
    pub fn subjects(&self) -> Vec<ObjectId> {
        match self {
            Change::CreateTask(new) => new.subjects(),
            Change::Assign(placed) => vec![ObjectId::Task(placed.task), ObjectId::Node(placed.node)],
            Change::Finish { task, replacement, .. } => {
                let replacement = replacement.iter().flat_map(|new| new.subjects());
                std::iter::once(ObjectId::Task(*task)).chain(replacement).collect()
            }
            Change::SetNextRun { service, .. }
            | Change::BeginRun { service, .. }
            | Change::PassRuns { service, .. }
            | Change::EndRun { service, .. } => vec![ObjectId::Service(*service)],
            _ => self.created_or_changed(),
        }
    }

    /// The objects whose version a change raises.
    pub fn created_or_changed(&self) -> Vec<ObjectId> {
        match self {
            Change::CreateTask(new) => vec![ObjectId::Task(new.id)],
            Change::Assign(placed) => vec![ObjectId::Task(placed.task)],
            Change::Finish { task, replacement, .. } => {
                let replacement = replacement.iter().map(|new| ObjectId::Task(new.id));
                std::iter::once(ObjectId::Task(*task)).chain(replacement).collect()
            }
            Change::SetDesired { task, .. } | Change::ForgetTask { task } | Change::SetPendingReason { task, .. } => {
                vec![ObjectId::Task(*task)]
            }
            Change::SetUpdateStatus { service, .. }
            | Change::ReleaseService { service }
            | Change::AutoRollback { service, .. }
            | Change::SetServicePorts { service, .. }
            | Change::SetServiceVips { service, .. }
            | Change::ScaleService { service, .. } => vec![ObjectId::Service(*service)],
            // Runs are no change of their service: see `CronStatus`.
            Change::SetNextRun { .. } | Change::BeginRun { .. } | Change::PassRuns { .. } | Change::EndRun { .. } => {
                Vec::new()
            }
            Change::SetNetworkSubnets { network, .. } => vec![ObjectId::Network(*network)],
            Change::SetNodeHealth { node, .. } | Change::DescribeNode { node, .. } | Change::SetRaft { node, .. } => {
                vec![ObjectId::Node(*node)]
            }
        }
    }
}

impl NewTask {
    /// The task itself does not exist yet, so it has no version to guard.
    fn subjects(&self) -> Vec<ObjectId> {
        std::iter::once(ObjectId::Service(self.service)).chain(self.node.map(ObjectId::Node)).collect()
    }
}

impl At {
    fn created(self) -> super::Meta {
        super::Meta { version: self.version, created_at: self.time, updated_at: self.time }
    }

    fn changed(self, meta: &mut super::Meta) {
        meta.version = self.version;
        meta.updated_at = self.time;
    }
}

fn not_found(kind: &str, id: impl std::fmt::Display) -> Refusal {
    Refusal::NotFound(format!("{kind} {id} not found"))
}

/// What is wrong with a spec is for its writer to read.
impl From<InvalidSpec> for Refusal {
    fn from(invalid: InvalidSpec) -> Refusal {
        Refusal::Invalid(invalid.to_string())
    }
}

fn check_version(is: Version, given: Version) -> Result<(), Refusal> {
    if is == given { Ok(()) } else { Err(Refusal::OutOfSequence) }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
