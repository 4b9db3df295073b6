use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::*;
use crate::gossip::{Load, NodeRecord, RecordVersion};
use crate::spec::*;
use crate::state::fixture::{Fixture, LowestFree, attach_to, host_port, local_volume, node, outcome};
use crate::state::{Change, NodeHealth};

const GIB: u64 = 1 << 30;
const CPU: u64 = 1_000_000_000;

/// A swarm whose nodes all have an idle record.
struct Swarm {
    fixture: Fixture,
    table: Table,
    seed: u64,
}

impl Swarm {
    fn of(nodes: u128) -> Swarm {
        let mut swarm = Swarm { fixture: Fixture::nodes(nodes), table: Table::default(), seed: 1 };
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

    fn load(&mut self, number: u128, load: Load) {
        self.record(number, |record| record.load = load);
    }

    fn describe(&mut self, number: u128, adjust: impl FnOnce(&mut NodeDescription)) {
        let mut description = self.fixture.state.node(node(number)).expect("the node exists").description.clone();
        adjust(&mut description);
        self.fixture.change(Change::DescribeNode { node: node(number), description: Box::new(description) });
    }

    fn label(&mut self, number: u128, name: &str, value: &str) {
        self.fixture.update_node(node(number), |spec| drop(spec.labels.insert(name.into(), value.into())));
    }

    fn service(&mut self, name: &str, replicas: u64, adjust: impl FnOnce(&mut TaskSpec)) -> ServiceId {
        let service = self.fixture.service(name, replicas, |spec| {
            adjust(&mut spec.task);
            // Where the log's host ports come from.
            spec.endpoint.ports = spec.task.host_ports.clone();
        });
        for slot in 1..=replicas {
            self.fixture.pending(service, slot);
        }
        service
    }

    fn now(&self) -> Now {
        Now { mono: MonoMs(0), unix: self.fixture.now }
    }

    /// One tick, applied; how many steps it had.
    fn tick(&mut self) -> usize {
        self.seed += 1;
        let mut draft = self.fixture.draft();
        plan(&mut draft, &self.table, self.now(), &mut ChaCha8Rng::seed_from_u64(self.seed), &mut LowestFree);
        let steps = draft.into_steps();
        let count = steps.len();
        if count > 0 {
            assert_eq!(self.fixture.plan(steps).1, 0, "the log refuses nothing of a plan made on its own state");
        }
        count
    }

    /// Tasks of the service on each node, in order of the nodes.
    fn spread(&self, service: ServiceId) -> Vec<usize> {
        let on =
            |id| self.fixture.state.tasks_of_service(service).filter(|t| t.is_live() && t.node == Some(id)).count();
        self.fixture.state.nodes().map(|node| on(node.id)).collect()
    }

    fn reasons(&self, service: ServiceId) -> Vec<String> {
        let waiting = self.fixture.state.tasks_of_service(service).filter(|task| task.assigned_at.is_none());
        waiting.map(|task| task.pending_reason.clone()).collect()
    }
}

fn busy() -> Load {
    Load { used_nano_cpus: 4 * CPU, cpu_pressure: 60.0, ..Load::default() }
}

fn runs(task: TaskId) -> TaskReport {
    TaskReport {
        task,
        state: TaskState::Running,
        message: String::new(),
        container_id: None,
        pid: None,
        exit_code: None,
        ran_for: None,
        health: Health::None,
        restarts_in_place: 0,
        host_ports: Vec::new(),
    }
}

fn gpu(value: u64) -> GenericResource {
    GenericResource::Discrete { kind: "gpu".into(), value }
}

#[test]
fn tasks_spread_evenly_over_equal_nodes() {
    let mut swarm = Swarm::of(5);
    let web = swarm.service("web", 12, |_| {});
    swarm.tick();
    let mut spread = swarm.spread(web);
    spread.sort();
    assert_eq!(spread, [2, 2, 2, 3, 3]);
}

#[test]
fn a_second_run_changes_nothing() {
    let mut swarm = Swarm::of(3);
    swarm.service("web", 4, |_| {});
    swarm.service("huge", 2, |task| task.resources.reservations.memory_bytes = 100 * GIB);
    assert!(swarm.tick() > 0);
    assert_eq!(swarm.tick(), 0);
}

#[test]
fn the_same_input_and_seed_give_the_same_plan() {
    let steps = |seed| {
        let mut swarm = Swarm::of(7);
        swarm.service("web", 10, |_| {});
        let mut draft = swarm.fixture.draft();
        plan(&mut draft, &swarm.table, swarm.now(), &mut ChaCha8Rng::seed_from_u64(seed), &mut LowestFree);
        draft.into_steps()
    };
    assert_eq!(steps(3), steps(3));
    assert_ne!(steps(3), steps(4), "equals are told apart by the drawn lot");
}

#[test]
fn a_node_under_outside_load_gets_fewer_tasks_than_its_idle_twins() {
    let memory = Load { used_memory_bytes: 8 * GIB, memory_pressure: 40.0, ..Load::default() };
    for load in [busy(), memory] {
        let mut swarm = Swarm::of(3);
        swarm.load(2, load);
        let few = swarm.service("few", 6, |_| {});
        swarm.tick();
        assert_eq!(swarm.spread(few), [3, 0, 3]);
        let many = swarm.service("many", 30, |_| {});
        swarm.tick();
        let spread = swarm.spread(many);
        assert!(spread[1] > 0 && spread[1] + 3 <= spread[0].min(spread[2]), "bounded: {spread:?}");
    }
}

#[test]
fn a_little_load_does_not_disturb_evenness() {
    let mut swarm = Swarm::of(3);
    swarm.load(1, Load { used_nano_cpus: CPU / 3, used_memory_bytes: GIB, ..Load::default() });
    let web = swarm.service("web", 9, |_| {});
    swarm.tick();
    assert_eq!(swarm.spread(web), [3, 3, 3]);
}

#[test]
fn what_differs_between_twins_on_a_busy_machine_does_not_either() {
    let mut swarm = Swarm::of(3);
    for (number, percent) in [(1, 55), (2, 97), (3, 74)] {
        let load = Load { used_nano_cpus: 4 * CPU * percent / 100, cpu_pressure: 40.0, ..Load::default() };
        swarm.load(number, load);
    }
    let web = swarm.service("web", 30, |_| {});
    swarm.tick();
    assert_eq!(swarm.spread(web), [10, 10, 10]);
}

#[test]
fn replicas_that_start_count_no_more_than_those_that_run() {
    let mut swarm = Swarm::of(2);
    let web = swarm.fixture.service("web", 60, |_| {});
    for slot in 1..=20 {
        let task = swarm.fixture.running(web, slot, node(1));
        swarm.record(1, |record| drop(record.tasks.insert(task, runs(task))));
    }
    for slot in 21..=40 {
        swarm.fixture.running(web, slot, node(2));
    }
    for slot in 41..=60 {
        swarm.fixture.pending(web, slot);
    }
    swarm.tick();
    assert_eq!(swarm.spread(web), [30, 30]);
}

#[test]
fn an_idler_node_does_not_get_everything_before_its_next_record() {
    let mut swarm = Swarm::of(2);
    swarm.load(1, Load { used_nano_cpus: 2 * CPU, ..Load::default() });
    let services: Vec<ServiceId> = (0..20).map(|number| swarm.service(&format!("s{number}"), 1, |_| {})).collect();
    swarm.tick();
    let on_first: usize = services.iter().map(|service| swarm.spread(*service)[0]).sum();
    assert!((8..=10).contains(&on_first), "{on_first}");
}

#[test]
fn a_node_with_the_image_is_preferred_among_equals() {
    for image in ["example.org/whoami:1", "sha256:0123"] {
        let mut swarm = Swarm::of(4);
        swarm.record(3, |record| record.images = vec![image.into()]);
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        swarm.record(2, |record| record.images.push(digest.clone()));
        let by_name = swarm.service("by-name", 1, |_| {});
        let by_digest =
            swarm.service("by-digest", 1, |task| task.container.image = format!("example.org/whoami:1@{digest}"));
        swarm.tick();
        assert_eq!(swarm.spread(by_digest), [0, 1, 0, 0]);
        if image.contains('/') {
            assert_eq!(swarm.spread(by_name), [0, 0, 1, 0]);
        }
    }
}

#[test]
fn spread_preferences_balance_level_by_level() {
    let mut swarm = Swarm::of(7);
    for (number, zone, rack) in
        [(1, "a", "1"), (2, "a", "1"), (3, "a", "2"), (4, "b", "1"), (5, "b", "1"), (6, "b", "1")]
    {
        swarm.label(number, "zone", zone);
        swarm.label(number, "rack", rack);
    }
    // Node 7 has no label: a branch of its own.
    let web = swarm.service("web", 12, |task| {
        task.placement.spread = vec!["node.labels.zone".into(), "node.labels.rack".into()];
    });
    swarm.tick();
    let spread = swarm.spread(web);
    assert_eq!(spread[0] + spread[1] + spread[2], 4, "{spread:?}");
    assert_eq!((spread[0], spread[1], spread[2]), (1, 1, 2), "racks of zone a: {spread:?}");
    assert_eq!(spread[3] + spread[4] + spread[5], 4, "{spread:?}");
    assert_eq!(spread[6], 4);
}

#[test]
fn a_full_branch_leaves_its_share_to_the_others() {
    let mut swarm = Swarm::of(3);
    swarm.label(1, "zone", "a");
    let web = swarm.service("web", 6, |task| {
        task.placement.spread = vec!["node.labels.zone".into()];
        task.placement.max_replicas = 2;
    });
    swarm.tick();
    assert_eq!(swarm.spread(web), [2, 2, 2]);
    swarm.service("more", 1, |_| {});
    swarm.tick();
}

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

#[test]
fn a_node_where_the_service_keeps_failing_is_avoided_while_there_are_others() {
    let mut swarm = Swarm::of(2);
    let web = swarm.fixture.service("web", 4, |_| {});
    for _ in 0..3 {
        let task = swarm.fixture.running(web, 1, node(1));
        swarm.fixture.change(Change::Finish { task, outcome: outcome(TaskState::Failed), replacement: None });
    }
    for slot in 1..=4 {
        swarm.fixture.pending(web, slot);
    }
    swarm.tick();
    assert_eq!(swarm.spread(web), [0, 4]);
    swarm.fixture.update_node(node(2), |spec| spec.availability = Availability::Pause);
    swarm.fixture.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 5 });
    swarm.fixture.pending(web, 5);
    swarm.tick();
    assert_eq!(swarm.spread(web), [1, 4]);
}

