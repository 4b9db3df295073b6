//! What goes on while daemons are away: connections, names, balance and published ports.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use super::client::{A, at, connect, get, home, look_up, netns_of, request, said, within, works};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

const STACK: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    deploy: { mode: global, placement: { constraints: [ node.role == worker ] }, restart_policy: { delay: 0s } }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    deploy: { placement: { constraints: [ node.hostname == n2 ] } }
";

/// A connection that was made once, and what its server said of it.
struct Open {
    way: String,
    stream: TcpStream,
    answer: String,
}

impl Open {
    /// Through `to` to the task of this hostname, which is one of those there.
    fn by(way: String, from: &Path, to: SocketAddr, hostname: &str) -> Open {
        let (stream, answer) = works(&format!("{way} to {hostname}"), || {
            let opened = within(from, move || {
                let mut stream = connect(to)?;
                let answer = request(&mut stream, "/")?;
                Ok::<_, std::io::Error>((stream, answer))
            });
            let (stream, answer) = opened.join().unwrap()?;
            if said(&answer, "Hostname") == hostname {
                Ok((stream, answer))
            } else {
                Err(std::io::Error::other(answer))
            }
        });
        Open { way, stream, answer }
    }

    /// Both ends are the ones they were.
    fn goes_on(&mut self, when: &str) {
        let answer = request(&mut self.stream, "/").unwrap_or_else(|error| panic!("{} {when}: {error}", self.way));
        assert_eq!(answer, self.answer, "{} {when}", self.way);
    }
}

/// The ways to the tasks of the web, by each of which each of them is reached.
struct Ways {
    list: Vec<(String, PathBuf, SocketAddr)>,
    client: PathBuf,
    tasks: Vec<IpAddr>,
}

impl Ways {
    /// Waits until names and balance are of these tasks, with these hostnames.
    fn come_to_lead_to(&self, hostnames: &[String], when: &str) {
        eventually(&format!("the names, {when}"), PATIENCE, || match self.found() {
            found if found == self.tasks => Ok(()),
            found => Err(format!("{found:?}, not {:?}", self.tasks)),
        });
        self.lead_to(hostnames, when);
    }

    /// Names and balance are as they were, for new connections.
    fn lead_to(&self, hostnames: &[String], when: &str) {
        assert_eq!(self.found(), self.tasks, "{when}");
        for (way, from, to) in &self.list {
            eventually(&format!("{way} to lead to each task, {when}"), PATIENCE, || {
                let to = *to;
                let answers = within(from, move || (0..30).map(|_| get(to, "/")).collect::<std::io::Result<Vec<_>>>());
                let answers = answers.join().unwrap().map_err(|error| error.to_string())?;
                let mut by: Vec<String> = answers.iter().map(|answer| said(answer, "Hostname")).collect();
                by.sort();
                by.dedup();
                if by == hostnames { Ok(()) } else { Err(format!("{by:?}, not {hostnames:?}")) }
            });
        }
    }

    fn found(&self) -> Vec<IpAddr> {
        let (code, mut addresses) = within(&self.client, || look_up("tasks.web", A)).join().unwrap().unwrap();
        assert_eq!(code, 0);
        addresses.sort();
        addresses
    }
}

