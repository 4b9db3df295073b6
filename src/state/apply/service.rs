//! Services: specs in and out of force, and what the loops record beside them.

use std::net::IpAddr;
use std::sync::Arc;

use super::cron::follow_schedule;
use super::{At, check_version, not_found};
use crate::spec::*;
use crate::state::{
    AddressUser, CredentialsUpdate, CronStatus, JobStatus, PreviousSpec, Refusal, RegistryCredentials, Service, State,
    UpdateState, UpdateStatus,
};

impl State {
    pub(super) fn create_service(
        &mut self,
        id: ServiceId,
        spec: &ServiceSpec,
        credentials: Option<&SecretBytes>,
        at: At,
    ) -> Result<(), Refusal> {
        // What is wrong with the spec itself is told first.
        spec.validate()?;
        if self.services.contains_key(&id) || self.service_names.contains_key(&spec.name) {
            return Err(Refusal::AlreadyExists(format!(
                "name conflicts with an existing object: service {} already exists",
                spec.name
            )));
        }
        let mut spec = self.accept(id, spec)?;
        self.choose_data(&mut spec, None, at);
        let held = if spec.depends_on.is_empty() { Vec::new() } else { vec![at.version] };
        let job = spec.mode.is_job().then_some(JobStatus { iteration: 0, last_execution: at.time, completed: 0 });
        let cron = spec.schedule.is_some().then(|| CronStatus::since(at.time));
        self.task_specs.insert((id, at.version), Arc::new(spec.task.clone()));
        self.put_service(Service {
            id,
            meta: at.created(),
            ports: spec.endpoint.ports.clone(),
            spec,
            spec_version: at.version,
            previous: None,
            update: None,
            vips: Vec::new(),
            job,
            held,
            cron,
        });
        self.put_credentials(id, credentials, at);
        Ok(())
    }

    pub(super) fn update_service(
        &mut self,
        id: ServiceId,
        version: Version,
        spec: &ServiceSpec,
        credentials: &CredentialsUpdate,
        at: At,
    ) -> Result<(), Refusal> {
        let service = self.services.get(&id).ok_or_else(|| not_found("service", id))?;
        check_version(service.meta.version, version)?;
        if spec.name != service.spec.name {
            return Err(Refusal::NotImplemented("renaming services is not supported".into()));
        }
        if std::mem::discriminant(&spec.mode) != std::mem::discriminant(&service.spec.mode) {
            return Err(Refusal::NotImplemented("service mode change is not allowed".into()));
        }
        let mut spec = self.accept(id, spec)?;
        self.choose_data(&mut spec, Some(&service.spec), at);

        let mut service = service.as_ref().clone();
        self.put_in_force(&mut service, spec, at);
        self.put_service(service);
        if let CredentialsUpdate::Replace(auth) = credentials {
            self.put_credentials(id, Some(auth), at);
        }
        Ok(())
    }

    /// As an update by a user; the caller stores the service.
    pub(super) fn put_in_force(&mut self, service: &mut Service, spec: ServiceSpec, at: At) {
        // A deployment of what is there already must not cost the way back to what was before.
        if spec != service.spec {
            self.replace_spec(service, spec, at);
        }
        service.update = None;
        at.changed(&mut service.meta);
    }

    /// The spec in force becomes the previous one; the task spec gets a version of its own only if it differs.
    fn replace_spec(&mut self, service: &mut Service, spec: ServiceSpec, at: At) {
        let old = std::mem::replace(&mut service.spec, spec);
        let old_version = service.spec_version;
        let again = runs_anew(&old, &service.spec);
        if again {
            service.spec_version = at.version;
            self.task_specs.insert((service.id, at.version), Arc::new(service.spec.task.clone()));
            begin_job_again(service, at);
            self.hold_back(service);
        }
        follow_schedule(service, &old, old_version, at);
        service.ports = kept_ports(&service.spec.endpoint.ports, &service.ports);
        let forgotten = service.previous.replace(Box::new(PreviousSpec { spec: old, spec_version: old_version }));
        self.services.insert(service.id, Arc::new(service.clone()));
        if let Some(forgotten) = forgotten {
            self.release_task_spec(service.id, forgotten.spec_version);
        }
    }

