//! Services that wait for others.

use super::*;
use crate::orchestrator::start_order::NEVER_STARTED;

fn on(service: &str) -> DependsOn {
    DependsOn::parse(service).expect("it is one")
}

/// Waits as `depends_on` says, each as in a label.
fn waiting(sim: &mut Sim, name: &str, depends_on: &[&str]) -> ServiceId {
    let depends_on = depends_on.iter().map(|text| on(text)).collect();
    sim.swarm.service(name, 2, |spec| spec.depends_on = depends_on)
}

fn reasons(sim: &Sim, service: ServiceId) -> BTreeSet<String> {
    sim.live(service).iter().map(|task| task.pending_reason.clone()).collect()
}

fn says(why: &str) -> BTreeSet<String> {
    BTreeSet::from([why.to_owned()])
}

#[test]
fn tasks_wait_with_their_reason_until_the_other_service_is_healthy_and_not_again() {
    let mut sim = Sim::nodes(2);
    let db = sim.swarm.service("db", 1, image(SLOW));
    let web = waiting(&mut sim, "web", &["db:healthy"]);
    sim.steps(10);
    assert!(sim.running(db).is_empty());
    assert_eq!(reasons(&sim, web), says("waits for db to be healthy"));
    sim.steps(15);
    assert_eq!((sim.running(db).len(), sim.running(web).len()), (1, 2));

    // What becomes of it later holds nobody up.
    sim.no_scheduler = true;
    sim.swarm.update(db, replicas(0));
    sim.steps(3);
    sim.swarm.command(Command::RemoveService { id: db });
    sim.no_scheduler = false;
    sim.verdict(node(2));
    sim.swarm.update(web, replicas(3));
    sim.steps(5);
    assert_eq!(sim.running(web).len(), 3);
}

#[test]
fn a_started_service_need_not_be_healthy() {
    let mut sim = Sim::nodes(1);
    sim.swarm.service("db", 1, image(CRASHES));
    let web = waiting(&mut sim, "web", &["db"]);
    let api = waiting(&mut sim, "api", &["db:completed"]);
    sim.steps(20);
    assert_eq!(sim.running(web).len(), 2);
    assert_eq!(reasons(&sim, api), says("waits for db to complete"));
}

#[test]
fn a_job_is_waited_for_until_all_of_it_has_completed() {
    let mut sim = Sim::nodes(1);
    let job = sim.swarm.service("migrate", 0, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 3 };
        spec.task.container.image = COMPLETES.into();
    });
    let web = waiting(&mut sim, "web", &["migrate:completed"]);
    for _ in 0..60 {
        sim.steps(1);
        let done = sim.of(job).job.map_or(0, |job| job.completed);
        assert!(sim.running(web).is_empty() || done == 3, "{done} of 3 have completed");
    }
    assert_eq!(sim.running(web).len(), 2);
}

#[test]
fn a_dependency_that_comes_to_nothing_says_why_and_holds_up_only_those_that_require_it() {
    let mut sim = Sim::nodes(1);
    sim.swarm.service("once", 1, |spec| {
        spec.task.container.image = CRASHES.into();
        spec.task.restart.condition = RestartCondition::None;
    });
    let web = waiting(&mut sim, "web", &["once:completed", "nobody"]);
    let api = waiting(&mut sim, "api", &["once:completed:optional", "nobody:optional", "web:optional"]);
    sim.steps(20);
    let why = "waits for once to complete: its restart policy allows no other try; \
               waits for nobody to have started: there is no such service";
    assert_eq!(reasons(&sim, web), says(why));
    assert_eq!(sim.running(api).len(), 2);
}

#[test]
fn what_finds_no_place_is_not_waited_for_where_another_task_serves() {
    let mut sim = Sim::nodes(2);
    let db = sim.swarm.service("db", 2, |_| {});
    let web = waiting(&mut sim, "web", &["db:healthy"]);
    sim.no_scheduler = true;
    sim.steps(1);
    let tasks: Vec<TaskId> = sim.live(db).iter().map(|task| task.id).collect();
    let reason = "no suitable node (2 nodes: insufficient memory)".to_owned();
    sim.swarm.change(Change::SetPendingReason { task: tasks[0], reason });
    sim.steps(3);
    assert_eq!(reasons(&sim, web), says("waits for db to be healthy"));
    sim.swarm.assign(tasks[1], node(1));
    sim.steps(3);
    assert!(!sim.of(web).is_held());
}

