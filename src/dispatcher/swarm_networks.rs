//! All networks of the swarm as their nodes see them, made from desired and observed state on each log holder.
//!
//! A [`NetworkBuilder`] remembers what it last looked at, finds out what has changed since, and makes only those services
//! and tasks of a network anew that the change touches; a change that touches none costs a comparison of pointers for each
//! node. What came of it, [`SwarmNetworks`], is shared by the streams to all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::networks::{Endpoint, NetworkChange, NetworkView, Networks, NetworksUpdate, ServiceView, subnets};
use super::view::task_name;
use crate::gossip::{NodeRecord, Table};
use crate::spec::{template, *};
use crate::state::watch::{Difference, ObjectChange, changes};
use crate::state::{AddressHolder, AddressUser, Network, Node, NodeHealth, Service, State, Task};

/// Every network at one moment.
#[derive(Debug, Clone, Default)]
pub struct SwarmNetworks {
    state: State,
    list: BTreeMap<NetworkId, Arc<NetworkView>>,
    /// Of the networks that were made anew last: from which view, and what leads to the present one. Nearly every stream
    /// has told its node the former, so the difference is taken once for all of them.
    steps: BTreeMap<NetworkId, (Arc<NetworkView>, NetworkChange)>,
}

impl SwarmNetworks {
    /// What `node` must know: the networks of its tasks, and the ingress network.
    pub fn of(&self, node: NodeId) -> Networks {
        let tasks = self.state.tasks_of_node(node).filter(|task| task.outcome.is_none());
        let wanted = tasks.flat_map(|task| task.attachments.iter().map(|place| place.network));
        let wanted = wanted.chain(self.state.ingress_network().map(|network| network.id));
        let mut list = BTreeMap::new();
        for id in wanted {
            if let Some(view) = self.list.get(&id) {
                list.entry(id).or_insert_with(|| Arc::clone(view));
            }
        }
        Networks { list }
    }

    /// Of every network of the swarm, by its name.
    pub fn subnets(&self) -> BTreeMap<String, Vec<Subnet>> {
        subnets(self.list.values())
    }

    /// What takes a node from `held` to `newer`, which is of this moment.
    pub fn update(&self, held: &Networks, newer: &Networks) -> NetworksUpdate {
        held.update_with(newer, |id, old| {
            let (from, change) = self.steps.get(&id)?;
            Arc::ptr_eq(from, old).then(|| change.clone())
        })
    }
}

/// What is to be made anew.
#[derive(Debug, Default)]
struct Touched {
    /// As a whole.
    networks: BTreeSet<NetworkId>,
    services: BTreeSet<(NetworkId, ServiceId)>,
    tasks: BTreeSet<(NetworkId, TaskId)>,
}

impl Touched {
    fn places<'a>(&mut self, tasks: impl Iterator<Item = &'a Task>) {
        self.tasks.extend(tasks.flat_map(|task| task.attachments.iter().map(|place| (place.network, task.id))));
    }

    /// All networks of which something is.
    fn all(&self) -> BTreeSet<NetworkId> {
        let parts = self.services.iter().map(|at| at.0).chain(self.tasks.iter().map(|at| at.0));
        self.networks.iter().copied().chain(parts).collect()
    }
}

/// Makes [`SwarmNetworks`], again and again.
#[derive(Debug, Default)]
pub struct NetworkBuilder {
    made: SwarmNetworks,
    records: BTreeMap<NodeId, Arc<NodeRecord>>,
    suspects: BTreeSet<NodeId>,
    /// The services that are on a network, with tasks or without.
    services: BTreeMap<NetworkId, BTreeSet<ServiceId>>,
}

impl NetworkBuilder {
    /// `None`: nothing that a node must know of networks has changed.
    pub fn build(&mut self, state: &State, table: &Table) -> Option<SwarmNetworks> {
        let mut touched = self.touched_by_state(state);
        self.touched_by_table(state, table, &mut touched);
        let before = std::mem::replace(&mut self.made.state, state.clone());
        let mut steps = BTreeMap::new();
        for id in touched.all() {
            let Some(network) = state.network(id) else {
                self.made.list.remove(&id);
                continue;
            };
            let view = match self.made.list.get(&id) {
                Some(old) if !touched.networks.contains(&id) => {
                    self.changed(NetworkView::clone(old), network, table, &touched)
                }
                _ => self.view(network, table),
            };
            let view = Arc::new(view);
            match self.made.list.insert(id, Arc::clone(&view)) {
                Some(old) if old == view => drop(self.made.list.insert(id, old)),
                Some(old) => {
                    if let Some(change) = old.change_to(&view) {
                        steps.insert(id, (old, change));
                    }
                }
                None => {}
            }
        }
        // Which networks there are, and which of them a node is to know, depends on these.
        let same = steps.is_empty() && before.same_networks(state) && before.same_tasks(state);
        self.made.steps = steps;
        (!same).then(|| self.made.clone())
    }