    /// By an operator: the two specs change places, so that a second rollback undoes the first.
    pub(super) fn rollback_service(&mut self, id: ServiceId, version: Version, at: At) -> Result<(), Refusal> {
        let service = self.services.get(&id).ok_or_else(|| not_found("service", id))?;
        check_version(service.meta.version, version)?;
        let mut service = service.as_ref().clone();
        let (spec, spec_version) = self.restore_previous(&mut service)?;
        follow_schedule(&mut service, &spec, spec_version, at);
        if runs_anew(&spec, &service.spec) {
            begin_job_again(&mut service, at);
        }
        service.previous = Some(Box::new(PreviousSpec { spec, spec_version }));
        // A job is never rolled out: nobody would say that its rollback has ended.
        service.update = service.job.is_none().then(|| rollback_started("manually requested rollback", at));
        at.changed(&mut service.meta);
        self.put_service(service);
        Ok(())
    }

    /// By the failure action of an update: the failed spec is not kept, so that there is no rollback to it.
    pub(super) fn auto_rollback(&mut self, id: ServiceId, message: &str, at: At) -> Result<(), Refusal> {
        let mut service = self.services.get(&id).ok_or_else(|| not_found("service", id))?.as_ref().clone();
        let (_, failed_version) = self.restore_previous(&mut service)?;
        service.update = Some(rollback_started(message, at));
        at.changed(&mut service.meta);
        self.put_service(service);
        self.release_task_spec(id, failed_version);
        Ok(())
    }

    /// Puts the previous spec in force and returns the one it replaces. A published port that another service took
    /// in the meantime refuses it.
    fn restore_previous(&self, service: &mut Service) -> Result<(ServiceSpec, Version), Refusal> {
        let previous = service.previous.take().ok_or_else(|| {
            Refusal::Precondition(format!("service {} does not have a previous spec", service.spec.name))
        })?;
        self.check_references(&previous.spec)?;
        self.check_no_ring(&previous.spec)?;
        self.check_ports(service.id, &previous.spec.endpoint.ports)?;
        let old = std::mem::replace(&mut service.spec, previous.spec);
        let old_version = std::mem::replace(&mut service.spec_version, previous.spec_version);
        service.ports = kept_ports(&service.spec.endpoint.ports, &service.ports);
        Ok((old, old_version))
    }

    /// Its tasks are wanted gone in the same entry, so that what they used (networks, secrets) may be removed next.
    pub(super) fn remove_service(&mut self, id: ServiceId, at: At) -> Result<(), Refusal> {
        let service = self.take_service(id).ok_or_else(|| not_found("service", id))?;
        self.credentials.remove(&id);
        let homes: Vec<_> = self.volume_homes_of(id).cloned().collect();
        for home in homes {
            self.volume_homes.remove(&home);
        }
        let tasks: Vec<(TaskId, bool)> = self.tasks_of_service(id).map(|t| (t.id, t.may_be_forgotten())).collect();
        for (task, may_be_forgotten) in tasks {
            if may_be_forgotten {
                self.forget_task(task);
            } else {
                // Refused only where the task is wanted gone already.
                let _ = self.set_desired(task, DesiredState::Remove, at);
            }
        }
        self.release_task_spec(id, service.spec_version);
        for run in service.cron.iter().flat_map(|cron| &cron.open) {
            self.release_task_spec(id, run.spec_version);
        }
        if let Some(previous) = &service.previous {
            self.release_task_spec(id, previous.spec_version);
        }
        Ok(())
    }

    pub(super) fn set_update_status(
        &mut self,
        id: ServiceId,
        status: Option<&UpdateStatus>,
        at: At,
    ) -> Result<(), Refusal> {
        self.change_service(id, at, |service| {
            let begun = service.update.as_ref().filter(|update| update.is_under_way()).map(|update| update.since);
            let since = begun.unwrap_or(at.version);
            service.update = status.map(|status| UpdateStatus { since, ..status.clone() });
        })
    }

