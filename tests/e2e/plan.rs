//! What a deployment would do, and why tasks are where they are, on a real swarm.

use super::lab::{Host, run};
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

/// In the host's own view of the machine.
fn script(host: &Host, lines: &str) {
    let done = host.command("sh").args(["-ec", lines]).output().unwrap();
    assert!(done.status.success(), "{lines}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Hides what init the machine has.
fn without_init(host: &Host) {
    let places = "/usr/libexec/docker/docker-init /usr/bin/docker-init /usr/bin/tini-static /usr/sbin/tini-static \
                  /usr/bin/tini /sbin/tini";
    script(host, &format!("for place in {places}; do [ ! -e $place ] || mount --bind /dev/null $place; done"));
}

/// A static one, that only runs what it is given.
fn install_init(host: &Host) {
    let (source, program) = (host.dir.join("init.c"), host.dir.join("init"));
    std::fs::write(&source, "#include <unistd.h>\nint main(int c, char **v) { return execvp(v[2], v + 2); }\n")
        .unwrap();
    run("cc", &["-static", "-o", program.to_str().unwrap(), source.to_str().unwrap()]);
    let place = "/usr/libexec/docker";
    let copy = format!("mkdir {place}; cp {} {place}/docker-init", program.display());
    script(host, &format!("mount -t tmpfs tmpfs /usr/libexec; {copy}"));
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

    swarm.hosts.iter().for_each(without_init);
    host.ok(&["service", "create", "--detach", "--name", "with-init", "--init", "flok/busybox", "sleep", "1000"]);
    let none = "2 nodes: no init (docker-init or a static tini)";
    swarm.task_that(0, "with-init", "waits", |task| task.state == "pending" && task.error.contains(none));
    let told = host.ok(&["service", "explain", "with-init"]);
    assert_eq!(
        told.matches("no init (docker-init or a static tini)").count(),
        3,
        "of the task and of two nodes: {told}"
    );
    install_init(&swarm.hosts[1]);
    assert_eq!(swarm.running(0, "with-init", 1)[0].node, swarm.node_id(0, 1));

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
