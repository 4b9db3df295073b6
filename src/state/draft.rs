//! The leader's working copy of the state, over which one tick's loops run one after another: each sees what the ones
//! before it changed, and every change is kept as a guarded [`Step`] for the log.

use std::collections::BTreeSet;

use super::{Change, ObjectId, Refusal, State, Step};
use crate::spec::{UnixMs, Version};

pub struct Draft {
    state: State,
    at: UnixMs,
    steps: Vec<Step>,
    /// Changed or created by this draft: their versions do not exist yet, so no later step is guarded by them.
    touched: BTreeSet<ObjectId>,
}

impl Draft {
    pub fn new(state: &State, at: UnixMs) -> Draft {
        Draft { state: state.clone(), at, steps: Vec::new(), touched: BTreeSet::new() }
    }

    /// The state as this draft has changed it so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// It is not as it was when the draft was begun.
    pub fn changes(&self, id: ObjectId) -> bool {
        self.touched.contains(&id)
    }

    /// Applies `change` to the draft and records it, guarded by the versions of `reads` (objects beside the ones the
    /// change itself names) as they were before this draft. A refusal leaves the draft as it was.
    pub fn change(&mut self, reads: &[ObjectId], change: Change) -> Result<(), Refusal> {
        let subjects = change.subjects();
        let guards: Vec<(ObjectId, Version)> = subjects
            .iter()
            .chain(reads)
            .filter(|id| !self.touched.contains(id))
            .filter_map(|id| Some((*id, self.state.version_of(*id)?)))
            .collect();
        self.state.apply_change(&change, self.at)?;
        self.touched.extend(change.created_or_changed());
        self.steps.push(Step { reads: guards, change });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}