    pub(super) fn set_service_ports(&mut self, id: ServiceId, ports: &[PortConfig], at: At) -> Result<(), Refusal> {
        let service = self.services.get(&id).ok_or_else(|| not_found("service", id))?;
        let fill = |asked: &PortConfig, port: &PortConfig| {
            let published = if asked.published == 0 { port.published } else { asked.published };
            PortConfig { published, ..asked.clone() } == *port
        };
        let asked = &service.spec.endpoint.ports;
        if asked.len() != ports.len() || !asked.iter().zip(ports).all(|(asked, port)| fill(asked, port)) {
            return Err(Refusal::Precondition(format!("service {} asks for other ports", service.spec.name)));
        }
        self.check_ports(id, ports)?;
        self.change_service(id, at, |service| service.ports = ports.to_vec())
    }

    pub(super) fn set_service_vips(
        &mut self,
        id: ServiceId,
        vips: &[(NetworkId, Vec<IpAddr>)],
        at: At,
    ) -> Result<(), Refusal> {
        let service = self.services.get(&id).ok_or_else(|| not_found("service", id))?;
        let wanted = self.vip_networks(&service.spec);
        let twice = |at: usize| vips[..at].iter().any(|earlier| earlier.0 == vips[at].0);
        for (index, (network, addresses)) in vips.iter().enumerate() {
            if !wanted.contains(network) || twice(index) {
                return Err(Refusal::Precondition(format!(
                    "service {} has no virtual address on network {network}",
                    service.spec.name
                )));
            }
            self.check_addresses(*network, addresses, AddressUser::Service(id))?;
        }
        self.change_service(id, at, |service| service.vips = vips.to_vec())
    }

    /// The previous spec stays: a scale by the swarm itself is nothing to roll back.
    pub(super) fn scale_service(&mut self, id: ServiceId, to: u64, at: At) -> Result<(), Refusal> {
        let service = self.services.get(&id).ok_or_else(|| not_found("service", id))?;
        if !matches!(service.spec.mode, ServiceMode::Replicated { .. }) {
            return Err(Refusal::Invalid(format!("service {} is not replicated", service.spec.name)));
        }
        self.change_service(id, at, |service| service.spec.mode = ServiceMode::Replicated { replicas: to })
    }

    /// The spec as it is stored: networks by id, ports of host mode beside the task. Refuses what is invalid or names
    /// what does not exist.
    fn accept(&self, id: ServiceId, spec: &ServiceSpec) -> Result<ServiceSpec, Refusal> {
        spec.validate()?;
        let mut spec = spec.clone();
        for attachment in &mut spec.task.networks {
            attachment.target = self.resolve_network(&attachment.target)?;
        }
        // Again, since a network may have been named once by its id and once by its name.
        spec.task.check_networks()?;
        spec.task.derive_from_ports(&spec.endpoint.ports);
        self.check_references(&spec)?;
        self.check_ports(id, &spec.endpoint.ports)?;
        Ok(spec)
    }

    fn resolve_network(&self, target: &NetworkTarget) -> Result<NetworkTarget, Refusal> {
        let name = match target {
            NetworkTarget::Id(_) => return Ok(target.clone()),
            // Those of the node itself have no id in the swarm.
            NetworkTarget::Name(name) if NodeNetwork::named(name).is_some() => return Ok(target.clone()),
            NetworkTarget::Name(name) => name,
        };
        let by_name = self.network_by_name(name);
        let by_id = || name.parse().ok().and_then(|id| self.network(id));
        let network = by_name.or_else(by_id).ok_or_else(|| not_found("network", name))?;
        Ok(NetworkTarget::Id(network.id))
    }

