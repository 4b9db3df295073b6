//! The state's shape: persistent maps by id, and the indices that every reader needs, kept in step by the few functions
//! that write here.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::addresses::AddressHolder;
use super::object::*;
use crate::spec::*;

/// Everything the log adds up to. Cloning is O(1); fields are read-only outside this room.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Index of the last entry applied.
    pub(super) applied: u64,
    pub(super) swarm: Option<Arc<Swarm>>,
    pub(super) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(super) services: OrdMap<ServiceId, Arc<Service>>,
    pub(super) tasks: OrdMap<TaskId, Arc<Task>>,
    pub(super) networks: OrdMap<NetworkId, Arc<Network>>,
    pub(super) secrets: OrdMap<SecretId, Arc<Secret>>,
    pub(super) configs: OrdMap<ConfigId, Arc<Config>>,
    pub(super) volume_homes: OrdMap<(ServiceId, Slot, String), NodeId>,
    pub(super) credentials: OrdMap<ServiceId, Arc<RegistryCredentials>>,
    /// Task specs by the service and version that brought them, as long as a service or task refers to them.
    pub(super) task_specs: OrdMap<(ServiceId, Version), SharedTaskSpec>,
    /// The highest raft id ever given; none is given twice.
    pub(super) last_raft_id: u64,
    /// What clients were answered, so that a retry gets the same answer.
    pub(super) sessions: super::session::Sessions,

    // Indices, derived.
    /// Tasks of each service in slot order.
    pub(super) tasks_by_slot: OrdSet<(ServiceId, Slot, TaskId)>,
    pub(super) tasks_by_node: OrdMap<NodeId, OrdSet<TaskId>>,
    /// How many tasks were made from each task spec.
    pub(super) task_spec_users: OrdMap<(ServiceId, Version), u64>,
    pub(super) service_names: OrdMap<String, ServiceId>,
    pub(super) network_names: OrdMap<String, NetworkId>,
    /// Of all networks; no two share an address.
    pub(super) subnets: OrdMap<Subnet, NetworkId>,
    pub(super) ingress_network: Option<NetworkId>,
    /// In use by tasks that have not ended, and by services.
    pub(super) addresses: OrdMap<IpAddr, AddressHolder>,
    pub(super) secret_names: OrdMap<String, SecretId>,
    pub(super) config_names: OrdMap<String, ConfigId>,
}

impl State {
    /// Inserts or replaces a task. Its service, slot and spec version never change.
    pub(super) fn put_task(&mut self, task: Task) {
        let old_node = match self.tasks.get(&task.id) {
            Some(old) => {
                debug_assert_eq!(
                    (old.service, old.slot, old.spec_version),
                    (task.service, task.slot, task.spec_version)
                );
                old.node
            }
            None => {
                self.tasks_by_slot.insert((task.service, task.slot, task.id));
                *self.task_spec_users.entry((task.service, task.spec_version)).or_insert(0) += 1;
                None
            }
        };
        if old_node != task.node {
            self.unlist_from_node(old_node, task.id);
            if let Some(node) = task.node {
                self.tasks_by_node.entry(node).or_default().insert(task.id);
            }
        }
        let task = Arc::new(task);
        let old = self.tasks.insert(task.id, Arc::clone(&task));
        self.index_task_addresses(old.as_deref(), Some(&task));
    }

    /// Removes a task, and its spec if nothing else refers to it.
    pub(super) fn forget_task(&mut self, id: TaskId) {
        let Some(task) = self.tasks.remove(&id) else { return };
        self.tasks_by_slot.remove(&(task.service, task.slot, id));
        self.unlist_from_node(task.node, id);
        self.index_task_addresses(Some(&task), None);
        let key = (task.service, task.spec_version);
        let users = self.task_spec_users.get_mut(&key).expect("every task is counted");
        *users -= 1;
        if *users == 0 {
            self.task_spec_users.remove(&key);
            self.release_task_spec(task.service, task.spec_version);
        }
    }

    fn unlist_from_node(&mut self, node: Option<NodeId>, task: TaskId) {
        let Some(node) = node else { return };
        let Some(tasks) = self.tasks_by_node.get_mut(&node) else { return };
        tasks.remove(&task);
        if tasks.is_empty() {
            self.tasks_by_node.remove(&node);
        }
    }

    /// Forgets a task spec that neither a task nor its service refers to any more.
    pub(super) fn release_task_spec(&mut self, service: ServiceId, version: Version) {
        let named = self.services.get(&service).is_some_and(|service| {
            let runs = service.cron.iter().flat_map(|cron| &cron.open).any(|run| run.spec_version == version);
            let previous = service.previous.as_ref().is_some_and(|previous| previous.spec_version == version);
            service.spec_version == version || previous || runs
        });
        if !named && !self.task_spec_users.contains_key(&(service, version)) {
            self.task_specs.remove(&(service, version));
        }
    }

    /// Inserts or replaces a service. A service's name never changes.
    pub(super) fn put_service(&mut self, service: Service) {
        self.service_names.insert(service.spec.name.clone(), service.id);
        let service = Arc::new(service);
        let old = self.services.insert(service.id, Arc::clone(&service));
        self.index_vips(old.as_deref(), Some(&service));
    }

    /// Removes a service and its addresses; its tasks and their specs are the caller's.
    pub(super) fn take_service(&mut self, id: ServiceId) -> Option<Arc<Service>> {
        let service = self.services.remove(&id)?;
        self.service_names.remove(&service.spec.name);
        self.index_vips(Some(&service), None);
        Some(service)
    }

    pub(super) fn put_node(&mut self, node: Node) {
        if let Some(raft) = node.raft {
            self.last_raft_id = self.last_raft_id.max(raft.raft_id);
        }
        self.nodes.insert(node.id, Arc::new(node));
    }

    pub(super) fn put_network(&mut self, network: Network) {
        self.network_names.insert(network.spec.name.clone(), network.id);
        let network = Arc::new(network);
        let old = self.networks.insert(network.id, Arc::clone(&network));
        self.index_network(old.as_deref(), Some(&network));
    }

    pub(super) fn forget_network(&mut self, id: NetworkId) {
        let Some(network) = self.networks.remove(&id) else { return };
        self.network_names.remove(&network.spec.name);
        self.index_network(Some(&network), None);
    }

    pub(super) fn put_secret(&mut self, secret: Secret) {
        self.secret_names.insert(secret.spec.name.clone(), secret.id);
        self.secrets.insert(secret.id, Arc::new(secret));
    }

    pub(super) fn put_config(&mut self, config: Config) {
        self.config_names.insert(config.spec.name.clone(), config.id);
        self.configs.insert(config.id, Arc::new(config));
    }
}
