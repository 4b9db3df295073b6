//! Tests of the plan: one swarm as text, and properties of any.

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::parts::{Parts, Touched};
use super::*;
use crate::spec::{NetworkId, ServiceId};

pub const OWN: NodeId = NodeId(1);
pub const ALFA: NodeId = NodeId(2);
const BRAVO: NodeId = NodeId(3);

#[derive(Debug)]
pub struct World {
    pub members: BTreeMap<NodeId, IpAddr>,
    pub networks: Networks,
    pub tasks: BTreeMap<TaskId, LocalTask>,
    taken: BTreeSet<(Protocol, u16)>,
    ipv6: bool,
    in_swarm: bool,
}

impl World {
    pub fn plan(&self) -> KernelState {
        let mut parts = Parts::default();
        self.follow(&mut parts, &Touched { all: true, ..Touched::default() }, &KernelState::default());
        parts.whole()
    }

    fn follow(&self, parts: &mut Parts, touched: &Touched, held: &KernelState) -> Changes {
        let mut numbers = Numbers::default();
        numbers.follow(&self.members);
        let address = "192.168.1.1".parse().unwrap();
        let overlay = self.in_swarm.then_some(Overlay { node: OWN, address, port: 4789 });
        let inputs = Inputs {
            skeleton: Skeleton { subnet: "172.29.0.0/16".parse().unwrap(), overlay },
            local: Some(address),
            mtu: 1450,
            ipv6: self.ipv6,
            members: &self.members,
            numbers: &numbers,
            networks: &self.networks,
            tasks: &self.tasks,
            taken: &self.taken,
        };
        parts.follow(&inputs, touched, held)
    }
}

fn task(last: u8, addresses: &[&str], ports: Vec<PortConfig>) -> LocalTask {
    LocalTask {
        interface: Interface::new(&format!("fk{last}")),
        mac: Mac([2, 0x42, 172, 29, 0, last]),
        address: Ipv4Addr::new(172, 29, 0, last),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        outward: vec![Ipv4Addr::new(172, 29, 0, last).into(), local6(Ipv4Addr::new(172, 29, 0, last)).into()],
        ports,
        confined: false,
    }
}

fn endpoint(service: u128, node: NodeId, addresses: &[&str]) -> Endpoint {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Endpoint { service: ServiceId(service), node, addresses, names: Vec::new(), serving: true }
}

fn service(vips: &[&str], ports: Vec<PortConfig>) -> ServiceView {
    let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
    ServiceView { name: "web".into(), aliases: Vec::new(), vips, ports }
}

fn network(subnets: &[&str], services: Vec<(u128, ServiceView)>, endpoints: Vec<(u128, Endpoint)>) -> Arc<NetworkView> {
    Arc::new(NetworkView {
        mtu: None,
        name: "net".into(),
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        internal: false,
        ingress: false,
        services: services.into_iter().map(|(id, service)| (ServiceId(id), service)).collect(),
        endpoints: endpoints.into_iter().map(|(id, endpoint)| (TaskId(id), endpoint)).collect(),
    })
}

fn port(published: u16, mode: PublishMode) -> PortConfig {
    PortConfig { name: None, protocol: Protocol::Tcp, target: 80, published, mode }
}

/// A node with a task of a service that another node serves too, and with one of its own.
pub fn example() -> World {
    let endpoints = vec![
        (10, endpoint(1, OWN, &["10.0.1.10"])),
        (11, endpoint(1, ALFA, &["10.0.1.11", "fd00:1::11"])),
        // Gone from here, on a node of nobody's, and not serving.
        (12, endpoint(1, OWN, &["10.0.1.12"])),
        (13, endpoint(1, NodeId(9), &["10.0.1.13"])),
        (14, Endpoint { serving: false, ..endpoint(1, BRAVO, &["10.0.1.14"]) }),
    ];
    let web = service(&["10.0.1.2", "fd00:1::2"], Vec::new());
    let plain = network(&["10.0.1.0/24", "fd00:1::/64"], vec![(1, web)], endpoints);
    let published = service(&[], vec![port(8080, PublishMode::Ingress), port(443, PublishMode::Ingress)]);
    let endpoints = vec![(10, endpoint(1, OWN, &["10.0.0.10"])), (11, endpoint(1, ALFA, &["10.0.0.11"]))];
    let mut ingress = NetworkView::clone(&network(&["10.0.0.0/24"], vec![(1, published)], endpoints));
    ingress.ingress = true;
    World {
        members: [(OWN, "192.168.1.1"), (ALFA, "192.168.1.2"), (BRAVO, "192.168.1.3")]
            .map(|(node, address)| (node, address.parse().unwrap()))
            .into(),
        networks: Networks { list: [(NetworkId(1), plain), (NetworkId(2), Arc::new(ingress))].into() },
        tasks: [(TaskId(10), task(5, &["10.0.1.10", "10.0.0.10"], vec![port(9000, PublishMode::Host)]))].into(),
        taken: [(Protocol::Tcp, 443)].into(),
        ipv6: false,
        in_swarm: true,
    }
}

