//! Whom a task reaches and whom not, and by which address it is seen.

use super::*;

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
    crate::network::names::mac_of(lab.hosts[at].node).0
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
    let vni = crate::network::names::VNI.to_be_bytes();
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