    /// What a change of desired state touches.
    fn touched_by_state(&mut self, state: &State) -> Touched {
        let mut touched = Touched::default();
        let ingress = |state: &State| state.ingress_network().map(|network| network.id);
        if ingress(&self.made.state) != ingress(state) {
            self.services.clear();
            for service in state.services() {
                for network in networks_of(state, service) {
                    self.services.entry(network).or_default().insert(service.id);
                    touched.networks.insert(network);
                }
            }
        }
        for change in changes(&self.made.state, state) {
            match change {
                ObjectChange::Network(change) => drop(touched.networks.insert(change.latest().id)),
                ObjectChange::Service(change) => self.note_service(state, &change, &mut touched),
                ObjectChange::Task(change) => {
                    let (old, new) = sides(&change);
                    if old.map(told) != new.map(told) {
                        touched.places(old.into_iter().chain(new));
                    }
                }
                ObjectChange::Node(change) => {
                    let (old, new) = sides(&change);
                    if old.map(|node| is_there(node.health)) != new.map(|node| is_there(node.health)) {
                        touched.places(state.tasks_of_node(change.latest().id).map(Arc::as_ref));
                    }
                }
                ObjectChange::Swarm(_) | ObjectChange::Secret(_) | ObjectChange::Config(_) => {}
            }
        }
        touched
    }

    fn note_service(&mut self, state: &State, change: &Difference<Service>, touched: &mut Touched) {
        let (old, new) = sides(change);
        let id = change.latest().id;
        for network in old.into_iter().flat_map(|service| networks_of(&self.made.state, service)) {
            if let Some(services) = self.services.get_mut(&network) {
                services.remove(&id);
            }
            touched.services.insert((network, id));
        }
        for network in new.into_iter().flat_map(|service| networks_of(state, service)) {
            self.services.entry(network).or_default().insert(id);
            touched.services.insert((network, id));
        }
        // They bear its name.
        touched.places(state.tasks_of_service(id).map(Arc::as_ref));
        self.services.retain(|_, services| !services.is_empty());
    }

    /// Tasks of which their nodes, or those who watch these, say something new.
    fn touched_by_table(&mut self, state: &State, table: &Table, touched: &mut Touched) {
        for node in self.suspects.symmetric_difference(table.suspects()) {
            touched.places(state.tasks_of_node(*node).map(Arc::as_ref));
        }
        self.suspects.clone_from(table.suspects());
        for (node, held) in table.iter() {
            let old = self.records.get(&node);
            if old.is_some_and(|old| Arc::ptr_eq(old, &held.record)) {
                continue;
            }
            let heard = |task: &&Arc<Task>| match old {
                None => true,
                Some(old) => {
                    let told =
                        |record: &NodeRecord| (up(record, task.id), short_id(record, task.id).map(str::to_owned));
                    told(old) != told(&held.record) || old.leaving != held.record.leaving
                }
            };
            touched.places(state.tasks_of_node(node).filter(heard).map(Arc::as_ref));
            self.records.insert(node, Arc::clone(&held.record));
        }
        if self.records.len() > table.iter().count() {
            self.records.retain(|node, _| table.get(*node).is_some());
        }
    }

    fn view(&self, network: &Network, table: &Table) -> NetworkView {
        let state = &self.made.state;
        let mut endpoints = OrdMap::new();
        for (_, holder) in network.parsed_subnets().flat_map(|subnet| state.addresses_in(subnet)) {
            let AddressUser::Task(id) = holder.user else { continue };
            if !endpoints.contains_key(&id) {
                endpoints.extend(endpoint(state, table, network.id, id).map(|endpoint| (id, endpoint)));
            }
        }
        let services = self.services.get(&network.id).into_iter().flatten();
        NetworkView {
            name: network.spec.name.clone(),
            subnets: network.parsed_subnets().collect(),
            internal: network.spec.internal,
            ingress: network.spec.ingress,
            mtu: network.spec.mtu(),
            services: services.filter_map(|id| Some((*id, service(state.service(*id)?, network)))).collect(),
            endpoints,
        }
    }

    /// The same network with what is touched made anew. What comes out as it was stays shared with the older view.
    fn changed(&self, mut view: NetworkView, network: &Network, table: &Table, touched: &Touched) -> NetworkView {
        let (state, id) = (&self.made.state, network.id);
        let on_it = self.services.get(&id);
        for (_, at) in touched.services.iter().filter(|at| at.0 == id) {
            let there = on_it.filter(|services| services.contains(at)).and_then(|_| state.service(*at));
            replace(&mut view.services, *at, there.map(|there| service(there, network)));
        }
        for (_, at) in touched.tasks.iter().filter(|at| at.0 == id) {
            replace(&mut view.endpoints, *at, endpoint(state, table, id, *at));
        }
        view
    }
}

