//! Tasks that vanish: what becomes of connections to them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use super::client::{A, at, connect, home, look_up, netns_of, request, said, within, works};
use super::lab::eventually;
use super::network_life::WEB;
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
