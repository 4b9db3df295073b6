//! Reading the state. Iteration is in id order, the same on every node.

use std::sync::Arc;

use super::object::*;
use super::store::State;
use crate::spec::*;

impl State {
    /// Index of the last entry applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    pub fn swarm(&self) -> Option<&Arc<Swarm>> {
        self.swarm.as_ref()
    }

    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Whether `other` certainly has the same nodes and swarm: cheap, because maps share their memory. `false` says nothing.
    pub fn same_members(&self, other: &State) -> bool {
        let same_swarm = match (&self.swarm, &other.swarm) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (mine, theirs) => mine.is_none() && theirs.is_none(),
        };
        same_swarm && self.nodes.ptr_eq(&other.nodes)
    }

    /// Whether `other` certainly has the same networks; `false` says nothing.
    pub fn same_networks(&self, other: &State) -> bool {
        self.networks.ptr_eq(&other.networks)
    }

    /// Whether `other` certainly has the same tasks; `false` says nothing.
    pub fn same_tasks(&self, other: &State) -> bool {
        self.tasks.ptr_eq(&other.tasks)
    }

    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn service_by_name(&self, name: &str) -> Option<&Arc<Service>> {
        self.service_names.get(name).and_then(|id| self.services.get(id))
    }

    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// In slot order.
    pub fn tasks_of_service(&self, id: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        let first = (id, Slot::Replica(0), TaskId(0));
        self.tasks_by_slot.range(first..).take_while(move |key| key.0 == id).filter_map(|key| self.tasks.get(&key.2))
    }

    /// Every task of one slot, ended ones too.
    pub fn tasks_in_slot(&self, id: ServiceId, slot: Slot) -> impl Iterator<Item = &Arc<Task>> {
        let keys = (id, slot, TaskId(0))..=(id, slot, TaskId(u128::MAX));
        self.tasks_by_slot.range(keys).filter_map(|key| self.tasks.get(&key.2))
    }

    pub fn tasks_of_node(&self, id: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_node.get(&id).into_iter().flatten().filter_map(|task| self.tasks.get(task))
    }

    /// The spec a task was made from. Kept as long as its service or any task refers to it.
    pub fn task_spec(&self, service: ServiceId, version: Version) -> Option<&SharedTaskSpec> {
        self.task_specs.get(&(service, version))
    }

    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    pub fn networks(&self) -> impl ExactSizeIterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    pub fn network_by_name(&self, name: &str) -> Option<&Arc<Network>> {
        self.network_names.get(name).and_then(|id| self.networks.get(id))
    }

    /// The services on a network, by name; of more, the first and how many they are.
    pub fn network_users(&self, id: NetworkId) -> Option<String> {
        const NAMED: usize = 5;
        let on_it = self.services().filter(|service| service.spec.task.uses_network(id));
        let mut names: Vec<&str> = on_it.map(|service| service.spec.name.as_str()).collect();
        names.sort_unstable();
        match names.as_slice() {
            // Its tasks are on it still.
            [] => self.network_user(id),
            [one] => Some(format!("service {one}")),
            some if some.len() <= NAMED => Some(format!("services {}", some.join(", "))),
            many => Some(format!("services {} and {} more", many[..NAMED].join(", "), many.len() - NAMED)),
        }
    }

    /// A service or task that is on a network, by its kind and name, so that the network cannot go.
    pub fn network_user(&self, id: NetworkId) -> Option<String> {
        if let Some(service) = self.services().find(|service| service.spec.task.uses_network(id)) {
            return Some(format!("service {}", service.spec.name));
        }
        let on_it = |task: &&Arc<Task>| {
            self.task_spec(task.service, task.spec_version).is_some_and(|spec| spec.uses_network(id))
        };
        let task = self.tasks().filter(|task| task.is_live()).find(on_it);
        task.map(|task| format!("task {}", task.id))
    }

    pub fn secret(&self, id: SecretId) -> Option<&Arc<Secret>> {
        self.secrets.get(&id)
    }

    pub fn secrets(&self) -> impl ExactSizeIterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    pub fn secret_by_name(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(self.secret_names.get(name)?)
    }

    pub fn config_by_name(&self, name: &str) -> Option<&Arc<Config>> {
        self.configs.get(self.config_names.get(name)?)
    }

    pub fn config(&self, id: ConfigId) -> Option<&Arc<Config>> {
        self.configs.get(&id)
    }

    pub fn configs(&self) -> impl ExactSizeIterator<Item = &Arc<Config>> {
        self.configs.values()
    }

    /// The node that holds the data of a slot's named local volume.
    pub fn volume_home(&self, service: ServiceId, slot: Slot, volume: &str) -> Option<NodeId> {
        self.volume_homes.get(&(service, slot, volume.to_owned())).copied()
    }

    pub(super) fn volume_homes_of(&self, id: ServiceId) -> impl Iterator<Item = &(ServiceId, Slot, String)> {
        let first = (id, Slot::Replica(0), String::new());
        self.volume_homes.range(first..).map(|(key, _)| key).take_while(move |key| key.0 == id)
    }

    pub fn credentials(&self, service: ServiceId) -> Option<&Arc<RegistryCredentials>> {
        self.credentials.get(&service)
    }
}
