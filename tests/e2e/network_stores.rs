//! Sessions of real clients with real stores, by their services' virtual addresses.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::client::{A, home, in_task, look_up, within, works};
use super::lab::{Host, kill_all_of};
use super::swarm::{PATIENCE, Swarm, Task};

const STACK: &str = "
services:
  redis: { image: flok/redis:latest, stop_signal: SIGKILL, deploy: { placement: { constraints: [ node.hostname == n1 ] } } }
  postgres: { image: flok/postgres:latest, deploy: { placement: { constraints: [ node.hostname == n1 ] } } }
  redis-client:
    image: flok/redis:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    deploy: { placement: { constraints: [ node.hostname == n2 ] } }
  postgres-client:
    image: flok/postgres:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    deploy: { placement: { constraints: [ node.hostname == n2 ] } }
";

/// A client's program in a task, which is told line by line.
struct Session {
    program: Child,
    to: ChildStdin,
    from: Receiver<String>,
}

impl Session {
    fn begin(host: &Host, task: &Task, program: &str, arguments: &[&str]) -> Session {
        let mut command = host.in_container(&task.container, program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let (to, output) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
        let (told, from) = channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| told.send(line))
        });
        Session { program, to, from }
    }

    /// One line, and the line that is said to it.
    fn say(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}").unwrap_or_else(|error| panic!("{line}: {error}"));
        self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn end(self) {
        kill_all_of(self.program);
    }
}

/// The connection-tracking entries of a host to an address and port, with their remaining seconds.
fn tracked(host: &Host, to: SocketAddr) -> Vec<(String, u64)> {
    let list = within(&host.netns(), || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap())
        .join()
        .unwrap();
    let lines = list.lines().filter(|line| {
        line.contains(" tcp ")
            && line.contains(&format!("dst={} ", to.ip()))
            && line.contains(&format!("dport={} ", to.port()))
            && line.contains("ESTABLISHED")
    });
    lines.map(|line| (line.to_owned(), line.split_whitespace().nth(4).unwrap().parse().unwrap())).collect()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn sessions_with_stores_outlive_daemons_and_would_be_idle_as_long_as_tcp_allows() {
    // Five days, the kernel's own for connections that are up.
    const NEARLY_FIVE_DAYS: u64 = 5 * 86_400 - 600;
    let mut swarm = Swarm::of(3);
    ["redis", "postgres"].iter().for_each(|image| swarm.load(image));
    swarm.voters_are(0, 3);
    swarm.deploy(0, "s", STACK);
    let task = |service: &str| swarm.running(0, &format!("s_{service}"), 1).remove(0);
    let psql = "/usr/lib/postgresql/15/bin/psql";
    let mut sessions = Vec::new();
    for (service, port, program, arguments) in [
        ("redis", 6379, "redis-cli", ["-h", "redis"].as_slice()),
        ("postgres", 5432, psql, &["-qAt", "-h", "postgres", "-U", "postgres", "-v", "ON_ERROR_STOP=1"]),
    ] {
        let (store, client) = (task(service), task(&format!("{service}-client")));
        let vip = works(service, || {
            in_task(&swarm, &client, move || {
                let (_, vips) = look_up(service, A)?;
                let vip = SocketAddr::new(*vips.first().ok_or(std::io::ErrorKind::NotFound)?, port);
                std::net::TcpStream::connect_timeout(&vip, super::client::WITHIN).map(|_| vip)
            })
        });
        let session = Session::begin(&swarm.hosts[home(&swarm, &client)], &client, program, arguments);
        sessions.push((vip, store, client, session));
    }
    let mut told = |when: &str, number: u32| {
        let [(.., redis), (.., postgres)] = sessions.as_mut_slice() else { unreachable!("there are two") };
        assert_eq!(redis.say(&format!("SET {number} 'redis {number}'")), "OK", "{when}");
        for before in 0..=number {
            assert_eq!(redis.say(&format!("GET {before}")), format!("redis {before}"), "{when}");
        }
        // What belongs to a session ends with its connection.
        if number == 0 {
            assert_eq!(postgres.say("CREATE TEMPORARY TABLE kept (number int); SELECT 'made';"), "made");
        }
        let counted = postgres.say(&format!("INSERT INTO kept VALUES ({number}); SELECT count(*) FROM kept;"));
        assert_eq!(counted, (number + 1).to_string(), "{when}");
    };
    told("at first", 0);
    for (number, (host, role)) in (1..).zip([(0, "the stores'"), (1, "the clients'")]) {
        swarm.host(host).kill_daemon();
        told(&format!("without {role} daemon"), 2 * number - 1);
        swarm.host(host).start_daemon(&[]);
        swarm.nodes_are(host, 3, "ready");
        told(&format!("with {role} daemon back"), 2 * number);
    }
    // From another host, so that each is tracked on two.
    for (vip, store, client, session) in sessions {
        let own = SocketAddr::new(swarm.addresses(0, &store.id)[0], vip.port());
        for (host, to) in [(home(&swarm, &client), vip), (home(&swarm, &store), own)] {
            let found = tracked(&swarm.hosts[host], to);
            assert_eq!(found.len(), 1, "n{}: {found:?}", host + 1);
            assert!(found[0].1 > NEARLY_FIVE_DAYS, "n{}: {found:?}", host + 1);
        }
        session.end();
    }
}
