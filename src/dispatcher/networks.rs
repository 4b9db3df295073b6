//! What a node must know of the swarm's networks: who is on them, at which address, and who takes new connections.
//!
//! Unlike the rest of a node's [`View`](super::View) this depends on observed state too (a task's health, a node that is
//! suspected), so it has no generation of the log: each stream begins with a whole [`Networks`], and goes on with
//! differences to the one before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};

use crate::spec::{NetworkId, NodeId, PortConfig, ServiceId, Subnet, TaskId};

/// Every network that the node's tasks are on, and the ingress network, which every node needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Networks {
    /// Shared: nodes on one network hold the same view of it.
    pub list: BTreeMap<NetworkId, Arc<NetworkView>>,
}

/// One network, as all nodes on it see it. A newer view shares with the older one what is the same in both, so that to make
/// it, and to compare them, costs what has changed and not what there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    pub name: String,
    /// Of both address families.
    pub subnets: Vec<Subnet>,
    /// No way out of the network, but to ports that are published.
    pub internal: bool,
    /// Carries the connections to published ports.
    pub ingress: bool,
    /// What a packet on it may be, where its maker asked for less than the nodes' path takes.
    pub mtu: Option<u32>,
    pub services: OrdMap<ServiceId, ServiceView>,
    /// By task. A task that has ended is not here; a connection to its address is refused.
    pub endpoints: OrdMap<TaskId, Endpoint>,
}

/// A service on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its full name, `stack_service`.
    pub name: String,
    /// Other names it has on this network.
    pub aliases: Vec<String>,
    /// At most one of each address family; empty in `dnsrr` mode.
    pub vips: Vec<IpAddr>,
    /// Published in either mode, the published port filled in, without the automatic ones of `host` mode; empty but on the
    /// ingress network.
    pub ports: Vec<PortConfig>,
}

/// A task on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub service: ServiceId,
    pub node: NodeId,
    /// At most one of each address family.
    pub addresses: Vec<IpAddr>,
    /// Names of its own on this network: its hostname and its name, `service.slot.id`.
    pub names: Vec<String>,
    /// Gets new connections and is in DNS: it runs, is not unhealthy, is not being stopped, and its node is not suspected.
    /// One that does not serve is still reached by the connections it has.
    pub serving: bool,
}

pub(super) fn subnets<'a>(views: impl Iterator<Item = &'a Arc<NetworkView>>) -> BTreeMap<String, Vec<Subnet>> {
    views.map(|view| (view.name.clone(), view.subnets.clone())).collect()
}

/// From one view of a node's networks to a newer one; or, as a snapshot, a whole one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworksUpdate {
    /// Nothing of what the receiver had is kept.
    pub snapshot: bool,
    pub changed: Vec<(NetworkId, NetworkChange)>,
    pub removed: Vec<NetworkId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NetworkChange {
    /// New to the receiver, or changed as a whole.
    Whole(Box<NetworkView>),
    Parts {
        services: Vec<(ServiceId, ServiceView)>,
        removed_services: Vec<ServiceId>,
        endpoints: Vec<(TaskId, Endpoint)>,
        removed_endpoints: Vec<TaskId>,
    },
}

impl Networks {
    /// Of every network, by its name.
    pub fn subnets(&self) -> BTreeMap<String, Vec<Subnet>> {
        subnets(self.list.values())
    }

    /// What takes a holder of `self` to `newer`.
    pub fn update_to(&self, newer: &Networks) -> NetworksUpdate {
        self.update_with(newer, |_, _| None)
    }

    /// The same, where `known` may have at hand what leads from an older view of a network to the newer one.
    pub(super) fn update_with(
        &self,
        newer: &Networks,
        known: impl Fn(NetworkId, &Arc<NetworkView>) -> Option<NetworkChange>,
    ) -> NetworksUpdate {
        let removed = self.list.keys().filter(|id| !newer.list.contains_key(id)).copied().collect();
        let changed = newer.list.iter().filter_map(|(id, new)| {
            let change = match self.list.get(id) {
                Some(old) if Arc::ptr_eq(old, new) => None,
                Some(old) => known(*id, old).or_else(|| old.change_to(new)),
                None => Some(NetworkChange::Whole(Box::new(NetworkView::clone(new)))),
            };
            Some((*id, change?))
        });
        NetworksUpdate { snapshot: false, changed: changed.collect(), removed }
    }

