//! What is said of slots, against what the loops do with them.

use super::*;

fn why(sim: &mut Sim, service: ServiceId) -> Vec<String> {
    let now = Now { mono: sim.mono, unix: sim.swarm.now };
    let service = sim.of(service);
    let fates = crate::orchestrator::explain(&sim.swarm.state, &sim.table, now, &service, &mut sim.rng);
    fates.into_iter().map(|fate| fate.why).collect()
}

#[test]
fn of_a_task_that_runs_nothing_is_to_be_said() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 2, |_| {});
    sim.steps(3);
    assert_eq!(why(&mut sim, web), ["", ""]);
}

#[test]
fn a_slot_that_the_restart_policy_leaves_empty_says_so() {
    let mut sim = Sim::nodes(1);
    let once = sim.swarm.service("once", 1, |spec| {
        spec.task.container.image = CRASHES.into();
        spec.task.restart.condition = RestartCondition::None;
    });
    let twice = sim.swarm.service("twice", 1, |spec| {
        spec.task.container.image = CRASHES.into();
        spec.task.restart.max_attempts = Some(1);
        spec.task.restart.delay = Some(Duration::ZERO);
    });
    let done = sim.swarm.service("done", 1, |spec| {
        spec.task.container.image = COMPLETES.into();
        spec.task.restart.condition = RestartCondition::OnFailure;
    });
    sim.steps(20);
    let said = [why(&mut sim, once), why(&mut sim, twice), why(&mut sim, done)].map(|said| said.join("|"));
    let back = "An update or scaling of the service brings the slot back";
    assert_eq!(
        said,
        [
            format!("failed: task: non-zero exit (1); not restarted: its restart condition is none. {back}"),
            format!(
                "failed: task: non-zero exit (1); not restarted: all 1 restarts that its policy allows are used up. {back}"
            ),
            format!("complete; not restarted: its restart condition is on-failure, and it did not fail. {back}"),
        ]
    );
    assert!(sim.live(once).is_empty() && sim.live(twice).is_empty() && sim.live(done).is_empty());
}

#[test]
fn a_global_services_slot_on_a_node_that_is_down_waits_for_the_node() {
    let mut sim = Sim::nodes(2);
    let agent = sim.swarm.global("agent", |_| {});
    sim.steps(2);
    sim.verdict(node(2));
    sim.steps(3);
    let said = why(&mut sim, agent);
    assert!(said[0].is_empty() && said[1].starts_with("orphaned: "), "{said:?}");
    assert!(said[1].ends_with("another one comes once the node is back, and takes tasks of this service"), "{said:?}");
}

#[test]
fn a_task_in_back_off_says_for_how_long() {
    let mut sim = Sim::nodes(1);
    let web = sim.swarm.service("web", 1, |spec| {
        spec.task.container.image = CRASHES.into();
        spec.task.restart.delay = Some(30 * SECOND);
    });
    sim.steps(10);
    assert_eq!(why(&mut sim, web), ["restart 1, held back for 30s"]);
}

#[test]
fn slots_that_wait_for_an_update_say_what_it_waits_for() {
    let mut sim = Sim::nodes(3);
    let web = sim.swarm.service("web", 3, |spec| spec.update.delay = 60 * SECOND);
    sim.steps(3);
    sim.swarm.update(web, image("v2"));
    sim.steps(10);
    let said = why(&mut sim, web);
    let waits =
        "of an earlier spec; the update replaces 1 at a time, and waits for 1 to be up for 1m0s; 2 are still to come";
    assert_eq!(said.iter().filter(|said| *said == waits).count(), 2, "{said:?}");
    assert_eq!(said.iter().filter(|said| said.is_empty()).count(), 1, "{said:?}");

    sim.swarm.update(web, image(CRASHES));
    sim.steps(20);
    assert_eq!(sim.update_state(web), Some(UpdateState::Paused));
    let said = why(&mut sim, web);
    let paused = said.iter().filter(|said| said.starts_with("of an earlier spec; update paused due to failure"));
    assert_eq!(paused.count(), 2, "{said:?}");
}

#[test]
fn a_task_without_a_node_gives_the_schedulers_reason() {
    let mut sim = Sim::nodes(1);
    sim.no_scheduler = true;
    let web = sim.swarm.service("web", 1, |_| {});
    sim.steps(2);
    assert_eq!(why(&mut sim, web), ["waits for the leader to place it"]);
    let task = sim.live(web)[0].id;
    sim.swarm.change(Change::SetPendingReason { task, reason: "no suitable node (1 node: drained)".into() });
    assert_eq!(why(&mut sim, web), ["no suitable node (1 node: drained)"]);
}
