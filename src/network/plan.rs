//! What the kernel has to hold, as a pure function of what this node knows: its tasks, the members, and the networks as
//! the managers tell them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::names::*;
use super::skeleton::{Overlay, Skeleton};
use super::state::*;
use crate::dispatcher::{Endpoint, NetworkView, Networks, ServiceView};
use crate::spec::{NodeId, PortConfig, Protocol, PublishMode, Subnet, TaskId};

/// All that the plan depends on.
pub struct Inputs<'a> {
    pub skeleton: Skeleton,
    /// The interface under the overlay: the overlay's own address where it is one of this host's, and the MTU it leaves.
    pub local: Option<IpAddr>,
    pub mtu: u32,
    /// Whether this kernel speaks it.
    pub ipv6: bool,
    pub members: &'a BTreeMap<NodeId, IpAddr>,
    pub numbers: &'a Numbers,
    pub networks: &'a Networks,
    pub tasks: &'a BTreeMap<TaskId, LocalTask>,
    /// Published ports that are another process' on this node.
    pub taken: &'a BTreeSet<(Protocol, u16)>,
}

impl Inputs<'_> {
    fn speaks(&self, address: IpAddr) -> bool {
        self.ipv6 || address.is_ipv4()
    }
}

/// A task on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTask {
    pub interface: Interface,
    pub mac: Mac,
    /// Host-local.
    pub address: Ipv4Addr,
    /// On overlay networks.
    pub addresses: Vec<IpAddr>,
    /// One of each family: as whom it speaks to all that is on none of its networks.
    pub outward: Vec<IpAddr>,
    /// Bound ports of `host` mode.
    pub ports: Vec<PortConfig>,
    /// On internal networks only: no way out.
    pub confined: bool,
}

/// The numbers of the other nodes, which are this node's own affair: in marks, zones and tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    list: BTreeMap<NodeId, u16>,
    last: u16,
}

impl Numbers {
    /// Those that the kernel's connections already bear.
    pub fn adopted(members: &BTreeMap<NodeId, IpAddr>, found: &KernelState) -> Numbers {
        let mut numbers = Numbers::default();
        for node in members.keys() {
            if let Some(Value::Zone(zone)) = found.elements.get(&(Set::NodeZones, Key::Mac(mac_of(*node)))) {
                numbers.list.insert(*node, *zone);
                numbers.last = numbers.last.max(*zone);
            }
        }
        numbers
    }

    /// A number for each of `members`, and for no other. One given back is not the next one given out.
    pub fn follow(&mut self, members: &BTreeMap<NodeId, IpAddr>) {
        self.list.retain(|node, _| members.contains_key(node));
        let mut used: BTreeSet<u16> = self.list.values().copied().collect();
        for node in members.keys() {
            if used.len() < usize::from(MAX_NODE_NUMBER) && !self.list.contains_key(node) {
                while self.last == 0 || used.contains(&self.last) {
                    self.last = self.last % MAX_NODE_NUMBER + 1;
                }
                used.insert(self.last);
                self.list.insert(*node, self.last);
            }
        }
    }

    fn of(&self, node: NodeId) -> Option<u16> {
        self.list.get(&node).copied()
    }
}

pub fn planned<'a>(inputs: &'a Inputs<'a>, part: impl FnOnce(&mut Plan<'a>)) -> KernelState {
    let mut plan = Plan { inputs, state: KernelState::default() };
    part(&mut plan);
    plan.state
}

/// The ports that services publish on every node.
pub fn published(networks: &Networks) -> BTreeSet<(Protocol, u16)> {
    let services = networks.list.values().filter(|network| network.ingress).flat_map(|view| view.services.values());
    services.flat_map(|service| service.ports.iter().filter(|port| is_ingress(port))).map(key_of_port).collect()
}

/// Whether a task on `networks` has no way out: it is on internal ones, and on none that is not.
pub fn is_confined<'a>(networks: impl Iterator<Item = &'a NetworkView>) -> bool {
    let mut own = networks.filter(|network| !network.ingress).peekable();
    own.peek().is_some() && own.all(|network| network.internal)
}

/// One that is being made.
pub struct Plan<'a> {
    inputs: &'a Inputs<'a>,
    state: KernelState,
}

