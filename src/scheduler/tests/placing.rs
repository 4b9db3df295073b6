//! Which of the nodes that would take a task gets it.

use super::*;

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
