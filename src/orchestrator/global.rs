//! Global services: a task on every node that fits, and on no other. A node that is down or held back gets its task when
//! it is well again; one that is paused keeps what it has.

use super::Tick;
use super::slots::{Fleet, SlotTasks};
use crate::spec::Slot;
use crate::state::Node;

pub(super) fn plan(tick: &mut Tick<'_>, fleet: &Fleet<'_>) {
    on_each_node(tick, fleet, |tick, node, slot| {
        let Some(slot) = slot else {
            let birth = fleet.birth(None, tick);
            tick.create(fleet, Slot::Node(node.id), birth);
            return;
        };
        let last = slot.last_ended();
        if !last.is_some_and(|last| fleet.is_left_empty(last)) {
            let birth = fleet.birth(last, tick);
            tick.create(fleet, slot.slot(), birth);
        }
    });
}

/// Clears the slots of nodes that are gone or no longer fit, and calls `vacant` for each node that may get a task and has
/// none that is live, with what its slot holds.
pub(super) fn on_each_node(
    tick: &mut Tick<'_>,
    fleet: &Fleet<'_>,
    mut vacant: impl FnMut(&mut Tick<'_>, &Node, Option<&SlotTasks<'_>>),
) {
    // Both are in the order of node ids.
    let mut slots = fleet.slots().peekable();
    for node in fleet.state.nodes() {
        while let Some(gone) = slots.next_if(|slot| slot.slot() < Slot::Node(node.id)) {
            tick.purge(fleet, &gone);
        }
        let slot = slots.next_if(|slot| slot.slot() == Slot::Node(node.id));
        let has_live = slot.as_ref().is_some_and(SlotTasks::has_live);
        if has_live && !fleet.eligible.may_stay(node) {
            clear(tick, fleet, node, slot.as_ref());
        } else if !has_live && fleet.eligible.may_come(node) && !tick.is_full() {
            vacant(tick, node, slot.as_ref());
        }
    }
    for gone in slots {
        tick.purge(fleet, &gone);
    }
}

fn clear(tick: &mut Tick<'_>, fleet: &Fleet<'_>, node: &Node, slot: Option<&SlotTasks<'_>>) {
    for task in slot.into_iter().flat_map(SlotTasks::live) {
        tick.stop(&[fleet.id(), crate::state::ObjectId::Node(node.id)], task);
    }
}