fn replace<K: Ord + Clone, V: Clone + PartialEq>(map: &mut OrdMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) if map.get(&key) == Some(&value) => {}
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// Where a service is told of: on its networks, and on the ingress network for its ports of either mode.
fn networks_of(state: &State, service: &Service) -> BTreeSet<NetworkId> {
    let ingress = state.ingress_network().filter(|_| service.ports.iter().any(|port| port.published != 0));
    state.networks_of(&service.spec.task).into_iter().chain(ingress.map(|network| network.id)).collect()
}

fn service(service: &Service, network: &Network) -> ServiceView {
    let place = service.spec.task.networks.iter().find(|to| to.target == NetworkTarget::Id(network.id));
    let ports = service.ports.iter().filter(|port| port.published != 0);
    ServiceView {
        name: service.spec.name.clone(),
        aliases: place.map(|to| to.aliases.clone()).unwrap_or_default(),
        vips: service.vips.iter().find(|vip| vip.0 == network.id).map(|vip| vip.1.clone()).unwrap_or_default(),
        ports: if network.spec.ingress { ports.cloned().collect() } else { Vec::new() },
    }
}

/// `None`: the task is not on the network, or has ended.
fn endpoint(state: &State, table: &Table, network: NetworkId, task: TaskId) -> Option<Endpoint> {
    let holder = AddressHolder { network, user: AddressUser::Task(task) };
    let task = state.task(task)?;
    let place = task.attachments.iter().find(|place| place.network == network)?;
    if !place.addresses.iter().any(|address| state.address_holder(*address) == Some(&holder)) {
        return None;
    }
    let node = task.node?;
    let named = state.service(task.service).map(|service| task_name(&service.spec.name, task));
    Some(Endpoint {
        service: task.service,
        node,
        addresses: place.addresses.clone(),
        names: hostname(state, table, task, node).into_iter().filter(|name| !name.is_empty()).chain(named).collect(),
        serving: serves(state, table, node, task),
    })
}

/// What a task's container is called by itself.
fn hostname(state: &State, table: &Table, task: &Task, node: NodeId) -> Option<String> {
    let spec = state.task_spec(task.service, task.spec_version);
    match spec.and_then(|spec| spec.container.hostname.as_deref()) {
        // Its node fills in the same.
        Some(name) if name.contains("{{") => filled_in(name, state.service(task.service)?, task, state.node(node)?),
        Some(name) => Some(name.to_owned()),
        None => short_id(&table.get(node)?.record, task.id).map(str::to_owned),
    }
}

/// `None`: the template asks for what there is not, and so its task does not start.
fn filled_in(text: &str, service: &Service, task: &Task, node: &Node) -> Option<String> {
    let context = template::Context {
        service_id: &service.id.to_string(),
        service_name: &service.spec.name,
        service_labels: &service.spec.labels,
        node_id: &node.id.to_string(),
        node_hostname: &node.description.hostname,
        node_os: &node.description.platform.os,
        node_architecture: &node.description.platform.architecture,
        task_id: &task.id.to_string(),
        task_name: &task_name(&service.spec.name, task),
        task_slot: &task.slot.to_string(),
    };
    template::expand(text, &context.words(), None, &template::Budget::of_name()).ok()
}

/// What a task's container is called by itself where its spec says nothing: the start of its id, as in Docker.
fn short_id(record: &NodeRecord, task: TaskId) -> Option<&str> {
    const LENGTH: usize = 12;
    record.tasks.get(&task)?.container_id.as_deref()?.get(..LENGTH)
}

/// Whether a task gets new connections.
fn serves(state: &State, table: &Table, node: NodeId, task: &Task) -> bool {
    let node_there = state.node(node).is_some_and(|node| is_there(node.health)) && !table.is_suspect(node);
    let wanted = task.outcome.is_none() && task.desired == DesiredState::Running;
    // A manager that has not heard a node yet (it was just started) knows nothing against its tasks: it must not take out
    // of the balance what has been serving all along.
    let runs = table.get(node).is_none_or(|held| !held.record.leaving && up(&held.record, task.id));
    node_there && wanted && runs
}

/// Whether a task runs and is not known to be ill, by its node's word.
fn up(record: &NodeRecord, task: TaskId) -> bool {
    record.tasks.get(&task).is_some_and(|report| {
        let healthy = matches!(report.health, Health::None | Health::Healthy);
        // One that waits to be restarted in place has no process.
        report.state == TaskState::Running && report.pid.is_some() && healthy
    })
}

fn is_there(health: NodeHealth) -> bool {
    !matches!(health, NodeHealth::Down { .. } | NodeHealth::Left { .. })
}

/// What of a task a network's view depends on.
fn told(task: &Task) -> (&[Attachment], Option<NodeId>, bool, bool) {
    (&task.attachments, task.node, task.outcome.is_none(), task.desired == DesiredState::Running)
}

fn sides<T>(change: &Difference<T>) -> (Option<&T>, Option<&T>) {
    match change {
        Difference::Created(new) => (None, Some(new)),
        Difference::Removed(old) => (Some(old), None),
        Difference::Updated { old, new } => (Some(old), Some(new)),
    }
}