#[test]
fn old_failures_are_forgiven() {
    let mut swarm = Swarm::of(2);
    let web = swarm.fixture.service("web", 2, |_| {});
    for _ in 0..3 {
        let task = swarm.fixture.running(web, 1, node(1));
        swarm.fixture.finish(task, TaskState::Failed);
    }
    swarm.fixture.later(Duration::from_secs(301));
    for slot in 1..=2 {
        swarm.fixture.pending(web, slot);
    }
    swarm.tick();
    assert_eq!(swarm.spread(web), [1, 1]);
}

#[test]
fn tasks_of_services_without_a_place_do_not_hold_up_the_others() {
    let mut swarm = Swarm::of(2);
    let stuck = swarm.service("stuck", 3, |task| task.resources.reservations.generic = vec![gpu(1)]);
    let web = swarm.service("web", 4, |_| {});
    swarm.tick();
    assert_eq!(swarm.spread(web), [2, 2]);
    assert_eq!(swarm.reasons(stuck).len(), 3);
}

#[test]
fn a_tick_places_a_bounded_number_and_the_next_goes_on() {
    let mut swarm = Swarm::of(3);
    let web = swarm.service("web", MAX_PLACEMENTS as u64 + 5, |_| {});
    assert_eq!(swarm.tick(), MAX_PLACEMENTS);
    assert_eq!(swarm.tick(), 5);
    let spread = swarm.spread(web);
    assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1, "{spread:?}");
}

