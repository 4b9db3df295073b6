use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::state::fixture::{Fixture, attach_to, host_port, network_spec, node};
use crate::state::{Command, Placed};

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What nodes say of what is around them; those that it does not name have nothing.
#[derive(Default)]
struct Around {
    prefixes: BTreeMap<NodeId, Vec<Subnet>>,
    unheard: Option<NodeId>,
}

impl Surroundings for Around {
    fn of(&self, node: NodeId) -> Option<Vec<Subnet>> {
        if self.unheard == Some(node) {
            return None;
        }
        Some(self.prefixes.get(&node).cloned().unwrap_or_default())
    }
}

impl Around {
    fn of_node(number: u128, prefixes: &[&str]) -> Around {
        let prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        Around { prefixes: [(node(number), prefixes)].into(), unheard: None }
    }
}

/// One tick, applied whole; how many steps it had.
fn tick(swarm: &mut Fixture) -> usize {
    tick_among(swarm, &Around::default())
}

fn tick_among(swarm: &mut Fixture, around: &Around) -> usize {
    let mut draft = swarm.draft();
    let mut allocator = Allocator::new(around);
    allocator.plan(&mut draft);
    commit(swarm, draft)
}

fn commit(swarm: &mut Fixture, draft: Draft) -> usize {
    let steps = draft.into_steps();
    let count = steps.len();
    if count > 0 {
        assert_eq!(swarm.plan(steps).1, 0, "the log refuses nothing of a plan made on its own state");
    }
    count
}

/// Places every waiting task on the first node, as the scheduler would; the reasons of those that wait on.
fn place(swarm: &mut Fixture) -> Vec<String> {
    let mut draft = swarm.draft();
    let around = Around::default();
    let mut allocator = Allocator::new(&around);
    allocator.plan(&mut draft);
    let mut reasons = Vec::new();
    let waiting: Vec<_> = swarm.state.tasks().filter(|task| task.assigned_at.is_none() && task.is_live()).collect();
    for task in waiting {
        let spec = swarm.state.task_spec(task.service, task.spec_version).unwrap();
        match allocator.attach(&mut draft, task.id, spec) {
            Ok(attachments) => {
                let (host_ports, generic) = (Vec::new(), Vec::new());
                let placed = Placed { task: task.id, node: node(1), host_ports, generic, attachments };
                draft.change(&[], Change::Assign(Box::new(placed))).unwrap();
            }
            Err(reason) => reasons.push(reason),
        }
    }
    commit(swarm, draft);
    reasons
}

fn subnets(swarm: &Fixture, network: NetworkId) -> Vec<String> {
    swarm.state.network(network).unwrap().subnets.clone()
}

fn vips(swarm: &Fixture, service: ServiceId) -> Vec<(NetworkId, Vec<IpAddr>)> {
    swarm.state.service(service).unwrap().vips.clone()
}

#[test]
fn networks_get_subnets_and_a_second_run_adds_nothing() {
    let mut swarm = Fixture::nodes(1);
    let taken = swarm.network("taken", &["10.0.1.0/24"]);
    let plain = swarm.network("plain", &[]);
    let dual = NetworkId(5);
    let spec = NetworkSpec { ipv6: true, ..network_spec("dual", &[]) };
    swarm.command(Command::CreateNetwork { id: dual, spec });
    let ingress = swarm.state.ingress_network().unwrap().id;
    assert!(tick(&mut swarm) > 0);
    assert_eq!(tick(&mut swarm), 0);
    // The swarm of the fixture has the id 7; ids order the networks.
    assert_eq!(subnets(&swarm, dual), ["10.0.0.0/24", "fd00:0:7::/64"]);
    assert_eq!(subnets(&swarm, ingress), ["10.0.2.0/24", "fd00:0:7:1::/64"]);
    assert_eq!(subnets(&swarm, taken), ["10.0.1.0/24"]);
    assert_eq!(subnets(&swarm, plain), ["10.0.3.0/24"]);
}

#[test]
fn no_subnet_holds_a_node_and_large_ones_are_passed_over() {
    let mut swarm = Fixture::nodes(3);
    let pools = SwarmSpec { address_pools: vec!["10.98.0.0/15".into()], ..SwarmSpec::default() };
    let version = swarm.state.swarm().unwrap().meta.version;
    swarm.command(Command::UpdateSwarm { version, spec: pools, unlock_key: None });
    swarm.network("large", &["10.98.0.0/16"]);
    let next = swarm.network("next", &[]);
    tick(&mut swarm);
    // 10.99.0.0/24 is where the nodes are; the ingress network comes first.
    assert_eq!(subnets(&swarm, next), ["10.99.2.0/24"]);
}

