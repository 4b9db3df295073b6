//! What the other tests of this binary have no use for, so that every route is asked for; and that it was.

use std::process::Command;

use super::docker_command::{docker, ok};
use super::lab::Host;
use super::swarm::Swarm;
use super::whole::{IMAGE, start};

/// A request that no command of Docker's CLI sends; its status.
fn ask(host: &Host, method: &str, path: &str, body: &str) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "--unix-socket"])
        .arg(host.socket())
        .args(["-H", "Content-Type: application/json", "-d", body, &format!("http://flok{path}")])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn are_all_asked_for(swarm: &Swarm) {
    let at = &swarm.hosts[0];
    for args in [
        ["version"].as_slice(),
        &["info"],
        &["swarm", "update", "--task-history-limit", "4"],
        &["node", "ls"],
        &["node", "inspect", "n1"],
        &["node", "update", "--label-add", "a=b", "n1"],
        &["network", "create", "--driver", "overlay", "other"],
        &["network", "ls"],
        &["network", "inspect", "other"],
        &["network", "rm", "other"],
        &["network", "prune", "--force"],
        &["secret", "create", "s", "/etc/hostname"],
        &["secret", "ls"],
        &["secret", "inspect", "s"],
        &["config", "create", "c", "/etc/hostname"],
        &["config", "ls"],
        &["config", "inspect", "c"],
    ] {
        ok(at, args);
    }
    // Refused, and so asked for.
    for args in [
        ["swarm", "init"].as_slice(),
        &["swarm", "join", "--token", "SWMTKN-1-x", "10.99.0.1"],
        &["swarm", "leave"],
        &["node", "rm", "n1"],
    ] {
        assert!(!docker(at, args).status.success(), "{args:?}");
    }
    let version = |kind: &str, name: &str| at.get(&format!("/{kind}/{name}")).unwrap()["Version"]["Index"].to_string();
    for (kind, name) in [("secrets", "s"), ("configs", "c")] {
        let body = format!(r#"{{"Name":"{name}","Labels":{{"a":"b"}}}}"#);
        let path = format!("/{kind}/{name}/update?version={}", version(kind, name));
        assert_eq!(ask(at, "POST", &path, &body), "200", "{path}");
    }
    for (kind, name) in [("secrets", "s"), ("configs", "c")] {
        let body = format!(r#"{{"Name":"{name}","Labels":{{}},"Data":"b3RoZXI="}}"#);
        let path = format!("/{kind}/{name}/update?version={}", version(kind, name));
        assert_eq!(ask(at, "POST", &path, &body), "400", "only labels change by Docker's API: {path}");
    }
    for kind in ["secret", "config"] {
        let name = &kind[..1];
        at.ok(&[kind, "update", name, "/etc/passwd"]);
        at.ok(&[kind, "rollback", name]);
        assert_eq!(at.ok(&[kind, "versions", name]).lines().count(), 4);
    }
    ok(at, &["secret", "rm", "s"]);
    ok(at, &["config", "rm", "c"]);

    let task = start(swarm, 0, "n1", "served", &["--tty"], &["sleep", "1000"]);
    ok(at, &["service", "ls"]);
    let id = task.name.rsplit('.').next().unwrap();
    ok(at, &["service", "logs", "--raw", "served"]);
    ok(at, &["service", "logs", "--raw", id]);
    ok(at, &["inspect", "--type", "task", id]);
    assert_eq!(ask(at, "POST", &format!("/containers/{}/resize?h=10&w=20", task.container), ""), "200");
    let stack = swarm.stack_file("s", &format!("services:\n  web:\n    image: {IMAGE}\n    command: sleep 1000\n"));
    at.ok(&["stack", "plan", "-c", &stack, "s"]);
    at.ok(&["stack", "deploy", "--detach", "-c", &stack, "s"]);
    at.ok(&["service", "explain", "served"]);
    at.ok(&["service", "create", "--name", "daily", "--schedule", "@daily", IMAGE, "true"]);
    at.ok(&["service", "run", "daily"]);
    at.ok(&["service", "runs", "daily"]);
    at.ok(&["service", "rm", "daily"]);
    // What it finds is for its own tests to judge.
    at.flok(&["network", "doctor"]);
    at.ok(&["swarm", "status"]);
    at.ok(&["stack", "rm", "s"]);
    ok(at, &["service", "rm", "served"]);
    assert_eq!(ask(at, "GET", "/flok/v1/support-bundle", ""), "200");
    assert_eq!(ask(at, "POST", "/build", ""), "501");
    assert_eq!(ask(at, "POST", "/swarm/unlock", r#"{"UnlockKey":"x"}"#), "400");

    let routes = at.get("/flok/v1/routes").unwrap();
    let unasked: Vec<String> = routes
        .as_array()
        .unwrap()
        .iter()
        .filter(|route| route["Asked"] == 0)
        .map(|route| format!("{} {}", route["Method"].as_str().unwrap(), route["Path"].as_str().unwrap()))
        .collect();
    assert!(unasked.is_empty(), "nobody asked for {unasked:?}");
}