#[test]
fn an_empty_swarm_of_records_is_a_reason_too() {
    let mut swarm = Swarm { fixture: Fixture::nodes(1), table: Table::default(), seed: 0 };
    let web = swarm.service("web", 1, |_| {});
    swarm.tick();
    assert_eq!(swarm.reasons(web), ["no suitable node (1 node: not heard from yet)"]);
}

/// Tasks on each node if each in turn goes to the least rank of all nodes. The lots are those of the next tick.
fn by_sorting(swarm: &Swarm, service: ServiceId, shapes: &[(u64, bool, u64, usize)]) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(swarm.seed + 1);
    let nodes = nodes::Nodes::build(&swarm.fixture.state, &swarm.table, std::iter::once(service), &mut rng);
    let mut infos = nodes.infos;
    let mut tasks: Vec<u32> = vec![0; infos.len()];
    for _ in swarm.fixture.state.tasks_of_service(service).filter(|task| task.is_live()) {
        let rank = |index: usize| {
            let (_, has_image, _, failures) = shapes[index];
            let on_node = score::OnNode { tasks: tasks[index], starting: tasks[index], failures: failures as u32 };
            score::Rank::of(&infos[index], index).with(on_node, has_image)
        };
        let best = (0..infos.len()).map(rank).min().expect("there are nodes").index;
        tasks[best] += 1;
        infos[best].tasks += 1;
        infos[best].starting += 1;
    }
    tasks.into_iter().map(|count| count as usize).collect()
}

