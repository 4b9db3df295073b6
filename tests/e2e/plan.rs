//! What a deployment would do, and why tasks are where they are, on a real swarm.

use super::swarm::Swarm;

fn sleepers(replicas: u32, more: &str) -> String {
    format!(
        "services:\n  web:\n    image: flok/busybox:latest\n    command: [sleep, '1000']\n    stop_grace_period: 0s\n    \
         {more}\n    deploy: {{ replicas: {replicas}, resources: {{ reservations: {{ memory: 8M }} }} }}\n"
    )
}

/// Is replaced with what it depends on.
const FRONT: &str = "  front:
    image: flok/busybox:latest
    command: [sleep, '1000']
    stop_grace_period: 0s
    depends_on: { web: { condition: service_started, restart: true } }
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_plan_says_what_a_deployment_then_does() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let plan = |file: &str| {
        let output = host.flok(&["stack", "plan", "--detailed-exitcode", "-c", file, "s"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().expect("it ends by itself"), told + &String::from_utf8_lossy(&output.stderr))
    };
    let first = swarm.stack_file("first", &(sleepers(2, "") + FRONT));
    let (code, told) = plan(&first);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("+ network s_default") && told.contains("+ service s_web"), "{told}");
    assert!(told.contains("starts s_web.1 on ") && told.contains("starts s_web.2 on "), "{told}");
    assert_eq!(host.ok(&["service", "ls", "-q"]), "", "nothing was done");

    host.ok(&["stack", "deploy", "-c", &first, "s"]);
    let (code, told) = plan(&first);
    assert_eq!((code, told.as_str()), (0, "Stack s: nothing to change.\n"));

    let second = swarm.stack_file("second", &(sleepers(3, "environment: { A: '1' }") + FRONT));
    let (code, told) = plan(&second);
    assert_eq!(code, 3, "{told}");
    let follows =
        "~ service s_front\n    replaced with s_web, on which it depends with restart\n    stops s_front.1 on ";
    for part in ["~ service s_web", "+ env[A]: 1", "~ replicas: 2 -> 3", follows, "tasks: 4 would start, 3 stop"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(host.ok(&["stack", "deploy", "--dry-run", "-c", &second, "s"]), told);
    assert_eq!(swarm.running(0, "s_web", 2).len(), 2, "as they were");
    let planned = host.json(&["stack", "plan", "-c", &second, "s"]);
    let front = planned["services"].as_array().unwrap().iter().find(|service| service["name"] == "s_front").unwrap();
    assert_eq!((&front["action"], &front["restarts_with"]), (&"update".into(), &serde_json::json!(["s_web"])));

    let nowhere = swarm.stack_file("nowhere", &sleepers(2, "").replace("memory: 8M", "memory: 100000G"));
    let (code, told) = plan(&nowhere);
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("WAITS s_web.1: no suitable node (2 nodes: insufficient memory)"), "{told}");
    // One at a time: the second one is not stopped before the first has followed.
    assert!(told.contains("1 task would find no place") && !told.contains("s_web.2"), "{told}");

    let refused = swarm
        .stack_file("refused", "services: { web: { image: i, networks: [x] } }\nnetworks: { x: { external: true } }\n");
    let (code, told) = plan(&refused);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("declared as external, but could not be found"), "{told}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_service_explains_where_its_tasks_are_and_why_they_do_not_run() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let file = swarm.stack_file("one", &sleepers(2, ""));
    host.ok(&["stack", "deploy", "-c", &file, "s"]);
    let told = host.ok(&["service", "explain", "s_web"]);
    assert!(told.starts_with("Service s_web (replicated): 2 of 2 running\n"), "{told}");
    assert_eq!(told.matches("the node passed all filters").count(), 2, "{told}");
    assert_eq!(told.matches("  present   fits\n").count(), 2, "{told}");

    host.ok(&["node", "update", "--availability", "drain", "n2"]);
    let places = "--constraint=node.hostname==n2";
    host.ok(&["service", "create", "--detach", "--name", "stuck", places, "flok/busybox", "sleep", "1000"]);
    swarm.task_that(0, "stuck", "waits", |task| task.state == "pending" && !task.error.is_empty());
    let explained = host.json(&["service", "explain", "stuck"]);
    let why = explained["tasks"][0]["why"].as_str().unwrap();
    assert!(why.contains("1 node: drained") && why.contains("1 node: constraint node.hostname==n2 not met"), "{why}");
    assert_eq!(explained["nodes"].as_array().unwrap().iter().filter(|node| node["refusal"].is_null()).count(), 0);

    let crash = ["service", "create", "--detach", "--name", "crash", "--restart-condition", "none"];
    host.ok(&[&crash[..], &["flok/busybox", "sh", "-c", "exit 3"]].concat());
    swarm.task_that(0, "crash", "has failed", |task| task.state == "failed");
    let told = host.ok(&["service", "explain", "crash"]);
    assert!(told.contains("not restarted: its restart condition is none"), "{told}");
    assert!(host.refused(&["service", "explain", "nothing"]).contains("not found"));
}
