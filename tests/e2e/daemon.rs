//! Daemons that stop, die and start again under running containers; disks that fill, and disks that are old.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use super::docker_command::ok;
use super::lab::{Host, Lab, eventually, kill_all_of, run};
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

/// Five services.
fn five(replicas: u32) -> String {
    let service =
        |index: usize| format!("  web{index}: {{ image: 'flok/whoami:latest', deploy: {{ replicas: {replicas} }} }}\n");
    format!("services:\n{}", (0..5).map(service).collect::<String>())
}

/// Names of a stack's services that the daemon on `via` knows.
fn services_of(swarm: &Swarm, via: usize, stack: &str) -> Result<Vec<String>, String> {
    let list = swarm.hosts[via].get("/services")?;
    let names = list.as_array().ok_or_else(|| list.to_string())?.iter();
    let names = names.filter_map(|service| service["Spec"]["Name"].as_str().map(str::to_owned));
    Ok(names.filter(|name| name.starts_with(&format!("{stack}_"))).collect())
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_deploy_whose_leader_and_client_are_killed_is_whole_or_not_there() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    // From before the request was sent until after it was answered.
    for (round, delay_ms) in [0, 20, 40, 80, 160].into_iter().enumerate() {
        let stack = format!("r{round}");
        let leader = swarm.leader(0);
        let client = swarm.deploying(leader, &stack, &five(0));
        std::thread::sleep(Duration::from_millis(delay_ms));
        swarm.host(leader).kill_daemon();
        kill_all_of(client);
        swarm.host(leader).start_daemon(&[]);
        swarm.nodes_are(leader, 3, "ready");
        let found = services_of(&swarm, leader, &stack).unwrap();
        assert!(found.is_empty() || found.len() == 5, "after {delay_ms} ms: {found:?}");
    }

    // Seen anywhere, it is there as a whole, and goes on without whoever began it.
    let leader = swarm.leader(0);
    let via = usize::from(leader == 0);
    let client = swarm.deploying(leader, "x", &five(1));
    let first_seen = eventually("the stack to be seen", PATIENCE, || match services_of(&swarm, via, "x")? {
        none if none.is_empty() => Err("nothing".into()),
        some => Ok(some),
    });
    assert_eq!(first_seen.len(), 5, "{first_seen:?}");
    swarm.host(leader).kill_daemon();
    kill_all_of(client);
    for index in 0..5 {
        swarm.running(via, &format!("x_web{index}"), 1);
    }
    swarm.host(leader).start_daemon(&[]);
    swarm.nodes_are(leader, 3, "ready");
    swarm.deploy(leader, "x", &five(1));
    assert_eq!(services_of(&swarm, leader, "x").unwrap().len(), 5, "deployed again it is the same stack");
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

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn the_service_manager_is_told_when_the_daemon_is_ready_and_when_it_stops() {
    let mut lab = Lab::new(1);
    let path = lab.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut word = [0; 64];
        let length = manager.recv(&mut word).expect("the daemon says something");
        String::from_utf8_lossy(&word[..length]).into_owned()
    };
    lab.hosts[0].launch_daemon_with(&[], &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(told(), "READY=1");
    lab.hosts[0].ok(&["version"]);
    lab.hosts[0].stop_daemon();
    assert_eq!(told(), "STOPPING=1");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_socket_of_the_service_manager_in_a_container_outlives_the_daemon() {
    let mut swarm = Swarm::of(1);
    swarm.load("whoami");
    swarm.hosts[0].stop_daemon();
    assert!(!swarm.hosts[0].socket().exists(), "its own is removed");
    let second = swarm.dir().join("docker.sock");
    let settings = ["--docker-socket", second.to_str().unwrap()];
    swarm.hosts[0].hand_socket_over();
    let own = swarm.hosts[0].socket().display().to_string();
    swarm.hosts[0].launch_daemon(&["--docker-socket", &own]);
    eventually("the daemon to say what is wrong", PATIENCE, || {
        let log = swarm.hosts[0].log_tail();
        if log.contains("are one socket") { Ok(()) } else { Err(log) }
    });
    swarm.hosts[0].end_daemon_if_it_runs();
    swarm.hosts[0].start_daemon(&settings);
    let pings = |host: &Host, socket: &str| {
        let asked = ["-sS", "--max-time", "10", "--unix-socket", socket, "http://flok/_ping"];
        let output = host.command("curl").args(asked).output().unwrap();
        (String::from_utf8_lossy(&output.stdout) == "OK").then_some(()).ok_or(format!("{output:?}"))
    };
    let mount = format!("type=bind,source={},target=/run/docker.sock", swarm.hosts[0].socket().display());
    swarm.hosts[0].ok(&["service", "create", "--name", "web", "--mount", &mount, "flok/whoami:latest"]);
    let process = swarm.hosts[0].running_processes();
    let inside = format!("/proc/{}/root/run/docker.sock", process[0]);
    assert_eq!(pings(&swarm.hosts[0], &inside), Ok(()));
    assert_eq!(pings(&swarm.hosts[0], settings[1]), Ok(()));
    swarm.hosts[0].stop_daemon();
    assert!(swarm.hosts[0].socket().exists() && !second.exists());
    swarm.hosts[0].start_daemon(&settings);
    assert_eq!(swarm.hosts[0].running_processes(), process);
    assert_eq!(pings(&swarm.hosts[0], &inside), Ok(()), "after a restart");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_leader_that_is_stopped_hands_over_before_it_goes() {
    let mut swarm = Swarm::of(3);
    swarm.voters_are(0, 3);
    let leader = swarm.leader(0);
    let old = swarm.node_id(0, leader);
    swarm.host(leader).stop_daemon();
    // Without it, they would wait for an election, and name the old one or none.
    let others = (0..3).filter(|index| *index != leader);
    let named: Vec<String> = others.map(|index| swarm.status(index).unwrap()["leader"].to_string()).collect();
    assert!(named.iter().any(|name| name != "null" && !name.contains(&old)), "{named:?}");
    let other = &swarm.hosts[usize::from(leader == 0)];
    let ask = ["events", "--since", "5m", "--until", "0s", "--filter", "type=node", "--format", "{{json .Actor}}"];
    eventually("the change of leader to be told", PATIENCE, || {
        let told = ok(other, &ask);
        let of = |id: &str, leads: &str| {
            told.lines().any(|line| line.contains(id) && line.contains(&format!("\"leader.new\":\"{leads}\"")))
        };
        if of(&old, "false") && of("", "true") { Ok(()) } else { Err(told) }
    });
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn every_setting_reaches_the_daemon_from_file_flag_or_variable() {
    let mut lab = Lab::new(1);
    let config = lab.hosts[0].dir.join("flok.toml");
    std::fs::write(&config, "hostname = 'from-file'\nlabel = ['disk=ssd']\ngeneric-resource = ['gpu=2']\n").unwrap();
    let flags = ["--config", config.to_str().unwrap(), "--reserve-memory", "1g"];
    let variables = [("FLOK_HOSTNAME", "from-variable"), ("FLOK_RESERVE_CPUS", "0.5"), ("FLOK_LOG_FORMAT", "json")];
    lab.hosts[0].launch_daemon_with(&flags, &variables);
    lab.hosts[0].wait_ready();
    lab.hosts[0].ok(&["swarm", "init"]);
    let node = lab.hosts[0].json(&["node", "inspect", "self"]);
    let node = if node.is_array() { node[0].clone() } else { node };
    let description = &node["Description"];
    assert_eq!(description["Hostname"], "from-variable", "{node}");
    assert_eq!(description["Engine"]["Labels"]["disk"], "ssd", "{node}");
    assert!(description["Resources"]["GenericResources"].to_string().contains("gpu"), "{node}");
    let cpus = std::thread::available_parallelism().unwrap().get() as u64 * 1_000_000_000;
    assert_eq!(description["Resources"]["NanoCPUs"], cpus - 500_000_000, "{node}");
    let total: u64 = run("sh", &["-c", "awk '/^MemTotal/{print $2}' /proc/meminfo"]).trim().parse().unwrap();
    assert_eq!(description["Resources"]["MemoryBytes"], (total << 10) - (1 << 30), "{node}");
    assert!(lab.hosts[0].log().lines().all(|line| line.starts_with('{')), "{}", lab.hosts[0].log_tail());
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_log_that_has_grown_is_shortened_and_who_was_away_catches_up() {
    const SHORTENED: &str = "the log shortened";
    const REPLACED: &str = "the leader's snapshot takes the place of the log";
    let mut swarm = Swarm::of(3);
    swarm.voters_are(0, 3);
    let create = ["service", "create", "--detach", "--name", "kept", "--replicas", "0", "flok/whoami:latest"];
    swarm.hosts[0].ok(&create);
    let via = usize::from(swarm.leader(0) == 0);
    let away = (0..3).find(|index| *index != via && *index != swarm.leader(0)).unwrap();
    swarm.host(away).kill_daemon();
    let before = swarm.hosts[away].log().matches(REPLACED).count();
    // Each is an entry, though the state refuses it: it names an old version.
    let url = "http://flok/swarm/update?version=1&rotateWorkerToken=1&number=[1-9000]";
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-d", "{}", "--parallel", "--parallel-max", "32", "-o", "/dev/null", "--unix-socket"]);
    let status = curl.arg(swarm.hosts[via].socket()).arg(url).status().unwrap();
    assert!(status.success());
    for index in (0..3).filter(|index| *index != away) {
        eventually("the log to be shortened", PATIENCE, || match swarm.hosts[index].log() {
            log if log.contains(SHORTENED) => Ok(()),
            _ => Err(swarm.status(index)?["applied_index"].to_string()),
        });
    }
    swarm.hosts[via].ok(&["service", "scale", "--detach", "kept=0"]);
    swarm.hosts[via].ok(&["service", "update", "--detach", "--label-add", "late=yes", "kept"]);

    swarm.host(away).start_daemon(&[]);
    swarm.nodes_are(away, 3, "ready");
    // What it knows of the nodes may be from before.
    eventually("it to catch up by a snapshot", PATIENCE, || match swarm.hosts[away].log().matches(REPLACED).count() {
        count if count > before => Ok(()),
        _ => Err(swarm.hosts[away].log_tail()),
    });
    let fresh = swarm.add_host();
    swarm.host(fresh).start_daemon(&[]);
    swarm.join(fresh, "manager");
    swarm.nodes_are(fresh, 4, "ready");
    swarm.host(via).kill_daemon();
    swarm.host(via).start_daemon(&[]);
    swarm.nodes_are(via, 4, "ready");
    for index in [away, fresh, via] {
        let kept = swarm.hosts[index].get("/services/kept").unwrap();
        assert_eq!(kept["Spec"]["Labels"]["late"], "yes", "n{}: {kept}", index + 1);
    }
}
