//! Daemons that stop, die and start again under running containers; disks that fill, and disks that are old.

use super::lab::{eventually, run};
use super::swarm::{PATIENCE, Swarm, containers_of};

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    deploy: { replicas: 6 }
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn containers_outlive_their_daemon() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    let before = containers_of(&swarm.running(0, "s_web", 6));

    let leader = swarm.leader(0);
    swarm.host(leader).stop_daemon();
    let via = usize::from(leader == 0);
    swarm.leader(via);
    swarm.host(leader).start_daemon(&[]);
    swarm.nodes_are(leader, 3, "ready");
    assert_eq!(containers_of(&swarm.running(leader, "s_web", 6)), before, "after SIGTERM");

    swarm.host(2).kill_daemon();
    swarm.host(2).start_daemon(&[]);
    swarm.nodes_are(2, 3, "ready");
    assert_eq!(containers_of(&swarm.running(2, "s_web", 6)), before, "after SIGKILL");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn what_ended_while_the_daemon_was_away_is_replaced() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    let before = swarm.running(0, "s_web", 6);
    let node = swarm.node_id(0, 2);
    let victim = before.iter().find(|task| task.node == node).unwrap().container.clone();
    swarm.host(2).kill_daemon();
    swarm.hosts[2].kill_container(&victim);
    swarm.host(2).start_daemon(&[]);
    eventually("the replacement", PATIENCE, || {
        let now = containers_of(&swarm.running(0, "s_web", 6));
        if now.contains(&victim) { Err("the dead one is shown as running".into()) } else { Ok(()) }
    });
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_swarm_comes_back_from_a_power_cut() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 6);
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_web=4"]);

    swarm.hosts.iter_mut().for_each(super::lab::Host::die);
    swarm.hosts.iter_mut().for_each(super::lab::Host::boot);
    for host in &mut swarm.hosts {
        host.start_daemon(&[]);
    }
    swarm.nodes_are(0, 3, "ready");
    let tasks = swarm.running(0, "s_web", 4);
    for host in &swarm.hosts {
        for id in host.running_containers() {
            assert!(tasks.iter().any(|task| task.container == id), "{id} runs and is not wanted");
        }
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_node_restored_from_an_old_copy_does_no_harm() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 6);

    swarm.host(2).die();
    let data = swarm.hosts[2].data_dir();
    let copy = swarm.dir().join("copy");
    run("cp", &["-a", data.to_str().unwrap(), copy.to_str().unwrap()]);
    swarm.host(2).boot();
    swarm.host(2).start_daemon(&[]);
    swarm.nodes_are(0, 3, "ready");
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_web=9"]);
    swarm.running(0, "s_web", 9);

    swarm.host(2).die();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    swarm.host(2).boot();
    swarm.host(2).launch_daemon(&[]);
    // It may serve again or refuse to; the swarm must hold what it had acknowledged and be whole without it.
    let tasks = swarm.running(0, "s_web", 9);
    assert_eq!(tasks.len(), 9);
    swarm.hosts[1].ok(&["service", "scale", "--detach", "s_web=3"]);
    swarm.running(1, "s_web", 3);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_deploy_whose_leader_and_client_are_killed_is_whole_or_not_there() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    let service =
        |index: usize| format!("  web{index}: {{ image: 'flok/whoami:latest', deploy: {{ replicas: 1 }} }}\n");
    let yaml = format!("services:\n{}", (0..5).map(service).collect::<String>());
    let leader = swarm.leader(0);
    let mut client = swarm.deploying(leader, "x", &yaml);
    swarm.host(leader).kill_daemon();
    client.kill().unwrap();
    client.wait().unwrap();
    swarm.host(leader).start_daemon(&[]);
    swarm.nodes_are(leader, 3, "ready");
    let list = swarm.hosts[leader].get("/services").unwrap();
    let count = list.as_array().unwrap().len();
    assert!(count == 0 || count == 5, "{count} of 5 services: {list}");
    swarm.deploy(leader, "x", &yaml);
    for index in 0..5 {
        swarm.running(leader, &format!("x_web{index}"), 1);
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_full_data_disk_is_named_and_loses_nothing() {
    let mut swarm = Swarm::of(1);
    swarm.hosts[0].ok(&["service", "create", "--detach", "--name", "kept", "--replicas", "0", "flok/whoami:latest"]);
    swarm.host(0).stop_daemon();
    swarm.host(0).move_data_to_a_disk_of(64);
    swarm.host(0).start_daemon(&[]);
    swarm.leader(0);
    swarm.hosts[0].ok(&["service", "create", "--detach", "--name", "before", "--replicas", "0", "flok/whoami:latest"]);
    let filler = swarm.hosts[0].fill_disk();
    let mut taken = vec!["kept".to_owned(), "before".to_owned()];
    let refused = (0..2000).find_map(|index| {
        let name = format!("during{index}");
        let args = ["service", "create", "--detach", "--name", &name, "--replicas", "0", "flok/whoami:latest"];
        let output = swarm.hosts[0].flok(&args);
        if output.status.success() {
            taken.push(name);
            return None;
        }
        Some(String::from_utf8_lossy(&output.stderr).into_owned())
    });
    let refused = refused.expect("a full disk takes no more writes");
    let log = swarm.hosts[0].log_tail();
    assert!(refused.contains("space") || log.contains("disk of the log is full"), "{refused}\n{log}");

    assert!(swarm.hosts[0].command("rm").arg(filler).status().unwrap().success());
    swarm.host(0).end_daemon_if_it_runs();
    swarm.host(0).start_daemon(&[]);
    let names = eventually("the services", PATIENCE, || {
        swarm.status(0)?;
        let list = swarm.hosts[0].get("/services")?;
        let names = list.as_array().ok_or_else(|| list.to_string())?;
        Ok(names.iter().map(|service| service["Spec"]["Name"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    });
    for name in taken {
        assert!(names.contains(&name), "{name} was acknowledged and is lost; there are {names:?}");
    }
}
