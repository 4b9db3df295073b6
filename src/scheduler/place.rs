//! Placing a group: the tasks bound to a node, those whose volume has a home, and the many that may go anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::candidates::Candidates;
use super::conditions::Conditions;
use super::explain::Stuck;
use super::filter::{self, Asked, Demands};
use super::fit;
use super::images::Images;
use super::nodes::{NodeInfo, Nodes};
use super::reason::{Reason, Tally};
use super::score::{OnNode, Rank};
use super::spread::Tree;
use super::{MAX_PLACEMENTS, MAX_REASONS, Waiting};
use crate::spec::{NodeField, NodeId, Now, TaskSpec, VolumePolicy};
use crate::state::{Addresses, Change, Draft, ObjectId, Placed, Refusal, Task};

/// One tick's work.
pub(super) struct Tick<'a> {
    pub(super) draft: &'a mut Draft,
    pub(super) nodes: Nodes,
    pub(super) now: Now,
    addresses: &'a mut dyn Addresses,
    conditions: Conditions,
    pub(super) stuck: Vec<Stuck>,
    pub(super) placements_left: usize,
    pub(super) reasons_left: usize,
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
        self.demands.check(Asked { index: base.index, info, on_node })?;
        Ok(base.with(on_node, self.has_image(base.index)))
    }
}

/// The one node a task may go to, and why.
pub(super) struct Tie {
    pub node: NodeId,
    /// The volume whose data is there; `None`: a global service's task.
    pub volume: Option<String>,
    /// It may go elsewhere if it must.
    pub is_wish: bool,
}

/// Ranks of nodes as they stand in [`Nodes::order`], of those that got tasks since.
type Touched = BTreeMap<usize, Rank>;

