//! Who has which address on the swarm's networks, derived from tasks and services, so that giving one out does not cost a
//! walk over all tasks.
//!
//! The index knows addresses, not networks: subnets never overlap, and where a network was removed while its last tasks
//! still stop, another one that got the same subnet must not give their addresses out again.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Network, Refusal, Service, State, Task};
use crate::spec::*;

/// What an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressHolder {
    pub network: NetworkId,
    pub user: AddressUser,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressUser {
    Task(TaskId),
    /// As a virtual address.
    Service(ServiceId),
}

/// What gives tasks their addresses as they are placed; the scheduler is handed one, and knows nothing more of it.
pub trait Addresses {
    /// The places of a task of `spec` on its networks. May enlarge networks in `draft`. The error is why the task must
    /// wait, for its user to read.
    fn attach(&mut self, draft: &mut super::Draft, task: TaskId, spec: &TaskSpec) -> Result<Vec<Attachment>, String>;
}

impl State {
    /// Who has `addr`.
    pub fn address_holder(&self, addr: IpAddr) -> Option<&AddressHolder> {
        self.addresses.get(&addr)
    }

    /// Every address in `subnet` that somebody has, in order.
    pub fn addresses_in(&self, subnet: Subnet) -> impl Iterator<Item = (&IpAddr, &AddressHolder)> {
        self.addresses_between(subnet.base(), subnet.last())
    }

    /// Every address from `first` to `last` that somebody has, in order.
    pub fn addresses_between(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = (&IpAddr, &AddressHolder)> {
        self.addresses.range(first..=last)
    }

    /// The network that has a subnet which shares addresses with `subnet`, and that subnet.
    pub fn overlapping(&self, subnet: &Subnet) -> Option<(Subnet, NetworkId)> {
        // Those known do not overlap one another: one that does is next to the place where this one would stand.
        let before = self.subnets.get_prev(subnet).filter(|(known, _)| known.overlaps(subnet));
        let found = before.or_else(|| self.subnets.get_next(subnet).filter(|(known, _)| known.overlaps(subnet)));
        found.map(|(known, network)| (*known, *network))
    }

    /// The network through which ports are published on every node.
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.ingress_network.and_then(|id| self.networks.get(&id))
    }

    /// What a task of `spec` is on: the networks it names, then the ingress network where it has ports there.
    pub fn networks_of(&self, spec: &TaskSpec) -> Vec<NetworkId> {
        let named = spec.networks.iter().filter_map(|attachment| match attachment.target {
            NetworkTarget::Id(id) => Some(id),
            NetworkTarget::Name(_) => None,
        });
        let mut networks: Vec<NetworkId> = named.collect();
        if spec.ingress
            && let Some(ingress) = self.ingress_network
            && !networks.contains(&ingress)
        {
            networks.push(ingress);
        }
        networks
    }

    /// What a service has virtual addresses on.
    pub fn vip_networks(&self, spec: &ServiceSpec) -> Vec<NetworkId> {
        match spec.endpoint.mode {
            EndpointMode::Vip => self.networks_of(&spec.task),
            EndpointMode::Dnsrr => Vec::new(),
        }
    }

