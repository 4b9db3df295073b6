//! What the operator of a node has to mend of its network: told wherever it is looked for, and no longer than it lasts.

use std::process::{Child, Stdio};

use super::lab::{Host, eventually, kill_all_of};
use super::swarm::{PATIENCE, Swarm};

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    deploy: { mode: global }
";

/// A process of the host that has a port.
fn occupant(host: &Host, kind: &str, port: u16) -> Child {
    let script = format!(
        "import socket, time
taken = socket.socket(socket.AF_INET, socket.SOCK_{kind})
taken.bind(('0.0.0.0', {port}))
if '{kind}' == 'STREAM': taken.listen()
print('bound', flush=True)
time.sleep(1000000)"
    );
    let mut child = host.command("python3").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let output = child.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert_eq!(line, "bound\n");
    child
}

/// What `flok swarm status` has of a node.
pub fn conditions(swarm: &Swarm, host: usize) -> Vec<String> {
    let status = swarm.status(0).unwrap_or_default();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let id = swarm.node_id(0, host);
    let node = nodes.iter().find(|node| node["id"] == id.as_str());
    let told = node.and_then(|node| node["conditions"].as_array()).cloned().unwrap_or_default();
    told.iter().map(|it| format!("{}: {}", it["concern"].as_str().unwrap(), it["detail"].as_str().unwrap())).collect()
}

pub fn told(swarm: &Swarm, host: usize, what: &str) -> String {
    eventually(what, PATIENCE, || {
        let told = conditions(swarm, host);
        told.iter().find(|line| line.contains(what)).cloned().ok_or_else(|| format!("{told:?}"))
    })
}

pub fn all_is_well(swarm: &Swarm, host: usize) {
    eventually("nothing to be told any more", PATIENCE, || {
        let told = conditions(swarm, host);
        if told.is_empty() { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_published_port_that_a_host_process_has_is_told_with_the_process_until_it_is_free() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    let theirs = occupant(&swarm.hosts[1], "STREAM", 8080);
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 2);
    let line = told(&swarm, 1, "port 8080/tcp");
    assert!(line.starts_with("port: port 8080/tcp is not published here: taken by python3 (pid "), "{line}");
    assert!(conditions(&swarm, 0).is_empty(), "it is the other node's");
    // All places where it is looked for.
    let detail = line.strip_prefix("port: ").unwrap();
    let first = &swarm.hosts[0];
    assert!(first.ok(&["swarm", "status"]).contains(&format!("Conditions:\n  n2: {detail}")));
    assert!(first.ok(&["node", "ls", "--no-trunc"]).contains(detail));
    assert!(first.ok(&["node", "inspect", "--pretty", "n2"]).contains(detail));
    for list in [["service", "ps", "s_web"], ["stack", "ps", "s"]] {
        let output = first.flok(&list);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said, format!("Warning: n2: {detail}\n"), "{list:?}");
    }
    let output = swarm.hosts[1].flok(&["network", "doctor"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && report.contains(detail), "{report}");
    kill_all_of(theirs);
    all_is_well(&swarm, 1);
    swarm.hosts[1].ok(&["network", "doctor"]);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_taken_port_of_the_overlay_is_told_before_a_swarm_is_made_or_joined_and_while_it_lasts_later() {
    let mut swarm = Swarm::apart(2);
    let theirs = occupant(&swarm.hosts[0], "DGRAM", 4789);
    let said = swarm.hosts[0].refused(&["swarm", "init"]);
    let expected = "UDP port 4789, for the tunnels between nodes, is taken by python3 (pid ";
    assert!(said.contains(expected) && said.contains("--data-path-port"), "{said}");
    assert!(!swarm.hosts[0].data_dir().join("swarm").exists(), "nothing half done");
    swarm.hosts[0].ok(&["swarm", "init", "--data-path-port", "5544"]);
    kill_all_of(theirs);
    // The joiner has the usual port free, and not the swarm's.
    let theirs = occupant(&swarm.hosts[1], "DGRAM", 5544);
    let (token, addr) = (swarm.token("manager"), swarm.hosts[0].underlay());
    let said = swarm.hosts[1].refused(&["swarm", "join", "--token", &token, &addr]);
    assert!(said.contains("UDP port 5544, for the tunnels between nodes, is taken by python3"), "{said}");
    assert!(!swarm.hosts[1].data_dir().join("swarm").exists(), "nothing half done");
    assert_eq!(swarm.hosts[0].ok(&["node", "ls", "--quiet"]).lines().count(), 1, "nor in the swarm");
    kill_all_of(theirs);
    swarm.join(1, "manager");
    swarm.nodes_are(0, 2, "ready");
    all_is_well(&swarm, 1);
    // A member whose port is gone when its daemon starts is one still, and says so.
    swarm.host(1).stop_daemon();
    let host = &swarm.hosts[1];
    eventually("the tunnel to be deleted", PATIENCE, || {
        let output = host.command("ip").args(["link", "del", "flok0"]).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    let theirs = occupant(host, "DGRAM", 5544);
    swarm.host(1).start_daemon(&[]);
    let line = told(&swarm, 1, "UDP port 5544");
    assert!(line.starts_with("data-path-port: ") && line.contains("python3 (pid "), "{line}");
    kill_all_of(theirs);
    all_is_well(&swarm, 1);
}
