use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::gossip::{NodeRecord, RecordVersion, Table};
use crate::spec::*;
use crate::state::fixture::{Fixture, attach_to, host_port, node};
use crate::state::{Command, NodeHealth};

/// A swarm, what its nodes say, and a builder that has seen all of it.
struct Swarm {
    fixture: Fixture,
    table: Table,
    builder: NetworkBuilder,
    made: SwarmNetworks,
}

impl Swarm {
    fn of(nodes: u128) -> Swarm {
        let mut swarm = Swarm {
            fixture: Fixture::nodes(nodes),
            table: Table::default(),
            builder: NetworkBuilder::default(),
            made: SwarmNetworks::default(),
        };
        swarm.fixture.ready_ingress();
        (1..=nodes).for_each(|number| swarm.record(number, |_| {}));
        swarm
    }

    fn record(&mut self, number: u128, adjust: impl FnOnce(&mut NodeRecord)) {
        let id = node(number);
        let before = self.table.get(id).map(|held| held.record.as_ref().clone());
        let description = self.fixture.state.node(id).expect("the node exists").description.clone();
        let mut record = before.unwrap_or_else(|| {
            NodeRecord::new(id, RecordVersion { incarnation: Incarnation(1), sequence: 0 }, description)
        });
        record.version.sequence += 1;
        adjust(&mut record);
        assert!(self.table.merge(Arc::new(record), MonoMs(0)));
    }

    /// What the task's node says of it from now on.
    fn report(&mut self, task: TaskId, state: TaskState, health: Health) {
        let on = self.fixture.state.task(task).unwrap().node.unwrap();
        let report = TaskReport {
            task,
            state,
            message: String::new(),
            container_id: Some("0123456789abcdef".to_owned()),
            pid: (state == TaskState::Running).then_some(7),
            exit_code: None,
            ran_for: None,
            health,
            restarts_in_place: 0,
            host_ports: Vec::new(),
        };
        self.record(on.0, |record| drop(record.tasks.insert(task, report)));
    }

    /// A running task on `network`, on the node of that number.
    fn task(&mut self, name: &str, network: NetworkId, number: u128) -> (ServiceId, TaskId) {
        let service = self.fixture.service(name, 1, |spec| spec.task.networks = vec![attach_to(network)]);
        let task = self.fixture.running(service, 1, node(number));
        self.report(task, TaskState::Running, Health::None);
        (service, task)
    }

    /// Whether there was news.
    fn build(&mut self) -> bool {
        let news = self.builder.build(&self.fixture.state, &self.table);
        let is_news = news.is_some();
        self.made = news.unwrap_or_else(|| std::mem::take(&mut self.made));
        is_news
    }

    fn view(&mut self, network: NetworkId) -> Arc<NetworkView> {
        self.build();
        let all = (1..=9).map(|number| self.made.of(node(number)));
        let found = all.into_iter().find_map(|networks| networks.list.get(&network).cloned());
        found.expect("some node is on the network")
    }

    fn serving(&mut self, network: NetworkId, task: TaskId) -> bool {
        self.view(network).endpoints[&task].serving
    }
}

#[test]
fn a_node_knows_the_networks_of_its_tasks_and_ingress() {
    let mut swarm = Swarm::of(3);
    let (a, b) = (swarm.fixture.network("a", &["10.1.0.0/24"]), swarm.fixture.network("b", &["10.2.0.0/24"]));
    let ingress = swarm.fixture.state.ingress_network().unwrap().id;
    let (web, task) = swarm.task("web", a, 1);
    let (_, other) = swarm.task("other", b, 2);
    assert!(swarm.build());
    let known = |number| swarm.made.of(node(number)).list.into_keys().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(known(1), [ingress, a].into());
    assert_eq!(known(2), [ingress, b].into());
    assert_eq!(known(3), [ingress].into());
    let view = swarm.view(a);
    assert_eq!(view.endpoints.keys().collect::<Vec<_>>(), [&task], "nobody of another network");
    assert_eq!(view.endpoints[&task].names, ["0123456789ab".to_owned(), format!("web.1.{task}")]);
    assert_eq!(view.endpoints[&task].node, node(1));
    assert_eq!(view.services.keys().collect::<Vec<_>>(), [&web]);

    swarm.fixture.finish(other, TaskState::Failed);
    assert!(swarm.build());
    assert!(!swarm.made.of(node(2)).list.contains_key(&b), "a node forgets what it has no task on any more");
}

#[test]
fn a_task_is_called_by_its_hostname_filled_in_for_it() {
    let mut swarm = Swarm::of(2);
    let net = swarm.fixture.network("net", &["10.1.0.0/24"]);
    for (name, hostname, called) in
        [("plain", "host", "host"), ("web", "{{.Service.Name}}-{{.Task.Slot}}.{{.Node.Hostname}}", "web-1.node-2")]
    {
        let service = swarm.fixture.service(name, 1, |spec| {
            spec.task.networks = vec![attach_to(net)];
            spec.task.container.hostname = Some(hostname.into());
        });
        let task = swarm.fixture.running(service, 1, node(2));
        let names = swarm.view(net).endpoints[&task].names.clone();
        assert_eq!(names, [called.to_owned(), format!("{name}.1.{task}")], "{hostname}");
    }
}

