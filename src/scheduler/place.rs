//! Placing a group: the tasks bound to a node, those whose volume has a home, and the many that may go anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::candidates::Candidates;
use super::filter::{self, Demands};
use super::images::Images;
use super::nodes::{NodeInfo, Nodes};
use super::reason::{Reason, Tally};
use super::score::{FAILURE_WINDOW, OnNode, Rank};
use super::spread::Tree;
use super::{MAX_PLACEMENTS, MAX_REASONS, Waiting};
use crate::spec::{NodeField, NodeId, Now, Slot, TaskSpec, TaskState, UnixMs, VolumePolicy};
use crate::state::{Change, Draft, ObjectId, Placed, Refusal, State, Task};

/// One tick's work.
pub(super) struct Tick<'a> {
    draft: &'a mut Draft,
    nodes: Nodes,
    now: Now,
    placements_left: usize,
    reasons_left: usize,
}

/// What the tasks of a group have in common.
pub(super) struct Group<'a> {
    spec: Arc<TaskSpec>,
    demands: Demands,
    pub spread: Vec<NodeField>,
    /// By index of the node.
    pub on_node: Vec<OnNode>,
    /// Indices of the nodes that have the image, in order.
    pub holders: &'a [usize],
}

impl Group<'_> {
    pub fn has_image(&self, index: usize) -> bool {
        self.holders.binary_search(&index).is_ok()
    }

    /// The node's rank for this group, or the filter that refuses it.
    pub fn rank(&self, base: Rank, info: &NodeInfo) -> Result<Rank, Reason> {
        let on_node = self.on_node[base.index];
        self.demands.check(info, on_node)?;
        Ok(base.with(on_node, self.has_image(base.index)))
    }
}

/// Ranks of nodes as they stand in [`Nodes::order`], of those that got tasks since.
type Touched = BTreeMap<usize, Rank>;

