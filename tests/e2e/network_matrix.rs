//! Who reaches whom, and who must not: one table, by IPv4 and by IPv6.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::client::{netns_of, within};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

const STACK: &str = "
services:
  alpha:
    image: flok/whoami:latest
    networks: [a]
    deploy: { mode: global }
  beta:
    image: flok/whoami:latest
    networks: [b]
    deploy: { mode: global }
  vault:
    image: flok/whoami:latest
    networks: [closed]
    deploy: { mode: global }
  web:
    image: flok/whoami:latest
    networks: [b]
    ports: ['8080:80']
    deploy: { placement: { constraints: [ node.hostname == n2 ] } }
networks:
  a: { enable_ipv6: true }
  b: { enable_ipv6: true }
  closed: { enable_ipv6: true, internal: true }
";

/// By row who asks: a task on n1, the node itself, a machine beside the nodes. By column who is asked: a task on n1 or n2, a
/// service's virtual address, a published port, a process of a node's own, a machine outside. `6`: by IPv6 alone, by which the
/// nodes do not know each other.
const MATRIX: &str = "
          alpha@n1 alpha@n2 beta@n1 beta@n2 vault@n1 vault@n2 alpha-vip beta-vip vault-vip port@n1 port@n2 host@n1 host@n2 outside
alpha     -        yes      no      no      no       no       yes       no       no        yes     yes     6       6       yes
beta      no       no       -       yes     no       no       no        yes      no        yes     yes     6       6       yes
vault     no       no       no      no      -        yes      no        no       yes       no      no      no      no      no
node      -        no       -       no      -        no       no        no       no        yes     yes     yes     yes     yes
machine   no       no       no      no      no       no       no        no       no        yes     yes     yes     yes     yes
";

/// Where processes of the nodes' own and outside listen.
const PORT: u16 = 7000;
/// For one that is not to be reached: it has been seen by then that others are.
const SOON: Duration = Duration::from_millis(1500);

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn all_reach_whom_they_should_and_nobody_else() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "s", STACK);
    let tasks: BTreeMap<&str, Vec<Task>> =
        ["alpha", "beta", "vault"].map(|name| (name, swarm.running(0, &format!("s_{name}"), 2))).into();
    swarm.running(0, "s_web", 1);
    let on = |name: &str, host: usize| {
        let node = swarm.node_id(0, host);
        tasks[name].iter().find(|task| task.node == node).unwrap()
    };
    let nodes = [swarm.hosts[0].netns(), swarm.hosts[1].netns(), swarm.switch_netns()];
    let listen = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
    let _listening = nodes.clone().map(|netns| within(&netns, listen).join().unwrap());
    // A machine that tries the nodes as routers to the tasks.
    for name in tasks.keys() {
        for address in swarm.addresses(0, &on(name, 1).id) {
            let router = if address.is_ipv6() { swarm.hosts[1].addr6() } else { swarm.hosts[1].addr() };
            let route = ["route", "add", &address.to_string(), "via", &router];
            assert!(swarm.beside("ip").args(route).status().unwrap().success());
        }
    }
    let from = |who: &str| match who {
        "node" => nodes[0].clone(),
        "machine" => nodes[2].clone(),
        task => netns_of(&swarm, on(task, 0)),
    };
    let to = |whom: &str| -> Vec<SocketAddr> {
        let at = |host: usize, port: u16| {
            [swarm.hosts[host].addr(), swarm.hosts[host].addr6()]
                .map(|text| SocketAddr::new(text.parse().unwrap(), port))
                .to_vec()
        };
        match whom.split_once('@') {
            Some(("port", node)) => at(usize::from(node == "n2"), 8080),
            Some(("host", node)) => at(usize::from(node == "n2"), PORT),
            Some((name, node)) => {
                let task = on(name, usize::from(node == "n2"));
                swarm.addresses(0, &task.id).into_iter().map(|address| (address, 80).into()).collect()
            }
            None if whom == "outside" => {
                ["10.99.0.254", "fd99::254"].map(|text| (text.parse::<IpAddr>().unwrap(), PORT).into()).to_vec()
            }
            None => vips(&swarm, whom.strip_suffix("-vip").unwrap()),
        }
    };
    let mut lines = MATRIX.trim_matches('\n').lines();
    let columns: Vec<(&str, Vec<SocketAddr>)> =
        lines.next().unwrap().split_whitespace().map(|whom| (whom, to(whom))).collect();
    assert!(columns.iter().all(|(_, addresses)| addresses.len() == 2), "both families: {columns:?}");
    let rows: Vec<(&str, PathBuf, Vec<&str>)> = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let who = words.next().unwrap();
            (who, from(who), words.collect())
        })
        .collect();
    for wanted in ["yes", "no"] {
        for (who, netns, cells) in &rows {
            assert_eq!(cells.len(), columns.len(), "{who}");
            let is_asked = |cell: &str, to: &SocketAddr| match cell {
                "6" => to.is_ipv6() == (wanted == "yes"),
                cell => cell == wanted,
            };
            let of_column = |(cell, (whom, addresses)): (&&str, &(&'static str, Vec<SocketAddr>))| {
                let asked = addresses.iter().filter(|address| is_asked(cell, address));
                asked.map(|address| (*whom, *address)).collect::<Vec<_>>()
            };
            let asked: Vec<(&str, SocketAddr)> = cells.iter().zip(&columns).flat_map(of_column).collect();
            let reached = || -> Vec<(&str, SocketAddr)> {
                let tries = asked.iter().map(|(_, address)| {
                    let address = *address;
                    within(netns, move || TcpStream::connect_timeout(&address, SOON).is_ok())
                });
                let tries: Vec<_> = tries.collect();
                let tries = tries.into_iter().map(|thread| thread.join().unwrap());
                asked.iter().zip(tries).filter(|(_, reached)| *reached).map(|(asked, _)| *asked).collect()
            };
            if wanted == "yes" {
                eventually(&format!("{who} to reach all it should"), PATIENCE, || {
                    let reached = reached();
                    let missing: Vec<_> = asked.iter().filter(|asked| !reached.contains(asked)).collect();
                    if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
                });
            } else {
                assert_eq!(reached(), [], "{who} reaches whom it must not");
            }
        }
    }
}

/// A service's addresses, but for the one on the network that carries published ports.
fn vips(swarm: &Swarm, service: &str) -> Vec<SocketAddr> {
    let service = swarm.hosts[0].get(&format!("/services/s_{service}")).unwrap();
    let all = service["Endpoint"]["VirtualIPs"].as_array().unwrap().iter();
    let texts = all.map(|vip| vip["Addr"].as_str().unwrap().split('/').next().unwrap().to_owned());
    texts.map(|text| (text.parse::<IpAddr>().unwrap(), 80).into()).collect()
}