#[test]
fn an_update_waits_for_that_of_its_dependency_and_stops_nothing_meanwhile() {
    let mut sim = Sim::nodes(3);
    let db = sim.swarm.service("db", 2, |spec| spec.update.delay = SECOND);
    let web = waiting(&mut sim, "web", &["db:healthy"]);
    sim.steps(10);
    assert_eq!(sim.running(web).len(), 2);
    // Of one deployment, the one that waits first.
    let version = |sim: &Sim, id| sim.of(id).meta.version;
    let update = |sim: &Sim, id: ServiceId, image: &str| {
        let mut spec = sim.of(id).spec.clone();
        spec.task.container.image = image.into();
        let credentials = CredentialsUpdate::Keep;
        Command::UpdateService { id, version: version(sim, id), spec: Box::new(spec), credentials }
    };
    let commands = vec![update(&sim, web, "v2"), update(&sim, db, "v2")];
    sim.swarm.command(Command::Transaction(commands));
    let mut waited = false;
    for _ in 0..120 {
        sim.steps(1);
        let current = sim.of(web).spec_version;
        let db_done = sim.update_state(db) == Some(UpdateState::Completed);
        let new = sim.live(web).iter().filter(|task| task.spec_version == current).count();
        assert!(db_done || (new == 0 && sim.running(web).len() == 2), "{new} new tasks before their time");
        let message = sim.of(web).update.as_ref().map(|update| update.message.clone()).unwrap_or_default();
        waited |= message == "update waits for db to be healthy";
        assert!(!db_done || new == 0 || message != "update waits for db to be healthy");
    }
    assert!(waited);
    sim.steps(150);
    assert_eq!(sim.update_state(web), Some(UpdateState::Completed));
    assert!(sim.running(web).iter().all(|task| task.spec_version == sim.of(web).spec_version));
}

#[test]
fn a_held_update_keeps_the_old_tasks_running_wherever_their_nodes_go() {
    let mut sim = Sim::nodes(3);
    let web = sim.swarm.service("web", 3, |_| {});
    let agent = sim.swarm.global("agent", |_| {});
    sim.steps(3);
    for service in [web, agent] {
        sim.swarm.update(service, |spec| {
            image("v2")(spec);
            spec.depends_on = vec![on("nobody:healthy")];
        });
    }
    sim.steps(3);
    sim.swarm.update_node(node(1), |spec| spec.availability = Availability::Drain);
    sim.verdict(node(2));
    sim.steps(10);
    let old =
        |sim: &Sim, service| sim.running(service).iter().all(|task| task.spec_version < sim.of(service).spec_version);
    assert_eq!(sim.running(web).len(), 3);
    assert!(old(&sim, web) && old(&sim, agent));
    sim.swarm.update_node(node(1), |spec| spec.availability = Availability::Active);

    // To wait no more is no new deployment, and ends the wait.
    for service in [web, agent] {
        sim.swarm.update(service, |spec| spec.depends_on.clear());
    }
    sim.steps(300);
    assert_eq!((sim.running(web).len(), sim.running(agent).len()), (3, 2));
    assert!(!old(&sim, web) && !old(&sim, agent));
}

#[test]
fn a_rollback_waits_for_nobody_that_was_waited_for_before() {
    let mut sim = Sim::nodes(1);
    let db = sim.swarm.service("db", 1, |_| {});
    let web = waiting(&mut sim, "web", &["db:healthy"]);
    sim.steps(5);
    let first = sim.of(web).spec_version;
    sim.swarm.command(Command::RemoveService { id: db });
    sim.swarm.update(web, image("v2"));
    sim.steps(5);
    assert!(sim.of(web).is_held());
    let version = sim.of(web).meta.version;
    sim.swarm.command(Command::RollbackService { id: web, version });
    sim.steps(100);
    assert_eq!(sim.update_state(web), Some(UpdateState::RollbackCompleted));
    assert!(sim.running(web).iter().all(|task| task.spec_version == first));

    // One that was never let go is not let go by an update that is.
    let api = waiting(&mut sim, "api", &["db:healthy"]);
    sim.steps(3);
    sim.swarm.update(api, |spec| {
        image("v2")(spec);
        spec.depends_on.clear();
    });
    sim.steps(2);
    assert!(sim.running(api).iter().all(|task| task.spec_version == sim.of(api).spec_version));
}

