//! Whom the kernels would let meet whom: each node's plan is made from what it is told of the networks, and is read as a
//! packet would walk it (`src/network/skeleton.rs`), from the task that sends to the task that receives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flok::dispatcher::SwarmNetworks;
use flok::network::*;
use flok::spec::{NetworkId, NodeId, Protocol, ServiceId, Subnet, TaskId};
use flok::state::{State, Task};

/// Of tasks' host-local addresses, on every node.
const LOCAL: &str = "198.19.0.0/17";
const DATA_PATH_PORT: u16 = 4789;

/// Whose an address is.
#[derive(Debug, Clone, Copy)]
struct Place {
    network: NetworkId,
    task: TaskId,
    service: ServiceId,
    node: NodeId,
}

struct Node {
    address: IpAddr,
    plan: Preview,
    /// The pairs of subnets between which it lets pass.
    pairs: Vec<(Subnet, Subnet)>,
}

impl Node {
    fn has(&self, [four, six]: [Set; 2], address: IpAddr, key: Key) -> bool {
        let set = if address.is_ipv6() { six } else { four };
        self.plan.state.elements.contains_key(&(set, key))
    }

    fn is_endpoint(&self, address: IpAddr) -> bool {
        self.has([Set::Endpoints4, Set::Endpoints6], address, Key::Address(address))
    }

    fn is_ingress(&self, address: IpAddr) -> bool {
        self.has([Set::Ingress4, Set::Ingress6], address, Key::Address(address))
    }

    /// Where else what comes from here may go.
    fn beside(&self, from: IpAddr) -> Vec<Subnet> {
        self.pairs.iter().filter(|(own, _)| own.contains(from)).map(|(_, other)| *other).collect()
    }

    /// The same of what `task` sends; nothing where that is not its address.
    fn beside_task(&self, task: TaskId, from: IpAddr) -> Vec<Subnet> {
        let own = self.plan.interfaces.iter().filter(|(_, owner)| **owner == task);
        let mut keys = own.map(|(interface, _)| Key::Source(*interface, from));
        if keys.any(|key| self.has([Set::Sources4, Set::Sources6], from, key)) { self.beside(from) } else { Vec::new() }
    }

    fn way_to(&self, address: IpAddr) -> Option<Route> {
        let single = Subnet::new(address, if address.is_ipv6() { 128 } else { 32 })?;
        self.plan.state.routes.get(&(MAIN_TABLE, single)).copied()
    }

    /// At which host the datagrams to the gateway of a route arrive.
    fn host_behind(&self, interface: Interface, gateway: IpAddr) -> Option<IpAddr> {
        let mac = self.plan.state.neighbours.get(&(interface, gateway))?;
        self.plan.state.remotes.get(mac).copied()
    }
}

/// All nodes' plans, of one moment.
struct Plans<'a> {
    state: &'a State,
    nodes: BTreeMap<NodeId, Node>,
    hosts: BTreeMap<IpAddr, NodeId>,
    places: BTreeMap<IpAddr, Place>,
}

/// Panics where two tasks are reached at one address, or where other tasks meet than those on one network.
pub fn check(state: &State, networks: &SwarmNetworks) {
    let plans = Plans::of(state, networks);
    for (id, node) in &plans.nodes {
        plans.check_sets(*id, node);
        plans.check_balancers(node);
    }
    for (from, place) in &plans.places {
        let meets = plans.met_from(*from, place);
        let wanted: BTreeMap<IpAddr, TaskId> = plans.on(place.network, from.is_ipv6()).collect();
        assert_eq!(meets, wanted, "whom task {} meets from {from}, its address on {}", place.task, place.network);
        plans.check_vips(*from, place);
    }
}