    fn check_references(&self, spec: &ServiceSpec) -> Result<(), Refusal> {
        let container = &spec.task.container;
        if let Some(missing) = container.secrets.iter().find(|r| !self.secrets.contains_key(&r.id)) {
            return Err(Refusal::Invalid(format!("secret not found: {}", missing.name)));
        }
        if let Some(missing) = container.configs.iter().find(|r| !self.configs.contains_key(&r.id)) {
            return Err(Refusal::Invalid(format!("config not found: {}", missing.name)));
        }
        for attachment in &spec.task.networks {
            if let NetworkTarget::Id(id) = &attachment.target
                && !self.networks.contains_key(id)
            {
                return Err(not_found("network", id));
            }
        }
        if spec.task.ingress && self.ingress_network().is_none() {
            return Err(Refusal::Precondition(
                "service needs ingress network, but no ingress network is present: make one with \
                 `flok network create --driver overlay --ingress NAME`, or publish ports with mode=host"
                    .into(),
            ));
        }
        Ok(())
    }

    /// A published port belongs to one service: an ingress port everywhere, a host port on the nodes that run it, so that
    /// two services may share it only where both are of host mode.
    fn check_ports(&self, id: ServiceId, ports: &[PortConfig]) -> Result<(), Refusal> {
        let published: Vec<&PortConfig> = ports.iter().filter(|port| port.published != 0).collect();
        if published.is_empty() {
            return Ok(());
        }
        for other in self.services().filter(|other| other.id != id) {
            let taken = |port: &&&PortConfig| {
                other.ports.iter().any(|held| {
                    held.collides(port) && (held.mode == PublishMode::Ingress || port.mode == PublishMode::Ingress)
                })
            };
            if let Some(port) = published.iter().find(taken) {
                return Err(Refusal::Invalid(format!(
                    "port '{}' is already in use by service '{}' ({})",
                    port.published, other.spec.name, other.id
                )));
            }
        }
        Ok(())
    }

    fn put_credentials(&mut self, service: ServiceId, auth: Option<&SecretBytes>, at: At) {
        if let Some(auth) = auth {
            let credentials = RegistryCredentials { service, version: at.version, auth: auth.clone() };
            self.credentials.insert(service, Arc::new(credentials));
        }
    }

    pub(super) fn change_service(
        &mut self,
        id: ServiceId,
        at: At,
        change: impl FnOnce(&mut Service),
    ) -> Result<(), Refusal> {
        let mut service = self.services.get(&id).ok_or_else(|| not_found("service", id))?.as_ref().clone();
        change(&mut service);
        at.changed(&mut service.meta);
        self.put_service(service);
        Ok(())
    }
}

/// There is something new to run, or, of a job, more of it or less; a changed label is neither.
fn runs_anew(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let total = |mode| match mode {
        ServiceMode::ReplicatedJob { total_completions, .. } => Some(total_completions),
        _ => None,
    };
    old.task != new.task || total(old.mode) != total(new.mode)
}

/// What earlier iterations completed, or left undone, does not count in a new one. A job with a schedule waits for its next point.
pub(super) fn begin_job_again(service: &mut Service, at: At) {
    if service.spec.schedule.is_some() {
        return;
    }
    if let Some(job) = &mut service.job {
        *job = JobStatus { iteration: job.iteration + 1, last_execution: at.time, completed: 0 };
    }
}

/// The ports a spec asks for; one whose published port is the swarm's choice keeps the choice made before, unless the spec
/// gives that number to another one now.
fn kept_ports(wanted: &[PortConfig], allocated: &[PortConfig]) -> Vec<PortConfig> {
    let same = |a: &PortConfig, b: &PortConfig| (a.target, a.protocol, a.mode) == (b.target, b.protocol, b.mode);
    let mut free: Vec<&PortConfig> =
        allocated.iter().filter(|held| !wanted.iter().any(|port| port.collides(held))).collect();
    let mut keep = |port: &PortConfig| {
        let at = free.iter().position(|held| port.published == 0 && same(port, held))?;
        Some(PortConfig { published: free.remove(at).published, ..port.clone() })
    };
    wanted.iter().map(|port| keep(port).unwrap_or_else(|| port.clone())).collect()
}

fn rollback_started(message: &str, at: At) -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::RollbackStarted,
        since: at.version,
        started_at: at.time,
        completed_at: None,
        message: message.into(),
    }
}
