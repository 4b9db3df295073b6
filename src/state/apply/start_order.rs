//! What services that depend on others bring with them: no ring of them, and those that are to restart with another one do.

use std::sync::Arc;

use super::At;
use crate::spec::depends_on::cycle;
use crate::spec::*;
use crate::state::{Command, PreviousSpec, Refusal, Service, State, UpdateState};

impl State {
    /// What follows once all of `commands` are carried out, and the services `rolled_out` updated with them, which one
    /// after another would be too early.
    pub(super) fn settle_start_order(
        &mut self,
        before: &State,
        commands: &[Command],
        rolled_out: &[ServiceId],
        at: At,
    ) -> Result<(), Refusal> {
        let changed = commands.iter().filter_map(|command| match command {
            Command::CreateService { id, .. }
            | Command::UpdateService { id, .. }
            | Command::RollbackService { id, .. } => Some(*id),
            _ => None,
        });
        let changed = changed.chain(rolled_out.iter().copied());
        let changed: Vec<Arc<Service>> = changed.filter_map(|id| self.services.get(&id).cloned()).collect();
        changed.iter().try_for_each(|service| self.check_no_ring(&service.spec))?;
        for service in changed {
            let old = before.services.get(&service.id);
            if old.is_some_and(|old| old.spec_version != service.spec_version) {
                self.restart_dependents(&service.spec.name, at);
            }
        }
        Ok(())
    }

    /// With `spec` in force, nothing depends on itself by way of others.
    pub(super) fn check_no_ring(&self, spec: &ServiceSpec) -> Result<(), Refusal> {
        let names =
            |spec: &ServiceSpec| -> Vec<String> { spec.depends_on.iter().map(|one| one.service.clone()).collect() };
        if spec.depends_on.is_empty() {
            return Ok(());
        }
        let edges = |name: &str| match self.service_by_name(name) {
            _ if name == spec.name => names(spec),
            Some(service) => names(&service.spec),
            None => Vec::new(),
        };
        match cycle(&spec.name, edges) {
            None => Ok(()),
            Some(ring) => Err(Refusal::Invalid(format!(
                "services that depend on one another in a ring would never start: {}",
                ring.join(" -> ")
            ))),
        }
    }

    /// Tasks of the spec in force may start.
    pub(super) fn release_service(&mut self, id: ServiceId, at: At) -> Result<(), Refusal> {
        self.change_service(id, at, |service| {
            let released = service.spec_version;
            // Runs that began with an earlier spec keep it, so nothing else would ever let them go.
            let has_runs = service.cron.is_some();
            service.held.retain(|version| *version != released && !has_runs);
        })
    }

    /// The spec version of `service` is new: nothing starts from it before what it depends on has come to it.
    pub(super) fn hold_back(&self, service: &mut Service) {
        let kept = |version: &Version| self.task_specs.contains_key(&(service.id, *version));
        service.held.retain(kept);
        if !service.spec.depends_on.is_empty() {
            service.held.push(service.spec_version);
        }
    }

    /// The tasks of those that are to restart with the service called `name` are replaced, and so on to those that are to
    /// restart with them. An update that a user has to look at stays as it is.
    fn restart_dependents(&mut self, name: &str, at: At) {
        let mut names = vec![name.to_owned()];
        while let Some(name) = names.pop() {
            let restarts = |service: &&Arc<Service>| {
                let wants = service.spec.depends_on.iter().any(|one| one.restart && one.service == name);
                let update = service.update.as_ref().map(|update| update.state);
                let paused = matches!(update, Some(UpdateState::Paused | UpdateState::RollbackPaused));
                wants && !paused && service.spec_version != at.version
            };
            let dependents: Vec<Arc<Service>> = self.services().filter(restarts).cloned().collect();
            for service in dependents {
                names.push(service.spec.name.clone());
                self.restart_service(service.as_ref().clone(), at);
            }
        }
    }

    /// As a forced update does, but the spec is the user's and stays as it is.
    fn restart_service(&mut self, mut service: Service, at: At) {
        let previous = PreviousSpec { spec: service.spec.clone(), spec_version: service.spec_version };
        service.spec_version = at.version;
        self.task_specs.insert((service.id, at.version), Arc::new(service.spec.task.clone()));
        super::service::begin_job_again(&mut service, at);
        self.hold_back(&mut service);
        service.update = None;
        let forgotten = service.previous.replace(Box::new(previous));
        at.changed(&mut service.meta);
        let id = service.id;
        self.put_service(service);
        if let Some(forgotten) = forgotten {
            self.release_task_spec(id, forgotten.spec_version);
        }
    }
}