/// Hostnames are the beginnings of containers' ids.
fn hostname(task: &Task) -> String {
    task.container[..12].to_owned()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn connections_outlive_daemons_and_all_goes_on_from_the_last_known_state_with_no_manager() {
    let mut swarm = Swarm::of(1);
    for _ in 0..2 {
        let worker = swarm.add_host();
        swarm.host(worker).start_daemon(&[]);
        swarm.join(worker, "worker");
    }
    swarm.nodes_are(0, 3, "ready");
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    swarm.deploy(0, "s", STACK);
    let mut web = swarm.running(0, "s_web", 2);
    web.sort_by_key(|task| home(&swarm, task));
    let client = netns_of(&swarm, &swarm.running(0, "s_client", 1)[0]);
    let vip = works("the name", || match within(&client, || look_up("web", A)).join().unwrap()? {
        (0, found) if found.len() == 1 => Ok(found[0]),
        other => Err(std::io::Error::other(format!("{other:?}"))),
    });
    let mut list = vec![("the virtual address".to_owned(), client.clone(), SocketAddr::new(vip, 80))];
    list.extend((0..3).map(|host| (format!("n{}", host + 1), swarm.switch_netns(), at(&swarm, host, 8080))));
    let mut tasks: Vec<IpAddr> = web.iter().flat_map(|task| swarm.addresses(0, &task.id)).collect();
    tasks.sort();
    let mut ways = Ways { list, client, tasks };
    let first_address = swarm.addresses(0, &web[0].id)[0];
    let mut hostnames: Vec<String> = web.iter().map(hostname).collect();
    hostnames.sort();
    ways.come_to_lead_to(&hostnames, "with all there");

    // By every way to the task on n3, which is another host's for all but one.
    let server = hostname(&web[1]);
    let mut open: Vec<Open> =
        ways.list.iter().map(|(way, from, to)| Open::by(way.clone(), from, *to, &server)).collect();
    let go_on = |open: &mut [Open], when: &str| open.iter_mut().for_each(|open| open.goes_on(when));
    for (host, role) in [(2, "the server's"), (1, "the client's"), (0, "the leader's")] {
        swarm.host(host).kill_daemon();
        go_on(&mut open, &format!("without {role} daemon"));
        swarm.host(host).start_daemon(&[]);
        go_on(&mut open, &format!("with {role} daemon back"));
        swarm.nodes_are(0, 3, "ready");
        go_on(&mut open, &format!("with {role} node back"));
    }
    swarm.running(0, "s_web", 2);
    ways.come_to_lead_to(&hostnames, "with all back");

    // The only manager, and the network to it.
    swarm.host(0).stop_daemon();
    swarm.hosts[0].cut();
    let by_n1 = ways.list.iter().position(|(way, ..)| way == "n1").unwrap();
    let way_by_n1 = ways.list.remove(by_n1);
    open.remove(by_n1);
    ways.lead_to(&hostnames, "without a manager");
    go_on(&mut open, "without a manager");
    // A task that fails is run again where it was, and is found again.
    let running = swarm.hosts[1].running_processes();
    swarm.hosts[1].kill_container(&web[0].container);
    eventually("the task to run again", PATIENCE, || match swarm.hosts[1].running_processes() {
        now if now.len() == running.len() && now != running => Ok(()),
        now => Err(format!("{now:?}, before {running:?}")),
    });
    let to: SocketAddr = (first_address, 80).into();
    let again = works("the task to answer again", || within(&ways.client, move || get(to, "/")).join().unwrap());
    hostnames = [said(&again, "Hostname"), server.clone()].to_vec();
    hostnames.sort();
    ways.lead_to(&hostnames, "without a manager, a task restarted");
    for worker in [2, 1] {
        swarm.host(worker).kill_daemon();
        ways.lead_to(&hostnames, "without a manager and a worker's daemon");
        swarm.host(worker).start_daemon(&[]);
        ways.lead_to(&hostnames, "without a manager, a worker's daemon back");
        go_on(&mut open, "without a manager, a worker's daemon back");
    }
    swarm.hosts[0].heal();
    swarm.host(0).start_daemon(&[]);
    swarm.nodes_are(0, 3, "ready");
    let mut now = swarm.running(0, "s_web", 2);
    now.sort_by_key(|task| home(&swarm, task));
    ways.tasks = now.iter().flat_map(|task| swarm.addresses(0, &task.id)).collect();
    ways.tasks.sort();
    ways.list.push(way_by_n1);
    let mut hostnames: Vec<String> = now.iter().map(hostname).collect();
    hostnames.sort();
    ways.come_to_lead_to(&hostnames, "with the manager back");
}
