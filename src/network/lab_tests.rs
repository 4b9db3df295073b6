//! The data plane on the real kernel, across three hosts. Run by `scripts/test.sh` as root.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::lab::*;
use crate::dispatcher::Endpoint;
use crate::spec::*;

const WEB: ServiceId = ServiceId(1);
const OTHER: ServiceId = ServiceId(2);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server of no task's, that tells whom it sees and keeps its connections open.
fn greet(namespace: &Namespace, port: u16, name: &'static str) {
    let listener = namespace.within(move || std::net::TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, peer)) = listener.accept() {
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let _ = stream.write_all(format!("{name} {peer}\n").as_bytes());
            open.push(stream);
        }
    });
}

/// One network with a task of `web` on each host.
fn three_tasks(lab: &mut Lab) -> NetworkId {
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    for at in 0..3 {
        lab.start(1 + at as u128, WEB, at, &[network]);
    }
    network
}

/// Published on port 8080 of TCP, the one task on the second host.
fn published(lab: &mut Lab) -> NetworkId {
    let ingress = lab.network(5, Kind::Ingress);
    lab.service(ingress, WEB, vec![port(Protocol::Tcp, 8080, PublishMode::Ingress)]);
    lab.start(2, WEB, 1, &[ingress]);
    ingress
}

#[test]
#[ignore = "needs root and nftables"]
fn tasks_reach_those_on_their_networks_and_no_others() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let (a, b) = (lab.network(1, Kind::Plain), lab.network(2, Kind::Plain));
    lab.service(a, WEB, Vec::new());
    lab.service(b, OTHER, Vec::new());
    // On `a`, on `b`, on both, on none; each reaches or not whom it is to, here and on another host.
    let on: BTreeMap<u128, Vec<NetworkId>> =
        [(1, vec![a]), (2, vec![a]), (3, vec![b]), (4, vec![b]), (5, vec![a, b]), (6, vec![])].into();
    for (task, networks) in &on {
        let service = if networks.contains(&b) { OTHER } else { WEB };
        lab.start(*task, service, (*task % 2) as usize, networks);
    }
    for (from, own) in &on {
        for (to, theirs) in on.iter().filter(|(to, _)| *to != from) {
            for network in [a, b] {
                if !theirs.contains(&network) {
                    continue;
                }
                for address in [lab.address(network, 100 + to), lab.address6(network, 100 + to)] {
                    let answer = get(&lab.inside(*from), address, 80);
                    if own.contains(&network) {
                        let answer = answer.unwrap_or_else(|error| panic!("{from} to {to} at {address}: {error}"));
                        assert_eq!(answer.from, format!("t{to}"));
                        let source = if address.is_ipv6() {
                            lab.address6(network, 100 + from)
                        } else {
                            lab.address(network, 100 + from)
                        };
                        assert_eq!(answer.saw.ip(), source, "the address on the network");
                    } else {
                        assert!(answer.is_err(), "{from} reaches {to} at {address}");
                    }
                }
            }
            let [(here, own), (there, theirs)] = [from, to].map(|task| &lab.tasks[&TaskId(*task)]);
            let host_local = theirs.addresses[0];
            // Elsewhere the same address is another's, or nobody's.
            assert!(here != there || own.addresses[0] != host_local);
            assert!(
                here != there || get(&lab.inside(*from), host_local, 80).is_err(),
                "{from} reaches {to} at {host_local}"
            );
        }
    }
    // Nor does anybody from outside, whatever route he sets.
    lab.client.sh("ip route add 10.0.0.0/16 via 192.168.1.1; ip -6 route add fd10::/16 via fd77:1::1");
    for address in [lab.address(a, 102), lab.address6(a, 102), lab.address(a, 101)] {
        assert!(get(&lab.client, address, 80).is_err(), "the outside reaches {address}");
    }
    // And nothing of a host is reached over the overlay.
    lab.hosts[1].namespace.sh("ip addr add 203.0.113.1/32 dev lo");
    let _service = lab.hosts[1].namespace.within(|| std::net::TcpListener::bind("203.0.113.1:22").unwrap());
    lab.hosts[0].namespace.sh("ip route add 203.0.113.1/32 via 169.254.128.2 dev flok0 onlink");
    let over = || std::net::TcpStream::connect_timeout(&"203.0.113.1:22".parse().unwrap(), Duration::from_secs(1));
    assert!(lab.hosts[0].namespace.within(over).is_err());
}

#[test]
#[ignore = "needs root and nftables"]
fn connections_to_a_vip_are_spread_evenly_over_hosts() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    let (from, vip) = (lab.inside(1), SocketAddr::new(lab.address(network, 3), 80));
    const CONNECTIONS: u32 = 10_000;
    let counts = from.within(move || {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..CONNECTIONS {
            let (stream, answer) = connect(vip).unwrap();
            *counts.entry(answer.from).or_default() += 1;
            // No port waits for its end: there are fewer than connections.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        counts
    });
    let expected = f64::from(CONNECTIONS) / 3.0;
    let chi_square: f64 = counts.values().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    assert_eq!(counts.len(), 3);
    // Two degrees of freedom: a fair spread passes this but once in a million.
    assert!(chi_square < 27.6, "{counts:?}: {chi_square}");
    let answer = get(&from, lab.address6(network, 3), 80).unwrap();
    assert_eq!(
        answer.saw.ip(),
        if answer.from == "t1" { lab.address6(network, 3) } else { lab.address6(network, 101) }
    );
}

