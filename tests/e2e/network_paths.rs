//! The ways into and through the swarm's networks: IPv6, datagrams, several ingress nodes, hosts behind a router.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};

use super::client::{A, AAAA, WITHIN, ask, at, from_beside, get, home, in_task, look_up, request, said, within, works};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};
use super::{network, network_load, network_matrix};

const SIX: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    networks: [six]
    deploy: { replicas: 3 }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    networks: [six]
    deploy: { mode: global }
networks:
  six: { enable_ipv6: true }
";

const EVERYWHERE: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    deploy: { mode: global }
";

const ONE: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
";

const DATAGRAMS: &str = "
services:
  web:
    image: flok/whoami:latest
    deploy: { replicas: 2 }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
";

/// Waits until a task finds so many addresses of a name.
fn found(swarm: &Swarm, task: &Task, name: &'static str, kind: u16, count: usize) -> Vec<IpAddr> {
    eventually(&format!("{count} addresses of {name}"), PATIENCE, || {
        match in_task(swarm, task, move || look_up(name, kind)) {
            Ok((0, found)) if found.len() == count => Ok(found),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_network_with_ipv6_has_names_and_balance_by_it_and_ports_answer_by_it() {
    let swarm = Swarm::of(3);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    ipv6_works(&swarm);
}

/// That a service is found and reached by IPv6 from every node, and by every node's port.
pub fn ipv6_works(swarm: &Swarm) {
    swarm.deploy(0, "s", SIX);
    let web = swarm.running(0, "s_web", 3);
    let clients = swarm.running(0, "s_client", swarm.hosts.len());
    let own: BTreeSet<IpAddr> =
        web.iter().flat_map(|task| swarm.addresses(0, &task.id)).filter(IpAddr::is_ipv6).collect();
    assert_eq!(own.len(), 3, "{own:?}");
    for client in &clients {
        let vip = found(swarm, client, "web", AAAA, 1);
        let tasks = found(swarm, client, "tasks.web", AAAA, 3);
        assert_eq!(tasks.iter().copied().collect::<BTreeSet<_>>(), own);
        for address in vip.into_iter().chain(tasks) {
            let answer =
                works(&format!("{address}"), || in_task(swarm, client, move || get((address, 80).into(), "/")));
            let seen: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
            let of_client = swarm.addresses(0, &client.id);
            assert!(of_client.contains(&seen.ip()), "{address} sees {seen}, not one of {of_client:?}");
        }
    }
    for host in &swarm.hosts {
        let to = SocketAddr::new(host.addr6().parse().unwrap(), 8080);
        let answer = works("the port by IPv6", || from_beside(swarm, move || get(to, "/")));
        let seen: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
        assert_eq!(seen.ip(), host.gateway6().parse::<IpAddr>().unwrap(), "by n{}", host.index);
    }
}

/// Which of the tasks answered.
fn answering<'a>(tasks: &'a [Task], answer: &str) -> &'a Task {
    let hostname = said(answer, "Hostname");
    tasks.iter().find(|task| task.container.starts_with(&hostname)).unwrap_or_else(|| panic!("{hostname}: {tasks:?}"))
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn datagrams_are_balanced_and_move_when_their_task_goes() {
    let swarm = Swarm::of(3);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    datagrams_move(&swarm);
}

/// That a flow of datagrams stays at one task, and goes to another when that one is gone.
pub fn datagrams_move(swarm: &Swarm) {
    swarm.deploy(0, "s", DATAGRAMS);
    let web = swarm.running(0, "s_web", 2);
    let client = swarm.running(0, "s_client", 1).remove(0);
    let vip = SocketAddr::new(found(swarm, &client, "web", A, 1)[0], 80);
    // A flow is its two ends: as long as its socket's port is the same, it stays where it is.
    let by_vip = || in_task(swarm, &client, move || ask(&UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7001))?, vip));
    let first = works("the virtual address", by_vip);
    for _ in 0..10 {
        let again = by_vip().unwrap();
        assert_eq!(said(&again, "Hostname"), said(&first, "Hostname"));
    }
    let gone = answering(&web, &first).clone();
    swarm.hosts[home(swarm, &gone)].kill_container(&gone.container);
    let moved = works("the flow to move", by_vip);
    assert_ne!(said(&moved, "Hostname"), said(&first, "Hostname"));
}

/// A connection from a port of the client's choice.
fn connect_from(port: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.connect_timeout(&to.into(), WITHIN)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(WITHIN))?;
    Ok(stream)
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn one_client_port_comes_by_all_nodes_to_the_same_task_at_once() {
    const PORT: u16 = 41_000;
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(0, "s", ONE);
    swarm.running(0, "s_web", 1);
    let targets: Vec<SocketAddr> = (0..3).map(|host| at(&swarm, host, 8080)).collect();
    for target in targets.clone() {
        works("each node", || from_beside(&swarm, move || get(target, "/")));
    }
    let answers = from_beside(&swarm, move || {
        let mut open: Vec<TcpStream> = targets.iter().map(|target| connect_from(PORT, *target).unwrap()).collect();
        // Twice around: the later connections have not taken the earlier ones' place.
        let mut rounds = || open.iter_mut().map(|stream| request(stream, "/").unwrap()).collect::<Vec<_>>();
        (rounds(), rounds())
    });
    assert_eq!(answers.0, answers.1, "each connection is the one it was");
    let ends: BTreeSet<SocketAddr> =
        answers.0.iter().map(|answer| said(answer, "RemoteAddr").parse().unwrap()).collect();
    assert_eq!(ends.len(), 3, "the task tells them apart: {ends:?}");
    assert!(ends.iter().all(|end| end.ip() == Ipv4Addr::new(10, 99, 0, 254)), "{ends:?}");
    assert!(ends.iter().any(|end| end.port() == PORT), "{ends:?}");
}

const PUBLISHED_DATAGRAMS: &str = "
services:
  web:
    image: flok/whoami:latest
    ports:
      - '5300:80/udp'
      - { target: 80, published: 5301, protocol: udp, mode: host }
  alone:
    image: flok/whoami:latest
    ports:
      - { target: 80, published: 5302, protocol: udp, mode: host }
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn datagrams_to_a_published_port_are_answered_by_the_node_and_port_that_was_asked() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    datagrams_are_answered(&swarm);
}

