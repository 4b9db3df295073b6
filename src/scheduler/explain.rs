//! Why tasks wait: written at the end of a tick, when the nodes are as the next tick will find them. Written earlier, a
//! reason would be wrong as soon as a later group filled a node, and the next tick would have to write it again.

use std::sync::Arc;

use super::filter::Demands;
use super::place::Tick;
use super::reason::Tally;
use super::score::OnNode;
use crate::spec::{NodeId, ServiceId, TaskSpec, Version};
use crate::state::{Change, Task};

/// What of a group found no place.
pub(super) struct Stuck {
    key: (ServiceId, Version),
    spec: Arc<TaskSpec>,
    /// Tasks that may go to one node alone.
    pub tied: Vec<Arc<Task>>,
    free: Vec<Arc<Task>>,
    /// Why the nodes refused the free ones, and how many placements the tick had left then.
    refused: Tally,
    placements_left: usize,
}

impl Stuck {
    pub fn new(key: (ServiceId, Version), spec: Arc<TaskSpec>) -> Stuck {
        Stuck { key, spec, tied: Vec::new(), free: Vec::new(), refused: Tally::default(), placements_left: 0 }
    }

    pub fn set_free(&mut self, tasks: Vec<Arc<Task>>, refused: Tally, placements_left: usize) {
        self.free = tasks;
        self.refused = refused;
        self.placements_left = placements_left;
    }

    pub fn is_empty(&self) -> bool {
        self.tied.is_empty() && self.free.is_empty()
    }
}

impl Tick<'_> {
    /// Writes the reasons of all that is stuck, where they are not known already.
    pub fn explain_stuck(&mut self) {
        for stuck in std::mem::take(&mut self.stuck) {
            let Ok(demands) = self.demands(&stuck.spec) else { continue };
            let on_node = self.nodes.on_node(stuck.key, self.now.unix);
            for task in &stuck.tied {
                if let Some(reason) = self.tied_reason(&stuck, &demands, &on_node, task) {
                    self.explain(task, &reason);
                }
            }
            if !stuck.free.is_empty() {
                let refused = self.refusals(&stuck, &demands, &on_node);
                let sentence = refused.sentence(|reason| demands.text(reason));
                stuck.free.iter().for_each(|task| self.explain(task, &sentence));
            }
        }
    }

    /// A node that refused goes on refusing, since a tick only fills nodes, but perhaps for an earlier filter's reason.
    fn refusals(&self, stuck: &Stuck, demands: &Demands, on_node: &[OnNode]) -> Tally {
        if stuck.placements_left == self.placements_left {
            return stuck.refused.clone();
        }
        let mut tally = Tally::default();
        for (index, on_node) in on_node.iter().enumerate() {
            if let Some(reason) = self.refuses(demands, index, *on_node) {
                tally.count(reason);
            }
        }
        tally
    }

    /// `None`: nothing is wrong, the tick was full.
    fn tied_reason(&self, stuck: &Stuck, demands: &Demands, on_node: &[OnNode], task: &Task) -> Option<String> {
        let tie = self.tie(&stuck.spec, task)?;
        let why = match self.nodes.index_of(tie.node) {
            None => "no member of the swarm any more".to_owned(),
            Some(index) => {
                let refusal = self.refuses(demands, index, on_node[index]).map(|reason| demands.text(reason));
                refusal.or_else(|| self.volume_elsewhere(stuck, task, tie.node))?
            }
        };
        let node = self.name(tie.node);
        Some(match tie.volume {
            Some(volume) => format!("waits for node {node}, which holds the data of volume {volume} ({why})"),
            None => format!("node {node}: {why}"),
        })
    }

    /// One of several volumes, on another node than the first.
    fn volume_elsewhere(&self, stuck: &Stuck, task: &Task, node: NodeId) -> Option<String> {
        let home = |volume: &str| self.draft.state().volume_home(task.service, task.slot, volume);
        let elsewhere = |volume: &&str| home(volume).is_some_and(|home| home != node);
        let volume = stuck.spec.named_local_volumes().find(elsewhere)?;
        Some(format!("volume {volume} is on node {}", self.name(home(volume)?)))
    }

    fn name(&self, node: NodeId) -> String {
        self.draft.state().node(node).map_or_else(|| node.to_string(), |node| node.name().to_owned())
    }

    /// Writes why a task waits, if that was not known.
    pub(super) fn explain(&mut self, task: &Task, reason: &str) {
        if task.pending_reason == reason || self.reasons_left == 0 {
            return;
        }
        let change = Change::SetPendingReason { task: task.id, reason: reason.to_owned() };
        // Refused only where the task has ended in this very draft; then nobody asks for the reason.
        if self.draft.change(&[], change).is_ok() {
            self.reasons_left -= 1;
        }
    }
}
