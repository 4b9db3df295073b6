//! The CLI's verbs on a real swarm, and what they say on the way.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::lab::{child_of, eventually, kill_all_of, run};
use super::registry::{self, Registry};
use super::swarm::{PATIENCE, Swarm};

const ECHO: &str = "
services:
  echo:
    image: flok/busybox:latest
    command: ['sh', '-c', 'i=0; while :; do echo line $$i; i=$$((i+1)); sleep 0.2; done']
    stop_grace_period: 0s
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn stacks_and_services_are_listed_changed_and_removed() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let (a, b) = (&swarm.hosts[0], &swarm.hosts[1]);
    let two = swarm
        .stack_file("two", &format!("{ECHO}  other:\n    image: flok/busybox:latest\n    command: [sleep, '1000']\n"));
    let over = swarm.stack_file("over", "services: { echo: { environment: { SET: 'yes' }, deploy: { replicas: 2 } } }");
    let told = a.ok(&["stack", "deploy", "-c", &two, "-c", &over, "s"]);
    assert!(told.contains("Creating service s_echo") && told.contains("Creating service s_other"), "{told}");

    assert_eq!(b.json(&["stack", "ls"])["Services"], "2");
    assert!(b.ok(&["stack", "services", "s"]).contains("2/2"));
    assert_eq!(b.ok(&["stack", "ps", "-q", "s"]).lines().count(), 3);
    assert_eq!(b.ok(&["service", "ls", "-q"]).lines().count(), 2);
    assert_eq!(a.ok(&["service", "ps", "-q", "s_echo"]).lines().count(), 2);
    let inspected: serde_json::Value = serde_json::from_str(&a.ok(&["service", "inspect", "s_echo"])).unwrap();
    assert_eq!(inspected[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"][0], "SET=yes");
    assert!(a.ok(&["stack", "config", "-c", &two, "-c", &over]).contains("SET: \"yes\""));
    let completed = |words: &[&str]| {
        let output = b.client().env("FLOK_COMPLETE", "fish").args(["--", "flok"]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed(&["service", "rm", "s_o"]), ["s_other"]);
    assert_eq!(completed(&["stack", "ps", ""]).first().map(String::as_str), Some("s"));
    assert_eq!(completed(&["exec", "s_e"]), ["s_echo.1", "s_echo.2"]);

    assert!(b.ok(&["service", "scale", "s_echo=3", "s_other=2"]).contains("s_echo"));
    swarm.running(0, "s_echo", 3);
    b.ok(&["service", "update", "--env-add", "MORE=1", "--replicas", "1", "s_echo"]);
    swarm.running(0, "s_echo", 1);
    let inspected: serde_json::Value = serde_json::from_str(&a.ok(&["service", "inspect", "s_echo"])).unwrap();
    assert_eq!(inspected[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"].as_array().unwrap().len(), 2);

    let one = swarm.stack_file("one", ECHO);
    assert!(!a.ok(&["stack", "deploy", "-c", &one, "s"]).contains("Removing"));
    assert!(a.ok(&["stack", "deploy", "-c", &one, "--prune", "s"]).contains("Removing service s_other"));
    assert_eq!(b.ok(&["service", "ls", "-q"]).lines().count(), 1);
    b.ok(&["service", "rm", "s_echo"]);
    // What is left of the stack is its network.
    assert!(a.ok(&["stack", "rm", "s"]).contains("Removing network s_default"));
    for args in
        [&["service", "rm", "s_echo"][..], &["stack", "ps", "s"], &["stack", "rm", "s"], &["service", "logs", "s_echo"]]
    {
        let refused = a.refused(args);
        assert!(refused.contains("not found") || refused.contains("nothing found"), "{args:?}: {refused}");
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn logs_are_read_by_tail_and_since_and_followed_to_tasks_that_come_later() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let logging = "    labels: { tier: front }\n    logging: { driver: json-file, options: { labels: tier } }\n";
    swarm.deploy(0, "s", &format!("{ECHO}{logging}"));
    let first = swarm.running(0, "s_echo", 1).remove(0);
    let via = &swarm.hosts[1];
    eventually("some lines", PATIENCE, || match via.ok(&["service", "logs", "s_echo"]).lines().count() {
        0..6 => Err("too few yet".into()),
        _ => Ok(()),
    });
    let tail = via.ok(&["service", "logs", "--tail", "3", "s_echo"]);
    assert!(tail.lines().count() >= 3 && !tail.contains("line 0\n"), "{tail}");
    assert!(tail.contains("s_echo.1.") && tail.contains(" | line "), "{tail}");
    assert_eq!(via.ok(&["service", "logs", "--since", "2037-01-01T00:00:00Z", "s_echo"]), "");
    assert!(via.ok(&["service", "logs", "--since", "10m", "--raw", "s_echo"]).starts_with("line 0\n"));

    let details = via.ok(&["service", "logs", "--tail", "1", "--details", "s_echo"]);
    let ids = format!("com.docker.swarm.task.id={},tier=front line ", first.id);
    assert!(details.contains(" | com.docker.swarm.node.id=") && details.contains(&ids), "{details}");

    let mut command = via.client();
    command.args(["service", "logs", "-f", "--tail", "1", "s_echo"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut follower = command.spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // As the docker command follows: one stream for the service.
    let mut docker = Command::new("curl");
    let url = "http://flok/services/s_echo/logs?stdout=1&follow=1&tail=1&details=1";
    docker.args(["-sS", "-N", "--unix-socket"]).arg(via.socket()).arg(url);
    let mut docker = docker.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut frames = BufReader::new(docker.stdout.take().unwrap()).split(b'\n');
    let of = |task: &str, line: &str| line.contains(&task[..12]);
    assert!(of(&first.id, &lines.next().unwrap().unwrap()));
    let at = (0..2).find(|index| swarm.node_id(0, *index) == first.node).unwrap();
    swarm.hosts[at].kill_container(&first.container);
    // The lines of the task that takes its place; the end of this wait is the test's own.
    let later = lines.by_ref().map(Result::unwrap).find(|line| !of(&first.id, line)).expect("it goes on");
    assert!(later.ends_with("| line 0"), "from its first line: {later}");
    let later = frames.by_ref().map(Result::unwrap).find(|line| !contains(line, &first.id)).expect("it goes on");
    assert!(later.ends_with(b" line 0"), "from its first line: {}", String::from_utf8_lossy(&later));
    let of_slot = via.ok(&["logs", "s_echo.1"]);
    assert!(of_slot.contains("| line 0\n"), "{of_slot}");
    assert!(of_slot.lines().all(|line| !of(&first.id, line)), "the newest task's alone: {of_slot}");
    swarm.hosts[0].ok(&["service", "rm", "s_echo"]);
    assert!(frames.map(Result::unwrap).count() > 0, "it ends with the service");
    lines.map(Result::unwrap).for_each(drop);
    assert!(follower.wait().unwrap().success(), "a service that is removed is no failure of its followers");
    docker.kill().unwrap();
    docker.wait().unwrap();
}

fn contains(line: &[u8], text: &str) -> bool {
    line.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_deploy_says_what_it_waits_for_and_gives_up_when_it_is_told_to() {
    let swarm = Swarm::of(2);
    let registry = Registry::beside(&swarm);
    registry.push("postgres", "team/big:1");
    let image = registry.name("team/big:1");
    let nowhere = format!("{}/no:1", registry::ADDR);
    let file = |name: &str, yaml: String| swarm.stack_file(name, &yaml);
    let deploy = |file: &str, name: &str| {
        let output = swarm.hosts[0].flok(&["stack", "deploy", "-c", file, "--timeout", "5s", name]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };

    let constrained =
        "services: { web: { image: 'a', deploy: { placement: { constraints: [node.labels.zone==b] } } } }";
    let (code, said) = deploy(&file("c", constrained.into()), "c");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("c_web: 0 of 1 running (1 pending: no suitable node (2 nodes: constraint node.labels.zone==b"),
        "{said}"
    );
    assert!(said.contains("not converged within 5s"), "{said}");

    let (code, said) = deploy(&file("n", format!("services: {{ web: {{ image: '{nowhere}' }} }}")), "n");
    assert_eq!(code, Some(1));
    assert!(said.contains("does not have it") && said.contains("n_web: 0 of 1 running"), "{said}");

    let slow = format!("services: {{ db: {{ image: '{image}' }} }}");
    let output = swarm.hosts[0].flok(&["stack", "deploy", "-c", &file("d", slow), "d"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("pulling"), "{said}");
    assert!(said.contains("d_db: 1 of 1 running"), "{said}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_port_that_is_taken_is_named_and_the_task_starts_when_it_is_free() {
    let swarm = Swarm::of(1);
    swarm.load("whoami");
    let host = &swarm.hosts[0];
    let mut holder = host.command("/bin/busybox");
    holder.args(["httpd", "-f", "-p", "8080"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut holder = holder.spawn().unwrap();
    eventually("the port to be taken", PATIENCE, || {
        let list = host.command("cat").args(["/proc/net/tcp", "/proc/net/tcp6"]).output().unwrap();
        if String::from_utf8_lossy(&list.stdout).contains(":1F90 ") { Ok(()) } else { Err("free".into()) }
    });
    let service = |name: &str, port: &str| {
        host.ok(&[
            "service",
            "create",
            "--detach",
            "--name",
            name,
            "--restart-delay",
            "1s",
            "-p",
            &format!("mode=host,target=80,published={port}"),
            "flok/whoami",
        ]);
    };
    service("web", "8080");
    let refused = swarm.task_that(0, "web", "is refused its port", |task| task.state == "rejected");
    assert!(refused.error.contains("port 8080/tcp is taken by another process"), "{}", refused.error);
    run("kill", &["-KILL", &child_of(&holder).unwrap()]);
    holder.wait().unwrap();
    swarm.running(0, "web", 1);

    service("again", "8080");
    let waits =
        swarm.task_that(0, "again", "waits for its port", |task| task.state == "pending" && !task.error.is_empty());
    assert!(waits.error.contains("8080"), "{}", waits.error);
    host.ok(&["service", "rm", "web"]);
    swarm.running(0, "again", 1);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_task_has_loopback_an_address_of_its_own_and_a_way_out() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    let _registry = Registry::beside(&swarm);
    let (at, port) = registry::ADDR.split_once(':').unwrap();
    let ask =
        |path: &str, at: &str, port: &str| format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {at} {port}");
    let script = format!(
        "httpd -p 127.0.0.1:80 -h /etc; {} | grep root:; {} | head -n 1; ip -o -4 addr show eth0; {} | grep root:",
        ask("/passwd", "127.0.0.1", "80"),
        ask("/v2/", at, port),
        ask("/passwd", "above", "8099"),
    );
    let host = &swarm.hosts[0];
    // What the node itself serves.
    let mut above = host.command("/bin/busybox");
    above.args(["httpd", "-f", "-p", "8099", "-h", "/etc"]).stdin(Stdio::null()).stdout(Stdio::null());
    let above = above.spawn().unwrap();
    let once =
        ["service", "create", "--name", "look", "--restart-condition", "none", "--add-host", "above:host-gateway"];
    host.ok(&[&once[..], &["flok/busybox", "sh", "-c", &script]].concat());
    let log = eventually("what it saw", PATIENCE, || match host.ok(&["service", "logs", "--raw", "look"]) {
        log if log.lines().count() >= 4 => Ok(log),
        log => Err(log),
    });
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "root:x:0:0:root:/root:/bin/sh", "{log}");
    assert!(lines[1].contains("200 OK"), "{log}");
    assert!(lines[2].contains("inet 198.19.") && lines[2].contains("/32"), "{log}");
    assert!(lines[3].starts_with("root:"), "{log}");
    kill_all_of(above);
}
