//! What each node has left, counted once a tick from the state and the gossip table, and kept up as tasks are placed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::generic::Left;
use super::reason::{Reason, Tally};
use super::score::{self, FAILURE_WINDOW, OnNode, Rank};
use crate::gossip::{Load, NodeRecord, Table};
use crate::spec::{
    Availability, NodeId, Platform, Protocol, PublishMode, ResourceReservations, ServiceId, TaskState, UnixMs, Version,
};
use crate::state::{Node, NodeHealth, State, Task};

/// Sums of reservations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reserved {
    pub nano_cpus: u64,
    pub memory_bytes: u64,
}

pub(super) struct NodeInfo {
    pub node: Arc<Node>,
    pub record: Option<Arc<NodeRecord>>,
    /// Normalised.
    pub platform: Platform,
    /// Why it takes no task at all.
    pub unready: Option<Reason>,
    pub reserved: Reserved,
    pub generic: Left,
    pub ports: BTreeSet<(Protocol, u16)>,
    /// Tasks that hold something here, of all services.
    pub tasks: u32,
    /// Those of them that do not run yet, as far as is known.
    pub starting: u32,
    /// The least [load](score::load) of all nodes, as the tick found it.
    pub idlest: u64,
    /// Drawn anew each tick, to choose among equals.
    pub lot: u32,
}

/// All nodes of the swarm, in order of id.
pub(super) struct Nodes {
    pub infos: Vec<NodeInfo>,
    /// Those that take tasks, the least busy first.
    pub order: BTreeSet<Rank>,
    /// Those that take none.
    pub unready: Tally,
    /// Tasks that are, or failed, on a node, of the services that wait.
    seen: BTreeMap<ServiceId, Vec<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    index: usize,
    starting: bool,
    failed: Option<(Version, UnixMs)>,
}

impl NodeInfo {
    fn new(node: &Arc<Node>, table: &Table, lot: u32) -> NodeInfo {
        let record = table.get(node.id).map(|held| Arc::clone(&held.record));
        NodeInfo {
            unready: unready(node, record.as_deref(), table),
            generic: Left::of(&node.description.resources.generic),
            platform: node.description.platform.normalized(),
            node: Arc::clone(node),
            record,
            reserved: Reserved::default(),
            ports: BTreeSet::new(),
            tasks: 0,
            starting: 0,
            idlest: 0,
            lot,
        }
    }

    pub fn load(&self) -> Load {
        self.record.as_ref().map(|record| record.load).unwrap_or_default()
    }

    /// Counts what an assigned task holds here.
    pub fn hold(&mut self, task: &Task, reservations: &ResourceReservations) {
        self.reserved.nano_cpus = self.reserved.nano_cpus.saturating_add(reservations.nano_cpus);
        self.reserved.memory_bytes = self.reserved.memory_bytes.saturating_add(reservations.memory_bytes);
        self.generic.hold(&task.generic);
        let host = task.host_ports.iter().filter(|port| port.mode == PublishMode::Host);
        self.ports.extend(host.map(|port| (port.protocol, port.published)));
        self.tasks += 1;
        self.starting += u32::from(self.is_starting(task));
    }

    /// Whether an assigned task does not run yet, as far as is known.
    fn is_starting(&self, task: &Task) -> bool {
        let report = self.record.as_ref().and_then(|record| record.tasks.get(&task.id));
        report.is_none_or(|report| report.state < TaskState::Running)
    }
}

impl Nodes {
    /// `waiting`: the services that have a task to place.
    pub fn build(state: &State, table: &Table, waiting: impl Iterator<Item = ServiceId>, rng: &mut impl Rng) -> Nodes {
        let mut nodes = Nodes {
            infos: state.nodes().map(|node| NodeInfo::new(node, table, rng.random())).collect(),
            order: BTreeSet::new(),
            unready: Tally::default(),
            seen: waiting.map(|service| (service, Vec::new())).collect(),
        };
        nodes.count_tasks(state);
        let ready = nodes.infos.iter().filter(|info| info.unready.is_none());
        let idlest = ready.map(score::load).min().unwrap_or(0);
        nodes.infos.iter_mut().for_each(|info| info.idlest = idlest);
        for (index, info) in nodes.infos.iter().enumerate() {
            match info.unready {
                Some(reason) => nodes.unready.count(reason),
                None => drop(nodes.order.insert(Rank::of(info, index))),
            }
        }
        nodes
    }

