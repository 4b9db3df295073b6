//! Which services are just as they should be, by one walk over all tasks, so that a tick in which little happens does not
//! take every service apart slot by slot. A shortcut and nothing more: a service is passed over only where no loop would
//! do anything, and whatever is not plainly calm goes through the loops.

use std::collections::{BTreeMap, BTreeSet};

use super::eligible::Eligible;
use crate::spec::*;
use crate::state::{Service, State, Task, UpdateState};

/// The services of `state` for which a loop may have something to do, in order.
pub(super) fn restless(state: &State) -> Vec<ServiceId> {
    let mut census = Census::of(state);
    let mut entries: Vec<Entry> = state.tasks().filter_map(|task| census.count(task)).collect();
    entries.sort_unstable();
    let history = state.swarm().map_or(0, |swarm| usize::try_from(swarm.spec.task_history).unwrap_or(usize::MAX));
    let mut untidy: BTreeSet<u32> = BTreeSet::new();
    for slot in entries.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let ended = slot.iter().filter(|(_, _, ended)| *ended).count();
        if ended > history || slot.len() - ended != 1 {
            untidy.insert(slot[0].0);
        }
    }
    let needs_look = |count: &&Count<'_>| untidy.contains(&count.number) || !census.is_calm(count);
    census.counts.values().filter(needs_look).map(|count| count.service.id).collect()
}

/// A task's service by number, its slot, and whether it has ended: in order, the tasks of a slot stand together.
type Entry = (u32, u128, bool);

struct Census<'s> {
    state: &'s State,
    counts: BTreeMap<ServiceId, Count<'s>>,
    /// What the nodes are to the placements that many services share.
    grounds: Vec<Ground>,
}

struct Count<'s> {
    service: &'s Service,
    number: u32,
    live: u64,
    restless: bool,
    footing: Footing,
}

/// How the nodes of a service's tasks are judged.
enum Footing {
    /// By number in [`Census::grounds`]: all nodes at once.
    Shared(usize),
    /// Each task's node for itself: a service with constraints, which few others share.
    Own(Eligible),
}

/// Nodes as one placement sees them.
struct Ground {
    /// So many may get a task.
    open: u64,
    /// Those that may not.
    closed: BTreeSet<NodeId>,
    /// Those that may not even keep one.
    barred: BTreeSet<NodeId>,
}

impl<'s> Census<'s> {
    fn of(state: &'s State) -> Census<'s> {
        let mut census = Census { state, counts: BTreeMap::new(), grounds: Vec::new() };
        let mut numbers: BTreeMap<(&[String], &[Platform]), usize> = BTreeMap::new();
        for (number, service) in (0..).zip(state.services()) {
            let placement = &service.spec.task.placement;
            let footing = if service.spec.mode.is_global() || placement.constraints.is_empty() {
                let key = (placement.constraints.as_slice(), placement.platforms.as_slice());
                Footing::Shared(*numbers.entry(key).or_insert_with(|| {
                    census.grounds.push(Ground::of(state, placement));
                    census.grounds.len() - 1
                }))
            } else {
                Footing::Own(Eligible::by(placement))
            };
            let update = service.update.as_ref().map(|update| update.state);
            let updates = matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted));
            let restless = updates || service.is_held();
            census.counts.insert(service.id, Count { service, number, live: 0, restless, footing });
        }
        census
    }

    /// Counts `task` for its service, if that still exists.
    fn count(&mut self, task: &Task) -> Option<Entry> {
        let count = self.counts.get_mut(&task.service)?;
        let ended = task.outcome.is_some();
        if ended {
            count.restless |= matches!(task.slot, Slot::Node(node) if self.state.node(node).is_none());
        } else {
            count.live += 1;
            let settled = task.desired == DesiredState::Running && task.spec_version == count.service.spec_version;
            count.restless |= !settled || !count.footing.holds(self.state, &self.grounds, task);
        }
        let slot = match task.slot {
            Slot::Replica(slot) => u128::from(slot),
            Slot::Node(node) => node.0,
        };
        Some((count.number, slot, ended))
    }

    /// As many tasks as wanted, all settled; the caller knows that each slot has one.
    fn is_calm(&self, count: &Count<'_>) -> bool {
        let wanted = match (count.service.spec.mode, &count.footing) {
            (ServiceMode::Replicated { replicas }, _) => replicas,
            (ServiceMode::Global, Footing::Shared(number)) => self.grounds[*number].open,
            // Jobs are few, and empty slots are nothing special in them.
            _ => return false,
        };
        !count.restless && count.live == wanted
    }
}

impl Footing {
    /// A live task may stay on its node; in a global service's case, could even come to it anew.
    fn holds(&self, state: &State, grounds: &[Ground], task: &Task) -> bool {
        let Some(node) = task.node else { return true };
        match (self, task.slot) {
            (Footing::Shared(number), Slot::Node(_)) => !contains(&grounds[*number].closed, node),
            (Footing::Shared(number), Slot::Replica(_)) => !contains(&grounds[*number].barred, node),
            (Footing::Own(eligible), _) => state.node(node).is_some_and(|node| eligible.may_stay(node)),
        }
    }
}

/// Most sets are empty, and the question is asked for every task.
fn contains(nodes: &BTreeSet<NodeId>, node: NodeId) -> bool {
    !nodes.is_empty() && nodes.contains(&node)
}

impl Ground {
    fn of(state: &State, placement: &Placement) -> Ground {
        let eligible = Eligible::by(placement);
        let mut ground = Ground { open: 0, closed: BTreeSet::new(), barred: BTreeSet::new() };
        for node in state.nodes() {
            if eligible.may_come(node) {
                ground.open += 1;
                continue;
            }
            ground.closed.insert(node.id);
            if !eligible.may_stay(node) {
                ground.barred.insert(node.id);
            }
        }
        ground
    }
}