fn rendered(state: &KernelState) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:?}", state.vxlan);
    state.addresses.iter().for_each(|it| writeln!(text, "lo {it}").unwrap());
    state.neighbours.iter().for_each(|((at, it), mac)| writeln!(text, "{at} {it} is {mac}").unwrap());
    state.remotes.iter().for_each(|(mac, host)| writeln!(text, "{mac} behind {host}").unwrap());
    state.routes.iter().for_each(|((table, to), way)| writeln!(text, "{table} {to} {}", way_of(way)).unwrap());
    state.rules.iter().for_each(|rule| writeln!(text, "{} {:?}", rule.priority, rule.what).unwrap());
    for ((set, key), value) in &state.elements {
        let _ = writeln!(text, "{} {key:?} {value:?}", set.name());
    }
    for (balancer, targets) in &state.balancers {
        let of = |target: &Target| {
            format!("{}{}", target.address, target.port.map(|port| format!(":{port}")).unwrap_or_default())
        };
        let _ = writeln!(text, "{balancer} {}", targets.iter().map(of).collect::<Vec<_>>().join(" "));
    }
    text
}

fn way_of(route: &Route) -> String {
    match route {
        Route::Unreachable => "nowhere".into(),
        Route::Link { interface, source } => format!("{interface} from {source:?}"),
        Route::Via { interface, gateway } => format!("{interface} via {gateway}"),
    }
}

#[test]
fn the_plan_of_a_small_swarm() {
    let text = rendered(&example().plan());
    let expected = include_str!("plan_golden.txt");
    assert!(text == expected, "--- planned\n{text}--- expected\n{expected}");
}

#[test]
fn a_node_in_no_swarm_has_its_tasks_and_no_overlay() {
    let state = World { in_swarm: false, ..example() }.plan();
    assert_eq!((state.vxlan, state.rules.len(), state.balancers.len(), state.remotes.len()), (None, 0, 0, 0));
    assert!(state.elements.contains_key(&(Set::HostPorts4, Key::Port(Protocol::Tcp, 9000))));
}

#[test]
fn numbers_stay_with_their_nodes_and_are_not_given_out_again_at_once() {
    let members = |nodes: &[u128]| nodes.iter().map(|node| (NodeId(*node), Ipv4Addr::LOCALHOST.into())).collect();
    let mut numbers = Numbers::default();
    numbers.follow(&members(&[1, 2, 3]));
    let before = numbers.clone();
    numbers.follow(&members(&[1, 3]));
    numbers.follow(&members(&[1, 3, 4]));
    assert_eq!(numbers.of(NodeId(3)), before.of(NodeId(3)));
    assert_eq!(numbers.of(NodeId(4)), Some(4));
    // After a restart the kernel tells them.
    let mut world = example();
    world.members.remove(&ALFA);
    let found = world.plan();
    let mut again = Numbers::adopted(&world.members, &found);
    again.follow(&world.members);
    assert_eq!(again.of(BRAVO), Some(2));
}

#[test]
fn a_task_is_confined_where_all_its_networks_are_internal() {
    let view =
        |internal, ingress| NetworkView { internal, ingress, ..NetworkView::clone(&network(&[], vec![], vec![])) };
    let (inner, plain, ingress) = (view(true, false), view(false, false), view(false, true));
    for (networks, confined) in [
        (vec![], false),
        (vec![&ingress], false),
        (vec![&plain], false),
        (vec![&inner], true),
        (vec![&inner, &ingress], true),
        (vec![&inner, &plain], false),
    ] {
        assert_eq!(is_confined(networks.into_iter()), confined);
    }
}