#[test]
fn an_update_of_a_dependency_restarts_those_that_ask_for_it_when_it_is_healthy_again() {
    let mut sim = Sim::nodes(2);
    let db = sim.swarm.service("db", 1, |_| {});
    let web = waiting(&mut sim, "web", &["db:healthy:restart"]);
    let api = waiting(&mut sim, "api", &["web:started:restart"]);
    let other = waiting(&mut sim, "other", &["db:healthy"]);
    sim.steps(10);
    let tasks = |sim: &Sim, of| sim.running(of).iter().map(|task| task.id).collect::<BTreeSet<_>>();
    let before = [web, api, other].map(|id| tasks(&sim, id));
    let specs = [web, api].map(|id| sim.of(id).spec.clone());
    sim.swarm.update(db, image("v2"));
    sim.steps(10);
    assert_eq!([web, api, other].map(|id| tasks(&sim, id)), before, "db is not done yet");
    sim.steps(400);
    let after = [web, api, other].map(|id| tasks(&sim, id));
    assert!(after[0].is_disjoint(&before[0]) && after[1].is_disjoint(&before[1]), "both were replaced");
    assert_eq!(after[2], before[2]);
    assert_eq!(specs, [web, api].map(|id| sim.of(id).spec.clone()), "the specs are the user's");
}

#[test]
fn services_that_would_wait_for_one_another_are_refused_and_a_turned_order_is_not() {
    let mut sim = Sim::nodes(1);
    let db = sim.swarm.service("db", 1, |_| {});
    let web = waiting(&mut sim, "web", &["db"]);
    let update = |sim: &Sim, id: ServiceId, depends_on: Vec<DependsOn>| {
        let service = sim.of(id);
        let spec = ServiceSpec { depends_on, ..service.spec.clone() };
        let credentials = CredentialsUpdate::Keep;
        Command::UpdateService { id, version: service.meta.version, spec: Box::new(spec), credentials }
    };
    let refused = sim.swarm.try_command(update(&sim, db, vec![on("web")])).unwrap_err().to_string();
    assert_eq!(refused, "services that depend on one another in a ring would never start: db -> web -> db");
    let turned = vec![update(&sim, db, vec![on("web")]), update(&sim, web, Vec::new())];
    assert!(sim.swarm.try_command(Command::Transaction(turned)).is_ok());
}

#[test]
fn a_release_that_comes_too_late_takes_what_rests_on_it_along() {
    let mut sim = Sim::nodes(1);
    let db = sim.swarm.service("db", 1, |_| {});
    let web = waiting(&mut sim, "web", &["db:healthy"]);
    sim.steps(5);
    let held = sim.running(web);
    sim.swarm.update(web, image("v2"));
    let mut draft = sim.swarm.draft();
    let now = Now { mono: sim.mono, unix: sim.swarm.now };
    crate::orchestrator::plan(&mut draft, &sim.table, now, &mut sim.rng);
    // Before it is in the log, db gets another spec.
    sim.swarm.update(db, image("v2"));
    let (_, refused) = sim.swarm.plan(draft.into_steps());
    assert!(refused > 0);
    assert!(sim.of(web).is_held());
    assert_eq!(sim.running(web), held);
    assert!(sim.live(web).iter().all(|task| task.desired == DesiredState::Running), "nothing was stopped for it");
}

#[test]
fn a_task_that_a_paused_update_left_unstarted_says_so_whatever_becomes_of_its_dependency() {
    let mut sim = Sim::nodes(2);
    sim.swarm.service("db", 1, image(CRASHES));
    let web = waiting(&mut sim, "web", &["db:completed"]);
    sim.steps(5);
    assert_eq!(reasons(&sim, web), says("waits for db to complete"));
    sim.swarm.update(web, |spec| {
        spec.depends_on.clear();
        spec.mode = ServiceMode::Replicated { replicas: 4 };
        spec.task.container.image = CRASHES.into();
    });
    sim.steps(60);
    assert_eq!(sim.update_state(web), Some(UpdateState::Paused));
    let unstarted = sim.live(web).into_iter().filter(|task| task.spec_version != sim.of(web).spec_version);
    let told: BTreeSet<String> = unstarted.map(|task| task.pending_reason.clone()).collect();
    assert_eq!(told, says(NEVER_STARTED));
}
