//! What a task asks of its node, and what is said where none has it.

use super::*;
use crate::state::Command;
use crate::state::fixture::network_spec;

#[test]
fn nodes_that_are_not_ready_get_nothing_and_are_counted_by_their_reason() {
    let mut swarm = Swarm::of(8);
    let since = UnixMs(0);
    swarm.fixture.health(node(1), NodeHealth::Down { incarnation: Incarnation(1), since });
    swarm.fixture.health(node(2), NodeHealth::HeldDown { until: UnixMs(u64::MAX) });
    swarm.fixture.health(node(3), NodeHealth::Unknown);
    swarm.fixture.update_node(node(4), |spec| spec.availability = Availability::Drain);
    swarm.fixture.update_node(node(5), |spec| spec.availability = Availability::Pause);
    swarm.table.set_suspects([node(6)].into());
    swarm.record(7, |record| record.leaving = true);
    swarm.table.forget(node(8));
    let web = swarm.service("web", 1, |_| {});
    swarm.tick();
    assert_eq!(
        swarm.reasons(web),
        ["no suitable node (1 node: down; 1 node: back after an outage, held back for a while (see its NOTICE); \
          2 nodes: not heard from yet; 1 node: shutting down; 1 node: suspected to be down; 1 node: drained; \
          1 node: paused)"]
    );
}

#[test]
fn a_refusal_names_the_filter_and_the_nodes() {
    let mut swarm = Swarm::of(5);
    (1..=3).for_each(|number| swarm.label(number, "zone", "a"));
    let web = swarm.service("web", 2, |task| {
        task.placement.constraints = vec!["node.labels.zone==a".into()];
        task.resources.reservations.memory_bytes = 9 * GIB;
    });
    swarm.tick();
    let reason = "no suitable node (2 nodes: constraint node.labels.zone==a not met; 3 nodes: insufficient memory)";
    assert_eq!(swarm.reasons(web), [reason, reason]);
}

#[test]
fn what_changes_frees_the_waiting_task_without_anyone_saying_so() {
    let mut swarm = Swarm::of(2);
    let web = swarm.service("web", 1, |task| task.placement.constraints = vec!["node.labels.disk == ssd".into()]);
    swarm.tick();
    assert_eq!(swarm.spread(web), [0, 0]);
    swarm.label(2, "disk", "ssd");
    swarm.tick();
    assert_eq!(swarm.spread(web), [0, 1]);
    assert!(swarm.reasons(web).is_empty());
}

#[test]
fn reservations_fill_nodes_and_no_further() {
    let mut swarm = Swarm::of(2);
    let web = swarm.service("web", 9, |task| task.resources.reservations.nano_cpus = CPU);
    swarm.tick();
    assert_eq!(swarm.spread(web), [4, 4]);
    assert_eq!(swarm.reasons(web), ["no suitable node (2 nodes: insufficient CPU)"]);
    let one = swarm.fixture.state.tasks_of_service(web).find(|task| task.node == Some(node(2))).unwrap().id;
    swarm.fixture.set_desired(one, DesiredState::Shutdown);
    assert_eq!(swarm.tick(), 0, "a task that stops holds its reservation until it has ended");
    swarm.fixture.finish(one, TaskState::Shutdown);
    swarm.tick();
    assert_eq!(swarm.spread(web), [4, 4]);
}

#[test]
fn a_platform_is_matched_in_any_spelling() {
    let mut swarm = Swarm::of(2);
    swarm.describe(2, |description| description.platform.architecture = "aarch64".into());
    let arm = Platform { os: "linux".into(), architecture: "arm64".into() };
    let web = swarm.service("web", 2, |task| task.placement.platforms = vec![arm]);
    let none = Platform { os: "windows".into(), architecture: "amd64".into() };
    let other = swarm.service("other", 1, |task| task.placement.platforms = vec![none]);
    swarm.tick();
    assert_eq!(swarm.spread(web), [0, 2]);
    assert_eq!(swarm.reasons(other), ["no suitable node (2 nodes: platform is not windows/amd64)"]);
}

