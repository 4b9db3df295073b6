//! The swarm's networks: names, virtual addresses, published ports, and what must not be reached.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::client::{A, Load, at, from_beside, get, in_task, look_up, said, within, works};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

const TWO_NETWORKS: &str = "
services:
  left:
    image: flok/whoami:latest
    networks: [a]
    deploy: { mode: global }
  right:
    image: flok/whoami:latest
    networks: [b]
    deploy: { mode: global }
  both:
    image: flok/whoami:latest
    networks: [a, b]
networks: { a: {}, b: {} }
";

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    deploy: { replicas: 4 }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_voting_application_counts_votes_that_come_in_anywhere() {
    let swarm = Swarm::of(3);
    for image in ["voting", "redis", "postgres"] {
        swarm.load(image);
    }
    swarm.deploy(0, "vote", include_str!("../../config/examples/voting.yml"));
    for (service, count) in [("vote", 2), ("redis", 1), ("worker", 2), ("postgres", 1), ("result", 1)] {
        swarm.running(0, &format!("vote_{service}"), count);
    }
    for (host, voter) in [(0, "ada"), (1, "bob"), (2, "cleo"), (0, "bob")] {
        let choice = if host == 0 { "dogs" } else { "cats" };
        let to = format!("http://{}/", at(&swarm, host, 5000));
        eventually("the vote to be taken", PATIENCE, || {
            let form = format!("voter={voter}&choice={choice}");
            let output = swarm.beside("curl").args(["-sS", "--max-time", "5", "-d", &form, &to]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains("votes for") { Ok(()) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
        });
    }
    for host in 0..3 {
        let to = at(&swarm, host, 5001);
        eventually("the votes to be counted", PATIENCE, || {
            let counts = from_beside(&swarm, move || get(to, "/results")).map_err(|error| error.to_string())?;
            if counts.trim() == r#"{"cats":1,"dogs":2}"# { Ok(()) } else { Err(counts) }
        });
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_virtual_address_spreads_connections_evenly() {
    let swarm = Swarm::of(3);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    spreads_evenly(&swarm, 4);
}

/// That a service of so many tasks gets connections to its virtual address in even shares.
pub fn spreads_evenly(swarm: &Swarm, count: usize) {
    swarm.deploy(0, "s", &WEB.replace("replicas: 4", &format!("replicas: {count}")));
    swarm.running(0, "s_web", count);
    let client = swarm.running(0, "s_client", 1).remove(0);
    let (vip, tasks) = eventually("the names to lead to all", PATIENCE, || {
        let (vips, tasks) = in_task(swarm, &client, || (look_up("web", A), look_up("tasks.s_web", A)));
        match (vips, tasks) {
            (Ok((0, vips)), Ok((0, tasks))) if vips.len() == 1 && tasks.len() == count => Ok((vips[0], tasks)),
            found => Err(format!("{found:?}")),
        }
    });
    assert!(!tasks.contains(&vip));
    const CONNECTIONS: u32 = 10_000;
    let counts = in_task(swarm, &client, move || {
        let mut counts = BTreeMap::<String, u32>::new();
        for _ in 0..CONNECTIONS {
            *counts.entry(said(&get((vip, 80).into(), "/").unwrap(), "Hostname")).or_default() += 1;
        }
        counts
    });
    assert_eq!(counts.len(), count, "{counts:?}");
    let expected = f64::from(CONNECTIONS) / count as f64;
    let chi_square: f64 = counts.values().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    // By degrees of freedom, of which there is one less than tasks: an even spread exceeds this once in a million.
    let limit = BTreeMap::from([(3, 30.7), (4, 33.4)])[&(count - 1)];
    assert!(chi_square < limit, "chi-square {chi_square}: {counts:?}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_name_without_a_running_task_has_no_data_at_once() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    swarm.deploy(0, "s", &WEB.replace("flok/whoami:latest", "flok/none:latest"));
    let client = swarm.running(0, "s_client", 1).remove(0);
    let answer =
        eventually("the name to be known", PATIENCE, || match in_task(&swarm, &client, || look_up("tasks.web", A)) {
            Ok((0, found)) => Ok(found),
            other => Err(format!("{other:?}")),
        });
    assert_eq!(answer, Vec::<IpAddr>::new());
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn tasks_meet_on_the_networks_they_share_and_nowhere_else() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(0, "n", TWO_NETWORKS);
    let (left, right) = (swarm.running(0, "n_left", 3), swarm.running(0, "n_right", 3));
    let both = swarm.running(0, "n_both", 1);
    let reaches = |from: &Task, to: IpAddr| in_task(&swarm, from, move || get((to, 80).into(), "/").is_ok());
    let addresses = |task: &Task| swarm.addresses(0, &task.id);
    for (name, from, to, meet) in [
        ("on one network", &left, &left, true),
        ("on the other", &right, &right, true),
        ("left to right", &left, &right, false),
        ("right to left", &right, &left, false),
    ] {
        for from in from {
            for to in to.iter().filter(|to| to.id != from.id) {
                let address = addresses(to)[0];
                if meet {
                    eventually(&format!("{name}: {from:?} to reach {address}"), PATIENCE, || {
                        if reaches(from, address) { Ok(()) } else { Err("not yet".into()) }
                    });
                } else {
                    assert!(!reaches(from, address), "{name}: {from:?} reaches {address} of {to:?}");
                }
            }
        }
    }
    for address in addresses(&both[0]) {
        let (by_left, by_right) = (reaches(&left[0], address), reaches(&right[0], address));
        assert!(by_left != by_right, "{address} is reached by left: {by_left}, by right: {by_right}");
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_published_port_answers_on_every_node_and_shows_the_client() {
    let swarm = Swarm::of(3);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    shows_the_client(&swarm);
}

/// That one task is reached by every node's port, sees who asks, and reaches itself.
pub fn shows_the_client(swarm: &Swarm) {
    swarm.deploy(0, "s", &WEB.replace("replicas: 4", "replicas: 1"));
    let web = swarm.running(0, "s_web", 1).remove(0);
    for host in &swarm.hosts {
        let to = at(swarm, host.index - 1, 8080);
        let answer = works("the port to answer", || from_beside(swarm, move || get(to, "/")));
        let client: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
        assert_eq!(client.ip().to_canonical().to_string(), host.gateway(), "by n{}", host.index);
        // On the node itself, by its loopback addresses.
        for loopback in ["127.0.0.1", "[::1]"] {
            let url = format!("http://{loopback}:8080/");
            eventually("the loopback address to answer", PATIENCE, || {
                let output = host.command("curl").args(["-sSg", "--max-time", "3", &url]).output().unwrap();
                let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() { Ok(()) } else { Err(format!("{url} on n{}: {errors}", host.index)) }
            });
        }
        let itself = in_task(swarm, &web, move || get(to, "/"));
        assert!(itself.is_ok(), "itself by the port of n{}: {itself:?}", host.index);
    }
    let itself = in_task(swarm, &web, || {
        let (_, vips) = look_up("web", A)?;
        get((vips[0], 80).into(), "/")
    });
    assert!(itself.is_ok(), "itself by its virtual address: {itself:?}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn requests_and_look_ups_go_on_while_daemons_restart() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 4);
    let client = swarm.running(0, "s_client", 1).remove(0);
    let home = (0..3).find(|index| swarm.node_id(0, *index) == client.node).unwrap();
    let targets: Vec<SocketAddr> = (0..3).map(|host| at(&swarm, host, 8080)).collect();
    for target in targets.clone() {
        eventually("each node to answer", PATIENCE, || {
            from_beside(&swarm, move || get(target, "/")).map(drop).map_err(|error| error.to_string())
        });
    }
    let load = Load::start(&swarm.switch_netns(), &targets);
    let stop = Arc::new(AtomicBool::new(false));
    let netns = swarm.hosts[home].data_dir().join(format!("network/{}.netns", client.id));
    let asking = within(&swarm.hosts[home].seen_from_outside(&netns), {
        let stop = Arc::clone(&stop);
        move || {
            let (mut asked, mut failed) = (0u64, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                asked += 1;
                match look_up("web", A) {
                    Ok((0, found)) if found.len() == 1 => {}
                    other => failed.push(format!("{other:?}")),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            (asked, failed)
        }
    });
    load.goes_on(100);
    swarm.host(home).kill_daemon();
    load.goes_on(200);
    swarm.host(home).start_daemon(&[]);
    load.goes_on(200);
    swarm.host(home).stop_daemon();
    load.goes_on(200);
    swarm.host(home).start_daemon(&[]);
    swarm.nodes_are(home, 3, "ready");
    load.goes_on(200);
    stop.store(true, Ordering::Relaxed);
    let (asked, unanswered) = asking.join().unwrap();
    let (answered, failed) = load.end();
    assert!(failed.is_empty(), "{} of {answered} requests failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    assert!(unanswered.is_empty(), "{} of {asked} look-ups failed: {:?}", unanswered.len(), unanswered.first());
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_network_comes_and_goes_by_command_and_leaves_nothing() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.hosts[0].ok(&["network", "create", "--driver", "overlay", "--subnet", "10.77.0.0/24", "--attachable", "lan"]);
    let overlapping =
        swarm.hosts[1].refused(&["network", "create", "--driver", "overlay", "--subnet", "10.77.0.0/16", "wide"]);
    assert!(overlapping.contains("lan"), "names what it overlaps: {overlapping}");
    let malformed =
        swarm.hosts[1].refused(&["network", "create", "--driver", "overlay", "--subnet", "10.77.0.300/24", "bad"]);
    assert!(malformed.contains("10.77.0.300"), "{malformed}");
    swarm.hosts[0].ok(&[
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--network",
        "lan",
        "--replicas",
        "2",
        "flok/whoami:latest",
    ]);
    let tasks = swarm.running(0, "web", 2);
    for task in &tasks {
        assert!(swarm.addresses(0, &task.id).iter().any(|address| address.to_string().starts_with("10.77.0.")));
    }
    let in_use = swarm.hosts[1].refused(&["network", "rm", "lan"]);
    assert!(in_use.contains("in use"), "{in_use}");
    swarm.hosts[0].ok(&["service", "rm", "web"]);
    eventually("the network to be free", PATIENCE, || {
        let output = swarm.hosts[1].flok(&["network", "rm", "lan"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    for host in &swarm.hosts {
        eventually("nothing of it to be left", PATIENCE, || {
            let output = host.command("sh").args(["-c", "ip route show table all; nft list ruleset"]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let left: Vec<&str> = text.lines().filter(|line| line.contains("10.77.0.")).collect();
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        });
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn the_doctor_names_what_is_between_two_tasks() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.voters_are(0, 3);
    swarm.deploy(0, "n", TWO_NETWORKS);
    let (left, right) = (swarm.running(0, "n_left", 3), swarm.running(0, "n_right", 3));
    let of = |tasks: &[Task], host: usize| {
        let node = swarm.node_id(0, host);
        tasks.iter().find(|task| task.node == node).unwrap().clone()
    };
    let (here, there) = (of(&left, 0), of(&left, 1));
    eventually("each half of the way to be well", PATIENCE, || {
        let output = swarm.hosts[2].flok(&["network", "doctor", &here.id, &there.container]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && text.matches("echo").count() == 2 { Ok(()) } else { Err(text) }
    });
    for host in &swarm.hosts {
        eventually("each node to be well", PATIENCE, || {
            let output = host.flok(&["network", "doctor"]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && text.contains("2 of 2 asked answer") { Ok(()) } else { Err(text) }
        });
    }
    // Those that share no network.
    let apart = swarm.hosts[0].flok(&["network", "doctor", &here.id, &of(&right, 1).id]);
    let text = String::from_utf8_lossy(&apart.stdout).into_owned();
    assert_eq!(apart.status.code(), Some(1), "{text}");
    assert!(text.contains("they share none") && text.contains("n_a") && text.contains("n_b"), "{text}");
    let none = swarm.hosts[0].refused(&["network", "doctor", &here.id, "nobody.1"]);
    assert!(none.contains("nobody.1"), "{none}");
    // A host that is cut off.
    swarm.hosts[1].cut();
    let cut = swarm.hosts[0].flok(&["network", "doctor", &here.id, &there.id]);
    let text = String::from_utf8_lossy(&cut.stdout).into_owned();
    assert_eq!(cut.status.code(), Some(1), "{text}");
    let broken = |what: &str| text.lines().any(|line| line.contains(what) && line.contains("broken"));
    assert!(broken("echo") && broken("node"), "{text}");
}
