//! What is lost of a steady load while services are updated and hosts die.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::{
    A, Load, Manner, WITHIN, at, connect, from_beside, get, look_up, netns_of, request, said, within, works,
};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

const WELL_BEHAVED: &str = "
services:
  web:
    image: flok/voting:latest
    command: [vote]
    x-drain: DRAIN
    ports: ['8080:80']
    deploy: { replicas: 4, update_config: { parallelism: 1, monitor: 1s } }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
";

const DRAINING: &str = "
services:
  web:
    image: flok/whoami:latest
    x-drain: 10s
    deploy: { replicas: 2 }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
";

const REPLICAS: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    deploy: { replicas: REPLICAS }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    deploy: { mode: global }
";

/// The way from a task to the service's virtual address.
fn by_vip(swarm: &Swarm, client: &Task) -> (PathBuf, SocketAddr) {
    let netns = netns_of(swarm, client);
    let vip: IpAddr = works("the virtual address", || match within(&netns, || look_up("web", A)).join().unwrap()? {
        (0, found) if found.len() == 1 => {
            within(&netns, move || get((found[0], 80).into(), "/").map(|_| found[0])).join().unwrap()
        }
        other => Err(std::io::Error::other(format!("{other:?}"))),
    });
    (netns, (vip, 80).into())
}

