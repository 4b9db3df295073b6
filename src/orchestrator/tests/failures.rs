//! Tasks that end, and nodes that do.

use super::*;

fn restarts_of(sim: &mut Sim, service: ServiceId, seconds: u64) -> Vec<Duration> {
    let mut delays = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..seconds * 10 {
        sim.steps(1);
        for task in sim.live(service) {
            if !task.restarts.is_empty() && seen.insert(task.id) {
                delays.push(task.start_delay);
            }
        }
    }
    delays
}

#[test]
fn a_failed_task_is_replaced_in_the_step_that_records_its_end() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 1, image(CRASHES));
    sim.steps(2);
    sim.swarm.later(SECOND);
    sim.act();
    let mut draft = sim.swarm.draft();
    let now = Now { mono: sim.mono, unix: sim.swarm.now };
    super::super::plan(&mut draft, &sim.table, now, &mut sim.rng);
    let steps = draft.into_steps();
    let [Step { change: Change::Finish { outcome, replacement: Some(next), .. }, .. }] = steps.as_slice() else {
        panic!("one step, not {steps:?}");
    };
    assert_eq!(outcome.message, "task: non-zero exit (1)");
    assert_eq!((next.service, next.slot, next.start_delay), (web, Slot::Replica(1), Duration::ZERO));
}

#[test]
fn a_task_that_keeps_crashing_backs_off_up_to_a_minute() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 1, image(CRASHES));
    let seconds: Vec<u64> = restarts_of(&mut sim, web, 300).iter().map(Duration::as_secs).collect();
    let expected = [0, 1, 2, 4, 8, 16, 32, 60, 60];
    assert!(seconds.len() >= expected.len(), "{seconds:?}");
    for (got, expected) in seconds.iter().zip(expected) {
        assert!((expected..=expected + expected / 10).contains(got), "{seconds:?}");
    }
}

#[test]
fn an_image_that_does_not_exist_makes_no_storm() {
    let mut sim = Sim::nodes(3);
    let web = sim.swarm.service("web", 1, image(MISSING));
    assert!(restarts_of(&mut sim, web, 60).len() <= 8);
    let last = &sim.ended(web)[0];
    assert_eq!(last.outcome.as_ref().map(|outcome| outcome.state), Some(TaskState::Rejected));
}

#[test]
fn an_end_is_written_down_although_the_clock_was_set_back() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 1, image(MISSING));
    sim.steps(2);
    sim.swarm.now = UnixMs(sim.swarm.now.0 - 600_000);
    let before = sim.ended(web).len();
    sim.steps(3);
    assert!(sim.ended(web).len() > before, "a leader whose clock is behind does not wait for it");
}

#[test]
fn a_long_run_resets_the_back_off() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 1, image(CRASHES));
    restarts_of(&mut sim, web, 20);
    let long_run = |sim: &mut Sim| {
        let task = sim.live(web)[0].clone();
        sim.started.insert(task.id, UnixMs(sim.swarm.now.0 - 11_000));
    };
    assert!(sim.live(web)[0].start_delay >= SECOND);
    long_run(&mut sim);
    sim.step(SECOND * 60);
    sim.steps(1);
    let delays = restarts_of(&mut sim, web, 2);
    assert_eq!(delays.first(), Some(&Duration::ZERO), "{delays:?}");
}

#[test]
fn a_given_delay_is_kept_and_grows_only_for_what_fails_again_and_again() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 1, |spec| {
        image(CRASHES)(spec);
        spec.task.restart.delay = Some(SECOND * 5);
    });
    let seconds: Vec<u64> = restarts_of(&mut sim, web, 200).iter().map(Duration::as_secs).collect();
    assert_eq!(seconds[..5], [5, 5, 5, 5, 5]);
    assert!(seconds[5] >= 10 && seconds[6] >= 20 && seconds[7] >= 40, "{seconds:?}");
}

#[test]
fn a_task_that_completes_every_so_often_keeps_its_delay() {
    let mut sim = Sim::nodes(1);
    let tidy = sim.swarm.service("tidy", 1, |spec| {
        image(COMPLETES)(spec);
        spec.task.restart.delay = Some(SECOND * 3);
    });
    let delays = restarts_of(&mut sim, tidy, 60);
    assert!(delays.len() > 10);
    assert!(delays.iter().all(|delay| *delay == SECOND * 3));
}

#[test]
fn the_condition_decides_what_is_restarted() {
    let cases = [
        (RestartCondition::None, COMPLETES, 0),
        (RestartCondition::None, CRASHES, 0),
        (RestartCondition::OnFailure, COMPLETES, 0),
        (RestartCondition::OnFailure, CRASHES, 1),
        (RestartCondition::Any, COMPLETES, 1),
    ];
    for (condition, image, live) in cases {
        let mut sim = Sim::nodes(1);
        let web = sim.swarm.service("web", 1, |spec| {
            spec.task.container.image = image.into();
            spec.task.restart.condition = condition;
            spec.task.restart.delay = Some(SECOND * 100);
        });
        sim.steps(10);
        assert_eq!(sim.live(web).len(), live, "{condition:?}, {image}");
        assert_eq!(sim.ended(web).len(), 1);
    }
}

