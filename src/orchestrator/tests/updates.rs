//! Rolling updates and rollbacks.

use super::*;

fn versions(sim: &Sim, service: ServiceId) -> (usize, usize) {
    let current = sim.of(service).spec_version;
    let running = sim.running(service);
    let new = running.iter().filter(|task| task.spec_version == current).count();
    (running.len() - new, new)
}

fn settled(sim: &mut Sim, count: u64, adjust: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
    let web = sim.swarm.service("web", count, adjust);
    sim.steps(3);
    assert_eq!(sim.running(web).len(), usize::try_from(count).unwrap());
    web
}

#[test]
fn an_update_replaces_so_many_at_a_time_and_then_completes() {
    let mut sim = Sim::nodes(3);
    let web = settled(&mut sim, 6, |spec| {
        spec.update.parallelism = 2;
        spec.update.delay = SECOND;
    });
    sim.swarm.update(web, image("v2"));
    let mut new_at = Vec::new();
    for _ in 0..200 {
        sim.steps(1);
        let (old, new) = versions(&sim, web);
        assert!(old + new >= 4 && old + new <= 6, "{old} old and {new} new run");
        if new_at.last() != Some(&new) {
            new_at.push(new);
        }
        if new < 6 {
            assert_eq!(sim.update_state(web), Some(UpdateState::Updating));
        }
    }
    assert_eq!(new_at, [0, 2, 4, 6]);
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
    assert_eq!(sim.live(web).len(), 6);
}

#[test]
fn an_update_waits_for_its_monitor_before_it_completes() {
    let mut sim = Sim::nodes(1);
    let web = settled(&mut sim, 1, |_| {});
    sim.swarm.update(web, image("v2"));
    sim.steps(40);
    assert_eq!(versions(&sim, web), (0, 1));
    assert_eq!(sim.update_state(web), Some(UpdateState::Updating));
    sim.steps(20);
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
    assert!(sim.of(web).update.as_ref().is_some_and(|status| status.completed_at.is_some()));
}

#[test]
fn a_start_first_update_never_runs_fewer() {
    let mut sim = Sim::nodes(3);
    let web = settled(&mut sim, 3, |spec| spec.update.order = UpdateOrder::StartFirst);
    sim.swarm.update(web, image("v2"));
    for _ in 0..100 {
        sim.steps(1);
        let running = sim.running(web).len();
        assert!((3..=4).contains(&running), "{running} run");
    }
    assert_eq!(versions(&sim, web), (0, 3));
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
}

#[test]
fn a_start_first_update_overtaken_by_the_next_still_starts() {
    let mut sim = Sim::nodes(1);
    let web = settled(&mut sim, 1, |spec| spec.update.order = UpdateOrder::StartFirst);
    sim.swarm.update(web, image("v2"));
    sim.steps(1);
    assert_eq!(sim.live(web).len(), 2);
    sim.swarm.update(web, image("v3"));
    sim.steps(10);
    assert_eq!(versions(&sim, web), (0, 1));
}

#[test]
fn an_update_that_fails_pauses_and_leaves_the_rest_alone() {
    let mut sim = Sim::nodes(3);
    let web = settled(&mut sim, 3, |spec| spec.update.delay = SECOND);
    sim.swarm.update(web, image(CRASHES));
    sim.steps(50);
    assert_eq!(sim.update_state(web), Some(UpdateState::Paused));
    assert_eq!(versions(&sim, web).0, 2);
    let message = sim.of(web).update.as_ref().map(|status| status.message.clone()).unwrap_or_default();
    assert!(message.starts_with("update paused due to failure or early termination of task "), "{message}");

    // An old task that dies in the pause comes back as it was.
    let old = sim.running(web).iter().find(|task| task.spec_version != sim.of(web).spec_version).cloned().unwrap();
    sim.verdict(old.node.expect("placed"));
    sim.steps(5);
    assert_eq!(versions(&sim, web).0, 2);

    sim.swarm.update(web, image("v3"));
    sim.steps(300);
    assert_eq!(versions(&sim, web), (0, 3));
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
}

#[test]
fn an_update_that_fails_rolls_back() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut sim = Sim::nodes(3);
        let web = settled(&mut sim, 4, |spec| {
            spec.update.failure_action = FailureAction::Rollback;
            spec.update.order = order;
            spec.update.parallelism = 2;
        });
        let before = sim.of(web).spec_version;
        sim.swarm.update(web, image(CRASHES));
        sim.steps(10);
        assert_eq!(sim.update_state(web), Some(UpdateState::RollbackStarted));
        sim.steps(100);
        assert_eq!(sim.update_state(web), Some(UpdateState::RollbackCompleted));
        assert_eq!(sim.of(web).spec_version, before);
        assert_eq!(versions(&sim, web), (0, 4));
    }
}

