//! Tasks: their creation, placement, and way forward to an outcome.

use super::{At, not_found};
use crate::spec::*;
use crate::state::{MAX_RESTART_HISTORY, NewTask, Placed, Refusal, Service, State, Task};

impl State {
    pub(super) fn create_task(&mut self, new: &NewTask, at: At) -> Result<(), Refusal> {
        self.check_new_task(new, None)?;
        self.insert_new_task(new, at);
        Ok(())
    }

    /// `instead_of`: a live task that the same step finishes, so that its slot counts as free.
    fn check_new_task(&self, new: &NewTask, instead_of: Option<TaskId>) -> Result<(), Refusal> {
        if self.tasks.contains_key(&new.id) {
            return Err(Refusal::AlreadyExists(format!("task {} already exists", new.id)));
        }
        let service = self.services.get(&new.service).ok_or_else(|| not_found("service", new.service))?;
        if self.task_spec(new.service, new.spec_version).is_none() {
            return Err(Refusal::Precondition(format!(
                "service {} has no spec of version {}",
                service.spec.name, new.spec_version
            )));
        }
        if new.desired > DesiredState::Running {
            return Err(Refusal::Invalid("a new task is wanted ready or running".into()));
        }
        self.check_slot(service, new)?;
        let beside = |task: &Task| service.runs_beside() && task.job_iteration != new.job_iteration;
        let in_the_way = |task: &Task| task.is_live() && Some(task.id) != instead_of && !beside(task);
        let live = self.tasks_in_slot(new.service, new.slot).filter(|task| in_the_way(task)).count();
        if live > usize::from(service.starts_first()) {
            return Err(Refusal::Precondition(format!(
                "slot {} of service {} already has a task",
                new.slot, service.spec.name
            )));
        }
        Ok(())
    }

    fn check_slot(&self, service: &Service, new: &NewTask) -> Result<(), Refusal> {
        let fits = match (new.slot, service.mode_of(new.job_iteration)) {
            (Slot::Replica(slot), ServiceMode::Replicated { .. }) => slot > 0,
            (Slot::Replica(slot), ServiceMode::ReplicatedJob { total_completions, .. }) => slot < total_completions,
            (Slot::Node(node), ServiceMode::Global | ServiceMode::GlobalJob) => new.node == Some(node),
            _ => false,
        };
        if !fits {
            return Err(Refusal::Invalid(format!("service {} has no slot {}", service.spec.name, new.slot)));
        }
        self.check_job(service, new)?;
        match new.node {
            Some(node) if !self.nodes.contains_key(&node) => Err(not_found("node", node)),
            _ => Ok(()),
        }
    }

    /// What a job has completed in this iteration does not run again.
    fn check_job(&self, service: &Service, new: &NewTask) -> Result<(), Refusal> {
        if !service.takes(new.job_iteration) {
            return Err(Refusal::Precondition(format!("service {} is at another job iteration", service.spec.name)));
        }
        let done = |task: &Task| task.job_iteration == new.job_iteration && service.counts(task);
        if self.tasks_in_slot(new.service, new.slot).any(|task| done(task)) {
            return Err(Refusal::Precondition(format!(
                "slot {} of job {} has been completed",
                new.slot, service.spec.name
            )));
        }
        Ok(())
    }

    fn insert_new_task(&mut self, new: &NewTask, at: At) {
        let old_restarts = new.restarts.len().saturating_sub(MAX_RESTART_HISTORY);
        self.put_task(Task {
            id: new.id,
            meta: at.created(),
            created: at.version,
            service: new.service,
            slot: new.slot,
            spec_version: new.spec_version,
            node: new.node,
            assigned_at: None,
            desired: new.desired,
            outcome: None,
            finished_at: None,
            pending_reason: String::new(),
            start_delay: new.start_delay,
            restarts: new.restarts[old_restarts..].to_vec(),
            attachments: Vec::new(),
            host_ports: Vec::new(),
            generic: Vec::new(),
            job_iteration: new.job_iteration,
        });
    }