    /// Addresses of one task or service on one network: one of each family at most, each in a subnet of the network and
    /// not kept for its gateway, and nobody else's.
    pub(super) fn check_addresses(
        &self,
        network: NetworkId,
        addresses: &[IpAddr],
        user: AddressUser,
    ) -> Result<(), Refusal> {
        let on =
            self.networks.get(&network).ok_or_else(|| Refusal::NotFound(format!("network {network} not found")))?;
        let refused = |why: String| Err(Refusal::Precondition(format!("network {}: {why}", on.spec.name)));
        for addr in addresses {
            if addresses.iter().filter(|other| other.is_ipv4() == addr.is_ipv4()).count() > 1 {
                return refused(format!("{addr} is one of several addresses of its family for one place"));
            }
            let single = Subnet::new(*addr, if addr.is_ipv4() { 32 } else { 128 }).expect("as long as the address");
            let subnet = match self.overlapping(&single) {
                Some((subnet, of)) if of == network => subnet,
                _ => return refused(format!("{addr} is in none of its subnets")),
            };
            if *addr == on.spec.gateway(&subnet) || !subnet.host_offsets().contains(&subnet.offset_of(*addr)) {
                return refused(format!("{addr} is kept for the network itself"));
            }
            match self.addresses.get(addr) {
                Some(holder) if holder.user != user => {
                    return refused(format!("{addr} belongs to {}", holder.user));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A task that is given a node gets exactly the places that its spec asks for.
    pub(super) fn check_attachments(
        &self,
        task: TaskId,
        spec: &TaskSpec,
        attachments: &[Attachment],
    ) -> Result<(), Refusal> {
        let wanted = self.networks_of(spec);
        let same = wanted.len() == attachments.len()
            && wanted.iter().all(|id| attachments.iter().any(|attachment| attachment.network == *id));
        if !same {
            return Err(Refusal::Precondition(format!("task {task} is to be on other networks than it was given")));
        }
        for attachment in attachments {
            self.check_addresses(attachment.network, &attachment.addresses, AddressUser::Task(task))?;
        }
        Ok(())
    }

    pub(super) fn index_task_addresses(&mut self, old: Option<&Task>, new: Option<&Task>) {
        // What is on no network, or stays as it is, is most of all changes.
        let held =
            |task: Option<&Task>| task.is_some_and(|task| !task.attachments.is_empty() && task.outcome.is_none());
        if held(old) == held(new) && old.map(|task| &task.attachments) == new.map(|task| &task.attachments) {
            return;
        }
        for task in old.into_iter().filter(|task| held(Some(task))) {
            for addr in task.attachments.iter().flat_map(|attachment| &attachment.addresses) {
                self.release(addr, AddressUser::Task(task.id));
            }
        }
        for task in new.into_iter().filter(|task| held(Some(task))) {
            for attachment in &task.attachments {
                let holder = AddressHolder { network: attachment.network, user: AddressUser::Task(task.id) };
                self.hold(&attachment.addresses, holder);
            }
        }
    }

    pub(super) fn index_vips(&mut self, old: Option<&Service>, new: Option<&Service>) {
        if old.map(|service| &service.vips) == new.map(|service| &service.vips) {
            return;
        }
        for (service, addr) in old.into_iter().flat_map(|s| s.vips.iter().flat_map(|vip| &vip.1).map(|a| (s.id, a))) {
            self.release(addr, AddressUser::Service(service));
        }
        for (service, vip) in new.into_iter().flat_map(|service| service.vips.iter().map(|vip| (service.id, vip))) {
            self.hold(&vip.1, AddressHolder { network: vip.0, user: AddressUser::Service(service) });
        }
    }

    fn hold(&mut self, addresses: &[IpAddr], holder: AddressHolder) {
        for addr in addresses {
            self.addresses.insert(*addr, holder);
        }
    }

    fn release(&mut self, addr: &IpAddr, user: AddressUser) {
        if self.addresses.get(addr).is_some_and(|holder| holder.user == user) {
            self.addresses.remove(addr);
        }
    }

    pub(super) fn index_network(&mut self, old: Option<&Network>, new: Option<&Network>) {
        for subnet in old.into_iter().flat_map(Network::parsed_subnets) {
            self.subnets.remove(&subnet);
        }
        for (network, subnet) in new.into_iter().flat_map(|network| network.parsed_subnets().map(|s| (network.id, s))) {
            self.subnets.insert(subnet, network);
        }
        let ingress = |network: Option<&Network>| network.filter(|n| n.spec.ingress).map(|n| n.id);
        if ingress(old).is_some() && self.ingress_network == ingress(old) {
            self.ingress_network = None;
        }
        self.ingress_network = ingress(new).or(self.ingress_network);
    }
}

impl Network {
    /// The subnets in use. They were read before they were stored.
    pub fn parsed_subnets(&self) -> impl Iterator<Item = Subnet> + '_ {
        self.subnets.iter().filter_map(|text| text.parse().ok())
    }
}

impl std::fmt::Display for AddressUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddressUser::Task(id) => write!(f, "task {id}"),
            AddressUser::Service(id) => write!(f, "service {id}"),
        }
    }
}