#[test]
fn a_task_serves_while_nothing_is_known_against_it() {
    let mut swarm = Swarm::of(2);
    let net = swarm.fixture.network("net", &["10.1.0.0/24"]);
    let (_, task) = swarm.task("web", net, 1);
    assert!(swarm.serving(net, task));
    for (state, health, serves) in [
        (TaskState::Running, Health::Unhealthy, false),
        (TaskState::Running, Health::Starting, false),
        (TaskState::Running, Health::Healthy, true),
        (TaskState::Starting, Health::None, false),
        (TaskState::Running, Health::None, true),
    ] {
        swarm.report(task, state, health);
        assert_eq!(swarm.serving(net, task), serves, "{state:?} {health:?}");
    }
    swarm.table.set_suspects([node(1)].into());
    assert!(!swarm.serving(net, task));
    swarm.table.set_suspects([].into());
    assert!(swarm.serving(net, task));
    swarm.record(1, |record| record.leaving = true);
    assert!(!swarm.serving(net, task));
    swarm.record(1, |record| record.leaving = false);
    swarm.fixture.set_desired(task, DesiredState::Shutdown);
    assert!(!swarm.serving(net, task), "out of the balance before it is told to stop");
    swarm.fixture.finish(task, TaskState::Shutdown);
    swarm.build();
    assert!(!swarm.made.of(node(1)).list.contains_key(&net));
}

#[test]
fn a_verdict_takes_out_a_node_and_its_return_does_not_bring_back_the_dead() {
    let mut swarm = Swarm::of(2);
    let net = swarm.fixture.network("net", &["10.1.0.0/24"]);
    let (_, task) = swarm.task("web", net, 1);
    let (_, other) = swarm.task("other", net, 2);
    swarm.fixture.health(node(1), NodeHealth::Down { incarnation: Incarnation(1), since: UnixMs(1) });
    let view = swarm.view(net);
    assert!(view.endpoints.get(&task).is_none_or(|endpoint| !endpoint.serving));
    assert!(view.endpoints[&other].serving);
}

#[test]
fn a_manager_that_has_not_heard_a_node_takes_nothing_out() {
    let mut swarm = Swarm::of(2);
    let net = swarm.fixture.network("net", &["10.1.0.0/24"]);
    let (_, task) = swarm.task("web", net, 1);
    swarm.table.forget(node(1));
    assert!(swarm.serving(net, task));
    swarm.record(1, |_| {});
    assert!(!swarm.serving(net, task), "now its node says that it does not run");
}

#[test]
fn services_without_tasks_are_known_by_name() {
    let mut swarm = Swarm::of(1);
    let net = swarm.fixture.network("net", &["10.1.0.0/24", "fd00:1::/64"]);
    swarm.task("web", net, 1);
    let published = PortConfig { mode: PublishMode::Ingress, ..host_port(8080, 80) };
    let idle = swarm.fixture.service("idle", 0, |spec| {
        spec.task.networks = vec![NetworkAttachment { aliases: vec!["db".into()], ..attach_to(net) }];
        spec.endpoint.ports = vec![published.clone(), host_port(8081, 81)];
    });
    swarm.fixture.give_vips(idle);
    let view = swarm.view(net);
    let service = &view.services[&idle];
    assert_eq!((service.name.as_str(), &service.aliases, service.vips.len()), ("idle", &vec!["db".into()], 2));
    assert!(service.ports.is_empty(), "ports are published on the ingress network");
    let ingress = swarm.fixture.state.ingress_network().unwrap().id;
    assert_eq!(swarm.view(ingress).services[&idle].ports, [published, host_port(8081, 81)]);
    // One that is not on it is there for its ports alone, and an automatic one is its node's affair.
    let beside =
        swarm.fixture.service("beside", 0, |spec| spec.endpoint.ports = vec![host_port(0, 80), host_port(9100, 80)]);
    let told = &swarm.view(ingress).services[&beside];
    assert_eq!((told.ports.as_slice(), told.vips.len()), (&[host_port(9100, 80)][..], 0));
    swarm.fixture.command(Command::RemoveService { id: beside });
    assert!(!swarm.view(ingress).services.contains_key(&beside));
    swarm.fixture.command(Command::RemoveService { id: idle });
    assert!(!swarm.view(net).services.contains_key(&idle));
}

#[test]
fn what_concerns_no_network_is_no_news() {
    let mut swarm = Swarm::of(2);
    let net = swarm.fixture.network("net", &["10.1.0.0/24"]);
    let (_, task) = swarm.task("web", net, 1);
    assert!(swarm.build());
    assert!(!swarm.build());
    swarm.record(1, |record| record.load.used_nano_cpus = 5);
    swarm.report(task, TaskState::Running, Health::Healthy);
    swarm.fixture.update_node(node(2), |spec| drop(spec.labels.insert("a".into(), "b".into())));
    swarm.fixture.service("plain", 0, |_| {});
    assert!(!swarm.build());
    let view = swarm.view(net);
    swarm.fixture.network("later", &["10.9.0.0/24"]);
    assert!(Arc::ptr_eq(&view, &swarm.view(net)), "other networks stay as they are, and shared");
}