    /// One pass over all tasks: looking them up by node or by service would cost several times as much.
    fn count_tasks(&mut self, state: &State) {
        let mut specs = RecentSpecs::default();
        for task in state.tasks() {
            let Some(index) = task.node.and_then(|node| self.index_of(node)) else { continue };
            self.saw(task, index);
            // A global task bound to a node but not yet assigned holds nothing there.
            if task.assigned_at.is_some() && task.holds_resources() {
                let reservations = specs.reservations(state, (task.service, task.spec_version));
                self.infos[index].hold(task, reservations);
            }
        }
    }

    /// Remembers that a node has, or had, a task of a service that waits.
    pub fn saw(&mut self, task: &Task, index: usize) {
        let Some(seen) = self.seen.get_mut(&task.service) else { return };
        if task.is_live() && task.assigned_at.is_some() {
            seen.push(Seen { index, starting: self.infos[index].is_starting(task), failed: None });
        } else if let (true, Some(at)) = (has_failed(task), task.finished_at) {
            seen.push(Seen { index, starting: false, failed: Some((task.spec_version, at)) });
        }
    }

    /// What each node has of the service, and where this spec of it failed of late.
    pub fn on_node(&self, (service, spec_version): (ServiceId, Version), now: UnixMs) -> Vec<OnNode> {
        let mut on_node = vec![OnNode::default(); self.infos.len()];
        for seen in self.seen.get(&service).into_iter().flatten() {
            match seen.failed {
                None => {
                    on_node[seen.index].tasks += 1;
                    on_node[seen.index].starting += u32::from(seen.starting);
                }
                Some((version, at)) if version == spec_version && now - at <= FAILURE_WINDOW => {
                    on_node[seen.index].failures += 1;
                }
                Some(_) => {}
            }
        }
        on_node
    }

    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.infos.binary_search_by_key(&node, |info| info.node.id).ok()
    }

    /// Puts a node in its place again after `before`, its rank, has changed.
    pub fn rank_again(&mut self, before: Rank) {
        if self.order.remove(&before) {
            self.order.insert(Rank::of(&self.infos[before.index], before.index));
        }
    }
}

fn has_failed(task: &Task) -> bool {
    task.outcome.as_ref().is_some_and(|outcome| matches!(outcome.state, TaskState::Failed | TaskState::Rejected))
}

/// The first two filters, the same for every task: is the node there, and does its operator let it take tasks?
fn unready(node: &Node, record: Option<&NodeRecord>, table: &Table) -> Option<Reason> {
    let health = match node.health {
        NodeHealth::Left { .. } => Some(Reason::Left),
        NodeHealth::Down { .. } => Some(Reason::Down),
        NodeHealth::HeldDown { .. } => Some(Reason::HeldDown),
        NodeHealth::Unknown => Some(Reason::NotHeard),
        NodeHealth::Up => None,
    };
    let seen = || match record {
        None => Some(Reason::NotHeard),
        Some(record) if record.leaving => Some(Reason::Leaving),
        Some(_) => table.is_suspect(node.id).then_some(Reason::Suspect),
    };
    let availability = || match node.spec.availability {
        Availability::Drain => Some(Reason::Drained),
        Availability::Pause => Some(Reason::Paused),
        Availability::Active => None,
    };
    health.or_else(seen).or_else(availability)
}

/// Reservations of the last few specs asked for: tasks of a service tend to come together, and a lookup for each of a
/// hundred thousand tasks is most of the cost of a tick.
#[derive(Default)]
struct RecentSpecs(VecDeque<((ServiceId, Version), ResourceReservations)>);

const RECENT_SPECS: usize = 8;

impl RecentSpecs {
    fn reservations(&mut self, state: &State, key: (ServiceId, Version)) -> &ResourceReservations {
        let at = self.0.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            let spec = state.task_spec(key.0, key.1);
            self.0.truncate(RECENT_SPECS - 1);
            self.0.push_front((key, spec.map(|spec| spec.resources.reservations.clone()).unwrap_or_default()));
            0
        });
        &self.0[at].1
    }
}