impl<'a> Tick<'a> {
    pub fn new(draft: &'a mut Draft, nodes: Nodes, now: Now, addresses: &'a mut dyn Addresses) -> Tick<'a> {
        Tick {
            draft,
            nodes,
            now,
            addresses,
            conditions: Conditions::default(),
            stuck: Vec::new(),
            placements_left: MAX_PLACEMENTS,
            reasons_left: MAX_REASONS,
        }
    }

    pub fn is_full(&self) -> bool {
        self.placements_left == 0
    }

    pub fn place(&mut self, waiting: Waiting, images: &Images) {
        let Some(spec) = self.draft.state().task_spec(waiting.key.0, waiting.key.1).cloned() else { return };
        let demands = match self.demands(&spec) {
            Ok(demands) => demands,
            Err(error) => return waiting.tasks.iter().for_each(|task| self.explain(task, &error)),
        };
        let mut stuck = Stuck::new(waiting.key, Arc::clone(&spec));
        let mut group = Group {
            demands,
            spread: spec.placement.spread.iter().filter_map(|field| NodeField::parse(field)).collect(),
            on_node: self.nodes.on_node(waiting.key, self.now.unix),
            holders: images.holders(&spec.container.image),
            spec,
        };
        let mut touched = Touched::new();
        let mut free = Vec::new();
        for task in waiting.tasks {
            match self.tie(&group.spec, &task) {
                Some(tie) if self.place_tied(&mut group, &task, &tie, &mut touched) => {}
                Some(tie) if !tie.is_wish => stuck.tied.push(task),
                _ => free.push(task),
            }
        }
        self.rank_again(std::mem::take(&mut touched));
        if !free.is_empty() {
            self.place_free(&mut group, free, &mut touched, &mut stuck);
            self.rank_again(touched);
        }
        if !stuck.is_empty() {
            self.stuck.push(stuck);
        }
    }

    fn rank_again(&mut self, touched: Touched) {
        touched.into_values().for_each(|before| self.nodes.rank_again(before));
    }

    pub(super) fn demands(&mut self, spec: &TaskSpec) -> Result<Demands, String> {
        let mut demands = Demands::of(spec, &mut self.conditions, self.nodes.infos.len())?;
        demands.learn(spec, self.draft.state());
        Ok(demands)
    }

    /// The node a task is tied to, if it may not go anywhere.
    pub(super) fn tie(&self, spec: &TaskSpec, task: &Task) -> Option<Tie> {
        if let Some(node) = task.node {
            return Some(Tie { node, volume: None, is_wish: false });
        }
        let (volume, node) = fit::volume_home(self.draft.state(), spec, task)?;
        Some(Tie { node, volume: Some(volume), is_wish: spec.volume_policy == VolumePolicy::StartEmpty })
    }

    /// `false`: the node did not take it.
    fn place_tied(&mut self, group: &mut Group<'_>, task: &Task, tie: &Tie, touched: &mut Touched) -> bool {
        let Some(index) = self.nodes.index_of(tie.node) else { return false };
        let info = &self.nodes.infos[index];
        if self.is_full() || self.refuses(&group.demands, index, group.on_node[index]).is_some() {
            return false;
        }
        let before = Rank::of(info, index);
        match self.assign(group, task, index) {
            Ok(()) => drop(touched.entry(index).or_insert(before)),
            // No other node would do better.
            Err(NotAssigned::NoAddress(why)) => self.explain(task, &why),
            Err(NotAssigned::Refused(_)) => return false,
        }
        true
    }

    /// Why this node may not have a task, if it may not.
    pub(super) fn refuses(&self, demands: &Demands, index: usize, on_node: OnNode) -> Option<Reason> {
        let info = &self.nodes.infos[index];
        info.unready.or_else(|| demands.check(Asked { index, info, on_node }).err())
    }

    /// Places tasks that may go anywhere, best node first. Once no node is left, all that remain are stuck.
    fn place_free(&mut self, group: &mut Group<'_>, tasks: Vec<Arc<Task>>, touched: &mut Touched, stuck: &mut Stuck) {
        // Taken out, because the walk borrows it while nodes change; ranks are put right after the group.
        let order = std::mem::take(&mut self.nodes.order);
        let mut refused = self.nodes.unready.clone();
        let mut pick = Pick::new(&order, &self.nodes.infos, group, &mut refused);
        let mut tasks = tasks.into_iter();
        while !self.is_full() && !tasks.as_slice().is_empty() {
            let Some(rank) = pick.next(&self.nodes.infos, group, &mut refused) else {
                stuck.set_free(tasks.collect(), refused, self.placements_left);
                break;
            };
            let index = rank.index;
            let before = Rank::of(&self.nodes.infos[index], index);
            let task = tasks.next().expect("some are left");
            let placed = self.assign(group, &task, index);
            match &placed {
                Ok(()) => drop(touched.entry(index).or_insert(before)),
                Err(NotAssigned::NoAddress(why)) => self.explain(&task, why),
                Err(NotAssigned::Refused(refusal)) => self.explain(&task, &refusal.to_string()),
            }
            let again = group.rank(Rank::of(&self.nodes.infos[index], index), &self.nodes.infos[index]);
            pick.settle(placed.is_ok(), again.map_err(|reason| refused.count(reason)).ok());
        }
        self.nodes.order = order;
    }

    /// Gives a task to a node that passed the filters.
    fn assign(&mut self, group: &mut Group<'_>, task: &Task, index: usize) -> Result<(), NotAssigned> {
        let info = &self.nodes.infos[index];
        let (Some(host_ports), Some(generic)) = (
            filter::host_ports_held(&group.demands, &group.spec, info, task.id.0),
            filter::generic_held(&group.demands, info),
        ) else {
            unreachable!("the filters passed the node, and it has not changed since")
        };
        let node = info.node.id;
        let attachments = self.addresses.attach(self.draft, task.id, &group.spec).map_err(NotAssigned::NoAddress)?;
        let placed = Placed { task: task.id, node, host_ports, generic, attachments };
        let assigned = self.draft.change(&[ObjectId::Node(node)], Change::Assign(Box::new(placed)));
        assigned.map_err(NotAssigned::Refused)?;
        let assigned = self.draft.state().task(task.id).expect("it was just assigned");
        self.nodes.infos[index].hold(assigned, &group.demands.reservations);
        self.nodes.saw(assigned, index);
        group.on_node[index].tasks += 1;
        group.on_node[index].starting += 1;
        self.placements_left -= 1;
        Ok(())
    }
}

/// Why a task did not get the node that was chosen for it.
enum NotAssigned {
    /// One of its networks is full, whatever the node.
    NoAddress(String),
    Refused(Refusal),
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