#[test]
fn a_task_with_an_init_goes_where_one_is() {
    let mut swarm = Swarm::of(3);
    let web = swarm.service("web", 2, |task| task.container.init = Some(true));
    swarm.service("plain", 1, |task| task.container.init = Some(false));
    swarm.tick();
    let reason = "no suitable node (3 nodes: no init (docker-init or a static tini))";
    assert_eq!(swarm.reasons(web), [reason, reason]);
    let state = &swarm.fixture.state;
    let fits = fits(state, &swarm.table, swarm.now(), state.service(web).unwrap(), &mut ChaCha8Rng::seed_from_u64(1));
    let refusals: Vec<Option<String>> = fits.unwrap().into_iter().map(|fit| fit.refusal).collect();
    assert_eq!(refusals, vec![Some("no init (docker-init or a static tini)".to_owned()); 3]);
    assert!(state.tasks().any(|task| task.service != web && task.node.is_some()), "who asks for none runs anywhere");
    // It is installed on one of them.
    swarm.record(2, |record| record.has_init = true);
    swarm.tick();
    assert_eq!(swarm.spread(web), [0, 2, 0]);
}

#[test]
fn a_host_port_is_given_once_on_a_node() {
    let mut swarm = Swarm::of(2);
    let web = swarm.service("web", 3, |task| task.host_ports = vec![host_port(8080, 80)]);
    swarm.tick();
    assert_eq!(swarm.spread(web), [1, 1]);
    assert_eq!(swarm.reasons(web), ["no suitable node (2 nodes: host port 8080/tcp in use)"]);
    let dns = swarm.service("dns", 2, |task| {
        task.host_ports = vec![PortConfig { protocol: Protocol::Udp, ..host_port(8080, 53) }];
    });
    swarm.tick();
    assert_eq!(swarm.spread(dns), [1, 1], "the same number of another protocol is another port");
}

#[test]
fn open_host_ports_are_chosen_and_none_twice() {
    let mut swarm = Swarm::of(1);
    let web = swarm.service("web", 20, |task| task.host_ports = vec![host_port(0, 80), host_port(0, 443)]);
    swarm.tick();
    let ports: Vec<u16> = swarm
        .fixture
        .state
        .tasks_of_service(web)
        .flat_map(|task| &task.host_ports)
        .map(|port| port.published)
        .collect();
    assert_eq!(ports.len(), 40);
    assert!(ports.iter().all(|port| (30_000..=32_767).contains(port)));
    assert_eq!(ports.iter().collect::<std::collections::BTreeSet<_>>().len(), 40);
}

#[test]
fn no_open_host_port_is_one_that_a_service_publishes_everywhere() {
    let mut swarm = Swarm::of(1);
    swarm.fixture.ready_ingress();
    let start = |id: u128| 30_000 + u16::try_from(id % 2768).unwrap();
    // The ids of the fixture's tasks are known, and with them where the search for a port begins.
    let agent = swarm.fixture.service("agent", 1, |spec| spec.endpoint.ports = vec![host_port(0, 80)]);
    let task = swarm.fixture.pending(agent, 1);
    let published = PortConfig { mode: PublishMode::Ingress, ..host_port(start(task.0), 80) };
    swarm.fixture.service("web", 0, |spec| spec.endpoint.ports = vec![published]);
    swarm.tick();
    assert_eq!(swarm.fixture.state.task(task).unwrap().host_ports[0].published, start(task.0) + 1);
}

#[test]
fn a_task_gets_its_addresses_with_its_node() {
    let mut swarm = Swarm::of(1);
    let back = swarm.fixture.network("back", &["10.5.0.0/24", "fd00:5::/64"]);
    let web = swarm.service("web", 1, |task| {
        task.networks = vec![NetworkAttachment { aliases: vec!["db".into()], ..attach_to(back) }];
    });
    swarm.tick();
    let task = swarm.fixture.state.tasks_of_service(web).next().unwrap();
    let addresses = vec!["10.5.0.2".parse().unwrap(), "fd00:5::2".parse().unwrap()];
    assert_eq!(task.attachments, [Attachment { network: back, addresses, aliases: vec!["db".into()] }]);
}