fn by_ports(swarm: &Swarm, hosts: impl Iterator<Item = usize>) -> Vec<SocketAddr> {
    let targets: Vec<SocketAddr> = hosts.map(|host| at(swarm, host, 8080)).collect();
    for target in targets.clone() {
        works("each node", || from_beside(swarm, move || get(target, "/")));
    }
    targets
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn rolling_updates_under_load_lose_no_request() {
    let swarm = Swarm::of(3);
    ["voting", "busybox", "whoami"].iter().for_each(|image| swarm.load(image));
    updates_lose_no_request(&swarm, 4, "500ms");
    kept_connections_go_on_while_their_task_drains(&swarm);
}

/// For as long as its service has it, which is far longer than these requests take; then its stop signal ends them.
fn kept_connections_go_on_while_their_task_drains(swarm: &Swarm) {
    const REQUESTS: usize = 1000;
    swarm.deploy(0, "d", DRAINING);
    swarm.running(0, "d_web", 2);
    let client = swarm.running(0, "d_client", 1).remove(0);
    let (netns, vip) = by_vip(swarm, &client);
    let connected = within(&netns, move || {
        let mut kept = BTreeMap::new();
        while kept.len() < 2 {
            let mut stream = connect(vip).unwrap();
            let hostname = said(&request(&mut stream, "/").unwrap(), "Hostname");
            kept.insert(hostname, stream);
        }
        kept
    });
    let mut kept = connected.join().unwrap();
    swarm.hosts[1].ok(&["service", "scale", "--detach", "d_web=1"]);
    let stays = swarm.running(0, "d_web", 1).remove(0).container;
    kept.retain(|hostname, _| !stays.starts_with(hostname));
    let (drains, mut stream) = kept.pop_first().expect("one of the two is to stop");
    let elsewhere = move || stays.starts_with(&said(&get(vip, "/").unwrap(), "Hostname"));
    within(&netns, move || {
        eventually("new connections to go elsewhere", PATIENCE, || match (0..20).all(|_| elsewhere()) {
            true => Ok(()),
            false => Err("some go to the task that is to stop".into()),
        });
        for _ in 0..REQUESTS {
            assert!(elsewhere(), "a new connection goes to the task that drains");
            assert_eq!(said(&request(&mut stream, "/").unwrap(), "Hostname"), drains);
        }
        eventually("the drain to end", PATIENCE, || match request(&mut stream, "/") {
            Ok(_) => Err("the kept connection goes on".into()),
            Err(_) => Ok(()),
        });
    })
    .join()
    .unwrap();
}

/// That none fails while all tasks of a service, of which there are so many, are replaced in either order. `drain` is the
/// time that a busy machine has to tell all nodes of a task that is to stop.
pub fn updates_lose_no_request(swarm: &Swarm, count: usize, drain: &str) {
    let stack = WELL_BEHAVED.replace("replicas: 4", &format!("replicas: {count}")).replace("DRAIN", drain);
    swarm.deploy(0, "s", &stack);
    let mut before = swarm.running(0, "s_web", count);
    let client = swarm.running(0, "s_client", 1).remove(0);
    let (task, vip) = by_vip(swarm, &client);
    let (outside, ports) = (swarm.switch_netns(), by_ports(swarm, 0..swarm.hosts.len()));
    for order in ["start-first", "stop-first"] {
        let loads = [Manner::Anew(WITHIN), Manner::Kept]
            .map(|manner| [Load::by(manner, &outside, &ports), Load::by(manner, &task, &[vip])]);
        let loads: Vec<Load> = loads.into_iter().flatten().collect();
        loads.iter().for_each(|load| load.goes_on(50));
        let version = format!("ORDER={order}");
        swarm.hosts[1].ok(&["service", "update", "--detach", "--update-order", order, "--env-add", &version, "s_web"]);
        before = eventually(&format!("all tasks to be new, {order}"), PATIENCE * 2, || {
            let now = swarm.running(0, "s_web", count);
            let old = now.iter().filter(|task| before.iter().any(|old| old.id == task.id)).count();
            if old == 0 { Ok(now) } else { Err(format!("{old} old ones")) }
        });
        loads.iter().for_each(|load| load.goes_on(100));
        for (load, way) in loads.into_iter().zip(["ports", "virtual address", "ports, kept", "virtual address, kept"]) {
            let (answered, failed) = load.end();
            let first = &failed[..failed.len().min(5)];
            assert!(failed.is_empty(), "{order}, by {way}: {} of {answered} failed: {first:?}", failed.len());
        }
    }
}

/// What becomes of requests by the nodes that stay when a host with a share of the tasks dies. Figures are printed; what
/// is held to is the order of things: none fails that began once the tasks have been replaced.
fn a_host_dies_under_load(hosts: usize, segments: usize) {
    // What a client of a service nearby would wait.
    const LIMIT: Duration = Duration::from_secs(1);
    let mut swarm = Swarm::routed(hosts, segments);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    swarm.voters_are(0, hosts);
    let count = 2 * hosts;
    swarm.deploy(0, "s", &REPLICAS.replace("REPLICAS", &count.to_string()));
    let tasks = swarm.running(0, "s_web", count);
    let clients = swarm.running(0, "s_client", hosts);
    let leader = swarm.leader(0);
    let dead = (leader + 1) % hosts;
    let lost = swarm.node_id(0, dead);
    let share = tasks.iter().filter(|task| task.node == lost).count();
    assert!(share > 0, "{tasks:?}");
    let ports = by_ports(&swarm, (0..hosts).filter(|host| *host != dead));
    let client = clients.iter().find(|client| client.node == swarm.node_id(0, leader)).unwrap();
    let (task, vip) = by_vip(&swarm, client);
    let load = |from: &Path, targets: &[SocketAddr]| Load::by(Manner::Anew(LIMIT), from, targets);
    let (outside, inside) = (load(&swarm.switch_netns(), &ports), load(&task, &[vip; 4]));
    [&outside, &inside].iter().for_each(|load| load.goes_on(100));

    let died = Instant::now();
    swarm.host(dead).die();
    swarm.nodes_are(leader, 1, "down");
    let known = died.elapsed();
    swarm.running(leader, "s_web", count);
    let (replaced, after) = (Instant::now(), died.elapsed());
    [&outside, &inside].iter().for_each(|load| load.goes_on(200));
    for (load, way) in [(outside, "published ports"), (inside, "virtual address")] {
        let (answered, failed) = load.end();
        let last = failed.iter().map(|failure| failure.began.saturating_duration_since(died)).max();
        println!(
            "{hosts} hosts, {segments} segments, {share} of {count} tasks lost: by {way} {} of {} requests failed, the last \
             begun {:?} after the death; the verdict was seen after {known:?}, the tasks were replaced after {after:?}",
            failed.len(),
            answered + failed.len() as u64,
            last.unwrap_or_default(),
        );
        let late: Vec<_> = failed.iter().filter(|failure| failure.began > replaced).collect();
        assert!(late.is_empty(), "by {way}: {late:?}");
    }
    let left: BTreeSet<String> = swarm.running(leader, "s_web", count).into_iter().map(|task| task.node).collect();
    assert!(!left.contains(&lost));
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_dead_host_of_three_is_soon_out_of_the_balance() {
    a_host_dies_under_load(3, 1);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_dead_host_of_five_on_two_segments_is_soon_out_of_the_balance() {
    a_host_dies_under_load(5, 2);
}
