//! Spread preferences: a tree over the values of the preferred fields, level by level, as in SwarmKit. A task goes down the
//! branch that has the fewest tasks of its service, and in the last branch to the best node.
//!
//! A node that lacks the label is in the branch of the empty value. Tasks count on all nodes, those that can take no more
//! too: they are there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::nodes::NodeInfo;
use super::place::Group;
use super::reason::Tally;
use super::score::Rank;
use crate::spec::NodeField;
use crate::state::Node;

const ROOT: usize = 0;

pub(super) struct Tree {
    branches: Vec<Branch>,
    /// The branches from the root to the one that gave the last node; detached until it is settled.
    path: Vec<usize>,
}

#[derive(Default)]
struct Branch {
    by_value: BTreeMap<String, usize>,
    /// Tasks of the service below.
    tasks: u64,
    /// Branches below that have a candidate: by their tasks, then by their best node, so that no value is preferred.
    open: BTreeSet<(u64, Rank, usize)>,
    /// Candidates, in a last branch.
    found: BinaryHeap<Reverse<Rank>>,
}

impl Tree {
    /// Looks at all nodes: the branches' counts need them.
    pub fn new<'a>(
        order: impl Iterator<Item = &'a Rank>,
        infos: &[NodeInfo],
        group: &Group<'_>,
        refused: &mut Tally,
    ) -> Tree {
        let mut tree = Tree { branches: vec![Branch::default()], path: Vec::new() };
        for (index, info) in infos.iter().enumerate().filter(|(index, _)| group.on_node[*index].tasks > 0) {
            let path = tree.path_of(&info.node, &group.spread);
            path.iter().for_each(|at| tree.branches[*at].tasks += u64::from(group.on_node[index].tasks));
        }
        for base in order {
            match group.rank(*base, &infos[base.index]) {
                Ok(rank) => {
                    let path = tree.path_of(&infos[base.index].node, &group.spread);
                    let last = *path.last().expect("a path has the root");
                    tree.branches[last].found.push(Reverse(rank));
                }
                Err(reason) => refused.count(reason),
            }
        }
        // Children are made after their parents, so that backwards each is complete when its parent is told of it.
        for parent in (0..tree.branches.len()).rev() {
            let children: Vec<usize> = tree.branches[parent].by_value.values().copied().collect();
            children.into_iter().for_each(|child| tree.open(parent, child));
        }
        tree
    }

    /// Takes out the best node of the branch with the fewest tasks; [`settle`](Self::settle) must follow.
    pub fn next(&mut self) -> Option<Rank> {
        self.path.clear();
        let mut at = ROOT;
        self.path.push(at);
        while let Some((_, _, child)) = self.branches[at].open.pop_first() {
            at = child;
            self.path.push(at);
        }
        self.branches[at].found.pop().map(|Reverse(rank)| rank)
    }

    /// Says what became of the node that [`next`](Self::next) gave: whether it got a task, and its rank if it may have more.
    pub fn settle(&mut self, placed: bool, again: Option<Rank>) {
        let last = *self.path.last().expect("next() went down a path");
        self.branches[last].found.extend(again.map(Reverse));
        let path = std::mem::take(&mut self.path);
        path.iter().for_each(|at| self.branches[*at].tasks += u64::from(placed));
        for pair in path.windows(2).rev() {
            self.open(pair[0], pair[1]);
        }
    }

    fn open(&mut self, parent: usize, child: usize) {
        let branch = &self.branches[child];
        let best = branch.open.first().map(|(_, best, _)| *best).or_else(|| branch.found.peek().map(|rank| rank.0));
        if let Some(best) = best {
            let tasks = branch.tasks;
            self.branches[parent].open.insert((tasks, best, child));
        }
    }

    /// The branches a node is in, from the root; made where they are new.
    fn path_of(&mut self, node: &Node, spread: &[NodeField]) -> Vec<usize> {
        let mut path = vec![ROOT];
        for field in spread {
            let value = value(node, field);
            let at = *path.last().expect("it starts with the root");
            let child = match self.branches[at].by_value.get(value) {
                Some(child) => *child,
                None => {
                    self.branches.push(Branch::default());
                    let child = self.branches.len() - 1;
                    self.branches[at].by_value.insert(value.to_owned(), child);
                    child
                }
            };
            path.push(child);
        }
        path
    }
}

/// Only labels spread; another field puts all nodes into one branch.
fn value<'a>(node: &'a Node, field: &NodeField) -> &'a str {
    let label = match field {
        NodeField::Label(name) => node.spec.labels.get(name),
        NodeField::EngineLabel(name) => node.description.engine_labels.get(name),
        _ => None,
    };
    label.map_or("", String::as_str)
}
