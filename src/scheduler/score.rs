//! How good a node is for a task: a cost in thousandths of a task, the lowest wins.
//!
//! | what the node has | cost |
//! |---|---|
//! | each task of the same service | [`TASK`] |
//! | load, see below: a resource wholly in use, or waited for all the time | [`FULL_LOAD`] |
//! | each task of another service that is assigned but does not run yet | [`STARTING`] |
//! | the image is missing | [`NO_IMAGE`] |
//!
//! So a service spreads evenly over nodes that are alike, and a busy node gets fewer: one with all its CPUs (or all its
//! memory) in use counts as if it had three more tasks of the service than an idle one, one where others wait for them all
//! the time besides, as if it had seven. The offset is bounded, so a large service still reaches every node.
//!
//! Load is the use of CPU and of memory, each the larger of what is reserved and what the node measures, plus the share of
//! time in which something waited for it (PSI). The scarcer of the two counts whole, because that is where a task would
//! suffer; the other one, and waiting for io, a quarter. What a node has more than the idlest one counts beyond [`ALIKE`]
//! alone: measurements differ between twins too, and whoever runs thirty replicas on three idle nodes expects ten on each.
//! Starting tasks count because what they will use is not measured yet: without them, the idlest node would get everything
//! that is placed before its next record. Those of the service itself are counted as its tasks already.
//!
//! Between nodes whose load differs by less than a quarter of a resource, and that start nothing else, a service is even to
//! within one task: the terms that then differ stay below [`TASK`]. Load alone moves a task where it differs by more than
//! half of a resource. Equal costs are told apart by the number of tasks on the node, then by a lot drawn anew each tick.
//!
//! Before all that: a node on which the same spec has failed [`FAILURES_TO_AVOID`] times within [`FAILURE_WINDOW`] comes
//! after all others, as in SwarmKit, so that a task does not fail forever where something of the node's own is broken.

use std::time::Duration;

use super::nodes::NodeInfo;

pub(super) const TASK: u64 = 1_000;
pub(super) const FULL_LOAD: u64 = 4 * TASK;
/// A quarter of a resource.
pub(super) const ALIKE: u64 = FULL_LOAD / 4;
pub(super) const STARTING: u64 = TASK / 4;
pub(super) const NO_IMAGE: u64 = TASK / 2;
pub(super) const FAILURES_TO_AVOID: u32 = 3;
pub(super) const FAILURE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Load is counted in thousandths: of a resource that is wholly in use, of time that something waited all through.
const WHOLE: u64 = 1_000;

/// A node's place in the order of preference, the least first. Total, so that the order is the same in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub avoided: bool,
    pub cost: u64,
    /// Tasks of all services on the node.
    pub tasks: u32,
    pub lot: u32,
    /// Which node, in [`Nodes`](super::nodes::Nodes).
    pub index: usize,
}

/// What a node has of the group's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct OnNode {
    pub tasks: u32,
    /// Those of them that do not run yet.
    pub starting: u32,
    /// Of the same spec, recently.
    pub failures: u32,
}

impl Rank {
    /// Of the node alone, whatever the task: no node is better than this for any.
    pub fn of(info: &NodeInfo, index: usize) -> Rank {
        let apart = load(info).saturating_sub(info.idlest + ALIKE);
        let cost = apart + u64::from(info.starting) * STARTING;
        Rank { avoided: false, cost, tasks: info.tasks, lot: info.lot, index }
    }

    /// With what the node has of a service.
    pub fn with(self, on_node: OnNode, has_image: bool) -> Rank {
        let image = if has_image { 0 } else { NO_IMAGE };
        let counted_twice = u64::from(on_node.starting) * STARTING;
        let cost = self.cost + u64::from(on_node.tasks) * TASK + image - counted_twice;
        Rank { avoided: on_node.failures >= FAILURES_TO_AVOID, cost, ..self }
    }
}

/// What the node's load would cost a task, were it not compared.
pub(super) fn load(info: &NodeInfo) -> u64 {
    let load = info.load();
    let has = &info.node.description.resources;
    let cpu = busy(info.reserved.nano_cpus.max(load.used_nano_cpus), has.nano_cpus, load.cpu_pressure);
    let memory = busy(info.reserved.memory_bytes.max(load.used_memory_bytes), has.memory_bytes, load.memory_pressure);
    let both = cpu.max(memory) + cpu.min(memory) / 4;
    (both + thousandths(load.io_pressure) / 4) * FULL_LOAD / WHOLE
}

fn busy(used: u64, has: u64, pressure: f32) -> u64 {
    let share = match has {
        0 => 0,
        _ => u64::try_from(u128::from(used.min(has)) * u128::from(WHOLE) / u128::from(has)).unwrap_or(WHOLE),
    };
    share + thousandths(pressure)
}

/// Of a percentage. A record may hold any number, not-a-number too, which counts as none.
fn thousandths(percent: f32) -> u64 {
    (percent.clamp(0.0, 100.0) * 10.0) as u64
}
