//! Who reaches whom, and who must not: one table, by IPv4 and by IPv6.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::client::{netns_of, within};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};

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

/// By row who asks: a task on a host, the host's node itself, a machine beside the nodes. By column who is asked: a task
/// on that host or on another, a service's virtual address, a published port, a process of a node's own, a machine outside.
/// `6`: by IPv6 alone, by which the nodes do not know each other.
const MATRIX: &str = "
          alpha@here alpha@there beta@here beta@there vault@here vault@there alpha-vip beta-vip vault-vip port@here port@there host@here host@there outside
alpha     -          yes         no        no         no         no          yes       no       no        yes       yes        6         6          yes
beta      no         no          -         yes        no         no          no        yes      no        yes       yes        6         6          yes
vault     no         no          no        no         -          yes         no        no       yes       no        no         no        no         no
node      -          no          -         no         -          no          no        no       no        yes       yes        yes       yes        yes
machine   no         no          no        no         no         no          no        no       no        yes       yes        yes       yes        yes
";

/// Where processes of the nodes' own and outside listen.
const PORT: u16 = 7000;
/// For one that is not to be reached: it has been seen by then that others are.
const SOON: Duration = Duration::from_millis(1500);

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn all_reach_whom_they_should_and_nobody_else() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    holds(&swarm, &[0]);
}

/// A task of the table, with its addresses of both families.
struct Place {
    netns: PathBuf,
    addresses: Vec<IpAddr>,
}

/// A cell of the table, by one address.
struct Try {
    who: String,
    whom: &'static str,
    netns: PathBuf,
    to: SocketAddr,
    wanted: bool,
}

/// That the table holds, asked on each of these hosts. Leaves its stack and routes where they are.
pub fn holds(swarm: &Swarm, asking: &[usize]) {
    swarm.deploy(0, "s", STACK);
    let hosts = 0..swarm.hosts.len();
    let nodes: Vec<String> = hosts.clone().map(|host| swarm.node_id(0, host)).collect();
    let places = ["alpha", "beta", "vault"].map(|name| {
        let tasks = swarm.running(0, &format!("s_{name}"), nodes.len());
        let on = |node: &String| {
            let task = tasks.iter().find(|task| task.node == *node).unwrap();
            Place { netns: netns_of(swarm, task), addresses: swarm.addresses(0, &task.id) }
        };
        (name, nodes.iter().map(on).collect::<Vec<Place>>())
    });
    let places = BTreeMap::from(places);
    swarm.running(0, "s_web", 1);
    for netns in swarm.hosts.iter().map(Host::netns).chain([swarm.switch_netns()]) {
        let listener = within(&netns, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap()).join().unwrap();
        // Until the test's process ends: a queue of those that nobody takes would be full soon.
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    // A machine that tries the nodes as routers to the tasks.
    for (host, place) in places.values().flat_map(|of_service| swarm.hosts.iter().zip(of_service)) {
        for address in &place.addresses {
            let router = if address.is_ipv6() { host.addr6() } else { host.addr() };
            let route = ["route", "replace", &address.to_string(), "via", &router];
            assert!(swarm.beside("ip").args(route).status().unwrap().success());
        }
    }
    let tries: Vec<Try> = asking.iter().flat_map(|here| tries(swarm, &places, *here)).collect();
    let (mut missing, unwanted): (Vec<&Try>, Vec<&Try>) = tries.iter().partition(|one| one.wanted);
    eventually("all to reach whom they should", PATIENCE, || {
        let reached = reached(&missing);
        missing = missing.iter().copied().zip(reached).filter_map(|(one, reached)| (!reached).then_some(one)).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing.iter().copied().map(told).collect::<Vec<_>>().join(", ")) }
    });
    let reached = reached(&unwanted);
    let breaches = unwanted.iter().zip(reached).filter(|(_, reached)| *reached).map(|(one, _)| told(one));
    let breaches: Vec<String> = breaches.collect();
    assert!(breaches.is_empty(), "these reach whom they must not: {}", breaches.join(", "));
}

fn told(one: &Try) -> String {
    format!("{} to {} at {}", one.who, one.whom, one.to)
}

/// All at once: who is dropped waits.
fn reached(tries: &[&Try]) -> Vec<bool> {
    let threads: Vec<_> = tries
        .iter()
        .map(|one| {
            let to = one.to;
            within(&one.netns, move || TcpStream::connect_timeout(&to, SOON).is_ok())
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// The cells of the table as they are where `here` asks.
fn tries(swarm: &Swarm, places: &BTreeMap<&str, Vec<Place>>, here: usize) -> Vec<Try> {
    let mut lines = MATRIX.trim_matches('\n').lines();
    let whom: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let columns: Vec<Vec<SocketAddr>> = whom.iter().map(|whom| column(swarm, places, here, whom)).collect();
    let mut tries = Vec::new();
    for line in lines {
        let (who, cells) = line.split_once(' ').unwrap();
        let netns = match who {
            "node" => swarm.hosts[here].netns(),
            "machine" => swarm.switch_netns(),
            task => places[task][here].netns.clone(),
        };
        let cells: Vec<&str> = cells.split_whitespace().collect();
        assert_eq!(cells.len(), columns.len(), "{who}");
        for ((cell, whom), to) in
            cells.iter().zip(whom.iter().copied()).zip(&columns).filter(|((cell, _), _)| **cell != "-")
        {
            tries.extend(to.iter().map(|to| Try {
                who: format!("{who} of n{}", here + 1),
                whom,
                netns: netns.clone(),
                to: *to,
                wanted: *cell == "yes" || (*cell == "6" && to.is_ipv6()),
            }));
        }
    }
    tries
}

/// Where one of these is, by both families: on `here`, on each other host, or in one place.
fn column(swarm: &Swarm, places: &BTreeMap<&str, Vec<Place>>, here: usize, whom: &str) -> Vec<SocketAddr> {
    let at = |host: usize, port: u16| {
        let addresses = [swarm.hosts[host].addr(), swarm.hosts[host].addr6()];
        addresses.map(|text| SocketAddr::new(text.parse().unwrap(), port)).to_vec()
    };
    let of = |name: &str, host: usize| match name {
        "port" => at(host, 8080),
        "host" => at(host, PORT),
        task => places[task][host].addresses.iter().map(|address| (*address, 80).into()).collect(),
    };
    let found: Vec<SocketAddr> = match whom.split_once('@') {
        Some((name, "here")) => of(name, here),
        Some((name, _)) => {
            (0..swarm.hosts.len()).filter(|host| *host != here).flat_map(|host| of(name, host)).collect()
        }
        None if whom == "outside" => {
            ["10.99.0.254", "fd99::254"].map(|text| (text.parse::<IpAddr>().unwrap(), PORT).into()).to_vec()
        }
        None => vips(swarm, whom.strip_suffix("-vip").unwrap()),
    };
    let of_ipv6 = found.iter().filter(|to| to.is_ipv6()).count();
    assert!(of_ipv6 > 0 && found.len() == 2 * of_ipv6, "both families: {found:?}");
    found
}

/// A service's addresses, but for the one on the network that carries published ports.
fn vips(swarm: &Swarm, service: &str) -> Vec<SocketAddr> {
    let service = swarm.hosts[0].get(&format!("/services/s_{service}")).unwrap();
    let all = service["Endpoint"]["VirtualIPs"].as_array().unwrap().iter();
    let texts = all.map(|vip| vip["Addr"].as_str().unwrap().split('/').next().unwrap().to_owned());
    texts.map(|text| (text.parse::<IpAddr>().unwrap(), 80).into()).collect()
}