/// Small worlds whose parts often meet: few nodes, tasks, services and ports.
fn worlds() -> impl Strategy<Value = World> {
    let endpoint = (0..3u128, 1..6u128, any::<bool>(), any::<bool>());
    let network = (
        proptest::collection::btree_map(0..6u128, endpoint, 0..6),
        proptest::collection::btree_map(0..3u128, 0..6u128, 0..3),
        any::<bool>(),
    );
    (
        proptest::collection::btree_map(0..4u8, network, 0..4),
        proptest::collection::btree_set(1..6u128, 0..5),
        proptest::collection::btree_map(0..6u128, proptest::collection::vec(9000..9004u16, 0..2), 0..6),
        proptest::collection::btree_set(8000..8004u16, 0..2),
        any::<bool>(),
        (any::<bool>(), 0..6u128, any::<bool>()),
    )
        .prop_map(|(networks, members, tasks, taken, ipv6, (in_swarm, shift, late))| {
            let mut local: BTreeMap<TaskId, LocalTask> = BTreeMap::new();
            for (id, ports) in tasks {
                let ports = ports.into_iter().map(|published| port(published, PublishMode::Host)).collect();
                local.insert(TaskId(id), task(id as u8 + 2, &[], ports));
            }
            let list = networks.into_iter().map(|(id, (endpoints, services, ingress))| {
                let mut view = NetworkView::clone(&super::tests::network(
                    &[&format!("10.0.{id}.0/24"), &format!("fd00:{id}::/64")],
                    Vec::new(),
                    Vec::new(),
                ));
                // A swarm has one.
                view.ingress = ingress && id == 0;
                for (task, (service, node, six, serving)) in endpoints {
                    // Each has its own, and in another world it may be another's.
                    let place = (task + shift) % 6;
                    let (four, both) = (format!("10.0.{id}.{}", 100 + place), format!("fd00:{id}::{place}"));
                    let addresses = if six { vec![four.as_str(), both.as_str()] } else { vec![four.as_str()] };
                    // One that is still here may have an address that is another's elsewhere by now.
                    let holder = if node == OWN.0 { task } else { (task + 1) % 6 };
                    if let Some(here) = local.get_mut(&TaskId(holder)).filter(|_| late || node == OWN.0) {
                        here.addresses.extend(addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()));
                    }
                    let endpoint = Endpoint { serving, ..super::tests::endpoint(service, NodeId(node), &addresses) };
                    view.endpoints.insert(TaskId(task), endpoint);
                }
                for (service, vip) in services {
                    let published = 8000 + ((service + shift) % 4) as u16;
                    // In `host` mode a port may be of more than one service, on different nodes.
                    let ports = match view.ingress {
                        true => {
                            vec![port(published, PublishMode::Ingress), port(9100 + published % 2, PublishMode::Host)]
                        }
                        false => Vec::new(),
                    };
                    let vip = format!("10.0.{id}.{}", 2 + 10 * service + vip);
                    let vips: Vec<&str> = if view.ingress { Vec::new() } else { vec![&vip] };
                    view.services.insert(ServiceId(service), super::tests::service(&vips, ports));
                }
                (NetworkId(u128::from(id)), Arc::new(view))
            });
            let networks = Networks { list: list.collect() };
            let members =
                members.into_iter().map(|node| (NodeId(node), Ipv4Addr::new(192, 168, 1, node as u8).into())).collect();
            let taken = taken.into_iter().map(|port| (Protocol::Tcp, port)).collect();
            World { members, networks, tasks: local, taken, ipv6, in_swarm }
        })
}

fn flip(view: &mut NetworkView) {
    for task in view.endpoints.keys().copied().collect::<Vec<_>>() {
        let endpoint = view.endpoints.get_mut(&task).unwrap();
        endpoint.serving = !endpoint.serving;
    }
}