#[test]
fn a_rollback_that_fails_pauses() {
    let mut sim = Sim::nodes(1);
    let web = settled(&mut sim, 2, |_| {});
    sim.swarm.update(web, image("v2"));
    sim.steps(150);
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
    // The old image is gone by now.
    sim.swarm.update(web, |spec| {
        image(MISSING)(spec);
        spec.update.failure_action = FailureAction::Continue;
    });
    sim.swarm.update(web, |spec| {
        image("v4")(spec);
        spec.update.failure_action = FailureAction::Rollback;
    });
    sim.steps(150);
    let version = sim.of(web).meta.version;
    sim.swarm.command(Command::RollbackService { id: web, version });
    sim.steps(30);
    assert_eq!(sim.update_state(web), Some(UpdateState::RollbackPaused));
}

#[test]
fn an_update_that_may_fail_goes_on() {
    let mut sim = Sim::nodes(3);
    let web = settled(&mut sim, 3, |spec| spec.update.failure_action = FailureAction::Continue);
    sim.swarm.update(web, image(CRASHES));
    sim.steps(300);
    assert_eq!(versions(&sim, web).0, 0);
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
}

#[test]
fn a_start_first_update_that_keeps_failing_backs_off_and_the_old_tasks_serve() {
    let mut sim = Sim::nodes(1);
    let web = settled(&mut sim, 1, |spec| {
        spec.update.failure_action = FailureAction::Continue;
        spec.update.order = UpdateOrder::StartFirst;
    });
    sim.swarm.update(web, image(MISSING));
    let mut tries = BTreeSet::new();
    for _ in 0..600 {
        sim.steps(1);
        assert_eq!(versions(&sim, web).0, 1);
        tries.extend(sim.live(web).iter().filter(|task| task.spec_version == sim.of(web).spec_version).map(|t| t.id));
    }
    assert!(tries.len() <= 8, "{} tries in a minute", tries.len());
}

#[test]
fn a_failure_within_the_ratio_is_tolerated() {
    let mut sim = Sim::nodes(1);
    let web = settled(&mut sim, 4, |spec| spec.update.max_failure_ratio = 0.3);
    sim.swarm.update(web, image("v2"));
    sim.steps(3);
    let new = sim.running(web).into_iter().find(|task| task.spec_version == sim.of(web).spec_version).unwrap();
    let mut record = sim.table.get(node(1)).expect("heard").record.as_ref().clone();
    record.version.sequence += 1;
    record.tasks.insert(new.id, a_report(new.id, TaskState::Failed, Some(SECOND)));
    sim.sequence += 1;
    sim.table.merge(Arc::new(record), sim.mono);
    sim.steps(150);
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
    assert_eq!(versions(&sim, web), (0, 4));
}

#[test]
fn an_update_replaces_what_serves_nobody_first() {
    let mut sim = Sim::nodes(1);
    let web = settled(&mut sim, 3, |_| {});
    sim.no_scheduler = true;
    sim.swarm.update(web, image("v2"));
    sim.steps(3);
    assert_eq!(versions(&sim, web), (2, 0), "the first new task has no place");
    sim.no_scheduler = false;
    sim.swarm.update(web, image("v3"));
    sim.steps(1);
    assert_eq!(sim.live(web).iter().filter(|task| task.spec_version == sim.of(web).spec_version).count(), 1);
    assert_eq!(versions(&sim, web).0, 2, "no serving task went for it");
}

#[test]
fn a_new_spec_with_other_constraints_reaches_old_tasks_in_the_updates_pace() {
    let mut sim = Sim::nodes(2);
    let web = settled(&mut sim, 4, |_| {});
    sim.swarm.update(web, |spec| spec.task.placement.constraints = vec!["node.hostname == node-2".into()]);
    for _ in 0..100 {
        sim.steps(1);
        assert!(sim.running(web).len() >= 3);
    }
    assert!(sim.running(web).iter().all(|task| task.node == Some(node(2))));
}

#[test]
fn a_global_update_passes_over_a_paused_node() {
    let mut sim = Sim::nodes(3);
    let agent = sim.swarm.global("agent", |_| {});
    sim.steps(3);
    sim.swarm.update_node(node(3), |spec| spec.availability = Availability::Pause);
    sim.swarm.update(agent, image("v2"));
    sim.steps(100);
    assert_eq!(versions(&sim, agent), (1, 2));
    assert_eq!(sim.update_state(agent), Some(UpdateState::Completed));
}