impl Plans<'_> {
    fn of<'a>(state: &'a State, networks: &SwarmNetworks) -> Plans<'a> {
        let hosts: BTreeMap<IpAddr, NodeId> = state.nodes().map(|node| (node.description.addr, node.id)).collect();
        let members: BTreeMap<NodeId, IpAddr> = hosts.iter().map(|(address, node)| (*node, *address)).collect();
        let mut places = BTreeMap::new();
        let nodes = members.iter().map(|(id, address)| {
            let own = || state.tasks_of_node(*id).filter(|task| task.outcome.is_none());
            own().for_each(|task| take_places(&mut places, task, *id));
            let view = SwarmView {
                overlay: Some(Overlay { node: *id, address: *address, port: DATA_PATH_PORT }),
                members: members.clone(),
                networks: networks.of(*id),
            };
            let tasks = own().map(|task| (task.id, task.attachments.clone())).collect();
            let plan = preview(&view, LOCAL.parse().unwrap(), &tasks).expect("there are not so many tasks");
            let pairs = plan.state.elements.keys().filter_map(|(set, key)| match (set, key) {
                (Set::SameNetwork4 | Set::SameNetwork6, Key::Networks(one, other)) => Some((*one, *other)),
                _ => None,
            });
            (*id, Node { address: *address, pairs: pairs.collect(), plan })
        });
        let nodes = nodes.collect();
        Plans { state, nodes, hosts, places }
    }

    /// The addresses of tasks on a network, of one family. That of published ports holds nobody together, nor does one that
    /// is gone.
    fn on(&self, network: NetworkId, ipv6: bool) -> impl Iterator<Item = (IpAddr, TaskId)> {
        let plain = self.state.network(network).is_some_and(|network| !network.spec.ingress);
        let of_family = self.places.iter().filter(move |(address, _)| address.is_ipv6() == ipv6);
        of_family.filter(move |(_, place)| plain && place.network == network).map(|(address, at)| (*address, at.task))
    }

    /// At which addresses a task reaches whom from one of its own.
    fn met_from(&self, from: IpAddr, place: &Place) -> BTreeMap<IpAddr, TaskId> {
        let node = &self.nodes[&place.node];
        let beside = node.beside_task(place.task, from);
        let near = |to: &&IpAddr| beside.iter().any(|subnet| subnet.contains(**to));
        self.places.keys().filter(near).filter_map(|to| Some((*to, self.arrives(node, from, *to)?))).collect()
    }

    /// Whose interface a packet comes out at that `node` lets pass.
    fn arrives(&self, node: &Node, from: IpAddr, to: IpAddr) -> Option<TaskId> {
        if !node.is_endpoint(to) {
            return None;
        }
        match node.way_to(to)? {
            Route::Link { interface, .. } => node.plan.interfaces.get(&interface).copied(),
            Route::Via { interface, gateway } => {
                let there = &self.nodes[self.hosts.get(&node.host_behind(interface, gateway)?)?];
                let member = there.has([Set::Members4, Set::Members6], node.address, Key::Address(node.address));
                let passes = there.beside(from).iter().any(|subnet| subnet.contains(to)) || there.is_ingress(to);
                match there.way_to(to)? {
                    Route::Link { interface, .. } if member && passes && there.is_endpoint(to) => {
                        there.plan.interfaces.get(&interface).copied()
                    }
                    _ => None,
                }
            }
            Route::Unreachable => None,
        }
    }

    /// What its tasks may send from, and that it leads nowhere but to tasks.
    fn check_sets(&self, id: NodeId, node: &Node) {
        let mut sources = BTreeSet::new();
        for (set, key) in node.plan.state.elements.keys() {
            match (set, key) {
                (Set::Sources4 | Set::Sources6, Key::Source(interface, address)) => {
                    let task = node.plan.interfaces[interface];
                    let own = self.places.get(address).is_some_and(|place| place.task == task);
                    assert!(own || is_local(*address), "on {id}, task {task} may send from {address}");
                    sources.insert(*address);
                }
                (Set::Endpoints4 | Set::Endpoints6 | Set::Ingress4 | Set::Ingress6, Key::Address(address)) => {
                    let known = self.places.contains_key(address) || is_local(*address);
                    assert!(known, "on {id}, {address} is nobody's and is led to");
                }
                _ => {}
            }
        }
        let there = |place: &Place| place.node == id && self.state.network(place.network).is_some();
        let own = self.places.iter().filter(|(_, place)| there(place));
        own.for_each(|(address, place)| {
            assert!(sources.contains(address), "{} may not send from {address}", place.task)
        });
        for ((table, to), way) in &node.plan.state.routes {
            let single = to.prefix() == if to.base().is_ipv6() { 128 } else { 32 };
            let led = *table != MAIN_TABLE || single || *way == Route::Unreachable;
            assert!(led, "on {id}, all of {to} is led to {way:?}");
        }
    }

    /// That connections are spread over tasks of the service that was asked.
    fn check_balancers(&self, node: &Node) {
        for (balancer, targets) in &node.plan.state.balancers {
            for target in targets {
                let place =
                    self.places.get(&target.address).unwrap_or_else(|| panic!("{balancer} leads to {target:?}"));
                let service = self.state.service(place.service);
                let asked = service.is_some_and(|service| match balancer {
                    Balancer::Vip(vip) => {
                        service.vips.iter().any(|(network, vips)| *network == place.network && vips.contains(vip))
                    }
                    Balancer::Port { protocol, port, .. } => publishes(service, *protocol, *port),
                });
                assert!(asked, "{balancer} leads to {} of service {}", target.address, place.service);
            }
        }
    }

    /// That a task asks the virtual addresses on its own network and no others, which are no task's.
    fn check_vips(&self, from: IpAddr, place: &Place) {
        let node = &self.nodes[&place.node];
        let beside = node.beside_task(place.task, from);
        for (network, vip) in self.state.services().flat_map(|service| &service.vips) {
            for vip in vip.iter().filter(|vip| vip.is_ipv6() == from.is_ipv6()) {
                let ingress = self.state.network(*network).is_some_and(|network| network.spec.ingress);
                let asked = beside.iter().any(|subnet| subnet.contains(*vip));
                assert_eq!(asked, *network == place.network && !ingress, "{} from {from} asks {vip}", place.task);
                assert!(node.way_to(*vip).is_none(), "{vip} is led to");
            }
        }
    }
}

fn take_places(places: &mut BTreeMap<IpAddr, Place>, task: &Task, node: NodeId) {
    for at in &task.attachments {
        for address in &at.addresses {
            let place = Place { network: at.network, task: task.id, service: task.service, node };
            let other = places.insert(*address, place);
            assert!(other.is_none(), "{address} is of {} and of {other:?}", task.id);
        }
    }
}

fn publishes(service: &flok::state::Service, protocol: Protocol, port: u16) -> bool {
    service.ports.iter().any(|one| (one.protocol, one.published) == (protocol, port))
}

fn is_local(address: IpAddr) -> bool {
    let local = LOCAL.parse::<flok::network::Subnet>().expect("it is one").block();
    local.contains(address)
        || matches!(address, IpAddr::V6(address) if address.segments()[..3] == [0xfd66, 0x6c6f, 0x6b])
}
