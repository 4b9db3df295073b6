//! The plan in parts, which follow what changes: a swarm's networks are many and large, and a change is of a task or two.
//! A part is planned from the changed entries alone, and is still what the whole would be if it were planned anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::plan::{Inputs, Plan, is_ingress, key_of_element, planned};
use super::state::*;
use crate::dispatcher::{Endpoint, NetworkView, ServiceView, differing};
use crate::spec::{NetworkId, ServiceId, Subnet, TaskId};

#[derive(Default)]
pub struct Parts {
    /// The host, its tasks, and the other nodes.
    base: KernelState,
    networks: BTreeMap<NetworkId, NetworkPart>,
}

/// What is different from the last time, beside the networks, which show it themselves.
#[derive(Debug, Default)]
pub struct Touched {
    pub all: bool,
    pub tasks: BTreeSet<TaskId>,
}

impl Parts {
    /// Plans anew what depends on what changed. Answers with what makes `held`, which is the whole as it was planned
    /// before, the whole as it is now.
    pub fn follow(&mut self, inputs: &Inputs, touched: &Touched, held: &KernelState) -> Changes {
        let moved = self.move_on(inputs, touched);
        // What one part gives up another may have: an address is another task's before its last one has let go of it.
        let parts = || std::iter::once(&self.base).chain(self.networks.values().map(|part| &part.state));
        Changes {
            routes: resolved(&moved.routes, &held.routes, parts().map(|part| &part.routes)),
            elements: resolved(&moved.elements, &held.elements, parts().map(|part| &part.elements)),
            balancers: resolved(&moved.balancers, &held.balancers, parts().map(|part| &part.balancers)),
            ..moved
        }
    }

    /// Each part's own changes.
    fn move_on(&mut self, inputs: &Inputs, touched: &Touched) -> Changes {
        let mut changes = Changes::default();
        if touched.all || !touched.tasks.is_empty() {
            let base = planned(inputs, Plan::base);
            changes.append(Changes::between(&self.base, &base));
            self.base = base;
        }
        let nothing = KernelState::default();
        let known = |id: &NetworkId| inputs.skeleton.overlay.is_some() && inputs.networks.list.contains_key(id);
        self.networks.retain(|id, part| {
            if !known(id) {
                changes.append(Changes::between(&part.state, &nothing));
            }
            known(id)
        });
        if inputs.skeleton.overlay.is_none() {
            return changes;
        }
        for (id, view) in &inputs.networks.list {
            match self.networks.get_mut(id) {
                Some(part) if !touched.all && part.view.same_network(view) => {
                    changes.append(part.follow(inputs, view, &touched.tasks));
                }
                old => {
                    let new = NetworkPart::new(inputs, view);
                    changes.append(Changes::between(old.map_or(&nothing, |old| &old.state), &new.state));
                    self.networks.insert(*id, new);
                }
            }
        }
        changes
    }

    /// All of it together.
    pub fn whole(&self) -> KernelState {
        let mut whole = self.base.clone();
        self.networks.values().for_each(|part| whole.take_in(part.state.clone()));
        whole
    }
}

/// What becomes of the keys of `moved`: the last part that has one says what it is, as in the whole.
fn resolved<'a, K: Ord + Clone + 'a, V: PartialEq + Clone + 'a>(
    moved: &Difference<K, V>,
    held: &BTreeMap<K, V>,
    parts: impl Iterator<Item = &'a BTreeMap<K, V>>,
) -> Difference<K, V> {
    let mut now: BTreeMap<&K, Option<&V>> = moved.list.iter().map(|change| (&change.key, None)).collect();
    for part in parts {
        if part.len() < now.len() {
            for (key, value) in part {
                now.entry(key).and_modify(|now| *now = Some(value));
            }
        } else {
            for (key, now) in &mut now {
                *now = part.get(key).or(*now);
            }
        }
    }
    let changes = now.into_iter().filter(|(key, new)| held.get(key) != *new).map(|(key, new)| Change {
        key: key.clone(),
        old: held.get(key).cloned(),
        new: new.cloned(),
    });
    Difference { list: changes.collect() }
}

/// One network, as it was planned from a view.
struct NetworkPart {
    view: Arc<NetworkView>,
    tasks: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    state: KernelState,
}