/// A service of a random swarm.
#[derive(Debug, Clone)]
struct Wish {
    replicas: u64,
    cpus: u64,
    memory: u64,
    gpus: u64,
    port: Option<u16>,
    max_replicas: u64,
    zone: Option<&'static str>,
    spread: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    (
        0..12u64,
        0..3u64,
        0..4u64,
        0..2u64,
        prop::option::of(prop::sample::select(vec![0u16, 80, 443])),
        0..3u64,
        prop::option::of(prop::sample::select(vec!["a", "b"])),
        any::<bool>(),
    )
        .prop_map(|(replicas, cpus, memory, gpus, port, max_replicas, zone, spread)| Wish {
            replicas,
            cpus,
            memory,
            gpus,
            port,
            max_replicas,
            zone,
            spread,
        })
}

fn wished(task: &mut TaskSpec, wish: &Wish) {
    task.resources.reservations.nano_cpus = wish.cpus * CPU;
    task.resources.reservations.memory_bytes = wish.memory * GIB;
    if wish.gpus > 0 {
        task.resources.reservations.generic = vec![gpu(wish.gpus)];
    }
    task.host_ports = wish.port.map(|port| host_port(port, 80)).into_iter().collect();
    task.placement.max_replicas = wish.max_replicas;
    task.placement.constraints = wish.zone.map(|zone| format!("node.labels.zone=={zone}")).into_iter().collect();
    if wish.spread {
        task.placement.spread = vec!["node.labels.zone".into()];
    }
}

fn assert_nothing_is_given_twice(swarm: &Swarm) {
    for node in swarm.fixture.state.nodes() {
        let (mut cpus, mut memory, mut gpus) = (0, 0, 0);
        let mut ports = std::collections::BTreeSet::new();
        let mut of_service: BTreeMap<ServiceId, u64> = BTreeMap::new();
        for task in swarm.fixture.state.tasks_of_node(node.id).filter(|task| task.holds_resources()) {
            let spec = swarm.fixture.state.task_spec(task.service, task.spec_version).unwrap();
            cpus += spec.resources.reservations.nano_cpus;
            memory += spec.resources.reservations.memory_bytes;
            gpus += task
                .generic
                .iter()
                .map(|g| if let GenericResource::Discrete { value, .. } = g { *value } else { 0 })
                .sum::<u64>();
            for port in &task.host_ports {
                assert!(port.published != 0 && ports.insert((port.protocol, port.published)), "{port:?} twice");
            }
            let count = of_service.entry(task.service).or_default();
            *count += 1;
            assert!(spec.placement.max_replicas == 0 || *count <= spec.placement.max_replicas);
        }
        let has = &node.description.resources;
        assert!(cpus <= has.nano_cpus && memory <= has.memory_bytes && gpus <= 2, "{}", node.name());
    }
}

