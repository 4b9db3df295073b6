//! One network by name and by address. Kept beside the view it was made from and changed with it, so that one task's
//! change on a network of thousands costs that task.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::dispatcher::{Endpoint, NetworkView, ServiceView};
use crate::spec::{ServiceId, TaskId};

/// Who is called by a name or has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Service(ServiceId),
    Task(TaskId),
}

/// By what right; the lower one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Service,
    Alias,
    Task,
}

#[derive(Debug, PartialEq, Eq)]
pub struct NetworkIndex {
    view: NetworkView,
    /// `.name`, in lower case.
    suffix: String,
    names: HashMap<String, BTreeSet<(Rank, Owner)>>,
    addresses: HashMap<IpAddr, Owner>,
    /// Tasks that serve, of services that have any.
    serving: BTreeMap<ServiceId, BTreeSet<TaskId>>,
}

impl NetworkIndex {
    pub fn new(mut view: NetworkView) -> NetworkIndex {
        let services = std::mem::take(&mut view.services);
        let endpoints = std::mem::take(&mut view.endpoints);
        let suffix = format!(".{}", view.name.to_ascii_lowercase());
        let (names, addresses) = (HashMap::new(), HashMap::new());
        let mut index = NetworkIndex { view, suffix, names, addresses, serving: BTreeMap::new() };
        services.into_iter().for_each(|(id, service)| index.set_service(id, Some(service)));
        endpoints.into_iter().for_each(|(id, endpoint)| index.set_endpoint(id, Some(endpoint)));
        index
    }

    pub fn view(&self) -> &NetworkView {
        &self.view
    }

    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.view.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// Those called `name` by the best right.
    pub fn called(&self, name: &str) -> Option<(Rank, Vec<Owner>)> {
        let owners = self.names.get(name)?;
        let best = owners.first()?.0;
        Some((best, owners.iter().take_while(|(rank, _)| *rank == best).map(|(_, owner)| *owner).collect()))
    }

    /// The service of this full name.
    pub fn service(&self, name: &str) -> Option<Owner> {
        self.names.get(name)?.first().filter(|(rank, _)| *rank == Rank::Service).map(|(_, owner)| *owner)
    }

    /// Adds the addresses under which `owner` serves: none while nothing of it does. `tasks`: those of a service's tasks
    /// instead of its own. Returns whether they stay when tasks come and go.
    pub fn addresses(&self, owner: Owner, tasks: bool, out: &mut Vec<IpAddr>) -> bool {
        match owner {
            Owner::Service(id) => {
                let Some(serving) = self.serving.get(&id) else { return true };
                match self.view.services.get(&id) {
                    Some(service) if !tasks && !service.vips.is_empty() => {
                        out.extend_from_slice(&service.vips);
                        return true;
                    }
                    _ => serving.iter().filter_map(|task| self.view.endpoints.get(task)).for_each(|endpoint| {
                        out.extend_from_slice(&endpoint.addresses);
                    }),
                }
            }
            Owner::Task(id) => {
                if let Some(endpoint) = self.view.endpoints.get(&id).filter(|endpoint| endpoint.serving) {
                    out.extend_from_slice(&endpoint.addresses);
                }
            }
        }
        false
    }

    /// `task.network` or `service.network`.
    pub fn name_of(&self, address: IpAddr) -> Option<String> {
        let name = match self.addresses.get(&address)? {
            Owner::Service(id) => &self.view.services.get(id)?.name,
            Owner::Task(id) => self.view.endpoints.get(id)?.names.last()?,
        };
        Some(format!("{name}.{}", self.view.name))
    }

    pub fn set_service(&mut self, id: ServiceId, service: Option<ServiceView>) {
        let owner = Owner::Service(id);
        if let Some(old) = self.view.services.remove(&id) {
            self.forget(owner, service_names(&old));
            self.forget_addresses(owner, &old.vips);
        }
        if let Some(new) = service {
            self.learn(owner, service_names(&new));
            self.addresses.extend(new.vips.iter().map(|address| (*address, owner)));
            self.view.services.insert(id, new);
        }
    }

    pub fn set_endpoint(&mut self, id: TaskId, endpoint: Option<Endpoint>) {
        let owner = Owner::Task(id);
        if let Some(old) = self.view.endpoints.remove(&id) {
            self.forget(owner, task_names(&old));
            self.forget_addresses(owner, &old.addresses);
            if let Some(serving) = self.serving.get_mut(&old.service) {
                serving.remove(&id);
                if serving.is_empty() {
                    self.serving.remove(&old.service);
                }
            }
        }
        if let Some(new) = endpoint {
            self.learn(owner, task_names(&new));
            self.addresses.extend(new.addresses.iter().map(|address| (*address, owner)));
            if new.serving {
                self.serving.entry(new.service).or_default().insert(id);
            }
            self.view.endpoints.insert(id, new);
        }
    }

    fn learn(&mut self, owner: Owner, names: Vec<(Rank, String)>) {
        for (rank, name) in names {
            self.names.entry(name).or_default().insert((rank, owner));
        }
    }

    fn forget(&mut self, owner: Owner, names: Vec<(Rank, String)>) {
        for (rank, name) in names {
            if let Some(owners) = self.names.get_mut(&name) {
                owners.remove(&(rank, owner));
                if owners.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
    }

    /// An address that has gone to another meanwhile stays the other's.
    fn forget_addresses(&mut self, owner: Owner, addresses: &[IpAddr]) {
        for address in addresses {
            if self.addresses.get(address) == Some(&owner) {
                self.addresses.remove(address);
            }
        }
    }
}

fn service_names(service: &ServiceView) -> Vec<(Rank, String)> {
    let aliases = service.aliases.iter().map(|alias| (Rank::Alias, alias.to_ascii_lowercase()));
    std::iter::once((Rank::Service, service.name.to_ascii_lowercase())).chain(aliases).collect()
}

fn task_names(endpoint: &Endpoint) -> Vec<(Rank, String)> {
    endpoint.names.iter().map(|name| (Rank::Task, name.to_ascii_lowercase())).collect()
}