    pub(super) fn assign(&mut self, placed: &Placed, at: At) -> Result<(), Refusal> {
        let task = self.tasks.get(&placed.task).ok_or_else(|| not_found("task", placed.task))?;
        if task.assigned_at.is_some() || !task.is_live() || task.node.is_some_and(|node| node != placed.node) {
            return Err(Refusal::Precondition(format!("task {} does not wait for node {}", task.id, placed.node)));
        }
        if self.services.get(&task.service).is_some_and(|service| service.holds_back(task.spec_version)) {
            return Err(Refusal::Precondition(format!("task {} waits for what its service depends on", task.id)));
        }
        let node = self.nodes.get(&placed.node).ok_or_else(|| not_found("node", placed.node))?;
        if !node.takes_tasks() {
            return Err(Refusal::Precondition(format!("node {} takes no tasks now", node.name())));
        }
        self.check_not_taken(placed)?;
        let spec = self.task_spec(task.service, task.spec_version).expect("a task's spec is kept as long as the task");
        self.check_attachments(task.id, spec, &placed.attachments)?;
        let volumes = self.check_volumes(task, placed.node)?;

        let mut task = task.as_ref().clone();
        for volume in volumes {
            self.volume_homes.insert((task.service, task.slot, volume), placed.node);
        }
        task.node = Some(placed.node);
        task.assigned_at = Some(at.time);
        task.pending_reason.clear();
        task.host_ports = placed.host_ports.clone();
        task.generic = placed.generic.clone();
        task.attachments = placed.attachments.clone();
        at.changed(&mut task.meta);
        self.put_task(task);
        Ok(())
    }

    /// No host port and no named generic resource is given twice on one node, whatever the scheduler thought.
    fn check_not_taken(&self, placed: &Placed) -> Result<(), Refusal> {
        if placed.host_ports.is_empty() && placed.generic.is_empty() {
            return Ok(());
        }
        for other in self.tasks_of_node(placed.node).filter(|t| t.holds_resources() && t.id != placed.task) {
            let port = placed.host_ports.iter().find(|port| other.host_ports.iter().any(|held| held.collides(port)));
            if let Some(port) = port {
                return Err(Refusal::Precondition(format!(
                    "port {} of node {} is held by task {}",
                    port.published, placed.node, other.id
                )));
            }
            let named = |g: &&GenericResource| matches!(g, GenericResource::Named { .. }) && other.generic.contains(g);
            if let Some(GenericResource::Named { kind, value }) = placed.generic.iter().find(named) {
                return Err(Refusal::Precondition(format!("{kind} {value} is held by task {}", other.id)));
            }
        }
        Ok(())
    }

    /// The named local volumes of `task`, whose home becomes `node`. A volume that lives elsewhere keeps the task from
    /// this node, unless the spec lets it start empty.
    fn check_volumes(&self, task: &Task, node: NodeId) -> Result<Vec<String>, Refusal> {
        if matches!(task.slot, Slot::Node(_)) {
            return Ok(Vec::new());
        }
        let spec = self.task_spec(task.service, task.spec_version).expect("a task's spec is kept as long as the task");
        let volumes: Vec<String> = spec.named_local_volumes().map(str::to_owned).collect();
        if spec.volume_policy == VolumePolicy::StartEmpty {
            return Ok(volumes);
        }
        for volume in &volumes {
            if let Some(home) = self.volume_home(task.service, task.slot, volume).filter(|home| *home != node) {
                return Err(Refusal::Precondition(format!("volume {volume} of task {} is on node {home}", task.id)));
            }
        }
        Ok(volumes)
    }

    pub(super) fn set_desired(&mut self, id: TaskId, desired: DesiredState, at: At) -> Result<(), Refusal> {
        let task = self.tasks.get(&id).ok_or_else(|| not_found("task", id))?;
        if desired <= task.desired {
            return Err(Refusal::Precondition(format!("task {id} only moves forward")));
        }
        if desired == DesiredState::Remove && self.may_be_forgotten(task) {
            self.forget_task(id);
            return Ok(());
        }
        let mut task = task.as_ref().clone();
        task.desired = desired;
        at.changed(&mut task.meta);
        self.put_task(task);
        Ok(())
    }