#[test]
#[ignore = "needs root and nftables"]
fn a_task_reaches_itself_through_its_vip() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    lab.start(1, WEB, 0, &[network]);
    for vip in [lab.address(network, 3), lab.address6(network, 3)] {
        let answer = get(&lab.inside(1), vip, 80).unwrap();
        assert_eq!((answer.from.as_str(), answer.saw.ip()), ("t1", vip));
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn a_published_port_answers_on_every_node_and_the_task_sees_the_client() {
    for segments in [[1, 1, 1], [1, 2, 1]] {
        let mut lab = Lab::new(&segments);
        published(&mut lab);
        for (host, segment) in segments.iter().enumerate() {
            let addresses = [
                (format!("192.168.{segment}.{}", host + 1), CLIENT),
                (format!("fd77:{segment}::{}", host + 1), CLIENT6),
            ];
            for (address, client) in addresses {
                let answer = get(&lab.client, ip(&address), 8080).unwrap_or_else(|error| panic!("{address}: {error}"));
                assert_eq!((answer.from.as_str(), answer.saw.ip()), ("t2", ip(client)), "{address}");
            }
            // From the node itself, by its own address and its loopback.
            let own = Namespace::clone(&lab.hosts[host].namespace);
            for address in [
                format!("192.168.{segment}.{}", host + 1),
                format!("fd77:{segment}::{}", host + 1),
                "127.0.0.1".into(),
                "::1".into(),
            ] {
                let answer =
                    get(&own, ip(&address), 8080).unwrap_or_else(|error| panic!("{host} at {address}: {error}"));
                assert_eq!(answer.from, "t2");
            }
        }
        // The node that serves, through another one.
        let answer = get(&lab.hosts[1].namespace, ip("192.168.1.1"), 8080).unwrap();
        assert_eq!(answer.from, "t2");
        // The task itself, through its own node and another.
        for address in [format!("192.168.{}.2", segments[1]), "192.168.1.1".into()] {
            assert_eq!(get(&lab.inside(2), ip(&address), 8080).unwrap().from, "t2", "{address}");
        }
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn one_client_port_through_two_nodes_is_two_connections() {
    let mut lab = Lab::new(&[1, 1, 1]);
    published(&mut lab);
    let both = lab.client.within(|| {
        let through = |node: &str| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::new(CLIENT.parse().unwrap(), 5555).into()).unwrap();
            let to = SocketAddr::new(node.parse().unwrap(), 8080);
            socket.connect_timeout(&to.into(), Duration::from_secs(5)).unwrap();
            let mut stream = std::net::TcpStream::from(socket);
            let answer = read_answer(&mut stream).unwrap();
            (stream, answer)
        };
        let mut both = [through("192.168.1.1"), through("192.168.1.3")];
        for (stream, _) in &mut both {
            let mut byte = [0];
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut byte).unwrap();
        }
        both.map(|(_, answer)| answer)
    });
    for answer in both {
        assert_eq!((answer.from.as_str(), answer.saw.ip()), ("t2", ip(CLIENT)));
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn connections_to_a_task_that_is_gone_are_reset_at_once() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    let ingress = published_beside(&mut lab);
    let direct = SocketAddr::new(lab.address(network, 102), 80);
    let (mut task, _) = lab.inside(1).within(move || connect(direct).unwrap());
    let (mut client, _) = lab.client.within(|| connect(SocketAddr::new(ip("192.168.1.1"), 8080)).unwrap());
    // The host is told first, the others after.
    for network in [network, ingress] {
        lab.change(network, |network| {
            [2, 9].iter().for_each(|task| drop(network.endpoints.remove(&TaskId(*task))));
        });
    }
    lab.hosts[1].remove(TaskId(2));
    lab.hosts[1].remove(TaskId(9));
    for stream in [&mut task, &mut client] {
        stream.write_all(b"x").unwrap();
        let error = stream.read_exact(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "by the host it was on: {error}");
    }
    lab.tell();
    let refused = |from: &Namespace, to: IpAddr, port| get(from, to, port).unwrap_err().kind();
    assert_eq!(refused(&lab.inside(1), lab.address(network, 102), 80), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(refused(&lab.inside(1), lab.address6(network, 102), 80), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(refused(&lab.client, ip("192.168.1.1"), 8080), std::io::ErrorKind::ConnectionRefused);
    // A VIP without a task that serves refuses too.
    lab.change(network, |network| {
        let none =
            network.endpoints.iter().map(|(task, endpoint)| (*task, Endpoint { serving: false, ..endpoint.clone() }));
        network.endpoints = none.collect();
    });
    lab.tell();
    assert_eq!(refused(&lab.inside(1), lab.address(network, 3), 80), std::io::ErrorKind::ConnectionRefused);
    // Those that are there and do not serve are still reached.
    assert_eq!(get(&lab.inside(1), lab.address(network, 103), 80).unwrap().from, "t3");
}

/// From a port of its own: who answers.
fn get_from(from: &Namespace, port: u16, to: SocketAddr) -> std::io::Result<String> {
    from.within(move || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        let any: IpAddr = if to.is_ipv6() { ip("::") } else { ip("0.0.0.0") };
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.connect_timeout(&to.into(), Duration::from_millis(500))?;
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let answer = read_answer(&mut stream)?;
        // The port is free again at once.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(answer.from)
    })
}

/// By a virtual address and by a published port, of both families.
#[test]
#[ignore = "needs root and nftables"]
fn a_port_from_which_a_dead_host_was_asked_in_vain_is_led_to_who_serves_now() {
    let mut lab = Lab::new(&[1, 1]);
    let plain = lab.network(1, Kind::Plain);
    lab.service(plain, WEB, Vec::new());
    lab.start(1, OTHER, 0, &[plain]);
    lab.start(2, WEB, 1, &[plain]);
    let ingress = published_beside(&mut lab);
    let (vip, vip6) = (lab.address(plain, 3), lab.address6(plain, 3));
    let (inside, outside) = (lab.inside(1), lab.client.clone());
    let asked = [
        (&inside, SocketAddr::new(vip, 80)),
        (&inside, SocketAddr::new(vip6, 80)),
        (&outside, SocketAddr::new(ip("192.168.1.1"), 8080)),
        (&outside, SocketAddr::new(ip("fd77:1::1"), 8080)),
    ];
    for (port, (from, to)) in (7001..).zip(asked) {
        assert!(get_from(from, port, to).is_ok(), "{to}");
    }
    lab.hosts[1].namespace.sh("ip link set e0 down");
    // Other ports: what was asked before was answered.
    for (port, (from, to)) in (7101..).zip(asked) {
        assert_eq!(get_from(from, port, to).unwrap_err().kind(), std::io::ErrorKind::TimedOut, "{to}");
    }
    for (network, task) in [(plain, 2), (ingress, 9)] {
        lab.change(network, |network| drop(network.endpoints.remove(&TaskId(task))));
    }
    lab.start(3, WEB, 0, &[plain]);
    lab.start(4, OTHER, 0, &[ingress]);
    for ((port, (from, to)), task) in (7101..).zip(asked).zip(["t3", "t3", "t4", "t4"]) {
        assert_eq!(get_from(from, port, to).unwrap(), task, "{to}");
    }
}

/// Task 9, published, on the second host beside others.
fn published_beside(lab: &mut Lab) -> NetworkId {
    let ingress = lab.network(5, Kind::Ingress);
    lab.service(ingress, OTHER, vec![port(Protocol::Tcp, 8080, PublishMode::Ingress)]);
    lab.start(9, OTHER, 1, &[ingress]);
    ingress
}

#[test]
#[ignore = "needs root and nftables"]
fn a_udp_flow_moves_when_its_task_goes_and_comes_when_its_port_is_published() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    let ask = |socket: UdpSocket, to: SocketAddr| {
        let mut bytes = [0; 64];
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let heard = (0..10).find_map(|_| {
            let _ = socket.send_to(b"x", to);
            socket.recv(&mut bytes).ok()
        });
        (socket, heard.map(|length| parse(&String::from_utf8_lossy(&bytes[..length]))))
    };
    let vip = SocketAddr::new(lab.address(network, 3), 80);
    let (socket, answer) = lab.inside(1).within(move || ask(UdpSocket::bind("0.0.0.0:7000").unwrap(), vip));
    let first = answer.unwrap().from;
    lab.change(network, |network| {
        let gone = *network.endpoints.keys().find(|task| format!("t{}", task.0) == first).unwrap();
        network.endpoints.get_mut(&gone).unwrap().serving = false;
    });
    lab.tell();
    let (_, answer) = lab.inside(1).within(move || ask(socket, vip));
    assert_ne!(answer.unwrap().from, first);

    // Before it is published, the client's datagrams make a flow to the host itself.
    let node = SocketAddr::new(ip("192.168.1.1"), 5353);
    let (socket, answer) = lab.client.within(move || ask(UdpSocket::bind("0.0.0.0:7001").unwrap(), node));
    assert_eq!(answer, None);
    let ingress = lab.network(5, Kind::Ingress);
    lab.service(ingress, OTHER, vec![port(Protocol::Udp, 5353, PublishMode::Ingress)]);
    lab.start(9, OTHER, 1, &[ingress]);
    let (_, answer) = lab.client.within(move || ask(socket, node));
    let answer = answer.unwrap();
    assert_eq!((answer.from.as_str(), answer.saw.ip()), ("t9", ip(CLIENT)));
}

/// Only of these the kernel's table of connections is walked when they go.
#[test]
#[ignore = "needs root and nftables"]
fn targets_that_a_node_asks_by_translation_are_noted_until_they_are_gone() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    let (first, second) = (lab.address(network, 101), lab.address(network, 102));
    let noted = |lab: &Lab, at: usize, target: IpAddr| {
        let get = format!("nft get element inet flok asked4 '{{ {target} . tcp }}' 2>&1 || true");
        lab.hosts[at].namespace.sh(&get).contains("elements")
    };
    lab.change(network, |network| network.endpoints.get_mut(&TaskId(3)).unwrap().serving = false);
    lab.tell();
    let vip = lab.address(network, 3);
    for _ in 0..20 {
        get(&lab.inside(1), vip, 80).unwrap();
    }
    get(&lab.inside(2), first, 80).unwrap();
    assert!([first, second].map(|target| noted(&lab, 0, target)) == [true; 2], "both answered for the VIP");
    assert!([first, second].map(|target| noted(&lab, 1, target)) == [false; 2], "no VIP was asked from here");
    lab.change(network, |network| drop(network.endpoints.remove(&TaskId(2))));
    lab.tell();
    assert!([first, second].map(|target| noted(&lab, 0, target)) == [true, false]);
}

