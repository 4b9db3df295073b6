//! Hosts that die, and hosts that are cut off.

use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, containers_of, nodes_of};

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    deploy: { replicas: 6 }
";

/// A manager that does not lead.
fn follower(swarm: &Swarm) -> usize {
    let leader = swarm.leader(0);
    (0..swarm.hosts.len()).rev().find(|index| *index != leader).unwrap()
}

/// Any host but this one.
fn other_than(index: usize) -> usize {
    usize::from(index == 0)
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn the_tasks_of_a_dead_worker_run_elsewhere() {
    let mut swarm = Swarm::of(3);
    let worker = swarm.add_host();
    swarm.host(worker).start_daemon(&[]);
    swarm.join(worker, "worker");
    swarm.nodes_are(0, 4, "ready");
    swarm.load("whoami");
    swarm.deploy(0, "s", &WEB.replace('6', "8"));
    let before = swarm.running(0, "s_web", 8);
    let dead = swarm.node_id(0, worker);
    assert!(nodes_of(&before).contains(&dead));

    swarm.host(worker).die();
    swarm.nodes_are(0, 1, "down");
    let after = swarm.running(0, "s_web", 8);
    assert!(!nodes_of(&after).contains(&dead));
    let kept = before.iter().filter(|task| task.node != dead).count();
    assert_eq!(containers_of(&before).intersection(&containers_of(&after)).count(), kept, "the others went on");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn the_swarm_goes_on_without_its_leader() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 6);
    let leader = swarm.leader(0);
    let via = other_than(leader);
    let dead = swarm.node_id(via, leader);

    swarm.host(leader).die();
    eventually("a write to be taken", PATIENCE, || {
        let output = swarm.hosts[via].flok(&["service", "scale", "--detach", "s_web=7"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    swarm.nodes_are(via, 1, "down");
    let after = swarm.running(via, "s_web", 7);
    assert!(!nodes_of(&after).contains(&dead));

    // Its daemon comes back as a member, stops what was replaced, and the wanted number goes on.
    swarm.host(leader).boot();
    swarm.host(leader).start_daemon(&[]);
    swarm.nodes_are(via, 3, "ready");
    swarm.nodes_are(leader, 3, "ready");
    swarm.running(leader, "s_web", 7);
    eventually("the returned host to stop its old tasks", PATIENCE, || {
        let live: Vec<String> = swarm.running(via, "s_web", 7).into_iter().map(|task| task.container).collect();
        let stale = swarm.hosts[leader].running_containers().into_iter().filter(|id| !live.contains(id)).count();
        if stale == 0 { Ok(()) } else { Err(format!("{stale} old containers run")) }
    });
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_host_that_was_cut_off_stops_what_was_replaced_when_it_returns() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    let before = swarm.running(0, "s_web", 6);
    let cut = follower(&swarm);
    let via = other_than(cut);
    let lost = swarm.node_id(via, cut);

    swarm.hosts[cut].cut();
    swarm.nodes_are(via, 1, "down");
    let replaced = swarm.running(via, "s_web", 6);
    assert!(!nodes_of(&replaced).contains(&lost));
    assert_eq!(swarm.hosts[cut].running_containers().len(), 2, "cut off, it goes on");
    let bound = format!(
        "services: {{ one: {{ image: 'flok/whoami:latest', deploy: {{ placement: {{ constraints: \
         [ 'node.hostname == {}' ] }} }} }} }}",
        swarm.hosts[cut].name()
    );
    swarm.deploy(via, "bound", &bound);
    swarm.task_that(via, "bound_one", "waits", |task| task.state == "pending" && task.error.contains("down"));

    swarm.hosts[cut].heal();
    // It is not trusted with new tasks at once.
    swarm.task_that(via, "bound_one", "is held back", |task| task.error.contains("back after an outage"));
    swarm.nodes_are(via, 3, "ready");
    let old = containers_of(&before);
    eventually("the old tasks to be stopped", PATIENCE, || match swarm.hosts[cut].running_containers() {
        list if list.iter().all(|id| !old.contains(id)) => Ok(()),
        list => Err(list.join(" ")),
    });
    let now = swarm.running(cut, "s_web", 6);
    assert_eq!(containers_of(&now), containers_of(&replaced), "nothing was lost or moved on its return");
    assert_eq!(swarm.running(cut, "bound_one", 1)[0].node, lost);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn two_of_five_cut_off_together_are_one_cut() {
    let swarm = Swarm::of(5);
    swarm.load("whoami");
    swarm.voters_are(0, 5);
    swarm.deploy(0, "s", &WEB.replace('6', "10"));
    swarm.running(0, "s_web", 10);
    let leader = swarm.leader(0);
    let cut: Vec<usize> = (0..5).filter(|index| *index != leader).take(2).collect();
    let lost: Vec<String> = cut.iter().map(|index| swarm.node_id(leader, *index)).collect();

    cut.iter().for_each(|index| swarm.hosts[*index].cut());
    swarm.nodes_are(leader, 2, "down");
    let after = swarm.running(leader, "s_web", 10);
    assert!(lost.iter().all(|node| !nodes_of(&after).contains(node)));

    cut.iter().for_each(|index| swarm.hosts[*index].heal());
    swarm.nodes_are(leader, 5, "ready");
    swarm.running(cut[0], "s_web", 10);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_task_with_a_local_volume_waits_for_its_node() {
    let mut swarm = Swarm::of(3);
    swarm.load("redis");
    swarm.voters_are(0, 3);
    swarm.deploy(
        0,
        "d",
        "
services:
  redis:
    image: flok/redis:latest
    volumes: [ 'data:/data' ]
    deploy: { placement: { constraints: [ 'node.hostname == n3' ] } }
volumes: { data: }
",
    );
    let first = swarm.running(0, "d_redis", 1).remove(0);
    let mark = swarm.hosts[2].volume("d_data").join("mark");
    std::fs::write(&mark, "here").unwrap();
    swarm.hosts[0].ok(&["service", "update", "--detach", "--constraint-rm", "node.hostname == n3", "d_redis"]);
    let kept = swarm.running(0, "d_redis", 1).remove(0);
    assert_eq!(kept.node, first.node);

    swarm.host(2).die();
    swarm.nodes_are(0, 1, "down");
    let waits =
        swarm.task_that(0, "d_redis", "waits and says so", |task| task.state == "pending" && !task.error.is_empty());
    assert!(waits.error.contains("d_data"), "{}", waits.error);

    swarm.host(2).boot();
    swarm.host(2).start_daemon(&[]);
    let back = swarm.running(0, "d_redis", 1).remove(0);
    assert_eq!(back.node, first.node);
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "here");
}