#[test]
fn a_task_without_an_address_waits_and_says_so() {
    let mut swarm = Swarm::of(2);
    // Two addresses, of which one is the gateway's.
    let small = swarm.fixture.network("small", &["10.5.0.0/30"]);
    let web = swarm.service("web", 2, |task| task.networks = vec![attach_to(small)]);
    let other = swarm.service("other", 1, |_| {});
    swarm.tick();
    assert_eq!(swarm.reasons(web), [format!("network {small} is full")]);
    assert!(swarm.reasons(other).is_empty(), "nobody else waits for it");
    assert_eq!(swarm.tick(), 0, "the reason is known");
    let first = swarm.fixture.state.tasks_of_service(web).find(|task| task.assigned_at.is_some()).unwrap().id;
    swarm.fixture.finish(first, TaskState::Failed);
    swarm.tick();
    assert!(swarm.reasons(web).is_empty());
}

#[test]
fn a_global_task_without_an_address_says_so_too() {
    let mut swarm = Swarm::of(2);
    let small = swarm.fixture.network("small", &["10.5.0.0/30"]);
    let agent = swarm.fixture.global("agent", |spec| spec.task.networks = vec![attach_to(small)]);
    for number in [1, 2] {
        let new = swarm.fixture.new_task(agent, Slot::Node(node(number)));
        swarm.fixture.create(new);
    }
    swarm.tick();
    assert_eq!(swarm.reasons(agent), [format!("network {small} is full")]);
    assert_eq!(swarm.tick(), 0, "the reason is known");
}

#[test]
fn generic_resources_are_handed_out_by_name() {
    let mut swarm = Swarm::of(2);
    let disk = |name: &str| GenericResource::Named { kind: "ssd".into(), value: name.into() };
    swarm.describe(1, |description| description.resources.generic = vec![disk("a"), disk("b")]);
    let wanted = GenericResource::Discrete { kind: "ssd".into(), value: 1 };
    let db = swarm.service("db", 3, |task| task.resources.reservations.generic = vec![wanted]);
    swarm.tick();
    let mut given: Vec<GenericResource> =
        swarm.fixture.state.tasks_of_service(db).flat_map(|task| task.generic.clone()).collect();
    given.sort();
    assert_eq!(given, [disk("a"), disk("b")]);
    assert_eq!(swarm.reasons(db), ["no suitable node (2 nodes: insufficient ssd)"]);
}

#[test]
fn a_task_follows_its_volume_and_waits_for_its_node() {
    let mut swarm = Swarm::of(3);
    let db = swarm.service("db", 1, |task| task.container.mounts = vec![local_volume("data")]);
    swarm.tick();
    let first = Arc::clone(swarm.fixture.state.tasks_of_service(db).next().unwrap());
    let home = first.node.unwrap();
    swarm.fixture.finish(first.id, TaskState::Failed);
    swarm.fixture.pending(db, 1);
    swarm.tick();
    let second = swarm.fixture.state.tasks_of_service(db).find(|task| task.is_live()).unwrap().clone();
    assert_eq!(second.node, Some(home));
    swarm.fixture.finish(second.id, TaskState::Failed);
    swarm.fixture.health(home, NodeHealth::Down { incarnation: Incarnation(1), since: UnixMs(0) });
    swarm.fixture.pending(db, 1);
    swarm.tick();
    let name = swarm.fixture.state.node(home).unwrap().name().to_owned();
    assert_eq!(swarm.reasons(db), [format!("waits for node {name}, which holds the data of volume data (down)")]);
    swarm.fixture.health(home, NodeHealth::Up);
    swarm.tick();
    assert!(swarm.reasons(db).is_empty());
}

