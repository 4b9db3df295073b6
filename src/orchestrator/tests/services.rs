//! Replicated and global services and jobs while nothing goes wrong, scaling, drain, and history.

use super::*;

#[test]
fn a_service_gets_its_tasks_in_slots_from_one() {
    let mut sim = Sim::nodes(3);
    let web = sim.swarm.service("web", 3, |_| {});
    sim.steps(2);
    assert_eq!(sim.slots(web), [1, 2, 3].map(Slot::Replica));
    assert_eq!(sim.running(web).len(), 3);
}

#[test]
fn scaling_down_gives_up_what_does_not_run_first_then_the_fullest_node() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 3, |_| {});
    sim.steps(2);
    sim.no_scheduler = true;
    sim.swarm.update(web, replicas(4));
    sim.steps(2);
    sim.swarm.update(web, replicas(3));
    sim.steps(2);
    assert_eq!(sim.running(web).len(), 3, "the task without a node went");

    let crowd = |sim: &Sim, n| sim.running(web).iter().filter(|task| task.node == Some(node(n))).count();
    assert_ne!(crowd(&sim, 1), crowd(&sim, 2));
    sim.swarm.update(web, replicas(2));
    sim.steps(2);
    assert_eq!((crowd(&sim, 1), crowd(&sim, 2)), (1, 1));
    sim.swarm.update(web, replicas(0));
    sim.steps(2);
    assert_eq!(sim.swarm.state.tasks_of_service(web).count(), 0, "removed tasks leave no history");
}

#[test]
fn scaling_down_a_service_with_volumes_gives_up_the_highest_slots() {
    let mut sim = Sim::nodes(3);
    let db = sim.swarm.service("db", 5, |spec| {
        spec.task.container.mounts = vec![crate::state::fixture::local_volume("data")];
    });
    sim.steps(2);
    sim.swarm.update(db, replicas(2));
    sim.steps(2);
    assert_eq!(sim.slots(db), [1, 2].map(Slot::Replica));
}

#[test]
fn a_slot_that_is_still_being_emptied_is_filled_but_not_started() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 2, |_| {});
    sim.steps(2);
    sim.silent.insert(node(1));
    sim.swarm.update(web, replicas(1));
    sim.steps(1);
    sim.swarm.update(web, replicas(2));
    sim.steps(1);
    let desired: Vec<_> = sim.live(web).iter().map(|task| task.desired).collect();
    assert!(desired.contains(&DesiredState::Ready), "{desired:?}");
    sim.silent.clear();
    sim.steps(4);
    assert_eq!(sim.running(web).len(), 2);
}

#[test]
fn a_removed_service_leaves_nothing() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 3, |_| {});
    sim.steps(2);
    sim.swarm.command(Command::RemoveService { id: web });
    sim.steps(3);
    assert_eq!(sim.swarm.state.tasks().count(), 0);
}

#[test]
fn a_global_service_has_a_task_on_every_node_that_fits() {
    let mut sim = Sim::nodes(3);
    let label = |sim: &mut Sim, n, value: &str| {
        let value = value.to_string();
        sim.swarm.update_node(node(n), |spec| drop(spec.labels.insert("zone".into(), value)));
    };
    label(&mut sim, 1, "a");
    label(&mut sim, 2, "a");
    let agent = sim.swarm.global("agent", |spec| {
        spec.task.placement.constraints = vec!["node.labels.zone == a".into()];
    });
    sim.steps(2);
    assert_eq!(sim.slots(agent), [1, 2].map(|n| Slot::Node(node(n))));

    label(&mut sim, 3, "a");
    label(&mut sim, 1, "b");
    sim.steps(2);
    assert_eq!(sim.slots(agent), [2, 3].map(|n| Slot::Node(node(n))));

    sim.swarm.command(Command::AdmitNode { node: Box::new(a_node(4)) });
    label(&mut sim, 4, "a");
    sim.swarm.update_node(node(2), |spec| spec.availability = Availability::Drain);
    sim.swarm.update_node(node(3), |spec| spec.availability = Availability::Pause);
    sim.steps(2);
    assert_eq!(sim.slots(agent), [3, 4].map(|n| Slot::Node(node(n))));

    sim.swarm.update_node(node(2), |spec| spec.availability = Availability::Active);
    sim.steps(3);
    assert_eq!(sim.running(agent).len(), 3);
}

