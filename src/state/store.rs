//! The state's shape: persistent maps by id, and the indices that every reader needs.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::object::*;
use crate::spec::*;

/// Everything the log adds up to. Cloning is O(1); fields are read-only outside this room.
#[derive(Debug, Clone, Default)]
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
    /// What clients were answered, so that a retry gets the same answer.
    pub(super) sessions: super::apply::Sessions,

    // Indices, derived.
    pub(super) tasks_by_service: OrdMap<ServiceId, OrdSet<TaskId>>,
    pub(super) tasks_by_node: OrdMap<NodeId, OrdSet<TaskId>>,
    pub(super) service_names: OrdMap<String, ServiceId>,
    pub(super) network_names: OrdMap<String, NetworkId>,
    pub(super) secret_names: OrdMap<String, SecretId>,
    pub(super) config_names: OrdMap<String, ConfigId>,
}