#[test]
fn a_task_that_may_start_empty_goes_elsewhere_only_when_it_must() {
    let mut swarm = Swarm::of(3);
    let db = swarm.service("db", 1, |task| {
        task.container.mounts = vec![local_volume("data")];
        task.volume_policy = VolumePolicy::StartEmpty;
    });
    swarm.tick();
    let first = Arc::clone(swarm.fixture.state.tasks_of_service(db).next().unwrap());
    let home = first.node.unwrap();
    swarm.fixture.finish(first.id, TaskState::Failed);
    let second = swarm.fixture.pending(db, 1);
    swarm.tick();
    assert_eq!(swarm.fixture.state.task(second).unwrap().node, Some(home));
    swarm.fixture.health(home, NodeHealth::Down { incarnation: Incarnation(1), since: UnixMs(0) });
    swarm.fixture.finish(second, TaskState::Orphaned);
    let third = swarm.fixture.pending(db, 1);
    swarm.tick();
    let node = swarm.fixture.state.task(third).unwrap().node;
    assert!(node.is_some_and(|node| node != home));
}

#[test]
fn what_no_node_can_do_is_said_and_what_it_waits_for_may_change() {
    let mut swarm = Swarm::of(2);
    let of = |adjust: fn(&mut Mount)| {
        move |task: &mut TaskSpec| {
            let mut mount = local_volume("data");
            adjust(&mut mount);
            task.container.mounts = vec![mount];
        }
    };
    let driver = swarm.service("driver", 1, of(|mount| mount.volume.driver = Some("rexray/ebs".into())));
    let size =
        swarm.service("size", 1, of(|mount| drop(mount.volume.driver_options.insert("size".into(), "1g".into()))));
    let target = swarm.service("target", 1, of(|mount| mount.target = "data".into()));
    let hidden = NetworkSpec {
        driver_options: [(ENCRYPTED_OPTION.to_owned(), String::new())].into(),
        ..network_spec("hidden", &["10.5.0.0/24"])
    };
    let network = NetworkId(9_999);
    swarm.fixture.command(Command::CreateNetwork { id: network, spec: hidden });
    let on_it = swarm.service("on_it", 1, |task| task.networks = vec![attach_to(network)]);
    swarm.tick();
    for (service, part) in [
        (
            driver,
            "volume driver \"rexray/ebs\" is not there: use local, which mounts nfs, cifs and others by its options",
        ),
        (size, "volume option size needs disk quotas, which are not there yet: a tmpfs has o=size=64m"),
        (target, "invalid mount target, must be an absolute path: \"data\""),
        (on_it, "network hidden: its option encrypted cannot be met yet: leave it out"),
    ] {
        assert_eq!(swarm.reasons(service), [format!("no suitable node (2 nodes: {part})")]);
    }
    let waiting = swarm.fixture.state.tasks_of_service(target).next().unwrap().id;
    swarm.fixture.finish(waiting, TaskState::Shutdown);
    swarm.fixture.update(target, |spec| spec.task.container.mounts[0].target = "/data".into());
    swarm.fixture.pending(target, 1);
    swarm.tick();
    assert_eq!(swarm.spread(target).iter().sum::<usize>(), 1);
}

#[test]
fn a_global_task_takes_its_own_node_or_says_why_not() {
    let mut swarm = Swarm::of(3);
    let agent = swarm.fixture.global("agent", |spec| spec.task.resources.reservations.memory_bytes = 5 * GIB);
    for number in 1..=3 {
        let task = swarm.fixture.new_task(agent, Slot::Node(node(number)));
        swarm.fixture.create(task);
    }
    swarm.describe(2, |description| description.resources.memory_bytes = GIB);
    swarm.fixture.update_node(node(3), |spec| spec.availability = Availability::Pause);
    swarm.tick();
    let reasons = swarm.reasons(agent);
    assert_eq!(reasons, ["node node-2: insufficient memory", "node node-3: paused"]);
}
