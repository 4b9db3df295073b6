//! Joining, leaving, draining, roles.

use std::time::Duration;

use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, nodes_of, spread};

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    deploy: { replicas: 6 }
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_drained_node_is_emptied_and_filled_again_by_new_tasks_only() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 6);
    let drained = swarm.node_id(0, 2);
    swarm.hosts[0].ok(&["node", "update", "--availability", "drain", "n3"]);
    eventually("the node to be empty", PATIENCE, || {
        let tasks = swarm.running(0, "s_web", 6);
        if nodes_of(&tasks).contains(&drained) { Err(format!("{tasks:?}")) } else { Ok(()) }
    });
    eventually("its containers to be stopped", PATIENCE, || match swarm.hosts[2].running_containers() {
        list if list.is_empty() => Ok(()),
        list => Err(list.join(" ")),
    });
    swarm.hosts[1].ok(&["node", "update", "--availability", "active", "n3"]);
    swarm.hosts[1].ok(&["service", "scale", "--detach", "s_web=9"]);
    let tasks = swarm.running(1, "s_web", 9);
    assert_eq!(spread(&tasks), [3, 3, 3]);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_node_leaves_and_is_removed() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 6);
    let gone = swarm.node_id(0, 2);
    // A manager that is there goes by no force, asked of itself or of another.
    for (via, name) in [(0, "n3"), (0, "n1"), (1, "n1")] {
        let refused = swarm.hosts[via].refused(&["node", "rm", "--force", name]);
        assert!(refused.contains("must be demoted to worker"), "{refused}");
    }
    swarm.voters_are(0, 3);
    swarm.nodes_are(0, 3, "ready");

    swarm.hosts[2].ok(&["swarm", "leave", "--force"]);
    assert!(!nodes_of(&swarm.running(0, "s_web", 6)).contains(&gone));
    swarm.nodes_are(0, 1, "down");
    swarm.hosts[0].ok(&["node", "rm", "--force", "n3"]);
    swarm.nodes_are(0, 2, "ready");
    swarm.nodes_are(0, 0, "down");
    eventually("its containers to be gone", PATIENCE, || match swarm.hosts[2].running_containers() {
        list if list.is_empty() => Ok(()),
        list => Err(list.join(" ")),
    });

    // The same machine may join again, as a new member.
    swarm.join(2, "worker");
    swarm.nodes_are(0, 3, "ready");
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_web=12"]);
    swarm.running(0, "s_web", 12);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_manager_that_joins_late_knows_everything_the_others_observe() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(0, "s", WEB);
    let before = swarm.running(0, "s_web", 6);
    swarm.hosts[1].show_memory_used(60);
    swarm.load_is(0, 1, "memory", |percent| percent > 50.0);
    let late = swarm.add_host();
    swarm.host(late).start_daemon(&[]);
    swarm.join(late, "manager");
    // That tasks run, where, and in which containers is in no log: it comes by gossip alone.
    assert_eq!(swarm.running(late, "s_web", 6), before);
    swarm.load_is(late, 0, "memory", |percent| percent < 50.0);
    swarm.load_is(late, 1, "memory", |percent| percent > 50.0);
    swarm.load_is(late, 2, "memory", |percent| percent < 50.0);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_script_founds_and_joins_a_swarm_by_what_is_told_in_json() {
    let lab = Swarm::apart(2);
    let founded = lab.hosts[0].json(&["swarm", "init"]);
    let token = |role: &str| founded["JoinTokens"][role].as_str().unwrap().to_owned();
    assert_eq!(token("Manager"), lab.token("manager"));
    let addr = founded["Address"].as_str().unwrap();
    let joined = lab.hosts[1].json(&["swarm", "join", "--token", &token("Worker"), addr]);
    assert_eq!(joined["Role"], "worker");
    lab.nodes_are(0, 2, "ready");
    assert_eq!(founded["NodeID"], lab.node_id(0, 0).as_str());
    assert_eq!(joined["NodeID"], lab.node_id(0, 1).as_str());
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_wrong_token_is_refused_with_its_reason() {
    let mut swarm = Swarm::of(1);
    let stranger = swarm.add_host();
    swarm.host(stranger).start_daemon(&[]);
    let addr = swarm.hosts[0].addr();
    let join = |token: &str| swarm.hosts[stranger].refused(&["swarm", "join", "--token", token, &addr]);

    let nonsense = join("nonsense");
    assert!(nonsense.contains("token"), "{nonsense}");

    let old = swarm.token("worker");
    swarm.hosts[0].ok(&["swarm", "join-token", "--rotate", "--quiet", "worker"]);
    let rotated = join(&old);
    assert!(rotated.contains("token"), "{rotated}");

    // Of another swarm: the hash of the CA differs.
    let other = swarm.add_host();
    swarm.host(other).start_daemon(&[]);
    swarm.hosts[other].ok(&["swarm", "init"]);
    let foreign = swarm.hosts[other].ok(&["swarm", "join-token", "--quiet", "worker"]);
    let wrong = swarm.hosts[stranger].refused(&["swarm", "join", "--token", foreign.trim(), &addr]);
    assert!(wrong.contains("swarm"), "{wrong}");

    let nobody = swarm.hosts[stranger].refused(&["swarm", "join", "--token", &swarm.token("worker"), "10.99.0.77"]);
    assert!(nobody.contains("10.99.0.77"), "{nobody}");
    // Refused before anybody is asked, so that nobody waits for it.
    let (token, listen) = (swarm.token("worker"), ["--listen-addr", "10.99.0.77"]);
    let deaf = swarm.hosts[stranger].refused(&[&["swarm", "join", "--token", &token, &addr], &listen[..]].concat());
    assert!(deaf.contains("This host has no such address"), "{deaf}");
    let nodes = swarm.hosts[0].ok(&["node", "ls", "--quiet"]);
    assert_eq!(nodes.lines().count(), 1, "{nodes}");

    swarm.nodes_are(0, 1, "ready");
    swarm.join(stranger, "worker");
    swarm.nodes_are(0, 2, "ready");
    let again = swarm.hosts[stranger].refused(&["swarm", "join", "--token", &swarm.token("worker"), &addr]);
    assert!(again.contains("already"), "{again}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_worker_is_promoted_and_demoted() {
    let mut swarm = Swarm::of(2);
    let worker = swarm.add_host();
    swarm.host(worker).start_daemon(&[]);
    swarm.join(worker, "worker");
    swarm.nodes_are(0, 3, "ready");
    let refused = swarm.hosts[worker].refused(&["node", "ls"]);
    assert!(refused.contains("manager"), "{refused}");

    swarm.hosts[0].ok(&["node", "promote", "n3"]);
    swarm.voters_are(0, 3);
    swarm.nodes_are(worker, 3, "ready");
    swarm.hosts[worker].ok(&["node", "demote", "n3"]);
    eventually("the node to be a worker again", PATIENCE, || {
        let output = swarm.hosts[worker].flok(&["node", "ls"]);
        if output.status.success() { Err("it lists nodes".into()) } else { Ok(()) }
    });
    swarm.nodes_are(0, 3, "ready");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn heavy_loss_passes_no_verdict() {
    let swarm = Swarm::of(4);
    swarm.voters_are(0, 3);
    swarm.hosts.iter().for_each(|host| host.lose(15));
    // A verdict would stay visible: a node that comes back from one is held down for longer than this.
    std::thread::sleep(Duration::from_secs(20));
    let status = swarm.hosts[0].json(&["swarm", "status"]);
    let health: Vec<&str> = status["nodes"].as_array().unwrap().iter().filter_map(|n| n["health"].as_str()).collect();
    assert_eq!(health, ["up"; 4], "{status}");
}
