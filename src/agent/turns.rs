//! Whose turn it is: a node makes few tasks ready to run at a time, so that thousands of new ones neither take its processors from
//! what runs, nor all run at last instead of one after the other. A service with few tasks is not behind one with many. Signals
//! have turns of their own: few are sent at a time, and none waits for a start.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{ServiceId, TaskId};

/// Times the room in which services that have nothing under way get one task each: one whose preparation hangs (a server of
/// volumes that does not answer) must not hold up the others.
const SPARE: usize = 4;

/// What is under way on a node and what waits, at one moment.
#[derive(Debug)]
pub(super) struct Turns {
    room: usize,
    under_way: usize,
    services: BTreeMap<ServiceId, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    under_way: usize,
    /// Those that need only be started come first; they go on holding what was made for them.
    waiting: BTreeSet<(Need, TaskId)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Start,
    Preparation,
    Signal,
}

impl Turns {
    /// `room`: tasks under way at once.
    pub fn new(room: usize) -> Turns {
        Turns { room, under_way: 0, services: BTreeMap::new() }
    }

    pub fn under_way(&mut self, service: ServiceId) {
        self.under_way += 1;
        self.services.entry(service).or_default().under_way += 1;
    }

    pub fn waits(&mut self, service: ServiceId, need: Need, task: TaskId) {
        self.services.entry(service).or_default().waiting.insert((need, task));
    }

    /// The task whose turn it is, which is under way from now on: of the service with the fewest under way.
    pub fn next(&mut self) -> Option<TaskId> {
        let waiting = self.services.values_mut().filter(|queue| !queue.waiting.is_empty());
        let queue = waiting.min_by_key(|queue| (queue.under_way, queue.waiting.first().copied()))?;
        let most = if queue.under_way == 0 { self.room * SPARE } else { self.room };
        if self.under_way >= most {
            return None;
        }
        let (_, task) = queue.waiting.pop_first()?;
        queue.under_way += 1;
        self.under_way += 1;
        Some(task)
    }

    /// Those whose turn has not come.
    pub fn left(self) -> impl Iterator<Item = TaskId> {
        self.services.into_values().flat_map(|queue| queue.waiting).map(|(_, task)| task)
    }
}
