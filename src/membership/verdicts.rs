//! The leader's word on each node's health: cuts become verdicts, first records make members up, returns are held down.
//!
//! A verdict is final for the tasks of the incarnation it names: they are orphaned and replaced, whatever becomes of the
//! node. So it is passed on the observers' word alone, never because this leader has heard nothing, and not at all
//! for [`MASS_FAILURE_PAUSE`] when more than half of the swarm would be down: that is likelier a fault of the network or
//! of this detector than so many deaths.

use std::fmt;
use std::time::Duration;

use super::cut::{Condemned, CutDetector};
use crate::gossip::{Held, Table};
use crate::spec::{MonoMs, NodeId, Now, UnixMs};
use crate::state::{Change, Draft, Node, NodeHealth, Refusal, State};

/// Nothing is replaced for this long when more than half of the nodes would be down.
pub const MASS_FAILURE_PAUSE: Duration = Duration::from_secs(30);
/// Hold-down after the first flap; doubled with each further one.
pub const HOLD_DOWN: Duration = Duration::from_secs(10);
pub const MAX_HOLD_DOWN: Duration = Duration::from_secs(600);
/// A node that has been up for this long has its flaps forgotten.
pub const FLAPS_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// What the leader remembers between two ticks.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Since when more than half of the nodes are or would be down. They are given one pause, not one for each cut.
    mass_failure_since: Option<MonoMs>,
}

/// What a tick decided, for the log that people read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decided {
    pub down: Vec<Condemned>,
    pub returned: Vec<NodeId>,
    pub held_back: Option<HeldBack>,
}

/// Why verdicts are not passed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack {
    pub would_be_down: usize,
    pub of: usize,
    pub remaining: Duration,
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeldBack { would_be_down, of, remaining } = self;
        write!(
            f,
            "{would_be_down} of {of} nodes would be down, more than half: nothing is replaced for another {} s, in case \
             it is the network that failed",
            remaining.as_secs_f32().ceil()
        )
    }
}

impl Verdicts {
    /// Brings every node's health and description to what observers and records say. A step that the state refuses
    /// is computed anew at the next tick.
    pub fn plan(&mut self, draft: &mut Draft, table: &Table, detector: &CutDetector, now: Now) -> Decided {
        let mut decided = self.judge(draft.state(), detector, now.mono);
        let changes = changes(draft.state(), table, detector, &decided, now.unix);
        for change in changes {
            let returned = match &change {
                Change::SetNodeHealth { node, health: NodeHealth::HeldDown { .. }, .. } => Some(*node),
                _ => None,
            };
            let applied: Result<(), Refusal> = draft.change(&[], change);
            decided.returned.extend(returned.filter(|_| applied.is_ok()));
        }
        decided
    }

    /// The cut to be passed now, unless it takes more than half of the swarm with those already down.
    fn judge(&mut self, state: &State, detector: &CutDetector, now: MonoMs) -> Decided {
        let members = state.nodes().filter(|node| !matches!(node.health, NodeHealth::Left { .. })).count();
        let down = state.nodes().filter(|node| matches!(node.health, NodeHealth::Down { .. })).count();
        // Suspects too: a part of a mass failure is condemned before the rest.
        let would_be_down = down + detector.suspects().len();
        let pass = || Decided { down: detector.cut().cloned().collect(), ..Decided::default() };
        if would_be_down * 2 <= members {
            self.mass_failure_since = None;
            return pass();
        }
        let waited = now - *self.mass_failure_since.get_or_insert(now);
        if waited >= MASS_FAILURE_PAUSE || detector.cut().next().is_none() {
            return pass();
        }
        let held_back = HeldBack { would_be_down, of: members, remaining: MASS_FAILURE_PAUSE - waited };
        Decided { held_back: Some(held_back), ..Decided::default() }
    }
}

fn changes(state: &State, table: &Table, detector: &CutDetector, decided: &Decided, now: UnixMs) -> Vec<Change> {
    let mut changes = Vec::new();
    for node in state.nodes() {
        let held = table.get(node.id);
        let verdict = decided.down.iter().find(|condemned| condemned.node == node.id);
        let next = match verdict {
            // One that left before it was ever up has nothing but its verdict to be known by.
            Some(Condemned { incarnation, .. }) if !says_goodbye(held) || node.health == NodeHealth::Unknown => {
                Some((NodeHealth::Down { incarnation: *incarnation, since: now }, node.flaps))
            }
            _ => next_health(node, held, table, detector, now),
        };
        if let Some((health, flaps)) = next {
            changes.push(Change::SetNodeHealth { node: node.id, health, flaps });
        }
        if let Some(held) = held.filter(|held| held.record.description != node.description) {
            let description = Box::new(held.record.description.clone());
            changes.push(Change::DescribeNode { node: node.id, description });
        }
    }
    changes
}

fn says_goodbye(held: Option<&Held>) -> bool {
    held.is_some_and(|held| held.record.leaving)
}

/// The health a node's own record and the time call for, with its flaps; `None` to leave it.
fn next_health(
    node: &Node,
    held: Option<&Held>,
    table: &Table,
    detector: &CutDetector,
    now: UnixMs,
) -> Option<(NodeHealth, u32)> {
    let leaving = says_goodbye(held);
    match node.health {
        // Admitted again: its goodbye is of an earlier life.
        NodeHealth::Unknown | NodeHealth::Left { .. } if leaving => None,
        _ if leaving => Some((NodeHealth::Left { since: now }, node.flaps)),
        NodeHealth::Unknown | NodeHealth::Left { .. } => held.map(|_| (NodeHealth::Up, node.flaps)),
        NodeHealth::Down { incarnation, .. } if detector.has_returned(node, incarnation, table) => {
            let flaps = node.flaps.saturating_add(1);
            Some((NodeHealth::HeldDown { until: now + hold_down(flaps) }, flaps))
        }
        // A clock that was set back, or is another leader's, does not make a hold-down longer.
        NodeHealth::HeldDown { until } if now >= until || until > now + hold_down(node.flaps) => {
            Some((NodeHealth::Up, node.flaps))
        }
        NodeHealth::Up if node.flaps > 0 && now - node.meta.updated_at >= FLAPS_FORGOTTEN_AFTER => {
            Some((NodeHealth::Up, 0))
        }
        NodeHealth::Down { .. } | NodeHealth::HeldDown { .. } | NodeHealth::Up => None,
    }
}

/// How long a node that came back for the `flaps`th time gets no new tasks.
fn hold_down(flaps: u32) -> Duration {
    let doubled = 2u32.saturating_pow(flaps.saturating_sub(1));
    HOLD_DOWN.saturating_mul(doubled).min(MAX_HOLD_DOWN)
}

#[cfg(test)]
mod tests;
