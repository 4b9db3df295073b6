//! Swarms that have lost most of themselves: what still answers, what waits, and how they go on.

use std::process::Command;

use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm, containers_of, nodes_of, spread};

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    deploy: { replicas: 3 }
";

/// Status, headers and body of a request to the host's socket, which is answered within two seconds or not at all.
fn ask(host: &Host, method: &str, path: &str, body: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--max-time", "2", "-X", method, "--unix-socket"]).arg(host.socket());
    let output = curl.args(["-d", body]).arg(format!("http://flok{path}")).output().unwrap();
    assert!(output.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn without_a_quorum_reads_are_marked_stale_and_writes_name_who_is_missing() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    let before = swarm.running(0, "s_web", 3);
    let (n1, n3) = (&swarm.hosts[0], swarm.node_id(0, 2));
    swarm.hosts[1].cut();
    swarm.hosts[2].cut();
    eventually("the quorum to be missed", PATIENCE, || {
        let status = swarm.status(0)?;
        if status["no_quorum_for_ms"].as_u64() > Some(1000) { Ok(()) } else { Err(status.to_string()) }
    });

    for path in ["/nodes", "/services", "/tasks", "/swarm", "/services/s_web", "/nodes/n1", "/flok/v1/status"] {
        let answer = ask(n1, "GET", path, "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let mark = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("flok-stale: "));
        let mark = mark.unwrap_or_else(|| panic!("{path} is not marked stale: {answer}"));
        assert!(mark.contains("n2") && mark.contains("n3"), "{path}: {mark}");
    }
    let names_the_missing = |what: &str, said: &str| {
        assert!(said.contains("n2") && said.contains("n3") && said.contains("force-new-cluster"), "{what}: {said}");
    };
    let spec = r#"{"Name":"new","TaskTemplate":{"ContainerSpec":{"Image":"flok/whoami:latest"}}}"#;
    for (method, path, body) in [
        ("POST", "/services/create", spec),
        ("POST", "/swarm/update?version=1&rotateWorkerToken=true", "{}"),
        ("DELETE", "/services/s_web", ""),
        ("DELETE", &format!("/nodes/{n3}?force=1"), ""),
    ] {
        let answer = ask(n1, method, path, body);
        assert!(answer.starts_with("HTTP/1.1 503"), "{path}: {answer}");
        names_the_missing(path, &answer);
    }
    for read in [vec!["node", "ls"], vec!["service", "ls"], vec!["service", "ps", "s_web"], vec!["stack", "ls"]] {
        let output = n1.flok(&read);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.contains("no quorum") && errors.contains("n2"), "{read:?}: {errors}");
    }
    let managers = n1.ok(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    assert_eq!(managers.matches("Unreachable").count(), 2, "{managers}");
    let stack = swarm.stack_file("more", WEB);
    for write in [
        vec!["service", "scale", "s_web=9"],
        vec!["service", "update", "--env-add", "A=b", "s_web"],
        vec!["node", "update", "--availability", "drain", "n1"],
        vec!["swarm", "join-token", "--rotate", "worker"],
        vec!["stack", "deploy", "-c", &stack, "more"],
        vec!["stack", "rm", "s"],
    ] {
        names_the_missing(&format!("{write:?}"), &n1.refused(&write));
    }

    swarm.hosts[1].heal();
    swarm.hosts[2].heal();
    eventually("the quorum to be back", PATIENCE, || {
        let status = swarm.status(0)?;
        if status["no_quorum_for_ms"].is_null() { Ok(()) } else { Err(status.to_string()) }
    });
    n1.ok(&["service", "scale", "--detach", "s_web=4"]);
    let after = swarm.running(0, "s_web", 4);
    assert!(containers_of(&before).is_subset(&containers_of(&after)), "what ran went on");
    let services = n1.get("/services").unwrap();
    assert_eq!(services.as_array().unwrap().len(), 1, "nothing of the refused writes happened: {services}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn without_a_quorum_a_node_restarts_its_own_tasks_and_no_job_that_has_completed() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.voters_are(0, 2);
    swarm.deploy(0, "s", &WEB.replace('3', "2"));
    swarm.running(0, "s_web", 2);
    let job = ["service", "create", "--detach", "--mode", "global-job", "--restart-delay", "100ms", "--name", "once"];
    let ends = ["flok/busybox", "sh", "-c", "sleep 5; echo done"];
    swarm.hosts[0].ok(&[&job[..], &ends].concat());
    let processes = |host: usize, count: usize| {
        eventually(&format!("{count} processes on host {host}"), PATIENCE, || {
            match swarm.hosts[host].running_processes() {
                now if now.len() == count => Ok(now),
                now => Err(format!("{now:?}")),
            }
        })
    };
    processes(0, 2);
    processes(1, 2);
    swarm.hosts[1].cut();
    eventually("the quorum to be missed", PATIENCE, || {
        let status = swarm.status(0)?;
        if status["no_quorum_for_ms"].is_u64() { Ok(()) } else { Err(status.to_string()) }
    });
    // The job has ended.
    let killed = processes(0, 1);
    swarm.hosts[0].kill_container(&swarm.hosts[0].running_containers()[0]);
    eventually("another process in its place", PATIENCE, || match swarm.hosts[0].running_processes() {
        now if now.len() == 1 && now != killed => Ok(()),
        now => Err(format!("{now:?}")),
    });
    swarm.hosts[1].heal();
    swarm.running(0, "s_web", 2);
    eventually("the job to be completed", PATIENCE, || {
        let listed = swarm.hosts[0].ok(&["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]);
        if listed.contains("(2/2 completed)") { Ok(()) } else { Err(listed) }
    });
    let told = swarm.hosts[0].ok(&["service", "logs", "--raw", "once"]);
    assert_eq!(told.lines().filter(|line| *line == "done").count(), 2, "{told}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn the_last_manager_goes_on_alone_when_it_is_told_to() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    let before = swarm.running(0, "s_web", 3);
    let survivor = swarm.node_id(0, 0);
    swarm.host(1).die();
    swarm.host(2).die();
    let refused = swarm.hosts[0].refused(&["service", "scale", "--detach", "s_web=5"]);
    assert!(refused.contains("n2") && refused.contains("n3"), "{refused}");

    let printed = swarm.hosts[0].ok(&["swarm", "init", "--force-new-cluster"]);
    assert!(printed.contains(&survivor), "{printed}");
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_web=5"]);
    let after = swarm.running(0, "s_web", 5);
    assert_eq!(nodes_of(&after), [survivor.clone()].into());
    let kept = before.iter().find(|task| task.node == survivor).expect("one ran there");
    assert!(containers_of(&after).contains(&kept.container), "what ran there goes on");

    let fresh = swarm.add_host();
    swarm.host(fresh).start_daemon(&[]);
    swarm.join(fresh, "manager");
    swarm.hosts[0].ok(&["node", "rm", "--force", "n2"]);
    swarm.hosts[0].ok(&["node", "rm", "--force", "n3"]);
    swarm.voters_are(0, 2);
    swarm.nodes_are(fresh, 2, "ready");
    swarm.nodes_are(fresh, 0, "down");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn when_most_of_the_swarm_falls_silent_nothing_is_replaced_for_a_while() {
    let mut swarm = Swarm::of(1);
    for _ in 0..2 {
        let worker = swarm.add_host();
        swarm.host(worker).start_daemon(&[]);
        swarm.join(worker, "worker");
    }
    swarm.nodes_are(0, 3, "ready");
    swarm.load("whoami");
    swarm.deploy(0, "s", &WEB.replace('3', "6"));
    let before = swarm.running(0, "s_web", 6);
    assert_eq!(spread(&before), [2, 2, 2]);
    let notice = |wanted: bool| {
        eventually("the notice to come or go", PATIENCE, || {
            let status = swarm.status(0)?;
            let notice = status["notice"].as_str().map(str::to_owned);
            if notice.is_some() == wanted { Ok(notice.unwrap_or_default()) } else { Err(status.to_string()) }
        })
    };

    swarm.hosts[1].cut();
    swarm.hosts[2].cut();
    let said = notice(true);
    assert!(said.contains("2 of 3") && said.contains("more than half"), "{said}");
    eventually("the leader's log to say why", PATIENCE, || match swarm.hosts[0].log() {
        log if log.contains("2 of 3 nodes would be down") => Ok(()),
        _ => Err(swarm.hosts[0].log_tail()),
    });
    assert!(swarm.hosts[0].ok(&["swarm", "status"]).contains("Notice:"));
    swarm.hosts[1].heal();
    swarm.hosts[2].heal();
    notice(false);
    swarm.nodes_are(0, 3, "ready");
    assert_eq!(swarm.running(0, "s_web", 6), before, "it passed, and cost nothing");

    // It does not pass this time.
    swarm.hosts[1].cut();
    swarm.hosts[2].cut();
    swarm.nodes_are(0, 2, "down");
    assert_eq!(spread(&swarm.running(0, "s_web", 6)), [6]);
}