proptest! {
    #[test]
    fn the_changes_make_of_any_state_the_planned_one((before, after) in (worlds(), worlds())) {
        let (mut state, wanted) = (before.plan(), after.plan());
        let changes = Changes::between(&state, &wanted);
        state.apply(&changes);
        prop_assert_eq!(&state, &wanted);
        prop_assert!(Changes::between(&state, &after.plan()).is_empty());
    }

    #[test]
    fn what_is_planned_in_parts_is_the_plan((before, after) in (worlds(), worlds()), task in 0..6u128) {
        let mut parts = Parts::default();
        let all = Touched { all: true, ..Touched::default() };
        before.follow(&mut parts, &all, &KernelState::default());
        let mut state = parts.whole();
        let changes = after.follow(&mut parts, &all, &state);
        state.apply(&changes);
        prop_assert_eq!(&state, &after.plan());
        // Of one network, and of one task.
        let mut changed = after;
        for view in changed.networks.list.values_mut().take(1) {
            flip(Arc::make_mut(view));
        }
        let changes = changed.follow(&mut parts, &Touched::default(), &state);
        state.apply(&changes);
        prop_assert_eq!(&state, &changed.plan());
        changed.tasks.remove(&TaskId(task));
        let touched = Touched { tasks: [TaskId(task)].into(), ..Touched::default() };
        let changes = changed.follow(&mut parts, &touched, &state);
        state.apply(&changes);
        prop_assert_eq!(&state, &changed.plan());
        prop_assert!(changed.follow(&mut parts, &Touched::default(), &state).is_empty());
    }

    #[test]
    fn what_is_planned_of_the_changes_is_the_plan((before, after) in (worlds(), worlds())) {
        let mut parts = Parts::default();
        before.follow(&mut parts, &Touched { all: true, ..Touched::default() }, &KernelState::default());
        let mut state = parts.whole();
        let local = |task: &TaskId| before.tasks.get(task) != after.tasks.get(task);
        let tasks = before.tasks.keys().chain(after.tasks.keys()).copied().filter(local).collect();
        let mut changed = World { networks: after.networks, tasks: after.tasks, ..before };
        let changes = changed.follow(&mut parts, &Touched { all: false, tasks }, &state);
        state.apply(&changes);
        prop_assert_eq!(&state, &changed.plan());
        prop_assert_eq!(&parts.whole(), &state);
        // The newer view shares with the older one what is the same in both.
        for view in changed.networks.list.values_mut() {
            let view = Arc::make_mut(view);
            let first = view.endpoints.get_min().map(|(task, _)| *task);
            first.and_then(|task| view.endpoints.remove(&task));
        }
        let changes = changed.follow(&mut parts, &Touched::default(), &state);
        state.apply(&changes);
        prop_assert_eq!(&state, &changed.plan());
        prop_assert!(changed.follow(&mut parts, &Touched::default(), &state).is_empty());
    }

    #[test]
    fn whatever_a_connection_is_led_to_is_there(world in worlds()) {
        let state = world.plan();
        let endpoints = |address: &IpAddr| {
            let set = if address.is_ipv6() { Set::Endpoints6 } else { Set::Endpoints4 };
            state.elements.contains_key(&(set, Key::Address(*address)))
        };
        for (balancer, targets) in &state.balancers {
            prop_assert!(!targets.is_empty());
            prop_assert!(state.elements.values().any(|value| *value == Value::Goto(*balancer)));
            for target in targets {
                prop_assert!(endpoints(&target.address), "{} to {}", balancer, target.address);
                let width = if target.address.is_ipv6() { 128 } else { 32 };
                let route = state.routes.get(&(MAIN_TABLE, Subnet::new(target.address, width).unwrap()));
                let led = matches!(route, Some(Route::Link { .. } | Route::Via { .. }));
                prop_assert!(led, "no route to {}", target.address);
            }
        }
        for ((set, key), value) in &state.elements {
            if let Value::Goto(balancer) = value {
                prop_assert!(state.balancers.contains_key(balancer));
            }
            // Networks meet themselves, in their own family, and nothing else.
            if let Key::Networks(a, b) = key {
                prop_assert_eq!(a, b);
                prop_assert_eq!(a.base().is_ipv6(), set.is_ipv6());
            }
        }
        for interface in state.routes.values().filter_map(|route| match route {
            Route::Link { interface, .. } | Route::Via { interface, .. } => Some(*interface),
            Route::Unreachable => None,
        }) {
            let of_task = world.tasks.values().any(|task| task.interface == interface);
            prop_assert!(of_task || interface == overlay() && state.vxlan.is_some());
        }
    }
}