#[test]
fn no_subnet_is_cut_that_a_node_reaches_outside_of_the_swarm() {
    let mut swarm = Fixture::nodes(2);
    let net = swarm.network("net", &[]);
    // The first sixteen /24s belong to a LAN of the second node, and one within them to a bridge of it.
    let mut around = Around::of_node(2, &["10.0.0.0/20", "10.0.3.0/24", "192.168.0.0/16", "fd00:0:7::/63"]);
    around.unheard = Some(node(1));
    tick_among(&mut swarm, &around);
    assert!(subnets(&swarm, net).is_empty(), "what is around the first node is not known yet");
    around.unheard = None;
    tick_among(&mut swarm, &around);
    let ingress = swarm.state.ingress_network().unwrap().id;
    assert_eq!(subnets(&swarm, ingress), ["10.0.16.0/24", "fd00:0:7:2::/64"]);
    assert_eq!(subnets(&swarm, net), ["10.0.17.0/24"]);
    assert_eq!(tick_among(&mut swarm, &around), 0);
}

#[test]
fn a_node_that_went_without_a_word_is_not_waited_for() {
    let mut swarm = Fixture::nodes(2);
    let net = swarm.network("net", &[]);
    swarm.change(Change::SetNodeHealth {
        node: node(2),
        health: crate::state::NodeHealth::Down { incarnation: Incarnation(1), since: swarm.now },
        flaps: 1,
    });
    tick_among(&mut swarm, &Around { unheard: Some(node(2)), ..Around::default() });
    assert_eq!(subnets(&swarm, net), ["10.0.1.0/24"]);
}

#[test]
fn a_verdict_of_the_same_plan_is_not_built_upon() {
    let mut swarm = Fixture::nodes(2);
    let net = swarm.network("net", &[]);
    let around = Around { unheard: Some(node(2)), ..Around::default() };
    let mut draft = swarm.draft();
    let health = crate::state::NodeHealth::Down { incarnation: Incarnation(1), since: swarm.now };
    draft.change(&[], Change::SetNodeHealth { node: node(2), health, flaps: 1 }).unwrap();
    Allocator::new(&around).plan(&mut draft);
    commit(&mut swarm, draft);
    assert!(subnets(&swarm, net).is_empty());
    tick_among(&mut swarm, &around);
    assert_eq!(subnets(&swarm, net), ["10.0.1.0/24"]);
}

#[test]
fn a_pool_that_a_node_reaches_whole_is_said_to_be() {
    let mut swarm = Fixture::nodes(2);
    let around = Around::of_node(2, &["10.0.0.0/8"]);
    let net = swarm.network("net", &[]);
    tick_among(&mut swarm, &around);
    assert!(subnets(&swarm, net).is_empty());
    let web = swarm.service("web", 1, |spec| spec.task.networks = vec![attach_to(net)]);
    let task = swarm.pending(web, 1);
    let mut draft = swarm.draft();
    let spec = swarm.state.task(task).and_then(|task| swarm.state.task_spec(task.service, task.spec_version)).unwrap();
    assert_eq!(
        Allocator::new(&around).attach(&mut draft, task, spec).unwrap_err(),
        "network net has no free address, and no subnet is left in the swarm's address pools, 10.0.0.0/8 being left out \
         because node node-2 reaches it outside of the swarm"
    );
}

#[test]
fn services_get_virtual_addresses_on_the_networks_they_are_on() {
    let mut swarm = Fixture::nodes(1);
    let (front, back) =
        (swarm.network("front", &["10.1.0.0/24"]), swarm.network("back", &["10.2.0.0/24", "fd00:2::/64"]));
    let web = swarm.service("web", 0, |spec| spec.task.networks = vec![attach_to(front), attach_to(back)]);
    let lone = swarm.service("lone", 0, |_| {});
    let rr = swarm.service("rr", 0, |spec| {
        spec.task.networks = vec![attach_to(back)];
        spec.endpoint.mode = EndpointMode::Dnsrr;
    });
    tick(&mut swarm);
    let given = vips(&swarm, web);
    assert_eq!(given.iter().map(|(id, all)| (*id, all.len())).collect::<Vec<_>>(), [(front, 1), (back, 2)]);
    assert!(vips(&swarm, lone).is_empty() && vips(&swarm, rr).is_empty());

    swarm.update(web, |spec| drop(spec.task.networks.remove(0)));
    swarm.update(rr, |spec| spec.endpoint.mode = EndpointMode::Vip);
    tick(&mut swarm);
    assert_eq!(vips(&swarm, web), given[1..], "what stays, stays the same");
    assert_eq!(vips(&swarm, rr).len(), 1);
    assert_eq!(swarm.state.address_holder(given[0].1[0]), None);
    assert_eq!(tick(&mut swarm), 0);
    swarm.command(Command::RemoveService { id: web });
    assert_eq!(swarm.state.address_holder(given[1].1[0]), None);
}

