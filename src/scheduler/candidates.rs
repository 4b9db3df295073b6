//! The nodes of a group from the best to the worst, looked at only as far as needed.
//!
//! After the threshold algorithm of Fagin, Lotem and Naor (PODS'01): the nodes stand in one order by what they cost any
//! task; what a node costs *this* group is never less. So the walk along that order may stop as soon as the best node
//! found is no worse than the next one could be. The answer is the one that sorting all nodes would give, but one
//! task among ten thousand equal nodes looks at one of them, and a hundred thousand tasks look at each once.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, btree_set};
use std::iter::Peekable;

use super::nodes::NodeInfo;
use super::place::Group;
use super::reason::Tally;
use super::score::{NO_IMAGE, Rank};

/// Up to so many nodes with the image are looked at before the walk, which then knows that the rest lack it.
const FEW_HOLDERS: usize = 64;

pub(super) struct Candidates<'a> {
    /// Not looked at yet, by what they cost any task.
    rest: Peekable<btree_set::Iter<'a, Rank>>,
    /// Looked at and suitable.
    found: BinaryHeap<Reverse<Rank>>,
    /// Nodes in `rest` that have the image.
    holders_left: usize,
    holders_seen: bool,
}

impl<'a> Candidates<'a> {
    pub fn new(
        order: &'a BTreeSet<Rank>,
        infos: &[NodeInfo],
        group: &Group<'_>,
        refused: &mut Tally,
    ) -> Candidates<'a> {
        let holders = group.holders.iter().filter(|index| infos[**index].unready.is_none());
        let mut candidates = Candidates {
            rest: order.iter().peekable(),
            found: BinaryHeap::new(),
            holders_left: holders.clone().count(),
            holders_seen: false,
        };
        if candidates.holders_left <= FEW_HOLDERS {
            holders.for_each(|index| candidates.consider(Rank::of(&infos[*index], *index), infos, group, refused));
            candidates.holders_seen = true;
        }
        candidates
    }

    /// Takes the best suitable node out. `None`: every node has been looked at and counted.
    pub fn next(&mut self, infos: &[NodeInfo], group: &Group<'_>, refused: &mut Tally) -> Option<Rank> {
        loop {
            let best = self.found.peek().map(|Reverse(rank)| *rank);
            let next = self.rest.peek().map(|rank| **rank);
            match (best, next.map(|rank| self.at_least(rank))) {
                (Some(best), Some(bound)) if best < bound => return self.found.pop().map(|Reverse(rank)| rank),
                (_, Some(_)) => {
                    let rank = *self.rest.next().expect("it was peeked");
                    if !(self.holders_seen && group.has_image(rank.index)) {
                        self.consider(rank, infos, group, refused);
                    }
                }
                (_, None) => return self.found.pop().map(|Reverse(rank)| rank),
            }
        }
    }

    /// Puts a node back, as it ranks after it got a task.
    pub fn again(&mut self, rank: Rank) {
        self.found.push(Reverse(rank));
    }

    fn consider(&mut self, base: Rank, infos: &[NodeInfo], group: &Group<'_>, refused: &mut Tally) {
        if group.has_image(base.index) {
            self.holders_left -= 1;
        }
        match group.rank(base, &infos[base.index]) {
            Ok(rank) => self.found.push(Reverse(rank)),
            Err(reason) => refused.count(reason),
        }
    }

    /// What the next node will cost at least.
    fn at_least(&self, next: Rank) -> Rank {
        let image = if self.holders_left == 0 { NO_IMAGE } else { 0 };
        Rank { cost: next.cost + image, ..next }
    }
}