/// Sum of the numbers before `node` and `nodes` in a sentence.
fn nodes_counted(sentence: &str) -> usize {
    let words: Vec<&str> = sentence.split([' ', '(']).collect();
    let pairs = words.windows(2).filter(|pair| ["node:", "nodes:"].contains(&pair[1]));
    pairs.map(|pair| pair[0].parse::<usize>().unwrap()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_given_twice_and_every_refusal_adds_up(
        wishes in prop::collection::vec(wish(), 1..6),
        nodes in 1..6u128,
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut swarm = Swarm::of(nodes);
        for number in 1..=nodes {
            swarm.label(number, "zone", if number % 2 == 0 { "a" } else { "b" });
            swarm.describe(number, |description| description.resources.generic = vec![gpu(2)]);
        }
        let services: Vec<ServiceId> = wishes.iter().enumerate().map(|(number, wish)| {
            swarm.service(&format!("s{number}"), wish.replicas, |task| wished(task, wish))
        }).collect();
        for end in ends.iter().map(Some).chain([None]) {
            swarm.tick();
            assert_nothing_is_given_twice(&swarm);
            for sentence in services.iter().flat_map(|service| swarm.reasons(*service)) {
                prop_assert_eq!(nodes_counted(&sentence) as u128, nodes, "{}", sentence);
            }
            prop_assert_eq!(swarm.tick(), 0, "a second run changes nothing");
            let placed: Vec<TaskId> = swarm.fixture.state.tasks().filter(|t| t.holds_resources()).map(|t| t.id).collect();
            if let (Some(end), false) = (end, placed.is_empty()) {
                swarm.fixture.finish(*end.get(&placed), TaskState::Failed);
            }
        }
    }

    #[test]
    fn the_walk_finds_what_sorting_all_nodes_would(
        shapes in prop::collection::vec((0..5u64, prop::bool::weighted(0.6), 0..2u64, 0..4usize), 1..200),
        replicas in 1..60u64,
    ) {
        let mut swarm = Swarm::of(shapes.len() as u128);
        let web = swarm.service("web", replicas, |_| {});
        for (number, (cpus, has_image, tasks, failures)) in (1..).zip(&shapes) {
            swarm.load(number, Load { used_nano_cpus: cpus * CPU, ..Load::default() });
            if *has_image {
                swarm.record(number, |record| record.images = vec!["example.org/whoami:1".into()]);
            }
            for slot in 0..*tasks {
                let other = swarm.fixture.service(&format!("other-{number}-{slot}"), 1, |_| {});
                swarm.fixture.running(other, 1, node(number));
            }
            for _ in 0..*failures {
                let task = swarm.fixture.new_task(web, Slot::Replica(replicas + 1));
                let task = swarm.fixture.create(task);
                swarm.fixture.assign(task, node(number));
                swarm.fixture.finish(task, TaskState::Failed);
            }
        }
        let expected = by_sorting(&swarm, web, &shapes);
        swarm.tick();
        prop_assert_eq!(swarm.spread(web), expected);
    }

    #[test]
    fn equal_nodes_differ_by_one_task_at_most(nodes in 1..9u128, waves in prop::collection::vec(0..15u64, 1..4)) {
        let mut swarm = Swarm::of(nodes);
        let total: u64 = waves.iter().sum();
        let web = swarm.fixture.service("web", total, |_| {});
        let mut slot = 0;
        for wave in waves {
            for _ in 0..wave {
                slot += 1;
                swarm.fixture.pending(web, slot);
            }
            swarm.tick();
            let spread = swarm.spread(web);
            prop_assert_eq!(spread.iter().sum::<usize>() as u64, slot);
            prop_assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1, "{:?}", spread);
        }
    }
}

#[test]
fn the_nodes_are_asked_as_a_placement_asks_them() {
    let mut swarm = Swarm::of(4);
    let web = swarm.service("web", 5, |spec| {
        spec.placement.constraints = vec!["node.labels.zone == a".into()];
        spec.resources.reservations.memory_bytes = 3 * GIB;
    });
    (1..=3).for_each(|number| swarm.label(number, "zone", "a"));
    swarm.fixture.update_node(node(2), |spec| spec.availability = Availability::Drain);
    swarm.record(3, |record| record.images = vec!["example.org/whoami:1".into()]);
    swarm.tick();
    let state = &swarm.fixture.state;
    let service = state.service(web).unwrap();
    let fits = fits(state, &swarm.table, swarm.now(), service, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let refusals: Vec<Option<&str>> = fits.iter().map(|fit| fit.refusal.as_deref()).collect();
    let full = Some("insufficient memory");
    assert_eq!(refusals, [full, Some("drained"), full, Some("constraint node.labels.zone==a not met")]);
    assert_eq!(fits.iter().map(|fit| fit.tasks).collect::<Vec<_>>(), [2, 0, 2, 0]);
    assert_eq!(fits.iter().map(|fit| fit.has_image).collect::<Vec<_>>(), [false, false, true, false]);
    assert!(fits[2].cost < fits[0].cost, "{fits:?}");
    // The sentence of the task that waits has the same refusals.
    let waiting = state.tasks_of_service(web).find(|task| task.assigned_at.is_none()).unwrap();
    let said = "no suitable node (1 node: drained; 1 node: constraint node.labels.zone==a not met; 2 nodes: insufficient memory)";
    assert_eq!(waiting.pending_reason, said);
}
