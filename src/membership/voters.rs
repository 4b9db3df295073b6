//! Which managers vote, which hold the log without voting, and the next safe step from the group as it is to the one
//! that is wanted. Run by the leader at each tick; it gives one step, and the next when that one is in force.
//!
//! - 1, 3, 5 or 7 voters, as many as there are live managers for; two only while there are just two managers. Up to
//!   [`MAX_LOG_HOLDERS`] managers hold the log; the others forward.
//! - A voter with a verdict is replaced by a caught-up standby at once. Without one, it is demoted after
//!   [`DEMOTE_AFTER`], where that leaves an odd number: three with one dead are not made two, which could lose no
//!   more, and would lose the help of the third when it returns. So a swarm goes on to its last two managers.
//! - A leader that is to stop voting hands over first; the only voter makes others vote before it goes.
//! - Voters are spread over zones (see [`zone_of`]) as far as there are live managers in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::spec::{NodeId, Now, UnixMs};
use crate::state::{Node, NodeHealth, RaftMember, RaftStanding, State};

pub const MAX_VOTERS: usize = 7;
pub const MAX_LOG_HOLDERS: usize = 9;
/// A dead voter that nobody can replace stays a voter for this long.
pub const DEMOTE_AFTER: Duration = Duration::from_secs(30);
/// A standby this many entries behind the commit index, or fewer, is caught up.
pub const CAUGHT_UP_ENTRIES: u64 = 128;

/// How the leader's Raft sees the log holders, by raft id.
#[derive(Debug, Clone, Default)]
pub struct RaftProgress {
    pub committed: u64,
    pub members: BTreeMap<u64, MemberProgress>,
}

#[derive(Debug, Clone, Copy)]
pub struct MemberProgress {
    pub matched: u64,
    pub recently_active: bool,
}

/// What the leader knows when it chooses.
#[derive(Debug)]
pub struct Circumstances<'a> {
    pub me: NodeId,
    pub state: &'a State,
    pub suspects: &'a BTreeSet<NodeId>,
    pub progress: &'a RaftProgress,
    /// Some that hold the log are no members any more.
    pub strangers: bool,
    pub now: Now,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoterStep {
    /// One membership change, joint where it touches more than one voter. Members not named stay as they are; whoever is
    /// no member any more loses the log with it.
    Change(Vec<(NodeId, Option<RaftMember>)>),
    /// The leader itself is to stop voting: this one, which is to vote on, must lead first.
    HandOver { to: NodeId },
}

/// The next step, or `None` when the group is as it should be, or no step is safe now.
pub fn plan(with: &Circumstances<'_>) -> Option<VoterStep> {
    let managers: Vec<Manager<'_>> = with.state.nodes().filter_map(|node| Manager::of(node, with)).collect();
    let step = Group { managers }.next_step(with.me, with.state.next_raft_id());
    // Any change takes the log from those that are no members, so one that names nobody does.
    step.or_else(|| with.strangers.then(|| VoterStep::Change(Vec::new())))
}

/// A node's zone: its label `zone`, else `topology.zone`, else the same labels of its daemon's configuration. Nodes
/// without one share a zone.
pub fn zone_of(node: &Node) -> &str {
    let labels = [&node.spec.labels, &node.description.engine_labels];
    let named = labels.iter().flat_map(|labels| ["zone", "topology.zone"].map(|key| labels.get(key)));
    named.flatten().next().map_or("", String::as_str)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Fit to be promoted if its log is.
    Sound,
    /// Keeps what it has, gets nothing more: suspect, or held down after a return.
    Doubtful,
    Dead,
    /// Dead for [`DEMOTE_AFTER`].
    LongDead,
    /// No manager any more, or it has left: must not hold the log.
    Gone,
}

/// A manager, or whoever holds the log.
#[derive(Debug, Clone, Copy)]
struct Manager<'a> {
    node: NodeId,
    zone: &'a str,
    raft: Option<RaftMember>,
    condition: Condition,
    /// Heard by Raft within an election timeout.
    active: bool,
    caught_up: bool,
}