    /// Brings `self` to what the update was made for. One that speaks of a network that is not known is an error; nothing
    /// is changed then, and a snapshot is needed.
    pub fn apply(&mut self, update: NetworksUpdate) -> Result<(), UnknownNetwork> {
        let has = |id: &NetworkId| !update.snapshot && self.list.contains_key(id);
        let unknown =
            update.changed.iter().find(|(id, change)| matches!(change, NetworkChange::Parts { .. }) && !has(id));
        if let Some((id, _)) = unknown {
            return Err(UnknownNetwork(*id));
        }
        if update.snapshot {
            self.list.clear();
        }
        for id in &update.removed {
            self.list.remove(id);
        }
        for (id, change) in update.changed {
            match change {
                NetworkChange::Whole(view) => drop(self.list.insert(id, Arc::new(*view))),
                NetworkChange::Parts { services, removed_services, endpoints, removed_endpoints } => {
                    let view = Arc::make_mut(self.list.get_mut(&id).expect("it was looked up before"));
                    removed_services.iter().for_each(|id| drop(view.services.remove(id)));
                    removed_endpoints.iter().for_each(|id| drop(view.endpoints.remove(id)));
                    view.services.extend(services);
                    view.endpoints.extend(endpoints);
                }
            }
        }
        Ok(())
    }
}

/// An update to a network that the receiver does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an update changes network {0}, which this node does not know: a snapshot is needed")]
pub struct UnknownNetwork(pub NetworkId);

impl NetworksUpdate {
    /// All of `networks`, whatever its receiver has.
    pub fn snapshot(networks: &Networks) -> NetworksUpdate {
        NetworksUpdate { snapshot: true, ..Networks::default().update_to(networks) }
    }

    pub fn is_empty(&self) -> bool {
        !self.snapshot && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl NetworkView {
    /// `None`: they are equal.
    pub(super) fn change_to(&self, new: &NetworkView) -> Option<NetworkChange> {
        if self == new {
            return None;
        }
        Some(if self.same_network(new) { self.parts_to(new) } else { NetworkChange::Whole(Box::new(new.clone())) })
    }

    /// Whether only services and endpoints differ.
    pub fn same_network(&self, other: &NetworkView) -> bool {
        self.name == other.name
            && self.subnets == other.subnets
            && self.internal == other.internal
            && self.ingress == other.ingress
            && self.mtu == other.mtu
    }

    fn parts_to(&self, new: &NetworkView) -> NetworkChange {
        let (services, removed_services) = changes(&self.services, &new.services);
        let (endpoints, removed_endpoints) = changes(&self.endpoints, &new.endpoints);
        NetworkChange::Parts { services, removed_services, endpoints, removed_endpoints }
    }
}

/// What is new or different in `new`, and what is no longer there.
fn changes<K: Ord + Copy, V: PartialEq + Clone>(old: &OrdMap<K, V>, new: &OrdMap<K, V>) -> (Vec<(K, V)>, Vec<K>) {
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    for item in old.diff(new) {
        match item {
            DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
                changed.push((*key, value.clone()))
            }
            DiffItem::Remove(key, _) => removed.push(*key),
        }
    }
    (changed, removed)
}

/// The keys of what differs.
pub fn differing<K: Ord + Copy, V: PartialEq>(old: &OrdMap<K, V>, new: &OrdMap<K, V>) -> Vec<K> {
    old.diff(new)
        .map(|item| match item {
            DiffItem::Add(key, _) | DiffItem::Update { new: (key, _), .. } | DiffItem::Remove(key, _) => *key,
        })
        .collect()
}
