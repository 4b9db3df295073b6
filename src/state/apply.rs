//! What each entry does to the state.

use super::command::*;
use super::store::State;
use crate::spec::*;

/// Answers kept for retries.
#[derive(Debug, Clone, Default)]
pub struct Sessions {}

impl State {
    pub fn apply_change(&mut self, _change: &Change, _at: UnixMs) -> Result<(), Refusal> {
        todo!()
    }

    pub fn version_of(&self, _id: ObjectId) -> Option<Version> {
        todo!()
    }
}

impl Change {
    /// The objects a change names, whose versions guard it.
    pub fn subjects(&self) -> Vec<ObjectId> {
        todo!()
    }

    /// The objects whose version a change raises.
    pub fn created_or_changed(&self) -> Vec<ObjectId> {
        todo!()
    }
}