/// From a port of its own to a server that is bound to no address: who answers, and from where.
fn ask_from(from: &Namespace, port: u16, to: SocketAddr) -> Option<Answer> {
    from.within(move || {
        let any = if to.is_ipv6() { "::" } else { "0.0.0.0" };
        let socket = UdpSocket::bind(SocketAddr::new(ip(any), port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut bytes = [0; 64];
        // A router that has just come up loses the first ones.
        let (length, sender) = (0..10).find_map(|_| {
            socket.send_to(b"x", to).unwrap();
            socket.recv_from(&mut bytes).ok()
        })?;
        assert_eq!(sender, to, "the answer comes from where the question went");
        Some(parse(&String::from_utf8_lossy(&bytes[..length])))
    })
}

#[test]
#[ignore = "needs root and nftables"]
fn a_datagram_to_a_published_port_is_answered_from_where_it_went() {
    for segments in [[1, 1, 1], [1, 2, 1]] {
        let mut lab = Lab::new(&segments);
        let (plain, ingress) = (lab.network(1, Kind::Plain), lab.network(5, Kind::Ingress));
        lab.service(ingress, WEB, vec![port(Protocol::Udp, 5300, PublishMode::Ingress)]);
        let beside = [port(Protocol::Udp, 5301, PublishMode::Host), port(Protocol::Tcp, 5301, PublishMode::Host)];
        lab.start_with(2, WEB, 1, &[plain, ingress], &beside);
        lab.start_with(3, OTHER, 2, &[plain], &[port(Protocol::Udp, 5302, PublishMode::Host)]);
        let addresses = |host: usize| {
            let segment = segments[host];
            [ip(&format!("192.168.{segment}.{}", host + 1)), ip(&format!("fd77:{segment}::{}", host + 1))]
        };
        let asked = |port: u16, task: &str, host: usize| {
            // One client's port by two ways at once is seen as two.
            let own = 7001 + 10 * (port - 5300) + host as u16;
            for (address, client) in addresses(host).into_iter().zip([CLIENT, CLIENT6]) {
                let answer = ask_from(&lab.client, own, SocketAddr::new(address, port));
                let expected = Answer { from: task.to_owned(), saw: SocketAddr::new(ip(client), own) };
                assert_eq!(answer, Some(expected), "{address}:{port}");
            }
            // From the node itself.
            for address in addresses(host).into_iter().chain([ip("127.0.0.1"), ip("::1")]) {
                let answer = ask_from(&lab.hosts[host].namespace, 7050, SocketAddr::new(address, port));
                assert_eq!(answer.map(|answer| answer.from).as_deref(), Some(task), "itself by {address}:{port}");
            }
        };
        (0..3).for_each(|host| asked(5300, "t2", host));
        asked(5301, "t2", 1);
        asked(5302, "t3", 2);
        assert_eq!(get(&lab.client, addresses(1)[0], 5301).unwrap().saw.ip(), ip(CLIENT));
        // Tasks: itself and one on another network, through the node of either and through the third.
        for (task, host) in [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)] {
            // That a node is served by a task of its own through another one is known by the address it advertises.
            let families = if task == 2 && host != 1 { 1 } else { 2 };
            for address in addresses(host).into_iter().take(families) {
                let answer = ask_from(&lab.inside(task), 7051, SocketAddr::new(address, 5300));
                assert_eq!(answer.map(|answer| answer.from).as_deref(), Some("t2"), "{task} by {address}");
            }
        }
        // The node that serves, through another one.
        let answer = ask_from(&lab.hosts[1].namespace, 7052, SocketAddr::new(addresses(0)[0], 5300));
        assert_eq!(answer.map(|answer| answer.from).as_deref(), Some("t2"));
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn what_a_task_sends_from_another_address_is_dropped() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    let receiver = lab.inside(2).within(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (own, foreign) = (lab.address(network, 101), lab.address(network, 103));
    let to = SocketAddr::new(lab.address(network, 102), 9000);
    let send = move |from: IpAddr| UdpSocket::bind(SocketAddr::new(from, 0)).unwrap().send_to(b"x", to).unwrap();
    lab.inside(1).sh(&format!("ip addr add {foreign}/32 dev lo"));
    lab.inside(1).within(move || send(own));
    assert!(receiver.recv(&mut [0]).is_ok());
    lab.inside(1).within(move || send(foreign));
    assert!(receiver.recv(&mut [0]).is_err(), "a forged source arrived");
}

#[test]
#[ignore = "needs root and nftables"]
fn an_overlay_datagram_from_no_member_is_dropped() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    let receiver = lab.inside(2).within(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (from, to) = (lab.address(network, 101), lab.address(network, 102));
    let datagram = vxlan_datagram(mac_text(&lab, 1), mac_text(&lab, 0), from, to);
    let send = |datagram: Vec<u8>| {
        move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&datagram, "192.168.1.2:4789").unwrap()
    };
    lab.hosts[0].namespace.within(send(datagram.clone()));
    assert!(receiver.recv(&mut [0; 8]).is_ok(), "a member's arrives");
    lab.client.within(send(datagram.clone()));
    assert!(receiver.recv(&mut [0; 8]).is_err(), "a stranger's arrived");
    // What a task sends to the outside bears the address of its node, which is a member; and a flow that began harmless
    // is no way in either. Nor is a task's own node.
    for task in [1, 2] {
        let datagram = datagram.clone();
        lab.inside(task).within(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for bytes in [b"harmless", &datagram[..]] {
                socket.send_to(bytes, "192.168.1.2:4789").unwrap();
            }
        });
        assert!(receiver.recv(&mut [0; 8]).is_err(), "one that task {task} made arrived");
    }
}

fn mac_text(lab: &Lab, at: usize) -> [u8; 6] {
    super::names::mac_of(lab.hosts[at].node).0
}

/// A UDP packet to port 9000, as another host's overlay would send it.
fn vxlan_datagram(to_mac: [u8; 6], from_mac: [u8; 6], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    let mut ip = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [[0x1f, 0x40], [0x23, 0x28], [0, 12], [0, 0]].concat();
    let vni = super::names::VNI.to_be_bytes();
    let vxlan = [8, 0, 0, 0, vni[1], vni[2], vni[3], 0];
    [&vxlan[..], &to_mac, &from_mac, &[8, 0], &ip, &udp, b"fake"].concat()
}

#[test]
#[ignore = "needs root and nftables"]
fn segments_are_no_longer_than_the_overlay_takes() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    published_beside(&mut lab);
    let mss = |to: SocketAddr| {
        move || {
            let (stream, _) = connect(to).unwrap();
            socket2::SockRef::from(&stream).tcp_mss().unwrap()
        }
    };
    let direct = SocketAddr::new(lab.address(network, 102), 80);
    assert!(lab.inside(1).within(mss(direct)) <= 1450 - 40);
    // By another node: neither the client nor the task knows of the overlay on the way.
    assert!(lab.client.within(mss(SocketAddr::new(ip("192.168.1.1"), 8080))) <= 1450 - 40);
    // And much goes through.
    let echoed = lab.client.within(|| {
        let (mut stream, _) = connect(SocketAddr::new(ip("192.168.1.1"), 8080)).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let sent = std::thread::spawn(move || stream.write_all(&vec![7; 300_000]).map(|()| stream).unwrap());
        let mut back = vec![0; 300_000];
        reader.read_exact(&mut back).unwrap();
        drop(sent.join().unwrap());
        back
    });
    assert!(echoed.iter().all(|byte| *byte == 7));
}

