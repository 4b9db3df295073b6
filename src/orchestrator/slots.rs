//! A service's tasks, slot by slot, as one look at the state shows them.

use super::eligible::Eligible;
use crate::spec::*;
use crate::state::{ObjectId, Service, State, Task, UpdateState};

/// A service and all its tasks, ended ones too.
pub(super) struct Fleet<'s> {
    pub state: &'s State,
    pub service: &'s Service,
    /// Which nodes the service's present spec allows.
    pub eligible: Eligible,
    pub mode: ServiceMode,
    /// Of a job: what new tasks are of.
    pub iteration: Option<u64>,
    /// Of the spec that its tasks are to have.
    pub version: Version,
    /// In slot order.
    tasks: Vec<&'s Task>,
}

impl<'s> Fleet<'s> {
    pub fn of(state: &'s State, service: &'s Service) -> Fleet<'s> {
        let tasks = state.tasks_of_service(service.id).map(AsRef::as_ref).collect();
        Fleet {
            state,
            service,
            eligible: Eligible::by(&service.spec.task.placement),
            mode: service.spec.mode,
            iteration: service.job.map(|job| job.iteration),
            version: service.spec_version,
            tasks,
        }
    }

    /// Without the tasks that are not `wanted`.
    pub fn keep(&mut self, wanted: impl Fn(&Task) -> bool) {
        self.tasks.retain(|task| wanted(task));
    }

    /// The slots that have any task, in order.
    pub fn slots(&self) -> impl Iterator<Item = SlotTasks<'_>> {
        self.tasks.chunk_by(|a, b| a.slot == b.slot).map(SlotTasks)
    }

    /// What the steps of every loop read: a service that changes in the meantime makes them void.
    pub fn id(&self) -> ObjectId {
        ObjectId::Service(self.service.id)
    }

    pub fn is_current(&self, task: &Task) -> bool {
        task.spec_version == self.version
    }

    /// An update stands still until the user says more, and slots keep the spec version they have.
    pub fn is_paused(&self) -> bool {
        let update = self.service.update.as_ref().map(|update| update.state);
        matches!(update, Some(UpdateState::Paused | UpdateState::RollbackPaused))
    }

    /// Slots keep the spec version they have, for now.
    pub fn keeps_versions(&self) -> bool {
        self.is_paused() || self.service.is_held()
    }

    pub fn restart_policy(&self, task: &Task) -> &RestartPolicy {
        let spec = self.state.task_spec(task.service, task.spec_version);
        &spec.expect("a task's spec is kept as long as the task").restart
    }
}

/// The tasks of one slot; at least one.
pub(super) struct SlotTasks<'s>(&'s [&'s Task]);

impl<'s> SlotTasks<'s> {
    pub fn slot(&self) -> Slot {
        self.0[0].slot
    }

    pub fn all(&self) -> impl Iterator<Item = &'s Task> {
        self.0.iter().copied()
    }

    /// Wanted to run and not ended: one, or two while one takes over from the other.
    pub fn live(&self) -> impl Iterator<Item = &'s Task> {
        self.all().filter(|task| task.is_live())
    }

    pub fn has_live(&self) -> bool {
        self.live().next().is_some()
    }

    pub fn is_stopping(&self) -> bool {
        self.all().any(is_stopping)
    }

    pub fn ended(&self) -> impl Iterator<Item = &'s Task> {
        self.all().filter(|task| task.outcome.is_some())
    }

    /// The one that ended last: a task's version is the log index of its last change, and its outcome is that.
    pub fn last_ended(&self) -> Option<&'s Task> {
        self.ended().max_by_key(|task| (task.meta.version, task.id))
    }
}

/// Told to stop, and not known to have.
pub(super) fn is_stopping(task: &Task) -> bool {
    task.outcome.is_none() && task.desired > DesiredState::Running
}