#[test]
fn a_new_ingress_network_takes_over_what_is_published() {
    let mut swarm = Swarm::of(1);
    let first = swarm.fixture.state.ingress_network().unwrap().id;
    let published = PortConfig { mode: PublishMode::Ingress, ..host_port(8080, 80) };
    swarm.build();
    swarm.fixture.command(Command::RemoveNetwork { id: first });
    let second = NetworkId(77);
    let spec = NetworkSpec { ingress: true, ..crate::state::fixture::network_spec("mine", &["10.8.0.0/24"]) };
    swarm.fixture.command(Command::CreateNetwork { id: second, spec });
    let web = swarm.fixture.service("web", 0, |spec| spec.endpoint.ports = vec![published]);
    assert!(swarm.view(second).services.contains_key(&web));
    assert!(!swarm.made.of(node(1)).list.contains_key(&first));
}

#[derive(Debug, Clone)]
enum Act {
    Run { service: usize, slot: u64, node: u128 },
    Report { nth: usize, up: bool },
    Stop { nth: usize },
    Suspect { node: u128 },
    Update { service: usize, network: usize },
    Tell,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..3usize, 1..4u64, 1..4u128).prop_map(|(service, slot, node)| Act::Run { service, slot, node }),
        (0..9usize, any::<bool>()).prop_map(|(nth, up)| Act::Report { nth, up }),
        (0..9usize).prop_map(|nth| Act::Stop { nth }),
        (0..4u128).prop_map(|node| Act::Suspect { node }),
        (0..3usize, 0..3usize).prop_map(|(service, network)| Act::Update { service, network }),
        Just(Act::Tell),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    /// Made step by step, views are those that are made from nothing, and what a node is told adds up to them.
    #[test]
    fn news_add_up_to_the_truth(acts in prop::collection::vec(act(), 1..60)) {
        let mut swarm = Swarm::of(3);
        let networks =
            [("a", "10.1.0.0/24"), ("b", "10.2.0.0/24"), ("c", "10.3.0.0/24")].map(|(n, s)| swarm.fixture.network(n, &[s]));
        let services = ["x", "y", "z"].map(|name| {
            swarm.fixture.service(name, 3, |spec| spec.task.networks = vec![attach_to(networks[0])])
        });
        let mut told = Networks::default();
        for act in acts.into_iter().chain([Act::Tell]) {
            let running: Vec<TaskId> =
                swarm.fixture.state.tasks().filter(|task| task.holds_resources()).map(|task| task.id).collect();
            match act {
                Act::Run { service, slot, node: number } => {
                    let taken = swarm.fixture.state.tasks_in_slot(services[service], Slot::Replica(slot));
                    if !taken.into_iter().any(|task| task.is_live()) {
                        swarm.fixture.running(services[service], slot, node(number));
                    }
                }
                Act::Report { nth, up } => if let Some(task) = running.get(nth) {
                    let state = if up { TaskState::Running } else { TaskState::Starting };
                    swarm.report(*task, state, Health::None);
                },
                Act::Stop { nth } => if let Some(task) = running.get(nth) {
                    if swarm.fixture.state.task(*task).unwrap().desired == DesiredState::Running {
                        swarm.fixture.set_desired(*task, DesiredState::Shutdown);
                    } else {
                        swarm.fixture.finish(*task, TaskState::Shutdown);
                    }
                },
                Act::Suspect { node: number } => swarm.table.set_suspects((number > 0).then(|| node(number)).into_iter().collect()),
                Act::Update { service, network } => swarm.fixture.update(services[service], |spec| {
                    spec.task.networks = vec![attach_to(networks[network])];
                }),
                Act::Tell => {
                    swarm.build();
                    let newer = swarm.made.of(node(1));
                    let update = swarm.made.update(&told, &newer);
                    told.apply(update).unwrap();
                    prop_assert_eq!(&told, &newer);
                    // The stream goes on from what it has sent, which is shared, rather than from its copy.
                    told = newer;
                    let anew = NetworkBuilder::default().build(&swarm.fixture.state, &swarm.table).unwrap();
                    for number in 1..=3 {
                        prop_assert_eq!(swarm.made.of(node(number)), anew.of(node(number)));
                    }
                    for view in told.list.values() {
                        for endpoint in view.endpoints.values() {
                            prop_assert!(endpoint.addresses.iter().all(|addr| view.subnets.iter().any(|s| s.contains(*addr))));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_change_of_membership_carries_the_port_of_the_tunnels() {
    let swarm = Swarm::of(1);
    let view = view(&swarm.fixture.state, node(1));
    assert_eq!(view.members.data_path_port, 4789);
    let mut held = View::default();
    Update::snapshot(&view).apply(&mut held).unwrap();
    assert_eq!(held, view);
}