impl NetworkPart {
    fn new(inputs: &Inputs, view: &Arc<NetworkView>) -> NetworkPart {
        let empty =
            NetworkView { services: Default::default(), endpoints: Default::default(), ..NetworkView::clone(view) };
        let state = planned(inputs, |plan| plan.network(&empty));
        let mut part = NetworkPart { view: Arc::new(empty), tasks: BTreeMap::new(), state };
        part.follow(inputs, view, &BTreeSet::new());
        part
    }

    /// To a newer view of the same network; `touched` are tasks that came to this node or left it.
    fn follow(&mut self, inputs: &Inputs, view: &Arc<NetworkView>, touched: &BTreeSet<TaskId>) -> Changes {
        let old = Arc::clone(&self.view);
        let known = |task: &TaskId| old.endpoints.contains_key(task) || view.endpoints.contains_key(task);
        let mut tasks: BTreeSet<TaskId> = touched.iter().copied().filter(known).collect();
        let mut services = BTreeSet::new();
        if !Arc::ptr_eq(&old, view) {
            tasks.extend(differing(&old.endpoints, &view.endpoints));
            services.extend(differing(&old.services, &view.services));
        }
        let mut before = KernelState::default();
        for task in &tasks {
            if let Some(endpoint) = old.endpoints.get(task) {
                services.insert(endpoint.service);
                self.give_up_endpoint(endpoint, &mut before);
                self.forget(endpoint.service, *task);
            }
            if let Some(endpoint) = view.endpoints.get(task) {
                services.insert(endpoint.service);
                self.tasks.entry(endpoint.service).or_default().insert(*task);
            }
        }
        for service in services.iter().filter_map(|id| old.services.get(id)) {
            self.give_up_service(service, &mut before);
        }
        let after = planned(inputs, |plan| {
            for task in &tasks {
                if let Some(endpoint) = view.endpoints.get(task) {
                    plan.reach(view, *task, endpoint);
                }
            }
            for id in &services {
                if let Some(service) = view.services.get(id) {
                    let of_service = self.tasks.get(id).into_iter().flatten();
                    let endpoints = of_service.filter_map(|task| Some((*task, view.endpoints.get(task)?)));
                    plan.spread(view, service, endpoints);
                }
            }
            // A port in `host` mode may be of more than one service, on different nodes.
            let changed = services.iter().filter_map(|id| old.services.get(id));
            if changed.flat_map(|service| &service.ports).any(|port| !is_ingress(port)) {
                view.services.values().for_each(|service| plan.publish(service));
            }
        });
        self.view = Arc::clone(view);
        let changes = Changes::between(&before, &after);
        self.state.take_in(after);
        changes
    }

    fn forget(&mut self, service: ServiceId, task: TaskId) {
        if let Some(tasks) = self.tasks.get_mut(&service) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.tasks.remove(&service);
            }
        }
    }

    /// Moves what there is of it to `to`.
    fn give_up_endpoint(&mut self, endpoint: &Endpoint, to: &mut KernelState) {
        for address in &endpoint.addresses {
            let (width, sets) = match address.is_ipv6() {
                true => (128, [Set::Endpoints6, Set::Ingress6]),
                false => (32, [Set::Endpoints4, Set::Ingress4]),
            };
            if let Some(subnet) = Subnet::new(*address, width) {
                give(&mut self.state.routes, (MAIN_TABLE, subnet), &mut to.routes);
            }
            for set in sets {
                give(&mut self.state.elements, (set, Key::Address(*address)), &mut to.elements);
            }
        }
    }

    fn give_up_service(&mut self, service: &ServiceView, to: &mut KernelState) {
        let mut places = Vec::new();
        for vip in &service.vips {
            let set = if vip.is_ipv6() { Set::Vips6 } else { Set::Vips4 };
            places.push(((set, Key::Address(*vip)), Balancer::Vip(*vip)));
        }
        for port in service.ports.iter().filter(|port| is_ingress(port)) {
            for (set, ipv6) in [(Set::Ports4, false), (Set::Ports6, true)] {
                let balancer = Balancer::Port { protocol: port.protocol, port: port.published, ipv6 };
                places.push(((set, key_of_element(port)), balancer));
            }
        }
        for port in &service.ports {
            give(&mut self.state.elements, (Set::Published, key_of_element(port)), &mut to.elements);
        }
        for (element, balancer) in places {
            give(&mut self.state.elements, element, &mut to.elements);
            give(&mut self.state.balancers, balancer, &mut to.balancers);
        }
    }
}

fn give<K: Ord, V>(from: &mut BTreeMap<K, V>, key: K, to: &mut BTreeMap<K, V>) {
    to.extend(from.remove_entry(&key));
}
