use super::*;

fn task(state: &str, desired: &str, err: &str, condition: &str) -> Task {
    serde_json::from_value(serde_json::json!({
        "ServiceID": "s", "DesiredState": desired, "Status": {"State": state, "Err": err, "Message": ""},
        "Spec": {"RestartPolicy": {"Condition": condition}},
    }))
    .unwrap()
}

fn service(replicas: u64) -> Service {
    serde_json::from_value(serde_json::json!({
        "ID": "s", "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}},
    }))
    .unwrap()
}

#[test]
fn a_service_with_a_schedule_says_when_it_runs_next() {
    let labelled = serde_json::json!({"ID": "s", "Spec": {"Name": "web", "Labels": {"flok.schedule": "@daily"}}});
    let of = of_service(&serde_json::from_value(labelled).unwrap(), &[]);
    let progress = Progress { next_run: Some("2026-07-03 03:30:00 CEST".into()), ..of };
    assert!(progress.is_done());
    assert_eq!(line("web", &progress), "web: next run 2026-07-03 03:30:00 CEST");
    assert_eq!(progress.message(), "next run 2026-07-03 03:30:00 CEST");
}

#[test]
fn a_service_waits_for_what_its_tasks_wait_for() {
    let why = "no suitable node (2 nodes: insufficient memory)";
    let tasks = [
        task("running", "running", "", "any"),
        task("pending", "running", why, "any"),
        task("pending", "running", why, "any"),
        task("preparing", "running", "", "any"),
        task("shutdown", "shutdown", "", "any"),
    ];
    let progress = of_service(&service(4), &tasks);
    assert_eq!((progress.running, progress.wanted, progress.is_done()), (1, 4, false));
    assert_eq!(progress.waits, format!("2 pending: {why}; 1 preparing"));
    assert_eq!(line("web", &progress), format!("web: 1 of 4 running (2 pending: {why}; 1 preparing)"));
}

#[test]
fn a_service_has_converged_when_all_its_tasks_run() {
    let tasks = [task("running", "running", "", "any"), task("running", "running", "", "any")];
    assert!(of_service(&service(2), &tasks).is_done());
    assert!(!of_service(&service(3), &tasks).is_done());
    assert!(of_service(&service(0), &[]).is_done());
}

#[test]
fn a_task_that_ended_for_good_is_not_waited_for() {
    assert!(of_service(&service(1), &[task("complete", "shutdown", "", "none")]).is_done());
    assert!(of_service(&service(1), &[task("complete", "shutdown", "", "on-failure")]).is_done());
    assert!(!of_service(&service(1), &[task("failed", "shutdown", "", "on-failure")]).is_done());
    assert!(!of_service(&service(1), &[task("complete", "shutdown", "", "any")]).is_done());
}

#[test]
fn a_failed_task_that_nothing_replaces_ends_the_wait_with_its_reason() {
    let failed = |condition| task("failed", "shutdown", "task: non-zero exit (4)", condition);
    let why = "a task failed, and its restart policy allows no other try: task: non-zero exit (4)";
    for condition in ["none", "any"] {
        let progress = of_service(&service(1), &[failed(condition)]);
        assert_eq!(progress.failed.as_deref(), Some(why), "{condition}");
    }
    let goes_on = [failed("any"), task("ready", "running", "", "any")];
    assert_eq!(of_service(&service(1), &goes_on).failed, None);
    let mut updating = service(1);
    updating.update_status = serde_json::from_value(serde_json::json!({"State": "updating"})).ok();
    assert_eq!(of_service(&updating, &[failed("any")]).failed, None, "its update says what is to be done");
}

#[test]
fn a_job_that_is_tried_again_on_another_node_goes_on_and_a_global_one_has_a_try_on_each() {
    let on = |node: &str, mut task: Task| {
        (task.slot, task.node_id) = (Some(0), Some(node.to_owned()));
        task
    };
    let tasks = [
        on("n1", task("failed", "shutdown", "task: non-zero exit (1)", "any")),
        on("n2", task("ready", "complete", "", "any")),
    ];
    let job = |mode: serde_json::Value| -> Service {
        serde_json::from_value(serde_json::json!({
            "ID": "s", "Spec": {"Name": "job", "Mode": mode}, "JobStatus": {"JobIteration": {"Index": 1}},
        }))
        .unwrap()
    };
    let replicated = job(serde_json::json!({"ReplicatedJob": {"TotalCompletions": 1}}));
    assert_eq!(of_service(&replicated, &tasks).failed, None);
    let global = job(serde_json::json!({"GlobalJob": {}}));
    assert!(of_service(&global, &tasks).failed.is_some());
}

#[test]
fn what_a_global_job_completed_is_part_of_what_was_wanted() {
    let job: Service = serde_json::from_value(serde_json::json!({
        "ID": "s", "Spec": {"Name": "backup", "Mode": {"GlobalJob": {}}}, "JobStatus": {"JobIteration": {"Index": 1}},
        "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 2},
    }))
    .unwrap();
    let done = || task("complete", "shutdown", "", "any");
    let progress = of_service(&job, &[done(), done(), task("running", "complete", "", "any")]);
    assert_eq!((progress.running, progress.wanted, progress.is_done()), (2, 3, false));
}