#[test]
fn a_global_task_waits_for_its_node_to_come_back() {
    let mut sim = Sim::nodes(2);
    let agent = sim.swarm.global("agent", |_| {});
    sim.steps(2);
    sim.verdict(node(2));
    sim.steps(3);
    assert_eq!(sim.slots(agent), [Slot::Node(node(1))]);
    assert_eq!(sim.ended(agent)[0].outcome.as_ref().map(|o| o.state), Some(TaskState::Orphaned));

    let until = sim.swarm.now + SECOND;
    sim.silent.clear();
    sim.swarm.health(node(2), NodeHealth::HeldDown { until });
    sim.steps(3);
    assert_eq!(sim.live(agent).len(), 1, "not while it is held down");
    sim.swarm.health(node(2), NodeHealth::Up);
    sim.steps(3);
    assert_eq!(sim.running(agent).len(), 2);
}

#[test]
fn a_removed_node_leaves_no_global_slot() {
    let mut sim = Sim::nodes(3);
    let agent = sim.swarm.global("agent", |_| {});
    sim.steps(2);
    sim.swarm.update_node(node(3), |spec| spec.role = Role::Worker);
    sim.swarm.command(Command::RemoveNode { id: node(3), force: true });
    sim.steps(2);
    assert_eq!(sim.swarm.state.tasks_of_service(agent).count(), 2);
}

#[test]
fn a_drained_nodes_tasks_stop_before_their_successors_start() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 4, |_| {});
    sim.steps(2);
    sim.silent.insert(node(1));
    sim.swarm.update_node(node(1), |spec| spec.availability = Availability::Drain);
    sim.steps(3);
    assert_eq!(sim.running(web).iter().filter(|task| task.is_live()).count(), 2);
    assert_eq!(sim.live(web).iter().filter(|task| task.desired == DesiredState::Ready).count(), 2);
    sim.silent.clear();
    sim.steps(3);
    assert!(sim.running(web).iter().all(|task| task.node == Some(node(2))));
    assert_eq!(sim.running(web).len(), 4);
    let kept = sim.ended(web);
    assert!(kept.iter().all(|task| task.outcome.as_ref().is_some_and(|o| o.state == TaskState::Shutdown)));
    assert_eq!(kept.len(), 2, "what was moved stays as history");
}

#[test]
fn a_start_first_service_keeps_serving_while_its_node_is_drained() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 2, |spec| spec.update.order = UpdateOrder::StartFirst);
    sim.steps(2);
    sim.swarm.update_node(node(1), |spec| spec.availability = Availability::Drain);
    for _ in 0..6 {
        sim.steps(1);
        assert!(sim.running(web).len() >= 2);
    }
    assert!(sim.live(web).iter().all(|task| task.node == Some(node(2))));
    assert_eq!(sim.live(web).len(), 2);
}

#[test]
fn a_paused_node_keeps_its_tasks() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 4, |_| {});
    sim.steps(2);
    let before = sim.live(web);
    sim.swarm.update_node(node(1), |spec| spec.availability = Availability::Pause);
    sim.steps(3);
    assert_eq!(sim.live(web), before);
}

#[test]
fn tasks_leave_a_node_that_no_longer_meets_their_constraint() {
    let mut sim = Sim::nodes(2);
    for n in [1, 2] {
        sim.swarm.update_node(node(n), |spec| drop(spec.labels.insert("disk".into(), "ssd".into())));
    }
    let web =
        sim.swarm.service("web", 4, |spec| spec.task.placement.constraints = vec!["node.labels.disk==ssd".into()]);
    sim.steps(2);
    sim.swarm.update_node(node(1), |spec| spec.labels.clear());
    sim.steps(4);
    assert!(sim.running(web).iter().all(|task| task.node == Some(node(2))));
    assert_eq!(sim.running(web).len(), 4);
}

