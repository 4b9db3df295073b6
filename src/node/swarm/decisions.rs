//! What a node decides from what it knows: the leader's plan, and which log it is to hold. No clock and no IO: the loops
//! beside this file carry it out, and the simulator's loops carry out the same.

use rand::Rng;

use crate::allocator::{Allocator, Surroundings};
use crate::consensus::{MAX_ENTRY_BYTES, Status};
use crate::gossip::Table;
use crate::membership::CutDetector;
use crate::membership::verdicts::{Decided, Verdicts};
use crate::membership::voters::{MemberProgress, RaftProgress};
use crate::spec::{NodeId, Now, Subnet};
use crate::state::{Draft, RaftMember, State, Step, codec};
use crate::{orchestrator, scheduler};

/// An entry of the log holds at most this much of a plan; the rest of the limit is for what is around it.
const MAX_PLAN_BYTES: usize = MAX_ENTRY_BYTES - 4096;

/// One tick of the leader over one draft: verdicts, then tasks, then addresses and places. What comes out goes into the log entry by
/// entry.
pub fn plan(
    verdicts: &mut Verdicts,
    state: &State,
    table: &Table,
    detector: &CutDetector,
    now: Now,
    rng: &mut impl Rng,
) -> (Decided, Vec<Vec<Step>>) {
    let mut draft = Draft::new(state, now.unix);
    let decided = verdicts.plan(&mut draft, table, detector, now);
    tasks_and_places(&mut draft, table, now, rng);
    (decided, entries(draft.into_steps()))
}

/// What follows from the nodes' standing: the tasks that services need, their addresses and their nodes.
pub fn tasks_and_places(draft: &mut Draft, table: &Table, now: Now, rng: &mut impl Rng) {
    orchestrator::plan(draft, table, now, rng);
    let mut allocator = Allocator::new(table);
    allocator.plan(draft);
    scheduler::plan(draft, table, now, rng, &mut allocator);
}

impl Surroundings for Table {
    fn of(&self, node: NodeId) -> Option<Vec<Subnet>> {
        let around = &self.get(node)?.record.surroundings;
        Some(around.connected.iter().copied().chain(around.local).collect())
    }
}

/// Cuts a plan into entries; each step is valid alone.
fn entries(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut entries = Vec::new();
    let mut entry = Vec::new();
    let mut size = 0;
    for step in steps {
        let bytes = codec::encode(&step).len();
        if size + bytes > MAX_PLAN_BYTES && !entry.is_empty() {
            entries.push(std::mem::take(&mut entry));
            size = 0;
        }
        size += bytes;
        entry.push(step);
    }
    if !entry.is_empty() {
        entries.push(entry);
    }
    entries
}

/// How far the log holders are, by raft id, as voter choice wants it; `me` leads.
pub fn progress(status: &Status, me: NodeId, state: &State) -> RaftProgress {
    let raft_id = |node: &NodeId| Some(state.node(*node)?.raft?.raft_id);
    let followers = status.followers.iter().filter_map(|(node, follower)| {
        let progress = MemberProgress { matched: follower.matched, recently_active: follower.active };
        Some((raft_id(node)?, progress))
    });
    let own = raft_id(&me).map(|id| (id, MemberProgress { matched: status.last, recently_active: true }));
    RaftProgress { committed: status.commit, members: followers.chain(own).collect() }
}

/// What is to be done about the log of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogChange {
    None,
    /// An empty one under this raft id, in place of the one that is there.
    Make {
        raft_id: u64,
    },
    Drop,
}

/// `wanted` by the members as this node knows them, `held` as its disk says. `released`: its own log says that it is to
/// hold it no more, or a manager says so that has read further in it.
pub fn log_change(wanted: Option<RaftMember>, held: Option<u64>, released: bool) -> LogChange {
    match (wanted, held) {
        // Never anew for a raft id whose log this node has or had: it must not forget what it acknowledged.
        (Some(raft), held) if held.is_none_or(|held| held < raft.raft_id) => LogChange::Make { raft_id: raft.raft_id },
        (None, Some(_)) if released => LogChange::Drop,
        _ => LogChange::None,
    }
}
