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
        self.check_no_node_inside(&subnets)?;
        self.put_network(Network { id, meta: at.created(), spec: spec.clone(), subnets });
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Result<(), Refusal> {
        let network = self.networks.get(&id).ok_or_else(|| not_found("network", id))?;
        if let Some(user) = self.network_users(id) {
            return Err(Refusal::Precondition(format!("network {} is in use by {user}", network.spec.name)));
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
        self.forget_network(id);
        Ok(())
    }

    pub(super) fn set_network_subnets(&mut self, id: NetworkId, subnets: &[String], at: At) -> Result<(), Refusal> {
        let mut network = self.networks.get(&id).ok_or_else(|| not_found("network", id))?.as_ref().clone();
        self.check_subnets(id, subnets)?;
        let lost = network.parsed_subnets().find(|old| {
            !subnets.iter().any(|kept| kept.parse() == Ok(*old)) && self.addresses_in(*old).next().is_some()
        });
        if let Some(lost) = lost {
            return Err(Refusal::Precondition(format!("subnet {lost} of network {} is in use", network.spec.name)));
        }
        network.subnets = subnets.to_vec();
        at.changed(&mut network.meta);
        self.put_network(network);
        Ok(())
    }

    /// No address belongs to two networks, nor to one twice.
    fn check_subnets(&self, id: NetworkId, subnets: &[String]) -> Result<(), Refusal> {
        let mut known: Vec<Subnet> = Vec::new();
        for text in subnets {
            let subnet: Subnet =
                text.parse().map_err(|invalid: InvalidSubnet| Refusal::Invalid(invalid.to_string()))?;
            if let Some(other) = known.iter().find(|known| known.overlaps(&subnet)) {
                return Err(Refusal::Invalid(format!("subnet {subnet} overlaps with {other} of the same network")));
            }
            if let Some((held, other)) = self.overlapping_other(id, &subnet) {
                return Err(Refusal::Invalid(format!(
                    "subnet {subnet} overlaps with {held} of network {}: Pool overlaps with other one on this address space",
                    self.networks.get(&other).map_or_else(|| other.to_string(), |other| other.spec.name.clone())
                )));
            }
            known.push(subnet);
        }
        Ok(())
    }

    fn overlapping_other(&self, id: NetworkId, subnet: &Subnet) -> Option<(Subnet, NetworkId)> {
        match self.overlapping(subnet)? {
            (held, other) if other != id => Some((held, other)),
            (held, _) if held == *subnet => None,
            // One of its own, which may hide that of another.
            _ => {
                let mut others = self.networks().filter(|other| other.id != id);
                others.find_map(|other| Some((other.parsed_subnets().find(|held| held.overlaps(subnet))?, other.id)))
            }
        }
    }

    /// A network over the addresses of the nodes themselves would cut them off from one another.
    fn check_no_node_inside(&self, subnets: &[String]) -> Result<(), Refusal> {
        for subnet in subnets.iter().filter_map(|text| text.parse::<Subnet>().ok()) {
            if let Some(node) = self.nodes().find(|node| subnet.contains(node.description.addr)) {
                return Err(Refusal::Invalid(format!(
                    "subnet {subnet} holds the address {} of node {}: choose another one",
                    node.description.addr,
                    node.name()
                )));
            }
        }
        Ok(())
    }
}