#[test]
fn a_job_has_converged_when_its_tasks_have_completed_whatever_their_restart_policy() {
    let job: Service = serde_json::from_value(serde_json::json!({
        "ID": "s", "Spec": {"Name": "backup", "Mode": {"ReplicatedJob": {"TotalCompletions": 2}}},
        "JobStatus": {"JobIteration": {"Index": 1}},
    }))
    .unwrap();
    for condition in ["any", "on-failure", "none"] {
        let done = || task("complete", "shutdown", "", condition);
        assert!(of_service(&job, &[done(), done()]).is_done(), "{condition}");
        assert!(!of_service(&job, &[done(), task("running", "complete", "", condition)]).is_done(), "{condition}");
    }
}

#[test]
fn a_crashing_service_says_why() {
    let tasks = [task("failed", "shutdown", "task: non-zero exit (1)", "any"), task("ready", "running", "", "any")];
    let progress = of_service(&service(1), &tasks);
    assert_eq!(progress.waits, "1 ready; the last task that failed: task: non-zero exit (1)");
    let failing = task("failed", "running", "task: non-zero exit (1)", "any");
    let once = of_service(&service(1), &[tasks[0].clone(), failing]).waits;
    assert_eq!(once, "1 failed: task: non-zero exit (1)", "a reason is told once");
    let again = [task("failed", "shutdown", "x", "any"), task("running", "running", "", "any")];
    assert!(of_service(&service(1), &again).is_done());
}

#[test]
fn an_update_that_waits_for_another_service_says_so() {
    let mut service = service(1);
    let status = serde_json::json!({"State": "updating", "Message": "update waits for db to be healthy"});
    service.update_status = serde_json::from_value(status).ok();
    assert_eq!(of_service(&service, &[]).waits, "update waits for db to be healthy");
}

fn polls_until_stable(service: &Service, tasks: &[Task], stable_for: Option<Duration>) -> u32 {
    let progress = BTreeMap::from([("web".to_owned(), of_service(service, tasks))]);
    let mut watch = Watch::default();
    let mut polls = 0;
    while !watch.is_stable("web", &progress["web"], stable_for) && polls < 1000 {
        watch.look(&progress);
        polls += 1;
    }
    polls
}

#[test]
fn tasks_that_came_up_are_watched_as_long_as_an_update_would() {
    let up = [task("running", "running", "", "any")];
    assert_eq!(polls_until_stable(&service(1), &up, None), 25);
    assert_eq!(polls_until_stable(&service(1), &up, Some(Duration::from_secs(2))), 10);
    assert_eq!(polls_until_stable(&service(0), &[], None), STEADY_POLLS);
    let mut slow = service(1);
    let config = serde_json::json!({"Parallelism": 1, "Monitor": 10_000_000_000_u64});
    slow.spec.as_mut().unwrap().update_config = serde_json::from_value(config).ok();
    assert_eq!(polls_until_stable(&slow, &up, None), 50);
}

#[test]
fn one_that_fails_while_it_is_watched_is_watched_anew() {
    let (up, down) = (of_service(&service(1), &[task("running", "running", "", "any")]), of_service(&service(1), &[]));
    let mut watch = Watch::default();
    let mut look = |now: &Progress| {
        watch.look(&BTreeMap::from([("web".to_owned(), now.clone())]));
        watch.is_stable("web", now, None)
    };
    assert!(!(0..24).any(|_| look(&up)) && !look(&down) && !(0..24).any(|_| look(&up)));
    assert!(look(&up));
}

#[test]
fn the_end_of_an_update_is_waited_for_and_enough() {
    let state = |state: &str| {
        let mut service = service(1);
        service.update_status = serde_json::from_value(serde_json::json!({"State": state})).ok();
        BTreeMap::from([("web".to_owned(), of_service(&service, &[task("running", "running", "", "any")]))])
    };
    let mut watch = Watch::default();
    let mut look = |state: &BTreeMap<String, Progress>| {
        watch.look(state);
        watch.is_stable("web", &state["web"], None)
    };
    assert!(!(0..100).any(|_| look(&state("updating"))));
    assert!(look(&state("completed")));
}

#[test]
fn an_update_that_was_rolled_back_is_a_failure_and_a_rollback_that_was_asked_for_is_none() {
    let state = |state: &str, message: &str| {
        let mut service = service(1);
        let status = serde_json::json!({"State": state, "Message": message});
        service.update_status = serde_json::from_value(status).ok();
        BTreeMap::from([("web".to_owned(), of_service(&service, &[task("running", "running", "", "any")]))])
    };
    let back = [state("rollback_started", "update rolled back: x failed"), state("rollback_completed", "done")];
    let mut asked_for = Watch::default();
    back.iter().for_each(|state| asked_for.look(state));
    assert!(asked_for.verdict().is_ok());
    let mut failed = Watch::default();
    failed.look(&state("updating", "update in progress"));
    back.iter().for_each(|state| failed.look(state));
    let told = failed.verdict().unwrap_err().to_string();
    assert_eq!(told, "service web: update rolled back: x failed; it runs as before");
}

#[test]
fn a_paused_update_is_a_failure() {
    let mut service = service(1);
    service.update_status =
        serde_json::from_value(serde_json::json!({"State": "paused", "Message": "task x failed"})).ok();
    assert_eq!(of_service(&service, &[]).failed.as_deref(), Some("update paused: task x failed"));
    for (state, said) in [("paused", "update paused due to x"), ("rollback_paused", "rollback paused due to x")] {
        service.update_status = serde_json::from_value(serde_json::json!({"State": state, "Message": said})).ok();
        assert_eq!(of_service(&service, &[]).failed.as_deref(), Some(said));
    }
}
