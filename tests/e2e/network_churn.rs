//! Tasks that vanish and tasks that come and go: what becomes of connections to them, and that nothing of them is left.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use super::client::{A, at, connect, home, look_up, netns_of, request, said, within, works};
use super::lab::{Host, eventually};
use super::network_life::{WEB, held, is_empty_again, known_to_each_other};
use super::swarm::{PATIENCE, Swarm, Task};

/// One that tells soon what became of it: nothing was heard only where it would go on hanging.
fn is_over(stream: &mut TcpStream) -> Result<(), String> {
    let hangs = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    for _ in 0..2 {
        match stream.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if !hangs(&error) => {}
            other => return Err(format!("{other:?}")),
        }
        // The server's end may be all that was said so far: what is sent now is refused.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_connection_to_a_task_that_vanished_is_reset_and_its_address_refuses() {
    let mut swarm = Swarm::of(3);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", &WEB.replace("replicas: 3", "mode: global"));
    let web = swarm.running(0, "s_web", 3);
    let clients = swarm.running(0, "s_client", 3);
    let leader = swarm.leader(0);
    let (killed, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    let on = |tasks: &[Task], host: usize| tasks.iter().find(|task| home(&swarm, task) == host).unwrap().clone();
    // From each host that stays, to the one whose process is killed, and the one whose host dies.
    let mut open: Vec<(String, usize, TcpStream)> = Vec::new();
    for victim in [killed, dead] {
        let task = on(&web, victim);
        let hostname = task.container[..12].to_owned();
        for from in (0..3).filter(|from| *from != dead) {
            let netns = netns_of(&swarm, &on(&clients, from));
            let vip = works("the name", || match within(&netns, || look_up("web", A)).join().unwrap()? {
                (0, found) if found.len() == 1 => Ok(found[0]),
                other => Err(std::io::Error::other(format!("{other:?}"))),
            });
            let own = swarm.addresses(0, &task.id).into_iter().map(|address| SocketAddr::new(address, 80));
            let mut ways: Vec<(String, &Path, SocketAddr)> = Vec::new();
            ways.extend(own.map(|to| (format!("n{} to {to}", from + 1), netns.as_path(), to)));
            ways.push((format!("n{} by its virtual address", from + 1), &netns, (vip, 80).into()));
            let outside = swarm.switch_netns();
            ways.push((format!("n{}'s port", from + 1), &outside, at(&swarm, from, 8080)));
            for (way, netns, to) in ways {
                open.push((way.clone(), victim, opened(netns, to, &hostname)));
            }
        }
    }
    let gone = on(&web, killed);
    let addresses = swarm.addresses(0, &gone.id);
    swarm.hosts[killed].kill_container(&gone.container);
    over(&mut open, killed);
    let asking = netns_of(&swarm, &on(&clients, leader));
    swarm.task_that(leader, "s_web", "has failed", |task| task.id == gone.id && task.state == "failed");
    refuse(&asking, &addresses);

    let gone = on(&web, dead);
    let addresses = swarm.addresses(0, &gone.id);
    swarm.host(dead).die();
    swarm.nodes_are(leader, 1, "down");
    over(&mut open, dead);
    refuse(&asking, &addresses);
}

/// A connection to the task of this hostname.
fn opened(from: &Path, to: SocketAddr, hostname: &str) -> TcpStream {
    works(&format!("{to} to lead to {hostname}"), || {
        let opened = within(from, move || {
            let mut stream = connect(to)?;
            let answer = request(&mut stream, "/")?;
            Ok::<_, std::io::Error>((stream, answer))
        });
        let (stream, answer) = opened.join().unwrap()?;
        if said(&answer, "Hostname") == hostname { Ok(stream) } else { Err(std::io::Error::other(answer)) }
    })
}

/// Each of those to the victim. What was sent before the others knew is sent again by TCP, and refused then.
fn over(open: &mut Vec<(String, usize, TcpStream)>, victim: usize) {
    for (way, _, stream) in open.iter_mut().filter(|(_, to, _)| *to == victim) {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        is_over(stream).unwrap_or_else(|error| panic!("{way}: {error}"));
    }
    open.retain(|(_, to, _)| *to != victim);
}

fn refuse(from: &Path, addresses: &[IpAddr]) {
    for address in addresses {
        let to = SocketAddr::new(*address, 80);
        eventually(&format!("{to} to refuse"), PATIENCE, || match within(from, move || connect(to)).join().unwrap() {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_daemon_that_is_killed_while_tasks_come_and_go_leaves_none_over_and_none_out() {
    let mut swarm = Swarm::of(3);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    swarm.voters_are(0, 3);
    let empty = known_to_each_other(&swarm);
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 3);
    swarm.running(0, "s_client", 3);
    let victim = (swarm.leader(0) + 1) % 3;
    let via = (victim + 1) % 3;
    let all = |swarm: &Swarm| swarm.hosts.iter().map(files).collect::<Vec<_>>();
    // Killed in the midst of it, each time: as soon as a first task has come or gone.
    for (count, then) in [(12, 2), (9, 12), (1, 8), (11, 3), (2, 10)] {
        let before = all(&swarm);
        swarm.hosts[via].ok(&["service", "scale", "--detach", &format!("s_web={count}")]);
        eventually(
            "a task to come or go",
            PATIENCE,
            || if all(&swarm) == before { Err(String::new()) } else { Ok(()) },
        );
        swarm.host(victim).kill_daemon();
        swarm.hosts[via].ok(&["service", "scale", "--detach", &format!("s_web={then}")]);
        swarm.host(victim).start_daemon(&[]);
        swarm.nodes_are(via, 3, "ready");
    }
    swarm.hosts[via].ok(&["service", "scale", "--detach", "s_web=7"]);
    let mut tasks = swarm.running(via, "s_web", 7);
    tasks.extend(swarm.running(via, "s_client", 3));
    let all: BTreeSet<String> = tasks.iter().flat_map(|task| every_address(&swarm, via, task)).collect();
    for (index, host) in swarm.hosts.iter().enumerate() {
        let node = swarm.node_id(via, index);
        let own: BTreeSet<String> = tasks.iter().filter(|task| task.node == node).map(|task| task.id.clone()).collect();
        eventually(&format!("n{} to have what its tasks need, and no more", index + 1), PATIENCE, || {
            let (files, links) = (files(host), count_links(host));
            if files != own || links != own.len() {
                return Err(format!("{links} interfaces, {files:?}, not {own:?}"));
            }
            let known = endpoints(host);
            let different: Vec<_> = known.symmetric_difference(&all).collect();
            if !different.is_empty() {
                return Err(format!("{different:?}"));
            }
            let output = host.flok(&["network", "doctor"]);
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
        });
    }
    swarm.hosts[via].ok(&["stack", "rm", "s"]);
    is_empty_again(&swarm, &empty);
    for host in &swarm.hosts {
        assert_eq!(host.containers(), Vec::<String>::new(), "n{}", host.index);
        assert!(held(host).len() > 3);
    }
}

/// The tasks that have a namespace on a host.
fn files(host: &Host) -> BTreeSet<String> {
    let entries = std::fs::read_dir(host.data_dir().join("network")).unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".netns").map(str::to_owned)).collect()
}

fn count_links(host: &Host) -> usize {
    let output = host.command("ip").args(["-o", "link"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(": fk")).count()
}

/// Of a task, on the network that carries published ports too.
fn every_address(swarm: &Swarm, via: usize, task: &Task) -> Vec<String> {
    let task = swarm.hosts[via].get(&format!("/tasks/{}", task.id)).unwrap();
    let networks = task["NetworksAttachments"].as_array().unwrap().iter();
    let texts = networks.flat_map(|attachment| attachment["Addresses"].as_array().unwrap());
    texts.map(|text| text.as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

/// The tasks' addresses that a host's kernel knows: each has a route and is no stranger.
fn endpoints(host: &Host) -> BTreeSet<String> {
    let script = "for set in endpoints4 endpoints6; do nft list set inet flok $set | tr ',{}' '\\n\\n\\n'; done
        ip route show proto 102; ip -6 route show proto 102";
    let output = host.command("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().filter_map(|line| line.split_whitespace().next()?.parse::<IpAddr>().ok());
    let local = |address: &IpAddr| match address {
        IpAddr::V4(four) => four.octets()[..2] == [198, 19],
        IpAddr::V6(six) => six.segments()[..2] == [0xfd66, 0x6c6f],
    };
    first.filter(|address| !local(address)).map(|address| address.to_string()).collect()
}
