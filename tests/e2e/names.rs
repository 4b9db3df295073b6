//! Names of services and tasks, as tasks on other hosts find them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};

const STACK: &str = "
services:
  web:
    image: flok/whoami:latest
    deploy: { replicas: 3 }
  client:
    image: flok/whoami:latest
    deploy: { mode: global }
";

/// The addresses that `name` has for a task on `host`, asked with nothing but a stub resolver.
fn look_up(host: &Host, task: &str, name: &str) -> Result<BTreeSet<IpAddr>, String> {
    let netns = format!("--net={}", host.data_dir().join(format!("network/{task}.netns")).display());
    let asked = host.command("nsenter").args([&netns, "busybox", "nslookup", "-type=a", name, "127.0.0.11"]).output();
    let output = asked.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(text + &String::from_utf8_lossy(&output.stderr));
    }
    // The first `Address` is the server's, which has a port.
    let addresses = text.lines().filter_map(|line| line.strip_prefix("Address:"));
    Ok(addresses.filter_map(|address| address.trim().parse().ok()).collect())
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn services_and_tasks_are_found_by_name_on_every_host_and_while_a_daemon_is_away() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(0, "shop", STACK);
    swarm.running(0, "shop_web", 3);
    let clients = swarm.running(0, "shop_client", 3);
    let of = |host: usize| clients.iter().find(|task| task.node == swarm.node_id(0, host)).unwrap().id.clone();
    let clients: Vec<String> = (0..3).map(of).collect();

    let found = |swarm: &Swarm, host: usize, name: &str, count: usize| {
        eventually(&format!("{name} to be found on host {host}"), PATIENCE, || {
            match look_up(&swarm.hosts[host], &clients[host], name)? {
                addresses if addresses.len() == count => Ok(addresses),
                addresses => Err(format!("{addresses:?}")),
            }
        })
    };
    for host in 0..3 {
        let vip = found(&swarm, host, "web", 1);
        let tasks = found(&swarm, host, "tasks.web", 3);
        assert!(tasks.is_disjoint(&vip));
        assert_eq!(found(&swarm, host, "web.shop", 1), vip);
        assert_eq!(found(&swarm, host, "shop_web", 1), vip);
        assert_eq!(found(&swarm, (host + 1) % 3, "tasks.web", 3), tasks);
    }

    let before = found(&swarm, 1, "tasks.web", 3);
    swarm.hosts[1].kill_daemon();
    for _ in 0..20 {
        assert_eq!(look_up(&swarm.hosts[1], &clients[1], "tasks.web").unwrap(), before);
    }
    swarm.hosts[1].start_daemon(&[]);
    for _ in 0..20 {
        assert_eq!(look_up(&swarm.hosts[1], &clients[1], "tasks.web").unwrap(), before);
    }

    swarm.hosts[0].ok(&["service", "scale", "--detach", "shop_web=1"]);
    for host in 0..3 {
        found(&swarm, host, "tasks.web", 1);
    }
}