#[test]
fn a_change_beside_the_task_restarts_nothing() {
    let mut sim = Sim::nodes(1);
    let web = settled(&mut sim, 2, |_| {});
    let before = sim.live(web);
    sim.swarm.update(web, |spec| drop(spec.labels.insert("a".into(), "b".into())));
    sim.steps(5);
    assert_eq!(sim.live(web), before);
    assert_eq!(sim.update_state(web), None);
}

#[test]
fn an_update_waits_until_each_new_task_is_healthy() {
    let mut sim = Sim::nodes(3);
    let web = settled(&mut sim, 3, |spec| spec.update.monitor = Some(SECOND));
    sim.swarm.update(web, image(SLOW));
    for _ in 0..120 {
        sim.steps(1);
        let running = sim.running(web).len();
        assert!((2..=3).contains(&running), "{running} of 3 are healthy");
    }
    assert_eq!(versions(&sim, web), (0, 3));
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
}

#[test]
fn an_update_to_what_never_is_healthy_ends_as_its_failure_action_says() {
    for (action, end) in
        [(FailureAction::Pause, UpdateState::Paused), (FailureAction::Rollback, UpdateState::RollbackCompleted)]
    {
        let mut sim = Sim::nodes(3);
        let web = settled(&mut sim, 3, |spec| {
            spec.update.order = UpdateOrder::StartFirst;
            spec.update.failure_action = action;
        });
        let before = sim.of(web).spec.clone();
        sim.swarm.update(web, image(SICK));
        for _ in 0..300 {
            sim.steps(1);
            assert_eq!(sim.running(web).len(), 3, "{action:?}: the old tasks go on");
        }
        assert_eq!(sim.update_state(web), Some(end));
        let (old, new) = versions(&sim, web);
        assert_eq!(if action == FailureAction::Rollback { new } else { old }, 3);
        assert_eq!(sim.of(web).spec == before, action == FailureAction::Rollback);
    }
}

#[test]
fn an_update_keeps_its_pace_and_its_failures_apart_whatever_becomes_of_the_clock() {
    let mut sim = Sim::nodes(3);
    let web = settled(&mut sim, 4, |_| {});
    sim.swarm.update(web, image("v2"));
    sim.steps(2);
    // Another leader's, or set back.
    sim.swarm.now = UnixMs(sim.swarm.now.0 - 900_000);
    for _ in 0..40 {
        sim.steps(1);
        assert!(sim.running(web).len() >= 3);
    }
    assert_eq!(versions(&sim, web), (0, 4));

    // What failed before a rollback, by a clock that was ahead, is none of its failures.
    let running = sim.running(web).remove(0);
    let mut record = sim.table.get(running.node.expect("placed")).expect("heard").record.as_ref().clone();
    record.version.sequence += 1;
    record.tasks.insert(running.id, a_report(running.id, TaskState::Failed, Some(SECOND)));
    sim.sequence += 1;
    sim.table.merge(Arc::new(record), sim.mono);
    sim.steps(2);
    sim.swarm.update(web, |spec| {
        image("v3")(spec);
        spec.rollback.monitor = Some(SECOND);
    });
    sim.steps(1);
    sim.swarm.now = UnixMs(sim.swarm.now.0 - 50_000);
    let version = sim.of(web).meta.version;
    sim.swarm.command(Command::RollbackService { id: web, version });
    sim.steps(200);
    assert_eq!(sim.update_state(web), Some(UpdateState::RollbackCompleted));
}

#[test]
fn a_rollback_that_only_scales_is_not_over_before_the_update_it_goes_back_to() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 2, |spec| spec.update.order = UpdateOrder::StartFirst);
    sim.steps(10);
    sim.swarm.update(web, |spec| {
        spec.task.container.image = SLOW.into();
        spec.update.parallelism = 0;
    });
    sim.steps(2);
    sim.swarm.update(web, replicas(4));
    let version = sim.of(web).meta.version;
    sim.swarm.command(Command::RollbackService { id: web, version });
    for _ in 0..120 {
        sim.steps(1);
        let old = sim.live(web).iter().any(|task| task.spec_version != sim.of(web).spec_version);
        assert!(!old || sim.update_state(web) != Some(UpdateState::RollbackCompleted));
    }
    assert_eq!(sim.update_state(web), Some(UpdateState::RollbackCompleted));
    assert_eq!(sim.running(web).len(), 2);
}