#[test]
fn a_full_network_grows_in_the_same_draft() {
    let mut swarm = Fixture::nodes(1);
    let net = swarm.network("net", &[]);
    let web = swarm.service("web", 600, |spec| spec.task.networks = vec![attach_to(net)]);
    for slot in 1..=600 {
        swarm.pending(web, slot);
    }
    assert!(place(&mut swarm).is_empty());
    // 253 addresses each, and one is the service's own.
    assert_eq!(subnets(&swarm, net).len(), 3);
    let held: usize =
        swarm.state.network(net).unwrap().parsed_subnets().map(|s| swarm.state.addresses_in(s).count()).sum();
    assert_eq!(held, 601);
    assert_eq!(tick(&mut swarm), 0);
}

#[test]
fn a_network_whose_user_chose_its_subnets_does_not_grow() {
    let mut swarm = Fixture::nodes(1);
    // Four addresses from the range, one of which is the gateway.
    let id = NetworkId(5);
    let (gateway, ip_range) = (Some("10.5.0.9".into()), Some("10.5.0.8/30".into()));
    let subnet = SubnetSpec { subnet: "10.5.0.0/24".into(), gateway, ip_range };
    let spec = NetworkSpec { subnets: vec![subnet], ..network_spec("small", &[]) };
    swarm.command(Command::CreateNetwork { id, spec });
    let web = swarm.service("web", 4, |spec| spec.task.networks = vec![attach_to(id)]);
    let tasks: Vec<TaskId> = (1..=4).map(|slot| swarm.pending(web, slot)).collect();
    let reason = "network small has no free address: make it anew with a larger subnet";
    assert_eq!(place(&mut swarm), [reason; 2]);
    let held: Vec<IpAddr> = swarm.state.addresses_in("10.5.0.0/24".parse().unwrap()).map(|(addr, _)| *addr).collect();
    assert_eq!(held, [addr("10.5.0.8"), addr("10.5.0.10"), addr("10.5.0.11")]);

    swarm.finish(tasks[0], TaskState::Failed);
    assert_eq!(place(&mut swarm), [reason], "what ended gave its address back");
}

#[test]
fn pools_that_are_used_up_are_said_to_be() {
    let mut swarm = Fixture::nodes(1);
    let pools = SwarmSpec { address_pools: vec!["10.1.0.0/24".into()], subnet_size: 29, ..SwarmSpec::default() };
    let version = swarm.state.swarm().unwrap().meta.version;
    swarm.command(Command::UpdateSwarm { version, spec: pools, unlock_key: None });
    let net = swarm.network("net", &[]);
    let web = swarm.service("web", 300, |spec| spec.task.networks = vec![attach_to(net)]);
    for slot in 1..=300 {
        swarm.pending(web, slot);
    }
    let reasons = place(&mut swarm);
    // 32 subnets in all, one of them the ingress network's; five addresses in each, one of them the service's own.
    assert_eq!(reasons.len(), 300 - (31 * 5 - 1));
    assert!(reasons[0].contains("no subnet is left in the swarm's address pools"), "{}", reasons[0]);
}

#[test]
fn tasks_that_publish_are_on_the_ingress_network() {
    let mut swarm = Fixture::nodes(1);
    let ingress = swarm.state.ingress_network().unwrap().id;
    let published = PortConfig { mode: PublishMode::Ingress, ..host_port(80, 80) };
    let web = swarm.service("web", 1, |spec| spec.endpoint.ports = vec![published]);
    let task = swarm.pending(web, 1);
    assert!(place(&mut swarm).is_empty());
    let attachments = &swarm.state.task(task).unwrap().attachments;
    assert_eq!(attachments.iter().map(|a| (a.network, a.addresses.len())).collect::<Vec<_>>(), [(ingress, 2)]);
    assert_eq!(vips(&swarm, web)[0].0, ingress);
}

#[test]
fn open_ingress_ports_are_chosen_once_and_collide_with_nothing() {
    let mut swarm = Fixture::nodes(1);
    let open = |target| PortConfig { mode: PublishMode::Ingress, ..host_port(0, target) };
    let ports: Vec<u16> = (30_000..32_766).collect();
    let taken: Vec<ServiceId> = ports
        .chunks(1000)
        .map(|ports| {
            let fixed = ports.iter().map(|port| PortConfig { published: *port, ..open(*port) });
            swarm.service(&format!("taken-{}", ports[0]), 0, |spec| spec.endpoint.ports = fixed.collect())
        })
        .collect();
    let web = swarm.service("web", 0, |spec| spec.endpoint.ports = vec![open(80), open(81), open(82)]);
    tick(&mut swarm);
    let ports = |swarm: &Fixture| -> Vec<u16> {
        swarm.state.service(web).unwrap().ports.iter().map(|port| port.published).collect()
    };
    let mut chosen = ports(&swarm);
    chosen.sort();
    assert_eq!(chosen, [0, 32_766, 32_767], "one finds none");
    taken.into_iter().for_each(|id| swarm.command(Command::RemoveService { id }));
    let before = ports(&swarm);
    tick(&mut swarm);
    assert!(ports(&swarm).iter().all(|port| *port != 0));
    assert!(before.iter().filter(|port| **port != 0).all(|port| ports(&swarm).contains(port)), "choices are kept");
    assert_eq!(tick(&mut swarm), 0);
}