#[test]
#[ignore = "needs root and nftables"]
fn the_overlays_sizes_follow_the_interface_under_it() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.start(1, WEB, 0, &[network]);
    let has = |lab: &Lab, mtu: &str| lab.inside(1).sh("ip route").contains(&format!("mtu {mtu}"));
    eventually("what the interface leaves", || has(&lab, "1450"));
    lab.hosts[0].namespace.sh("ip link set e0 mtu 1400");
    // Looked at with the next change of anything.
    lab.hosts[0].namespace.sh("nft add element inet flok members4 { 6.6.6.6 }");
    eventually("less", || has(&lab, "1350"));
    assert!(lab.hosts[0].namespace.sh("ip link show flok0").contains("mtu 1350"));
    lab.hosts[0].stop();
    lab.hosts[0].start(&[TaskId(1)]);
    assert!(has(&lab, "1350"));
}

/// A strict filter is what many distributions set for interfaces to come.
#[test]
#[ignore = "needs root and nftables"]
fn the_overlays_device_is_set_up_though_another_part_is_refused() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    let host = lab.hosts[0].namespace.clone();
    host.sh("sysctl -qw net.ipv4.conf.default.rp_filter=1");
    // Another's route in the place of one of ours, which is not taken from him; and the device is made in the same step.
    host.sh(&format!("ip route add {}/32 via 192.168.1.254 proto static", lab.address(network, 102)));
    lab.hosts[0].networks().set_swarm(super::SwarmView::default());
    lab.start(2, WEB, 1, &[network]);
    let filter = || host.sh("cat /proc/sys/net/ipv4/conf/flok0/rp_filter").trim().to_owned();
    eventually("the device to be set up", || filter() == "0");
    host.sh("sysctl -qw net.ipv4.conf.flok0.rp_filter=1; nft add element inet flok members4 { 6.6.6.6 }");
    eventually("it to be set up again", || filter() == "0");
}

