//! Networks.

use super::{At, not_found};
use crate::spec::*;
use crate::state::{Network, Refusal, Service, State};

impl State {
    pub(super) fn create_network(&mut self, id: NetworkId, spec: &NetworkSpec, at: At) -> Result<(), Refusal> {
        spec.validate()?;
        if self.networks.contains_key(&id) || self.network_names.contains_key(&spec.name) {
            return Err(Refusal::AlreadyExists(format!("network with name {} already exists", spec.name)));
        }
        if spec.ingress
            && let Some(other) = self.networks().find(|network| network.spec.ingress)
        {
            return Err(Refusal::AlreadyExists(format!("ingress network ({}) is already present", other.spec.name)));
        }
        let subnets: Vec<String> = spec.subnets.iter().map(|subnet| subnet.subnet.clone()).collect();
        self.check_subnets(id, &subnets)?;
        self.put_network(Network { id, meta: at.created(), spec: spec.clone(), subnets });
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Result<(), Refusal> {
        let network = self.networks.get(&id).ok_or_else(|| not_found("network", id))?;
        let in_use = |by: String| Refusal::Precondition(format!("network {} is in use by {by}", network.spec.name));
        if let Some(service) = self.services().find(|service| service.spec.task.uses_network(id)) {
            return Err(in_use(format!("service {}", service.spec.name)));
        }
        if let Some(task) = self
            .tasks()
            .filter(|task| task.is_live())
            .find(|task| self.task_spec(task.service, task.spec_version).is_some_and(|spec| spec.uses_network(id)))
        {
            return Err(in_use(format!("task {}", task.id)));
        }
        let published = |service: &&std::sync::Arc<Service>| {
            service.spec.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress)
        };
        if let Some(service) = self.services().filter(|_| network.spec.ingress).find(published) {
            return Err(Refusal::Precondition(format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            )));
        }
        let name = network.spec.name.clone();
        self.networks.remove(&id);
        self.network_names.remove(&name);
        Ok(())
    }

    pub(super) fn set_network_subnets(&mut self, id: NetworkId, subnets: &[String], at: At) -> Result<(), Refusal> {
        let mut network = self.networks.get(&id).ok_or_else(|| not_found("network", id))?.as_ref().clone();
        self.check_subnets(id, subnets)?;
        network.subnets = subnets.to_vec();
        at.changed(&mut network.meta);
        self.put_network(network);
        Ok(())
    }

    /// No address belongs to two networks.
    fn check_subnets(&self, id: NetworkId, subnets: &[String]) -> Result<(), Refusal> {
        for text in subnets {
            let subnet: Subnet =
                text.parse().map_err(|invalid: InvalidSubnet| Refusal::Invalid(invalid.to_string()))?;
            let overlaps = |held: &String| held.parse::<Subnet>().is_ok_and(|held| held.overlaps(&subnet));
            let other = self.networks().find(|other| other.id != id && other.subnets.iter().any(overlaps));
            if let Some(other) = other {
                return Err(Refusal::Invalid(format!(
                    "subnet {subnet} overlaps with network {}: Pool overlaps with other one on this address space",
                    other.spec.name
                )));
            }
        }
        Ok(())
    }
}