/// That whoever asks a published port of UDP hears from that port. The server is bound to no address, so it answers from
/// whichever its kernel chooses.
pub fn datagrams_are_answered(swarm: &Swarm) {
    swarm.deploy(0, "s", PUBLISHED_DATAGRAMS);
    let web = swarm.running(0, "s_web", 1).remove(0);
    let alone = swarm.running(0, "s_alone", 1).remove(0);
    let mut targets = vec![(home(swarm, &web), false, 5301), (home(swarm, &alone), false, 5302)];
    targets.extend((0..swarm.hosts.len()).flat_map(|host| [(host, false, 5300), (host, true, 5300)]));
    // One client's port by two nodes at once is seen as two: each has its own.
    for (own, (host, ipv6, port)) in (42_000..).zip(targets) {
        let host = &swarm.hosts[host];
        let [any, to, client]: [IpAddr; 3] = match ipv6 {
            true => ["::".to_owned(), host.addr6(), host.gateway6()],
            false => ["0.0.0.0".to_owned(), host.addr(), host.gateway()],
        }
        .map(|text| text.parse().unwrap());
        let to = SocketAddr::new(to, port);
        let answer = works(&format!("{to}"), || from_beside(swarm, move || ask(&UdpSocket::bind((any, own))?, to)));
        let seen: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
        assert_eq!(seen, SocketAddr::new(client, own), "by {to}");
    }
    for host in &swarm.hosts {
        for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let to = SocketAddr::new(loopback, 5300);
            works(&format!("{to} on n{}", host.index), || {
                within(&host.netns(), move || ask(&UdpSocket::bind((loopback, 0))?, to)).join().unwrap()
            });
        }
    }
}

/// The whole proof of the networks, one after another on the same hosts.
#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn five_hosts_on_two_routed_segments_are_one_swarm() {
    let swarm = Swarm::routed(5, 2);
    ["whoami", "busybox", "voting"].iter().for_each(|image| swarm.load(image));
    let proofs: [(&str, &dyn Fn()); 8] = [
        ("all ways", &|| all_meet_all(&swarm)),
        ("source address and hairpin", &|| network::shows_the_client(&swarm)),
        ("IPv6", &|| ipv6_works(&swarm)),
        ("datagrams", &|| datagrams_move(&swarm)),
        ("published datagrams", &|| datagrams_are_answered(&swarm)),
        ("an even spread", &|| network::spreads_evenly(&swarm, 5)),
        // One host of each segment asks, and none that has the published task: by IPv6 it would not reach it through others.
        ("who reaches whom", &|| network_matrix::holds(&swarm, &[0, 3])),
        ("updates under load", &|| network_load::updates_lose_no_request(&swarm, 5, "2s")),
    ];
    for (what, proof) in proofs {
        println!("{what}");
        proof();
        swarm.hosts[0].ok(&["stack", "rm", "s"]);
    }
}

/// Each task reaches each other by its names, and each node's port leads to all of them.
fn all_meet_all(swarm: &Swarm) {
    let hosts = swarm.hosts.len();
    swarm.deploy(0, "s", EVERYWHERE);
    let web = swarm.running(0, "s_web", hosts);
    for from in &web {
        let vip = found(swarm, from, "web", A, 1);
        let tasks = found(swarm, from, "tasks.web", A, hosts);
        for address in vip.into_iter().chain(tasks) {
            works(&format!("{address}"), || in_task(swarm, from, move || get((address, 80).into(), "/")));
        }
    }
    // Enough requests that each node has sent some to tasks on both segments.
    for host in &swarm.hosts {
        let to = at(swarm, host.index - 1, 8080);
        works("each node", || from_beside(swarm, move || get(to, "/")));
        let answers = from_beside(swarm, move || (0..100).map(|_| get(to, "/").unwrap()).collect::<Vec<_>>());
        let names: BTreeSet<String> = answers.iter().map(|answer| said(answer, "Hostname")).collect();
        assert_eq!(names.len(), hosts, "by n{}: {names:?}", host.index);
        for answer in &answers {
            let seen: SocketAddr = said(answer, "RemoteAddr").parse().unwrap();
            assert_eq!(seen.ip().to_string(), host.gateway(), "by n{}", host.index);
        }
    }
}