#[test]
#[ignore = "needs root and nftables"]
fn a_restart_of_the_room_cuts_no_connection() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    published_beside(&mut lab);
    let direct = SocketAddr::new(lab.address(network, 102), 80);
    let (mut task, _) = lab.inside(1).within(move || connect(direct).unwrap());
    let (mut client, _) = lab.client.within(|| connect(SocketAddr::new(ip("192.168.1.1"), 8080)).unwrap());
    let mut echo = || {
        for stream in [&mut task, &mut client] {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    };
    let before: Vec<String> = lab.hosts.iter().map(Host::table).collect();
    for at in 0..3 {
        lab.hosts[at].stop();
    }
    echo();
    let kept = [vec![1], vec![2, 9], vec![3]];
    for (at, kept) in kept.iter().enumerate() {
        let tasks: Vec<TaskId> = kept.iter().map(|task| TaskId(*task)).collect();
        lab.hosts[at].start(&tasks);
        assert_eq!(lab.hosts[at].networks().all().len(), tasks.len());
    }
    echo();
    // New connections too, before anything is heard of the swarm and after.
    assert_eq!(get(&lab.inside(1), lab.address(network, 103), 80).unwrap().from, "t3");
    lab.tell();
    echo();
    assert_eq!(get(&lab.inside(1), lab.address(network, 103), 80).unwrap().from, "t3");
    // The ports are free again as soon as the room before has let go of them.
    for (at, before) in before.iter().enumerate() {
        let host = &lab.hosts[at];
        eventually("the table is as it was", || sorted(&host.table()) == sorted(before));
    }
}