#[test]
fn used_up_attempts_leave_the_last_failure_in_sight() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 1, |spec| {
        image(CRASHES)(spec);
        spec.task.restart.max_attempts = Some(2);
        spec.task.restart.window = Some(SECOND * 30);
    });
    sim.steps(600);
    assert!(sim.live(web).is_empty(), "and it stays so when the window has passed");
    assert_eq!(sim.ended(web).len(), 3);

    sim.swarm.update(web, image("works"));
    sim.steps(5);
    assert_eq!(sim.running(web).len(), 1, "an update tries anew");
}

#[test]
fn restarts_from_before_the_window_count_no_more() {
    let tried = |delay: u32| {
        let mut sim = Sim::nodes(1);
        let web = sim.swarm.service("web", 1, |spec| {
            image(CRASHES)(spec);
            spec.task.restart.delay = Some(SECOND * delay);
            spec.task.restart.max_attempts = Some(2);
            spec.task.restart.window = Some(SECOND * 30);
        });
        let restarts = restarts_of(&mut sim, web, 600).len();
        (sim.live(web).len(), restarts)
    };
    assert_eq!(tried(5).0, 0, "two within the window are all");
    let (live, restarts) = tried(20);
    assert!(live == 1 && restarts > 2, "{restarts}");
}

#[test]
fn a_dead_nodes_tasks_are_replaced_at_once() {
    let mut sim = Sim::nodes(3);
    let web = sim.swarm.service("web", 6, |spec| spec.task.restart.condition = RestartCondition::None);
    sim.steps(2);
    sim.verdict(node(2));
    sim.tick();
    let orphans = sim.ended(web);
    assert_eq!(orphans.len(), 2);
    assert!(orphans.iter().all(|task| task.outcome.as_ref().is_some_and(|o| o.state == TaskState::Orphaned)));
    assert_eq!(sim.live(web).len(), 6);
    assert!(sim.live(web).iter().all(|task| task.start_delay.is_zero() && task.desired == DesiredState::Running));
    sim.steps(2);
    assert_eq!(sim.running(web).len(), 6);
}

#[test]
fn silence_without_a_verdict_changes_nothing() {
    let mut sim = Sim::nodes(3);
    let web = sim.swarm.service("web", 6, |_| {});
    sim.steps(2);
    let before = sim.live(web);
    sim.silent.insert(node(2));
    sim.step(SECOND * 3600);
    assert_eq!(sim.live(web), before);
}

#[test]
fn only_the_node_that_has_a_task_may_say_that_it_ended() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 1, |_| {});
    sim.steps(2);
    let task = sim.live(web)[0].clone();
    let other = if task.node == Some(node(1)) { node(2) } else { node(1) };
    let mut record = sim.table.get(other).expect("heard").record.as_ref().clone();
    record.version.sequence += 1;
    record.tasks.insert(task.id, a_report(task.id, TaskState::Failed, None));
    sim.table.merge(Arc::new(record), sim.mono);
    assert_eq!(sim.tick(), 0);
}

#[test]
fn a_removed_nodes_tasks_run_elsewhere() {
    let mut sim = Sim::nodes(3);
    let web = sim.swarm.service("web", 3, |_| {});
    sim.steps(2);
    sim.swarm.update_node(node(3), |spec| spec.role = Role::Worker);
    sim.swarm.command(Command::RemoveNode { id: node(3), force: true });
    sim.steps(2);
    assert_eq!(sim.running(web).len(), 3);
}

#[test]
fn a_task_that_was_told_to_stop_is_shut_down_whatever_its_process_said() {
    let mut sim = Sim::nodes(2);
    let web = sim.swarm.service("web", 1, |_| {});
    sim.steps(2);
    let task = sim.live(web)[0].clone();
    let holder = task.node.expect("placed");
    sim.silent.insert(holder);
    sim.swarm.update_node(holder, |spec| spec.availability = Availability::Drain);
    sim.steps(1);
    let mut record = sim.table.get(holder).expect("heard").record.as_ref().clone();
    record.version.sequence += 1;
    record.tasks.insert(task.id, a_report(task.id, TaskState::Failed, None));
    sim.table.merge(Arc::new(record), sim.mono);
    sim.steps(1);
    let ended = sim.swarm.state.task(task.id).and_then(|task| task.outcome.clone());
    assert_eq!(ended.map(|outcome| outcome.state), Some(TaskState::Shutdown));
    sim.steps(2);
    let next = &sim.running(web)[0];
    assert!(next.restarts.is_empty(), "a move is no restart");
}