impl<'a> Tick<'a> {
    pub fn new(draft: &'a mut Draft, nodes: Nodes, now: Now) -> Tick<'a> {
        Tick { draft, nodes, now, placements_left: MAX_PLACEMENTS, reasons_left: MAX_REASONS }
    }

    pub fn is_full(&self) -> bool {
        self.placements_left == 0
    }

    pub fn place(&mut self, waiting: Waiting, images: &Images) {
        let Some(spec) = self.draft.state().task_spec(waiting.key.0, waiting.key.1).cloned() else { return };
        let demands = match Demands::of(&spec) {
            Ok(demands) => demands,
            Err(error) => return waiting.tasks.iter().for_each(|task| self.explain(task, &error)),
        };
        let mut group = Group {
            spread: spec.placement.spread.iter().filter_map(|field| NodeField::parse(field)).collect(),
            on_node: self.on_node(&waiting),
            holders: images.holders(&spec.container.image),
            demands,
            spec,
        };
        let mut touched = Touched::new();
        let free: Vec<Arc<Task>> =
            waiting.tasks.into_iter().filter(|task| !self.place_tied(&mut group, task, &mut touched)).collect();
        self.rank_again(std::mem::take(&mut touched));
        if !free.is_empty() {
            self.place_free(&mut group, &free, &mut touched);
            self.rank_again(touched);
        }
    }

    fn rank_again(&mut self, touched: Touched) {
        touched.into_values().for_each(|before| self.nodes.rank_again(before));
    }

    /// What each node has of the service, and where its spec failed of late.
    fn on_node(&self, waiting: &Waiting) -> Vec<OnNode> {
        let (service, spec_version) = waiting.key;
        let mut on_node = vec![OnNode::default(); self.nodes.infos.len()];
        for task in self.draft.state().tasks_of_service(service) {
            let Some(index) = task.node.and_then(|node| self.nodes.index_of(node)) else { continue };
            if task.is_live() && task.assigned_at.is_some() {
                on_node[index].tasks += 1;
            } else if task.spec_version == spec_version && failed_lately(task, self.now.unix) {
                on_node[index].failures += 1;
            }
        }
        on_node
    }

    /// Places, or explains, a task that may go to one node alone. False: it may go anywhere.
    fn place_tied(&mut self, group: &mut Group<'_>, task: &Task, touched: &mut Touched) -> bool {
        if self.is_full() {
            return task.node.is_some();
        }
        if let Some(node) = task.node {
            if let Err(why) = self.try_node(group, task, node, touched) {
                self.explain(task, &format!("node {}: {why}", self.name(node)));
            }
            return true;
        }
        let Some((volume, home)) = homes(self.draft.state(), &group.spec, task).into_iter().next() else {
            return false;
        };
        match (self.try_node(group, task, home, touched), group.spec.volume_policy) {
            (Ok(()), _) => true,
            (Err(_), VolumePolicy::StartEmpty) => false,
            (Err(why), VolumePolicy::Wait) => {
                let name = self.name(home);
                self.explain(task, &format!("waits for node {name}, which holds the data of volume {volume} ({why})"));
                true
            }
        }
    }

    /// Places a task on this node, or says why not.
    fn try_node(&mut self, group: &mut Group<'_>, task: &Task, node: NodeId, touched: &mut Touched) -> Result<(), String> {
        let index = self.nodes.index_of(node).ok_or("no member of the swarm any more")?;
        let info = &self.nodes.infos[index];
        let base = Rank::of(info, index);
        match info.unready {
            Some(reason) => Err(group.demands.text(reason)),
            None => group.rank(base, info).map_err(|reason| group.demands.text(reason)),
        }?;
        self.assign(group, task, index).map_err(|refusal| refusal.to_string())?;
        touched.entry(index).or_insert(base);
        Ok(())
    }

    fn name(&self, node: NodeId) -> String {
        self.draft.state().node(node).map_or_else(|| node.to_string(), |node| node.name().to_owned())
    }

    /// Places tasks that may go anywhere, best node first. Once no node is left, all that remain have the same reason.
    fn place_free(&mut self, group: &mut Group<'_>, tasks: &[Arc<Task>], touched: &mut Touched) {
        // Taken out, because the walk borrows it while nodes change; ranks are put right after the group.
        let order = std::mem::take(&mut self.nodes.order);
        let mut refused = self.nodes.unready.clone();
        let mut pick = Pick::new(&order, &self.nodes.infos, group, &mut refused);
        let mut tasks = tasks.iter();
        for task in tasks.by_ref() {
            if self.is_full() {
                break;
            }
            let Some(rank) = pick.next(&self.nodes.infos, group, &mut refused) else {
                let sentence = refused.sentence(|reason| group.demands.text(reason));
                self.explain(task, &sentence);
                tasks.by_ref().for_each(|task| self.explain(task, &sentence));
                break;
            };
            let index = rank.index;
            let before = Rank::of(&self.nodes.infos[index], index);
            let placed = self.assign(group, task, index);
            match &placed {
                Ok(()) => drop(touched.entry(index).or_insert(before)),
                Err(refusal) => self.explain(task, &refusal.to_string()),
            }
            let again = group.rank(Rank::of(&self.nodes.infos[index], index), &self.nodes.infos[index]);
            pick.settle(placed.is_ok(), again.map_err(|reason| refused.count(reason)).ok());
        }
        self.nodes.order = order;
    }

    /// Gives a task to a node that passed the filters.
    fn assign(&mut self, group: &mut Group<'_>, task: &Task, index: usize) -> Result<(), Refusal> {
        let info = &self.nodes.infos[index];
        let (Some(host_ports), Some(generic)) = (
            filter::host_ports_held(&group.demands, &group.spec, info, task.id.0),
            filter::generic_held(&group.demands, info),
        ) else {
            unreachable!("the filters passed the node, and it has not changed since")
        };
        let node = info.node.id;
        let placed = Placed { task: task.id, node, host_ports, generic, attachments: Vec::new() };
        self.draft.change(&[ObjectId::Node(node)], Change::Assign(Box::new(placed)))?;
        let assigned = self.draft.state().task(task.id).expect("it was just assigned");
        self.nodes.infos[index].hold(assigned, &group.demands.reservations);
        group.on_node[index].tasks += 1;
        self.placements_left -= 1;
        Ok(())
    }

    /// Writes why a task waits, if it was not known.
    fn explain(&mut self, task: &Task, reason: &str) {
        if task.pending_reason == reason || self.reasons_left == 0 {
            return;
        }
        let change = Change::SetPendingReason { task: task.id, reason: reason.to_owned() };
        // Refused only where the task is gone or has ended in this very draft; then nobody asks for the reason.
        if self.draft.change(&[], change).is_ok() {
            self.reasons_left -= 1;
        }
    }
}

/// How the next node is found.
enum Pick<'a> {
    Walk(Candidates<'a>),
    Tree(Tree),
}

impl<'a> Pick<'a> {
    fn new(order: &'a BTreeSet<Rank>, infos: &[NodeInfo], group: &Group<'_>, refused: &mut Tally) -> Pick<'a> {
        if group.spread.is_empty() {
            Pick::Walk(Candidates::new(order, infos, group, refused))
        } else {
            Pick::Tree(Tree::new(order.iter(), infos, group, refused))
        }
    }

    fn next(&mut self, infos: &[NodeInfo], group: &Group<'_>, refused: &mut Tally) -> Option<Rank> {
        match self {
            Pick::Walk(candidates) => candidates.next(infos, group, refused),
            Pick::Tree(tree) => tree.next(),
        }
    }

    fn settle(&mut self, placed: bool, again: Option<Rank>) {
        match (self, again) {
            (Pick::Walk(candidates), Some(rank)) => candidates.again(rank),
            (Pick::Walk(_), None) => {}
            (Pick::Tree(tree), again) => tree.settle(placed, again),
        }
    }
}

/// The named local volumes of the task's slot that some node holds.
fn homes(state: &State, spec: &TaskSpec, task: &Task) -> Vec<(String, NodeId)> {
    if matches!(task.slot, Slot::Node(_)) {
        return Vec::new();
    }
    let home = |volume: &str| Some((volume.to_owned(), state.volume_home(task.service, task.slot, volume)?));
    spec.named_local_volumes().filter_map(home).collect()
}

fn failed_lately(task: &Task, now: UnixMs) -> bool {
    let failed =
        task.outcome.as_ref().is_some_and(|outcome| matches!(outcome.state, TaskState::Failed | TaskState::Rejected));
    failed && task.finished_at.is_some_and(|at| now - at <= FAILURE_WINDOW)
}