/// Elements are listed in no order that means anything, nor are chains.
fn sorted(table: &str) -> Vec<String> {
    let mut words: Vec<String> = table.split([' ', '\n', '\t', ',']).map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
#[ignore = "needs root and nftables"]
fn what_a_human_deletes_is_made_again() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    published_beside(&mut lab);
    let host = lab.hosts[0].namespace.clone();
    let works = |lab: &Lab| {
        get(&lab.inside(1), lab.address(network, 102), 80).is_ok()
            && get(&lab.inside(1), lab.address6(network, 3), 80).is_ok()
            && get(&lab.client, ip("192.168.1.1"), 8080).is_ok_and(|answer| answer.saw.ip() == ip(CLIENT))
    };
    assert!(works(&lab));
    let table = sorted(&lab.hosts[0].table());
    let veth = host.sh("ip -o link | grep -oE 'fk[a-z0-9]+' | head -1").trim().to_owned();
    for harm in [
        "nft delete table inet flok".to_owned(),
        "nft flush chain inet flok isolate".to_owned(),
        "nft delete chain inet flok leave".to_owned(),
        format!("nft delete element inet flok vips4 {{ {} }}", lab.address(network, 3)),
        "nft add element inet flok members4 { 6.6.6.6 }".to_owned(),
        "nft flush set inet flok endpoints4".to_owned(),
        "nft flush chain inet flok port4_tcp_8080".to_owned(),
        format!("ip route del {}/32", lab.address(network, 102)),
        format!("ip -6 route del {}/128", lab.address6(network, 102)),
        "ip rule del pref 11000 fwmark 0x666b0002".to_owned(),
        "ip link set flok0 down".to_owned(),
        "ip link del flok0".to_owned(),
        format!("ip link del {veth}"),
    ] {
        host.sh(&harm);
        eventually(&harm, || sorted(&lab.hosts[0].table()) == table && works(&lab));
    }
}