impl<'a> Manager<'a> {
    fn of(node: &'a Node, with: &Circumstances<'_>) -> Option<Manager<'a>> {
        let condition = condition(node, with.suspects.contains(&node.id), with.now.unix);
        let wanted = condition != Condition::Gone || node.raft.is_some();
        let progress = node.raft.and_then(|raft| with.progress.members.get(&raft.raft_id));
        let behind = |progress: &MemberProgress| with.progress.committed.saturating_sub(progress.matched);
        wanted.then(|| Manager {
            node: node.id,
            zone: zone_of(node),
            raft: node.raft,
            condition,
            active: node.id == with.me || progress.is_some_and(|p| p.recently_active),
            caught_up: progress.is_some_and(|p| p.recently_active && behind(p) <= CAUGHT_UP_ENTRIES),
        })
    }

    fn is_voter(&self) -> bool {
        self.raft.is_some_and(|raft| raft.standing == RaftStanding::Voter)
    }

    fn is_standby(&self) -> bool {
        self.raft.is_some_and(|raft| raft.standing == RaftStanding::Standby)
    }

    fn is_live(&self) -> bool {
        matches!(self.condition, Condition::Sound | Condition::Doubtful)
    }

    fn is_dead(&self) -> bool {
        matches!(self.condition, Condition::Dead | Condition::LongDead)
    }

    fn is_promotable(&self) -> bool {
        self.condition == Condition::Sound && self.caught_up && self.is_standby()
    }
}

fn condition(node: &Node, suspect: bool, now: UnixMs) -> Condition {
    match node.health {
        _ if !node.is_manager() => Condition::Gone,
        NodeHealth::Left { .. } => Condition::Gone,
        // Also where the clock was set back since: it must not keep a dead voter for longer.
        NodeHealth::Down { since, .. } if now - since >= DEMOTE_AFTER || since > now + DEMOTE_AFTER => {
            Condition::LongDead
        }
        NodeHealth::Down { .. } => Condition::Dead,
        NodeHealth::HeldDown { .. } => Condition::Doubtful,
        NodeHealth::Unknown | NodeHealth::Up if suspect => Condition::Doubtful,
        NodeHealth::Unknown | NodeHealth::Up => Condition::Sound,
    }
}

#[derive(Debug)]
struct Group<'a> {
    managers: Vec<Manager<'a>>,
}

impl<'a> Group<'a> {
    fn next_step(&self, me: NodeId, next_raft_id: u64) -> Option<VoterStep> {
        let next = self.next_voters(me);
        let now: BTreeSet<NodeId> = self.managers.iter().filter(|m| m.is_voter()).map(|m| m.node).collect();
        if next != now {
            // First of all: a leader that is no manager any more hears of nothing, so nothing would become safe.
            if !next.contains(&me)
                && let Some(to) = self.heir(me)
            {
                return Some(VoterStep::HandOver { to });
            }
            if !self.is_safe(&next) {
                return None;
            }
            // With nobody to hand over to, the leader first votes on beside those that come after it.
            let next = next.into_iter().chain([me]).collect();
            return Some(VoterStep::Change(self.voter_change(&next)));
        }
        self.next_standby(next_raft_id).map(|change| VoterStep::Change(vec![change]))
    }

    /// Not one that is to stop voting itself: it would hand back. A leader that is gone hears of nobody's life: its verdicts are
    /// old, and that Raft hears a voter counts more.
    fn heir(&self, me: NodeId) -> Option<NodeId> {
        let is_gone = self.managers.iter().any(|m| m.node == me && m.condition == Condition::Gone);
        let can_lead = |m: &&Manager<'a>| m.is_live() || (is_gone && m.is_dead());
        let heirs = self.managers.iter().filter(can_lead).filter(|m| m.node != me && m.is_voter() && m.active);
        heirs.min_by_key(|m| (m.is_dead(), !m.caught_up, m.node)).map(|m| m.node)
    }

    /// Whoever is to vote next. Equal to the present voters when there is nothing to do.
    fn next_voters(&self, me: NodeId) -> BTreeSet<NodeId> {
        let mut reserve: Vec<&Manager<'a>> = self.managers.iter().filter(|m| m.is_promotable()).collect();
        let (kept, lost): (Vec<_>, Vec<_>) = self.managers.iter().filter(|m| m.is_voter()).partition(|m| m.is_live());
        let mut live = kept;
        // Those that are dead or gone are replaced at once, one for one.
        let mut unreplaced: Vec<&Manager<'a>> = Vec::new();
        for one in lost {
            match take_for_spread(&mut reserve, &live) {
                Some(substitute) => live.push(substitute),
                None => unreplaced.push(one),
            }
        }
        if live.is_empty() {
            // All go who voted: a standby that is held back is better than nobody.
            let mut doubtful = self.managers.iter().filter(|m| m.is_standby() && m.is_live() && m.caught_up).collect();
            live.extend(take_for_spread(&mut doubtful, &live));
        }
        unreplaced.retain(|m| m.is_dead());
        let managers = self.managers.iter().filter(|m| m.condition != Condition::Gone).count();
        let waits = unreplaced.iter().any(|m| m.condition == Condition::Dead);
        match wanted_voters(live.len() + reserve.len(), managers) {
            Some(wanted) if !waits => {
                self.resize(&mut live, &mut reserve, wanted, me);
                ids(&live)
            }
            _ => ids(&live).union(&ids(&unreplaced)).copied().collect(),
        }
    }

