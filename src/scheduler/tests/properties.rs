//! What holds for any swarm and any services.

use super::*;

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
