//! Where tasks run. [`plan`] looks at every live task that no node was told of yet, and gives each a node or a reason.
//!
//! It is level-triggered: each tick computes everything anew from the state and the gossip table, so whatever freed a
//! place (a node back, a task ended, a label set) is found without anyone saying so. Within a tick, work is shared:
//!
//! 1. `nodes` counts once what every node has left, and ranks the nodes by how busy they are;
//! 2. tasks of one service and spec version form a group, for which `filter` compiles the demands once;
//! 3. `place` walks the nodes best first, only as far as it must (`candidates`), or down the tree of the spread
//!    preferences ([`spread`]), and takes the best that passes every filter, by the costs of `score`;
//! 4. where nothing passes, [`explain`] and `reason` add up which filter refused how many nodes.
//!
//! A task of a global service is bound to its node from the start and only passes the filters.

mod candidates;
mod conditions;
mod explain;
mod filter;
mod fit;
mod generic;
mod images;
mod nodes;
mod place;
mod reason;
mod score;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;

use crate::gossip::Table;
use crate::spec::{Now, ServiceId, Version};
use crate::state::{Addresses, Draft, State, Task};

pub use fit::{fits, volume_home};

/// Most placements in one tick; the rest follow in the next.
pub const MAX_PLACEMENTS: usize = 10_000;
/// Most pending reasons written in one tick: a reason changes with every node that comes or goes, and a thousand waiting
/// tasks must not turn each such change into a thousand entries at once.
pub const MAX_REASONS: usize = 1_000;

/// Places what can be placed, and writes why the rest cannot. `addresses` gives each task its places on networks, as part
/// of its placement.
pub fn plan(draft: &mut Draft, table: &Table, now: Now, rng: &mut impl Rng, addresses: &mut dyn Addresses) {
    let groups = waiting(draft.state());
    if groups.is_empty() {
        return;
    }
    let services = groups.iter().map(|group| group.key.0);
    let nodes = nodes::Nodes::build(draft.state(), table, services, rng);
    let images = images::Images::find(draft.state(), groups.iter().map(|group| group.key), &nodes);
    let mut tick = place::Tick::new(draft, nodes, now, addresses);
    for group in groups {
        if tick.is_full() {
            break;
        }
        tick.place(group, &images);
    }
    tick.explain_stuck();
}

/// The waiting tasks of one service and spec version: interchangeable, but for their slots' volumes.
struct Waiting {
    key: (ServiceId, Version),
    /// In slot order.
    tasks: Vec<Arc<Task>>,
}

/// Small groups first, so that one of a hundred thousand tasks does not hold up the others for several ticks.
fn waiting(state: &State) -> Vec<Waiting> {
    let mut by_spec: BTreeMap<(ServiceId, Version), Vec<Arc<Task>>> = BTreeMap::new();
    // What is held back for what it depends on is told so by the orchestrator.
    let held = |task: &Task| state.service(task.service).is_some_and(|service| service.holds_back(task.spec_version));
    for task in state.tasks().filter(|task| task.assigned_at.is_none() && task.is_live() && !held(task)) {
        by_spec.entry((task.service, task.spec_version)).or_default().push(Arc::clone(task));
    }
    let mut groups: Vec<Waiting> = by_spec.into_iter().map(|(key, tasks)| Waiting { key, tasks }).collect();
    groups.iter_mut().for_each(|group| group.tasks.sort_by_key(|task| (task.slot, task.id)));
    groups.sort_by_key(|group| (group.tasks.len(), group.key));
    groups
}
