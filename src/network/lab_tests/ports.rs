//! Published ports of either mode: who answers, whom the task sees, and what is not taken from others.

use super::*;

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

/// A command that another thread starts has the files of this process up to its exec: a port that was just let go is
/// free only then.
fn bind_free(address: SocketAddr) -> UdpSocket {
    let mut bound = None;
    eventually(&format!("{address} is free"), || match UdpSocket::bind(address) {
        Ok(socket) => bound.replace(socket).is_none(),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{address}: {error}");
            false
        }
    });
    bound.unwrap()
}

/// From a port of its own to a server that is bound to no address: who answers, and from where.
fn ask_from(from: &Namespace, port: u16, to: SocketAddr) -> Option<Answer> {
    from.within(move || {
        let any = if to.is_ipv6() { "::" } else { "0.0.0.0" };
        let socket = bind_free(SocketAddr::new(ip(any), port));
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