impl Plan<'_> {
    pub fn base(&mut self) {
        self.host();
        self.tasks();
        if let Some(overlay) = self.inputs.skeleton.overlay {
            self.nodes(overlay);
        }
    }

    fn host(&mut self) {
        let subnet = self.inputs.skeleton.subnet;
        for address in self.families(subnet.host()) {
            self.state.addresses.insert(address);
            self.endpoint(address);
        }
        let pool = [Subnet::new(subnet.base().into(), subnet.prefix()), Subnet::new(LOCAL6.into(), LOCAL6_PREFIX)];
        for subnet in pool.into_iter().flatten() {
            self.unreachable(subnet);
        }
    }

    fn tasks(&mut self) {
        let host = self.inputs.skeleton.subnet.host();
        for task in self.inputs.tasks.values() {
            for address in self.families(task.address).into_iter().chain(task.addresses.iter().copied()) {
                if !self.inputs.speaks(address) {
                    continue;
                }
                let source = if address.is_ipv6() { local6(host).into() } else { host.into() };
                let route = Route::Link { interface: task.interface, source: Some(source) };
                self.put([Set::Sources4, Set::Sources6], address, Key::Source(task.interface, address));
                self.state.neighbours.insert((task.interface, address), task.mac);
                self.route(MAIN_TABLE, address, route);
                self.endpoint(address);
            }
            for port in &task.ports {
                // A connection answers from where it was made to, a datagram from where its sender answers everybody.
                let local = [IpAddr::V4(task.address), local6(task.address).into()];
                let asked = if port.protocol == Protocol::Udp { &task.outward[..] } else { &local };
                for address in asked.iter().copied().filter(|address| self.inputs.speaks(*address)) {
                    let set = if address.is_ipv6() { Set::HostPorts6 } else { Set::HostPorts4 };
                    let target = Target { address, port: Some(port.target) };
                    self.state.elements.insert((set, key_of_element(port)), Value::Target(target));
                }
            }
            if task.confined {
                self.state.elements.insert((Set::Confined, Key::Interface(task.interface)), Value::None);
            }
        }
    }

    /// The overlay's device, and the ways to the other nodes.
    fn nodes(&mut self, overlay_at: Overlay) {
        let Inputs { local, mtu, .. } = *self.inputs;
        let mac = mac_of(overlay_at.node);
        self.state.vxlan = Some(Vxlan { mac, local, port: overlay_at.port, mtu });
        let families = if self.inputs.ipv6 { vec![false, true] } else { vec![false] };
        for (node, host) in self.inputs.members {
            let Some(number) = self.number_of(*node, overlay_at) else { continue };
            let (mac, mark) = (mac_of(*node), mark_of(number));
            self.put([Set::Members4, Set::Members6], *host, Key::Address(*host));
            self.state.remotes.insert(mac, *host);
            self.state.elements.insert((Set::NodeZones, Key::Mac(mac)), Value::Zone(number));
            self.state.elements.insert((Set::NodeMarks, Key::Mac(mac)), Value::Mark(mark));
            for ipv6 in families.iter().copied() {
                let key = key_of(number, ipv6);
                self.state.neighbours.insert((overlay(), key), mac);
                let all = if ipv6 { "::/0" } else { "0.0.0.0/0" }.parse().expect("it is a subnet");
                self.state.routes.insert((mark, all), Route::Via { interface: overlay(), gateway: key });
                let what = RuleKind::Marked { mark, table: mark };
                self.state.rules.insert(Rule { ipv6, priority: RULE_NODES, what });
            }
            self.put([Set::Turning4, Set::Turning6], *host, Key::Pair(key_of(number, host.is_ipv6()), *host));
        }
        for ipv6 in families {
            let past = RuleKind::Past { mark: NODE_MARK, mask: MARK_MASK, to: RULE_LANDING };
            self.state.rules.insert(Rule { ipv6, priority: RULE_PAST, what: past });
            self.state.rules.insert(Rule { ipv6, priority: RULE_LANDING, what: RuleKind::Landing });
        }
    }

    /// Of a network itself, without its services and tasks.
    pub fn network(&mut self, network: &NetworkView) {
        let inputs = self.inputs;
        for subnet in network.subnets.iter().filter(|subnet| inputs.speaks(subnet.base())) {
            self.unreachable(*subnet);
            let ipv6 = subnet.base().is_ipv6();
            // Ports lead to the ingress network, and nothing else does.
            for other in network.subnets.iter().filter(|other| !network.ingress && other.base().is_ipv6() == ipv6) {
                self.put([Set::SameNetwork4, Set::SameNetwork6], subnet.base(), Key::Networks(*subnet, *other));
            }
        }
    }

    /// Where a task of a network is reached.
    pub fn reach(&mut self, network: &NetworkView, task: TaskId, endpoint: &Endpoint) {
        let inputs = self.inputs;
        let Some(way) = self.way_to(task, endpoint) else { return };
        for address in endpoint.addresses.iter().copied().filter(|address| inputs.speaks(*address)) {
            if let Way::Node(number) = way {
                let gateway = key_of(number, address.is_ipv6());
                self.route(MAIN_TABLE, address, Route::Via { interface: overlay(), gateway });
                self.endpoint(address);
            } else if network.ingress {
                self.put([Set::Ingress4, Set::Ingress6], address, Key::Address(address));
            }
        }
    }

    /// The ports by which a service is reached at the address of a node, on all nodes or where its tasks are.
    pub fn publish(&mut self, service: &ServiceView) {
        for port in service.ports.iter().filter(|port| port.published != 0) {
            self.state.elements.insert((Set::Published, key_of_element(port)), Value::None);
        }
    }

    /// How connections to a service are spread over its tasks, which are `endpoints`.
    pub fn spread<'e>(
        &mut self,
        network: &NetworkView,
        service: &ServiceView,
        endpoints: impl Iterator<Item = (TaskId, &'e Endpoint)>,
    ) {
        self.publish(service);
        let serving = endpoints.filter(|(task, endpoint)| endpoint.serving && self.way_to(*task, endpoint).is_some());
        let targets: Vec<IpAddr> = serving.flat_map(|(_, endpoint)| endpoint.addresses.iter().copied()).collect();
        for vip in &service.vips {
            let set = if vip.is_ipv6() { Set::Vips6 } else { Set::Vips4 };
            self.balance(set, Key::Address(*vip), Balancer::Vip(*vip), &targets, None);
        }
        for port in service.ports.iter().filter(|port| network.ingress && is_ingress(port)) {
            if self.inputs.taken.contains(&key_of_port(port)) {
                continue;
            }
            for (set, ipv6) in [(Set::Ports4, false), (Set::Ports6, true)] {
                let balancer = Balancer::Port { protocol: port.protocol, port: port.published, ipv6 };
                self.balance(set, key_of_element(port), balancer, &targets, Some(port.target));
            }
        }
    }

    /// `None`: one of this node's that is not here has just gone, and one of nobody's node is not reached.
    fn way_to(&self, task: TaskId, endpoint: &Endpoint) -> Option<Way> {
        let overlay = self.inputs.skeleton.overlay?;
        if endpoint.node == overlay.node {
            return self.inputs.tasks.contains_key(&task).then_some(Way::Here);
        }
        self.number_of(endpoint.node, overlay).map(Way::Node)
    }

    /// Nothing where there are no targets: the connection is refused then.
    fn balance(&mut self, set: Set, key: Key, balancer: Balancer, targets: &[IpAddr], port: Option<u16>) {
        let targets: Vec<Target> = targets
            .iter()
            .filter(|address| address.is_ipv6() == set.is_ipv6() && self.inputs.speaks(**address))
            .map(|address| Target { address: *address, port })
            .collect();
        if !targets.is_empty() {
            self.state.elements.insert((set, key), Value::Goto(balancer));
            self.state.balancers.insert(balancer, targets);
        }
    }

    /// Of another node that datagrams can be sent to: a device has an address of one family.
    fn number_of(&self, node: NodeId, overlay: Overlay) -> Option<u16> {
        let host = self.inputs.members.get(&node)?;
        let reached = node != overlay.node && host.is_ipv6() == overlay.address.is_ipv6() && !host.is_unspecified();
        self.inputs.numbers.of(node).filter(|_| reached)
    }

    fn families(&self, address: Ipv4Addr) -> Vec<IpAddr> {
        let mut both = vec![IpAddr::V4(address)];
        both.extend(self.inputs.ipv6.then(|| IpAddr::V6(local6(address))));
        both
    }

    fn put(&mut self, [four, six]: [Set; 2], address: IpAddr, key: Key) {
        let set = if address.is_ipv6() { six } else { four };
        self.state.elements.insert((set, key), Value::None);
    }

    fn endpoint(&mut self, address: IpAddr) {
        self.put([Set::Endpoints4, Set::Endpoints6], address, Key::Address(address));
    }

    fn route(&mut self, table: Table, address: IpAddr, route: Route) {
        let width = if address.is_ipv6() { 128 } else { 32 };
        if let Some(subnet) = Subnet::new(address, width) {
            self.state.routes.insert((table, subnet), route);
        }
    }

    fn unreachable(&mut self, subnet: Subnet) {
        if self.inputs.speaks(subnet.base()) {
            self.state.routes.entry((MAIN_TABLE, subnet)).or_insert(Route::Unreachable);
        }
    }
}

/// How an endpoint is reached.
#[derive(Debug, Clone, Copy)]
enum Way {
    Here,
    /// The node of this number.
    Node(u16),
}

pub fn is_ingress(port: &PortConfig) -> bool {
    port.mode == PublishMode::Ingress && port.published != 0
}

fn key_of_port(port: &PortConfig) -> (Protocol, u16) {
    (port.protocol, port.published)
}

pub fn key_of_element(port: &PortConfig) -> Key {
    Key::Port(port.protocol, port.published)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub mod tests;