/// What is read back of a repair must not be taken for how it should be.
#[test]
#[ignore = "needs root and nftables"]
fn who_strikes_again_while_it_is_repaired_leaves_no_harm() {
    let mut lab = Lab::new(&[1, 1]);
    published_beside(&mut lab);
    let host = &lab.hosts[0];
    let table = sorted(&host.table());
    for harm in ["nft flush chain inet flok isolate", "nft delete chain inet flok leave"] {
        host.namespace.sh(&format!("for i in $(seq 200); do {harm} 2>&1 || true; done"));
        eventually(harm, || sorted(&host.table()) == table);
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn nothing_is_left_of_networks_and_tasks_that_are_gone() {
    let mut lab = Lab::new(&[1, 1]);
    let host = lab.hosts[0].namespace.clone();
    host.sh("nft add table inet other; nft add chain inet other c; ip route add 10.99.0.0/16 via 192.168.1.254 proto static");
    let strangers = host.sh("nft list table inet other; ip route show proto static");
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    lab.start(1, WEB, 0, &[network]);
    lab.start(2, WEB, 1, &[network]);
    published_beside(&mut lab);
    assert!(!lab.hosts[0].leftovers().is_empty());
    for (at, task) in [(0, 1), (1, 2), (1, 9)] {
        lab.hosts[at].remove(TaskId(task));
    }
    for host in &lab.hosts {
        let networks = host.networks();
        networks.set_swarm(super::SwarmView::default());
        host.run(async move { networks.settled().await.unwrap() });
        assert_eq!(host.leftovers(), "");
    }
    assert_eq!(host.sh("nft list table inet other; ip route show proto static"), strangers);
}

#[test]
#[ignore = "needs root and nftables"]
fn an_internal_network_has_no_way_out_and_its_ports_are_published() {
    let mut lab = Lab::new(&[1, 1]);
    let (inner, plain) = (lab.network(1, Kind::Internal), lab.network(2, Kind::Plain));
    let ingress = lab.network(5, Kind::Ingress);
    lab.service(inner, WEB, Vec::new());
    lab.service(ingress, WEB, vec![port(Protocol::Tcp, 8080, PublishMode::Ingress)]);
    lab.start(1, WEB, 0, &[inner, ingress]);
    lab.start(2, WEB, 1, &[inner]);
    lab.start(3, OTHER, 0, &[inner, plain]);
    lab.start(4, OTHER, 0, &[]);
    greet(&lab.client, 7, "outside");
    for (task, way_out) in [(1, false), (2, false), (3, true), (4, true)] {
        for address in [CLIENT, CLIENT6] {
            assert_eq!(get(&lab.inside(task), ip(address), 7).is_ok(), way_out, "task {task} to {address}");
        }
    }
    assert_eq!(get(&lab.inside(1), lab.address(inner, 102), 80).unwrap().from, "t2");
    assert!(get(&lab.inside(1), ip("192.168.1.1"), 8080).is_err(), "a published port is outside too");
    for node in ["192.168.1.1", "192.168.1.2"] {
        assert_eq!(get(&lab.client, ip(node), 8080).unwrap().saw.ip(), ip(CLIENT));
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn a_port_of_a_host_process_is_not_taken_from_it() {
    let mut lab = Lab::new(&[1, 1]);
    let theirs = lab.hosts[0].namespace.within(|| std::net::TcpListener::bind("0.0.0.0:8080").unwrap());
    published(&mut lab);
    let mut taken = lab.hosts[0].networks().taken_ports();
    assert_eq!(*taken.borrow_and_update(), [(Protocol::Tcp, 8080)].into());
    let client = lab.client.clone();
    let asked =
        std::thread::spawn(move || client.within(|| std::net::TcpStream::connect("192.168.1.1:8080").map(drop)));
    assert_eq!(theirs.accept().unwrap().1.ip(), ip(CLIENT));
    asked.join().unwrap().unwrap();
    assert_eq!(get(&lab.client, ip("192.168.1.2"), 8080).unwrap().from, "t2");
    // It is published as soon as it is free.
    drop(theirs);
    eventually("published", || get(&lab.client, ip("192.168.1.1"), 8080).is_ok_and(|answer| answer.from == "t2"));
}

/// What Docker makes of a host, and what `docs/networking.md` says to do there.
#[test]
#[ignore = "needs root and nftables"]
fn beside_a_firewall_that_drops_what_is_forwarded_its_own_chain_lets_ours_pass() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    lab.start(1, WEB, 0, &[network]);
    lab.start(3, WEB, 1, &[network]);
    published(&mut lab);
    for host in &lab.hosts {
        host.namespace.sh("for family in ip ip6; do nft -f - <<END
            table $family filter {
                chain DOCKER-USER { }
                chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
            }
END
            done");
    }
    let passes = |lab: &Lab| {
        [
            get(&lab.inside(1), lab.address(network, 103), 80).is_ok(),
            get(&lab.inside(1), lab.address6(network, 103), 80).is_ok(),
            get(&lab.client, ip("192.168.1.1"), 8080).is_ok(),
        ]
    };
    assert_eq!(passes(&lab), [false; 3]);
    for host in &lab.hosts {
        host.namespace.sh("for family in ip ip6; do for interface in 'fk*' flok0; do
                nft insert rule $family filter DOCKER-USER iifname \"$interface\" accept
                nft insert rule $family filter DOCKER-USER oifname \"$interface\" accept
            done; done");
    }
    assert_eq!(passes(&lab), [true; 3]);
    assert!(get(&lab.inside(1), lab.tasks[&TaskId(2)].1.addresses[1], 80).is_err(), "ours still holds networks apart");
}

#[test]
#[ignore = "needs root and nftables"]
fn nftables_takes_the_table_of_any_node() {
    let host = Namespace::new();
    let subnet = "172.29.0.0/16".parse().unwrap();
    for address in [None, Some("192.168.1.1"), Some("fd77::1")] {
        let overlay = address.map(|address| super::Overlay { node: NodeId(1), address: ip(address), port: 4789 });
        let skeleton = super::skeleton::Skeleton { subnet, overlay };
        for anew in [false, false, true] {
            // A chain of another version goes, with what it led to.
            host.sh("nft 'add table inet flok; add chain inet flok other_inner; table inet flok {
                     chain other { type filter hook forward priority 0; jump other_inner; }; }'");
            let present = ["arrive", "other", "other_inner"].map(str::to_owned);
            let present = if host.sh("nft list chain inet flok arrive 2>&1 || true").contains("hook") {
                &present[..]
            } else {
                &present[1..]
            };
            let script = skeleton.script(anew, present);
            host.sh(&format!("nft -f - <<'END'\n{script}END"));
            let table = host.sh("nft list table inet flok");
            assert!(table.contains("chain arrive {") && !table.contains("chain other"));
        }
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn a_task_reaches_of_the_swarms_hosts_what_is_published_and_nothing_else() {
    let mut lab = Lab::new(&[1, 2]);
    let ingress = published(&mut lab);
    let plain = lab.network(1, Kind::Plain);
    // In `host` mode, on the second host.
    let beside = port(Protocol::Tcp, 9100, PublishMode::Host);
    lab.service(ingress, OTHER, vec![beside.clone()]);
    lab.start_with(3, OTHER, 1, &[plain], &[beside]);
    lab.start(1, WEB, 0, &[plain]);
    lab.start(4, WEB, 1, &[plain]);
    for host in &lab.hosts {
        greet(&host.namespace, 22, "host");
    }
    let members = ["192.168.1.1", "192.168.2.2"];
    for member in members {
        assert_eq!(get(&lab.client, ip(member), 22).unwrap().from, "host", "{member} is there");
        for task in [1, 4] {
            let error = get(&lab.inside(task), ip(member), 22).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "task {task} to {member}");
            let answer = get(&lab.inside(task), ip(member), 8080).unwrap_or_else(|error| panic!("{member}: {error}"));
            assert_eq!(answer.from, "t2", "task {task} by {member}");
        }
    }
    for task in [1, 4] {
        assert_eq!(get(&lab.inside(task), ip("192.168.2.2"), 9100).unwrap().from, "t3", "in `host` mode, to {task}");
        // A node's host-local address is the way to what the node itself serves to its tasks.
        assert_eq!(get(&lab.inside(task), ip("172.29.0.1"), 22).unwrap().from, "host");
    }
}

/// A segment of TCP of a connection, from this number on.
fn segment(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut tcp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    tcp.extend(sequence.to_be_bytes());
    // An acknowledgement, 20 bytes of header, PSH and ACK, a window.
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0x50, 0x18, 0x10, 0, 0, 0, 0, 0]);
    tcp.extend(b"stray!");
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let pseudo = [octets(from.ip()), octets(to.ip()), vec![0, 6, 0, tcp.len() as u8]].concat();
    let sum: u32 =
        [pseudo, tcp.clone()].concat().chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    tcp[16..18].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    tcp
}

/// All of TCP that comes in where this is called.
fn wiretap(ipv6: bool) -> UdpSocket {
    let domain = if ipv6 { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
    let kind = socket2::Type::from(libc::SOCK_RAW);
    let socket = socket2::Socket::new(domain, kind, Some(socket2::Protocol::TCP)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.into()
}

fn heard_stray(tap: &UdpSocket, from: IpAddr) -> bool {
    let mut bytes = [0; 2048];
    let mut heard = std::iter::from_fn(|| {
        let (length, sender) = tap.recv_from(&mut bytes).ok()?;
        Some(sender.ip() == from && bytes[..length].ends_with(b"stray!"))
    });
    heard.any(|stray| stray)
}

/// From the task to who it has a connection with, outside or through a virtual address: neither sees whom it is not of.
#[test]
#[ignore = "needs root and nftables"]
fn what_is_of_no_known_connection_passes_nowhere_untranslated() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    lab.start(1, OTHER, 0, &[network]);
    lab.start(2, WEB, 1, &[network]);
    greet(&lab.client, 80, "outside");
    for ipv6 in [false, true] {
        let pick = |four: IpAddr, six: IpAddr| if ipv6 { six } else { four };
        let own = pick(lab.address(network, 101), lab.address6(network, 101));
        let server = pick(lab.address(network, 102), lab.address6(network, 102));
        let vip = SocketAddr::new(pick(lab.address(network, 3), lab.address6(network, 3)), 80);
        let send = |from: SocketAddr, to: SocketAddr| {
            move || {
                let raw = wiretap(ipv6);
                // One of them is after all that the connection may have in flight, wherever it is.
                for sequence in [0, 1 << 31] {
                    raw.send_to(&segment(from, to, sequence), SocketAddr::new(to.ip(), 0)).unwrap();
                }
            }
        };
        // Through the virtual address: an answer that is not translated back.
        let (stream, _) = lab.inside(1).within(move || connect(vip).unwrap());
        let client = SocketAddr::new(own, stream.local_addr().unwrap().port());
        let tap = lab.inside(1).within(move || wiretap(ipv6));
        lab.inside(2).within(send(SocketAddr::new(server, 80), client));
        assert!(!heard_stray(&tap, server), "IPv6 {ipv6}: an answer from an address that was not asked");
        // Outside: one from the task's own address. Without a network of the swarm its way out is that.
        let out = SocketAddr::new(pick(ip(CLIENT), ip(CLIENT6)), 80);
        let (stream, _) = lab.inside(1).within(move || connect(out).unwrap());
        let local = stream.local_addr().unwrap();
        let tap = lab.client.within(move || wiretap(ipv6));
        lab.inside(1).within(send(local, out));
        assert!(!heard_stray(&tap, local.ip()), "IPv6 {ipv6}: from an address that means nothing outside");
    }
}

/// Run by hand: `cargo nextest run --release --run-ignored only --no-capture measure_a_thousand`.
#[test]
#[ignore = "a measurement, by hand; needs root and nftables"]
fn measure_a_thousand_services_of_ten_tasks() {
    let mut lab = Lab::new(&[1, 1]);
    lab.start(1, WEB, 0, &[]);
    for network in 1..=100 {
        let id = lab.network(network, Kind::Plain);
        let node = lab.hosts[1].node;
        for service in 0..10u128 {
            lab.service(id, ServiceId(network * 10 + service), Vec::new());
            lab.change(id, |view| {
                for task in 0..10u128 {
                    let host = 50 + service * 10 + task;
                    let addresses = vec![ip(&format!("10.0.{network}.{host}")), ip(&format!("fd10:{network}::{host}"))];
                    let service = ServiceId(network * 10 + service);
                    let endpoint = Endpoint { service, node, addresses, names: Vec::new(), serving: true };
                    view.endpoints.insert(TaskId(network * 1000 + host), endpoint);
                }
            });
        }
    }
    #[expect(clippy::disallowed_methods, reason = "a measurement")]
    let now = std::time::Instant::now;
    let cpu = || {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        micros(usage.user_time()) + micros(usage.system_time())
    };
    let tell = |lab: &Lab, what: &str| {
        let (networks, view) = (lab.hosts[0].networks(), lab.view(0));
        let (start, used) = (now(), cpu());
        networks.set_swarm(view);
        lab.hosts[0].run(async move { networks.settled().await.unwrap() });
        println!("{what}: {:?}, CPU {:.1} ms", start.elapsed(), (cpu() - used) as f64 / 1000.0);
    };
    tell(&lab, "1,000 services x 10 tasks of two families from nothing");
    for serving in [false, true, false, true] {
        lab.change(NetworkId(7), |view| {
            let first = view.endpoints.get_min().unwrap().0;
            view.endpoints.get_mut(&first).unwrap().serving = serving;
        });
        tell(&lab, "one endpoint");
    }
    let held = now();
    lab.hosts[0].namespace.sh("nft add element inet flok members4 { 6.6.6.6 }");
    eventually("the audit", || !lab.hosts[0].table().contains("6.6.6.6"));
    println!("a stranger's element is gone after {:?}", held.elapsed());
    let used = cpu();
    lab.hosts[0].stop();
    let start = now();
    lab.hosts[0].start(&[TaskId(1)]);
    tell(&lab, "the room again, with nothing to change");
    println!("in all {:?}, CPU {:.1} ms", start.elapsed(), (cpu() - used) as f64 / 1000.0);
}