#[test]
fn history_is_limited_in_each_slot() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 2, image(CRASHES));
    for _ in 0..40 {
        sim.step(SECOND * 10);
    }
    for slot in [1, 2] {
        let ended = sim.ended(web).iter().filter(|task| task.slot == Slot::Replica(slot)).count();
        assert_eq!(ended, 5);
    }
}

#[test]
fn a_job_completes_so_many_times_and_no_more() {
    let mut sim = Sim::nodes(3);
    let job = sim.swarm.service("job", 0, |spec| {
        spec.task.container.image = COMPLETES.into();
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 2, total_completions: 5 };
    });
    for _ in 0..30 {
        sim.steps(1);
        assert!(sim.live(job).len() <= 2);
    }
    assert_eq!(sim.of(job).job.map(|job| job.completed), Some(5));
    let slots: Vec<_> = sim.ended(job).iter().map(|task| task.slot).collect();
    assert_eq!(slots, [0, 1, 2, 3, 4].map(Slot::Replica));

    sim.swarm.update(job, |spec| spec.task.force_update += 1);
    sim.steps(30);
    let status = sim.of(job).job.expect("a job");
    assert_eq!((status.iteration, status.completed), (1, 5));
    assert_eq!(sim.swarm.state.tasks_of_service(job).count(), 5, "earlier iterations are forgotten");
}

#[test]
fn a_jobs_failed_task_is_tried_again_until_its_attempts_are_used_up() {
    let mut sim = Sim::nodes(1);
    let job = sim.swarm.service("job", 0, |spec| {
        spec.task.container.image = CRASHES.into();
        spec.task.restart.max_attempts = Some(2);
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
    });
    for _ in 0..10 {
        sim.step(SECOND * 5);
    }
    assert_eq!(sim.live(job).len(), 0);
    assert_eq!(sim.ended(job).len(), 3);
}

#[test]
fn a_global_job_completes_once_on_every_node() {
    let mut sim = Sim::nodes(2);
    let job = sim.swarm.service("job", 0, |spec| {
        spec.task.container.image = COMPLETES.into();
        spec.mode = ServiceMode::GlobalJob;
    });
    sim.steps(6);
    assert_eq!(sim.of(job).job.map(|job| job.completed), Some(2));
    sim.swarm.command(Command::AdmitNode { node: Box::new(a_node(3)) });
    sim.steps(6);
    assert_eq!(sim.of(job).job.map(|job| job.completed), Some(3), "a node that comes later runs it too");
    assert!(sim.live(job).is_empty());
}

/// Its node was drained and taken back while the process was being stopped, which ended with success.
#[test]
fn what_a_job_completed_while_it_was_told_to_stop_is_not_done_again() {
    let mut sim = Sim::nodes(1);
    let job = sim.swarm.service("job", 0, |spec| spec.mode = ServiceMode::GlobalJob);
    sim.steps(3);
    let first = sim.running(job).remove(0);
    sim.silent.insert(node(1));
    sim.swarm.update_node(node(1), |spec| spec.availability = Availability::Drain);
    sim.steps(2);
    sim.swarm.update_node(node(1), |spec| spec.availability = Availability::Active);
    sim.steps(2);
    let waiting = sim.live(job);
    assert_eq!(waiting.iter().map(|task| task.desired).collect::<Vec<_>>(), [DesiredState::Ready]);
    sim.says(node(1), vec![a_report(first.id, TaskState::Complete, Some(SECOND))]);
    sim.steps(2);
    assert_eq!(sim.of(job).job.map(|job| job.completed), Some(1));
    assert!(sim.live(job).is_empty(), "{:?}", sim.live(job));
}

#[test]
fn a_large_scale_up_takes_several_ticks() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 2_500, |_| {});
    let first = sim.tick();
    assert!(first <= super::super::MAX_STEPS_A_SERVICE);
    while sim.tick() > 0 {}
    assert_eq!(sim.live(web).len(), 2_500);
}