    /// Grows or shrinks the live voters to `wanted`; where the number is right, makes one exchange that spreads them
    /// better over the zones.
    fn resize<'m>(
        &'m self,
        live: &mut Vec<&'m Manager<'a>>,
        reserve: &mut Vec<&'m Manager<'a>>,
        wanted: usize,
        me: NodeId,
    ) {
        let grown = live.len() < wanted;
        while live.len() < wanted {
            let Some(next) = take_for_spread(reserve, live) else { return };
            live.push(next);
        }
        let shrunk = live.len() > wanted;
        while live.len() > wanted {
            let crowd = |zone: &str| live.iter().filter(|m| m.zone == zone).count();
            let key = |m: &&Manager<'a>| (m.condition == Condition::Doubtful, crowd(m.zone), m.node);
            let out = live.iter().filter(|m| m.node != me).max_by_key(|m| key(m)).map(|m| m.node);
            live.retain(|m| Some(m.node) != out);
        }
        if grown || shrunk {
            return;
        }
        let crowding = |voters: &[&Manager<'a>]| -> usize {
            let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
            voters.iter().for_each(|m| *zones.entry(m.zone).or_default() += 1);
            zones.values().map(|count| count * count).sum()
        };
        let before = crowding(live);
        for at in (0..live.len()).filter(|at| live[*at].node != me) {
            for substitute in reserve.iter() {
                let mut exchanged = live.clone();
                exchanged[at] = substitute;
                if crowding(&exchanged) < before {
                    *live = exchanged;
                    return;
                }
            }
        }
    }

    /// The new voters could decide: more than half of them live, and are heard. One that is only suspected may be gone.
    fn is_safe(&self, voters: &BTreeSet<NodeId>) -> bool {
        let live = self.managers.iter().filter(|m| voters.contains(&m.node) && m.is_live() && m.active).count();
        live * 2 > voters.len()
    }

    /// Whoever is to vote no more keeps the log as a standby at first: until the joint change is over, the old voters decide
    /// too, and one that dropped its log at the change's start would be missed.
    fn voter_change(&self, next: &BTreeSet<NodeId>) -> Vec<(NodeId, Option<RaftMember>)> {
        let changed = self.managers.iter().filter(|m| m.is_voter() != next.contains(&m.node));
        changed
            .map(|m| {
                let standing = if m.is_voter() { RaftStanding::Standby } else { RaftStanding::Voter };
                (m.node, m.raft.map(|raft| RaftMember { standing, ..raft }))
            })
            .collect()
    }

    /// A standby to add or to take away, once the voters are as they should be.
    fn next_standby(&self, next_raft_id: u64) -> Option<(NodeId, Option<RaftMember>)> {
        let standbys = self.managers.iter().filter(|m| m.raft.is_some() && !m.is_voter());
        if let Some(gone) = standbys.clone().find(|m| m.condition == Condition::Gone) {
            return Some((gone.node, None));
        }
        let holders: Vec<&Manager<'a>> = self.managers.iter().filter(|m| m.raft.is_some()).collect();
        let crowd = |zone: &str| holders.iter().filter(|m| m.zone == zone).count();
        let without = self.managers.iter().filter(|m| m.raft.is_none() && m.condition == Condition::Sound);
        let next = without.min_by_key(|m| (crowd(m.zone), m.node))?;
        if holders.len() < MAX_LOG_HOLDERS {
            return Some((next.node, Some(RaftMember { raft_id: next_raft_id, standing: RaftStanding::Standby })));
        }
        standbys.clone().find(|m| m.condition == Condition::LongDead).map(|dead| (dead.node, None))
    }
}

/// How many of `eligible` (live voters and caught-up standbys) should vote; `None`: leave the number as it is.
fn wanted_voters(eligible: usize, managers: usize) -> Option<usize> {
    match eligible {
        0 => None,
        1 => Some(1),
        2 if managers == 2 => Some(2),
        2 => None,
        // The next odd number below.
        more => Some(((more - 1) | 1).min(MAX_VOTERS)),
    }
}

/// Takes from `reserve` the one in the zone that has fewest of `voters`.
fn take_for_spread<'m, 'a>(reserve: &mut Vec<&'m Manager<'a>>, voters: &[&'m Manager<'a>]) -> Option<&'m Manager<'a>> {
    let crowd = |zone: &str| voters.iter().filter(|m| m.zone == zone).count();
    let at = (0..reserve.len()).min_by_key(|at| (crowd(reserve[*at].zone), reserve[*at].node))?;
    Some(reserve.remove(at))
}

fn ids(managers: &[&Manager<'_>]) -> BTreeSet<NodeId> {
    managers.iter().map(|m| m.node).collect()
}

#[cfg(test)]
mod tests;
