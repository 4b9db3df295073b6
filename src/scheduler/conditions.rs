//! Which nodes meet which constraint: asked of each node once a tick, however many services ask the same.
//!
//! Constraints look at labels and names that lie scattered in memory. Where a thousand services wait for `zone==a`, the
//! answers are what the tick's time goes into.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::nodes::NodeInfo;
use crate::spec::Constraint;

/// The answers of one tick, by constraint.
#[derive(Default)]
pub(super) struct Conditions(BTreeMap<Constraint, Answers>);

/// By index of the node; `None`: not asked yet.
type Answers = Rc<[Cell<Option<bool>>]>;

/// One constraint, and what is known of it.
pub(super) struct Condition {
    pub constraint: Constraint,
    answers: Answers,
}

impl Conditions {
    pub fn of(&mut self, constraint: Constraint, nodes: usize) -> Condition {
        let answers = self.0.entry(constraint.clone()).or_insert_with(|| vec![Cell::new(None); nodes].into());
        Condition { constraint, answers: Rc::clone(answers) }
    }
}

impl Condition {
    pub fn is_met(&self, index: usize, info: &NodeInfo) -> bool {
        let answer = &self.answers[index];
        answer.get().unwrap_or_else(|| {
            let met = self.constraint.matches(&info.node.facts());
            answer.set(Some(met));
            met
        })
    }
}