#[test]
fn a_subnet_that_comes_back_leaves_out_who_still_stops() {
    let mut swarm = Fixture::nodes(1);
    let first = swarm.network("net", &["10.5.0.0/29"]);
    let web = swarm.service("web", 1, |spec| spec.task.networks = vec![attach_to(first)]);
    let old = swarm.running(web, 1, node(1));
    let held = swarm.state.task(old).unwrap().attachments[0].addresses[0];
    swarm.command(Command::RemoveService { id: web });
    swarm.command(Command::RemoveNetwork { id: first });
    let second = swarm.network("net", &["10.5.0.0/29"]);
    let web = swarm.service("web", 5, |spec| {
        spec.task.networks = vec![attach_to(second)];
        spec.endpoint.mode = EndpointMode::Dnsrr;
    });
    for slot in 1..=5 {
        swarm.pending(web, slot);
    }
    assert_eq!(place(&mut swarm).len(), 1);
    assert_eq!(swarm.state.address_holder(held).unwrap().user, crate::state::AddressUser::Task(old));
}

#[test]
fn no_subnet_is_cut_from_which_somebody_still_stops() {
    let mut swarm = Fixture::nodes(1);
    let first = swarm.network("one", &[]);
    tick(&mut swarm);
    let held = subnets(&swarm, first);
    let web = swarm.service("web", 1, |spec| spec.task.networks = vec![attach_to(first)]);
    let old = swarm.running(web, 1, node(1));
    swarm.command(Command::RemoveService { id: web });
    swarm.command(Command::RemoveNetwork { id: first });
    let second = swarm.network("two", &[]);
    tick(&mut swarm);
    assert_ne!(subnets(&swarm, second), held);
    swarm.finish(old, TaskState::Complete);
    let third = swarm.network("three", &[]);
    tick(&mut swarm);
    assert_eq!(subnets(&swarm, third), held);
}

#[derive(Debug, Clone)]
enum Act {
    Create { name: u8, networks: Vec<usize>, publish: bool },
    Remove { name: u8 },
    Finish { nth: usize },
    Place,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..4u8, prop::collection::btree_set(0..3usize, 0..3), any::<bool>())
            .prop_map(|(name, networks, publish)| Act::Create { name, networks: networks.into_iter().collect(), publish }),
        1 => (0..4u8).prop_map(|name| Act::Remove { name }),
        3 => (0..40usize).prop_map(|nth| Act::Finish { nth }),
        4 => Just(Act::Place),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// `apply` refuses an address that is given twice, so a plan that is applied whole gives none twice.
    #[test]
    fn any_history_is_planned_whole_and_to_the_end(acts in prop::collection::vec(act(), 1..40)) {
        let mut swarm = Fixture::nodes(1);
        let spec = NetworkSpec { ipv6: true, ..network_spec("c", &[]) };
        swarm.command(Command::CreateNetwork { id: NetworkId(3), spec });
        let networks = [swarm.network("a", &["10.5.0.0/28"]), swarm.network("b", &[]), NetworkId(3)];
        for act in acts {
            match act {
                Act::Create { name, networks: on, publish } => {
                    let name = format!("s{name}");
                    if swarm.state.service_by_name(&name).is_some() {
                        continue;
                    }
                    let service = swarm.service(&name, 5, |spec| {
                        spec.task.networks = on.iter().map(|at| attach_to(networks[*at])).collect();
                        if publish {
                            spec.endpoint.ports = vec![PortConfig { mode: PublishMode::Ingress, ..host_port(0, 80) }];
                        }
                    });
                    for slot in 1..=5 {
                        swarm.pending(service, slot);
                    }
                }
                Act::Remove { name } => {
                    if let Some(id) = swarm.state.service_by_name(&format!("s{name}")).map(|service| service.id) {
                        swarm.command(Command::RemoveService { id });
                    }
                }
                Act::Finish { nth } => {
                    let running = swarm.state.tasks().filter(|task| task.holds_resources()).map(|task| task.id).nth(nth);
                    if let Some(task) = running {
                        swarm.finish(task, TaskState::Failed);
                    }
                }
                Act::Place => drop(place(&mut swarm)),
            }
        }
        place(&mut swarm);
        prop_assert_eq!(tick(&mut swarm), 0);
    }
}
