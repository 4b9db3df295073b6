//! All that is wrong with a spec, and where: validation goes on after a fault.

use super::{Checked, InvalidSpec};

/// Faults kept of one spec: one that is wrong everywhere must not fill the memory.
const MAX_FAULTS: usize = 200;

/// One thing wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, in a stack file's keys from the object's own on: `["ulimits", "nofile"]`. An item of a list is named by what tells it
    /// from the others: a mount's target, a DNS server's address. Empty: the object as a whole.
    pub at: Vec<String>,
    pub why: String,
}

/// Collects faults while a spec is looked at.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn check(&mut self, at: &[&str], checked: Checked) {
        if let Err(InvalidSpec(why)) = checked
            && self.0.len() < MAX_FAULTS
        {
            self.0.push(Fault { at: at.iter().map(|key| (*key).to_owned()).collect(), why });
        }
    }

    pub(super) fn require(&mut self, at: &[&str], ok: bool, why: impl FnOnce() -> String) {
        self.check(at, super::require(ok, why));
    }

    /// Of what is a list only of this fault's part.
    pub(super) fn within(faults: impl FnOnce(&mut Faults)) -> Vec<Fault> {
        let mut found = Faults::default();
        faults(&mut found);
        found.0
    }
}

/// The first of them as the refusal.
pub(super) fn first(faults: Vec<Fault>) -> Checked {
    faults.into_iter().next().map_or(Ok(()), |fault| Err(InvalidSpec(fault.why)))
}