    pub(super) fn finish(
        &mut self,
        id: TaskId,
        outcome: &Outcome,
        replacement: Option<&NewTask>,
        at: At,
    ) -> Result<(), Refusal> {
        let task = self.tasks.get(&id).ok_or_else(|| not_found("task", id))?;
        if task.outcome.is_some() {
            return Err(Refusal::Precondition(format!("task {id} has ended already")));
        }
        if !outcome.state.is_final() || outcome.state == TaskState::Remove {
            return Err(Refusal::Invalid(format!("{} is no outcome", outcome.state.as_str())));
        }
        if let Some(new) = replacement {
            if (new.service, new.slot) != (task.service, task.slot) {
                return Err(Refusal::Invalid("a replacement takes the slot of the task it replaces".into()));
            }
            self.check_new_task(new, Some(id))?;
        }
        self.end(id, outcome.clone(), at);
        if let Some(new) = replacement {
            self.insert_new_task(new, at);
        }
        Ok(())
    }

    /// The node that had the task is gone, and so is the task.
    pub(super) fn orphan(&mut self, id: TaskId, message: &str, at: At) {
        let outcome = Outcome {
            state: TaskState::Orphaned,
            message: message.into(),
            exit_code: None,
            container_id: None,
            ran_for: None,
        };
        self.end(id, outcome, at);
    }

    /// Records the outcome of a task that has none. Its node, should it still run it, is to stop it; one that was only
    /// kept until it had ended is forgotten.
    fn end(&mut self, id: TaskId, outcome: Outcome, at: At) {
        let mut task = self.tasks.get(&id).expect("the caller found the task").as_ref().clone();
        task.outcome = Some(outcome);
        self.count_completion(&task);
        if task.desired == DesiredState::Remove && self.may_be_forgotten(&task) {
            self.forget_task(id);
            return;
        }
        task.desired = task.desired.max(DesiredState::Shutdown);
        task.finished_at = Some(at.time);
        task.pending_reason.clear();
        at.changed(&mut task.meta);
        self.put_task(task);
    }

    /// A job records exactly its completions. Progress is no change of the service: its version stays, so that the other
    /// steps of the leader's plan hold.
    fn count_completion(&mut self, task: &Task) {
        let Some(service) = self.services.get_mut(&task.service) else { return };
        if !service.counts(task) {
            return;
        }
        let service = std::sync::Arc::make_mut(service);
        if let Some(job) = service.job.as_mut().filter(|job| job.counts(task)) {
            job.completed += 1;
        }
        let open = service.cron.iter_mut().flat_map(|cron| &mut cron.open);
        for run in open.filter(|run| Some(run.iteration) == task.job_iteration) {
            run.completed += 1;
        }
    }

    pub(super) fn forget(&mut self, id: TaskId) -> Result<(), Refusal> {
        let task = self.tasks.get(&id).ok_or_else(|| not_found("task", id))?;
        if !self.may_be_forgotten(task) {
            return Err(Refusal::Precondition(format!("task {id} has not ended, or its job still counts it")));
        }
        self.forget_task(id);
        Ok(())
    }

    /// A completion is how a job knows that a slot is done, so it stays as long as the iteration.
    fn may_be_forgotten(&self, task: &Task) -> bool {
        let service = self.services.get(&task.service);
        task.may_be_forgotten() && !service.is_some_and(|service| service.counts(task))
    }

    pub(super) fn set_pending_reason(&mut self, id: TaskId, reason: &str, at: At) -> Result<(), Refusal> {
        let task = self.tasks.get(&id).ok_or_else(|| not_found("task", id))?;
        if task.assigned_at.is_some() || !task.is_live() {
            return Err(Refusal::Precondition(format!("task {id} does not wait for a node")));
        }
        let mut task = task.as_ref().clone();
        task.pending_reason = reason.into();
        at.changed(&mut task.meta);
        self.put_task(task);
        Ok(())
    }
}
