//! What is forged is dropped, and what is broken is made again: the swarm's networks against those inside and beside them.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::client::{A, Load, WITHIN, at, from_beside, get, home, in_task, look_up, within, works};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm, Task};

const APART: &str = "
services:
  left:
    image: flok/whoami:latest
    networks: [a]
    deploy: { mode: global }
  right:
    image: flok/whoami:latest
    networks: [b]
networks: { a: {}, b: {} }
";

const EVERYWHERE: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    deploy: { mode: global }
";

fn four(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else { panic!("{address} is of IPv4") };
    address
}

/// A packet of UDP to port 9000, written by hand.
fn packet(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let (whole, udp) = (length(28), length(8));
    let mut ip = vec![0x45, 0, whole[0], whole[1], 0, 1, 0, 0, 64, 17, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Without a checksum of UDP's own, as IPv4 allows.
    [&ip[..], &7000u16.to_be_bytes(), &9000u16.to_be_bytes(), &udp, &[0, 0], payload].concat()
}

/// Sends it from the network namespace that the thread is in, whoever it says that it comes from.
fn send_raw(packet: &[u8], to: Ipv4Addr) {
    let socket =
        Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
    socket.send_to(packet, &SocketAddr::from((to, 0)).into()).unwrap();
}

/// A socket of UDP at port 9000 in a task.
fn receiver(swarm: &Swarm, task: &Task) -> UdpSocket {
    let socket = in_task(swarm, task, || UdpSocket::bind("0.0.0.0:9000").unwrap());
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> std::io::Result<String> {
    let mut datagram = [0; 64];
    let length = socket.recv(&mut datagram)?;
    Ok(String::from_utf8_lossy(&datagram[..length]).into_owned())
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn what_a_task_sends_from_an_address_that_is_not_its_own_is_dropped() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "n", APART);
    let left = swarm.running(0, "n_left", 2);
    let right = swarm.running(0, "n_right", 1).remove(0);
    let address = |task: &Task| four(swarm.addresses(0, &task.id)[0]);
    let (from, to) = (&left[0], &left[1]);
    let (own, target) = (address(from), address(to));
    let socket = receiver(&swarm, to);
    works("a packet from its own address", || {
        in_task(&swarm, from, move || send_raw(&packet(own, target, b"own"), target));
        received(&socket)
    });
    // Of another network, of another task on this one, and of nobody.
    for forged in [address(&right), target, Ipv4Addr::new(203, 0, 113, 7)] {
        in_task(&swarm, from, move || {
            send_raw(&packet(forged, target, b"forged"), target);
            send_raw(&packet(own, target, b"after it"), target);
        });
        let mut heard = received(&socket).unwrap();
        while heard == "own" {
            heard = received(&socket).unwrap();
        }
        assert_eq!(heard, "after it", "from {forged}");
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn of_the_swarms_hosts_a_task_reaches_what_is_published_and_nothing_else() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "s", EVERYWHERE);
    let tasks = swarm.running(0, "s_web", 2);
    for host in 0..2 {
        let (own, published) = (at(&swarm, host, 9000), at(&swarm, host, 8080));
        let netns = swarm.hosts[host].netns();
        let _listener = within(&netns, || TcpListener::bind("0.0.0.0:9000").unwrap()).join().unwrap();
        let knock = move || TcpStream::connect_timeout(&own, WITHIN).map(drop);
        within(&swarm.hosts[1 - host].netns(), knock).join().unwrap().unwrap();
        for task in &tasks {
            works("a published port", || in_task(&swarm, task, move || get(published, "/")));
            let error = in_task(&swarm, task, knock).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{} to n{}", task.id, host + 1);
        }
    }
}

/// The MAC address of a host's end of the overlay.
fn overlay_mac(host: &Host) -> [u8; 6] {
    let output = host.command("ip").args(["-o", "link", "show", "flok0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mac = text.split("link/ether ").nth(1).unwrap_or_else(|| panic!("{text}")).split(' ').next().unwrap();
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn an_overlay_datagram_from_an_address_that_is_no_members_is_dropped() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "n", APART);
    let left = swarm.running(0, "n_left", 2);
    let address = |task: &Task| four(swarm.addresses(0, &task.id)[0]);
    let (sender, receives) = (home(&swarm, &left[0]), home(&swarm, &left[1]));
    let (own, target) = (address(&left[0]), address(&left[1]));
    let (from_mac, to_mac) = (overlay_mac(&swarm.hosts[sender]), overlay_mac(&swarm.hosts[receives]));
    let datagram = move |payload: &[u8]| {
        let vxlan = [8, 0, 0, 0, 0x66, 0x6c, 0x6f, 0];
        [&vxlan[..], &to_mac, &from_mac, &[8, 0], &packet(own, target, payload)].concat()
    };
    let underlay = at(&swarm, receives, 4789);
    let send = move |payload: &'static [u8]| {
        move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&datagram(payload), underlay).unwrap()
    };
    let socket = receiver(&swarm, &left[1]);
    works("a member's datagram", || {
        within(&swarm.hosts[sender].netns(), send(b"member")).join().unwrap();
        received(&socket)
    });
    // The switch has an address on the segment, and is on no node's list. What a task sends to the outside bears its
    // node's address, which is.
    for _ in 0..3 {
        from_beside(&swarm, send(b"stranger"));
        in_task(&swarm, &left[0], send(b"task"));
    }
    within(&swarm.hosts[sender].netns(), send(b"after them")).join().unwrap();
    let mut heard = received(&socket).unwrap();
    while heard == "member" {
        heard = received(&socket).unwrap();
    }
    assert_eq!(heard, "after them");
}

/// All that is flok's in a host's kernel, in no order, but what the kernel itself notes of the targets that were asked.
fn kernel(host: &Host) -> BTreeSet<String> {
    let script = "nft list table inet flok | sed '/set asked/,/^\\t}$/d' | tr ',{}' '\\n\\n\\n' | sed 's/^[ \\t]*/nft /'
        ip route show table all proto 102; ip -6 route show table all proto 102
        ip rule; ip -6 rule; ip -o addr show dev lo; ip -o link show flok0 | cut -d: -f2-
        for one in $(ip -o link | grep -oE '(fk|flok)[^:@]*'); do
            ip neigh show nud permanent dev $one | sed s/^/$one/; ip -6 neigh show nud permanent dev $one | sed s/^/$one/
        done
        bridge fdb show dev flok0";
    let output = host.command("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(plain).filter(|line| !line.is_empty() && !line.contains("lifetime")).collect()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn what_a_human_deletes_is_made_again_while_requests_go_on() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(0, "s", EVERYWHERE);
    let web = swarm.running(0, "s_web", 3);
    let targets: Vec<SocketAddr> = (0..3).map(|host| at(&swarm, host, 8080)).collect();
    for target in targets.clone() {
        works("each node", || from_beside(&swarm, move || get(target, "/")));
    }
    let host = &swarm.hosts[0];
    let there = web.iter().find(|task| task.node == swarm.node_id(0, 1)).unwrap();
    let other = swarm.addresses(0, &there.id)[0];
    let told = |command: &str| {
        let output = host.command("sh").args(["-ec", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let whole = eventually("the kernel to be as it stays", PATIENCE, || {
        let (first, second) = (kernel(host), kernel(host));
        let peers = first.iter().filter(|line| line.contains("dst 10.99.0.")).count();
        let mut balanced = first.iter().filter(|line| line.contains("numgen")).peekable();
        let all = balanced.peek().is_some() && balanced.all(|line| line.contains("mod 3"));
        if first == second && peers == 2 && all { Ok(first) } else { Err(format!("{first:?}")) }
    });
    let veth = told("ip -o link | grep -oE 'fk[^:@]*' | head -1");
    let load = Load::start(&swarm.switch_netns(), &targets);
    load.goes_on(30);
    for harm in [
        "nft delete table inet flok".to_owned(),
        "nft delete element inet flok members4 { 10.99.0.2 }".to_owned(),
        format!("nft delete element inet flok endpoints4 {{ {other} }}"),
        "nft flush chain inet flok isolate".to_owned(),
        "ip link del flok0".to_owned(),
        format!("ip link del {veth}"),
        format!("ip route del {other}/32"),
        "ip neigh del $(ip neigh show nud permanent dev flok0 | head -1 | cut -d' ' -f1) dev flok0".to_owned(),
        format!("ip neigh del $(ip neigh show nud permanent dev {veth} | head -1 | cut -d' ' -f1) dev {veth}"),
        "bridge fdb del $(bridge fdb show dev flok0 | grep 10.99.0.2 | cut -d' ' -f1) dev flok0 dst 10.99.0.2"
            .to_owned(),
        "ip rule del pref 11000".to_owned(),
        "ip addr del 198.19.0.1/32 dev lo".to_owned(),
    ] {
        told(&harm);
        // Sooner than the look that is taken every 30 seconds: somebody rang.
        eventually(&format!("{harm}: to be undone"), Duration::from_secs(20), || {
            let now = kernel(host);
            let different: Vec<_> = now.symmetric_difference(&whole).collect();
            if different.is_empty() { Ok(()) } else { Err(format!("{different:?}")) }
        });
        for target in targets.clone() {
            works("each node", || from_beside(&swarm, move || get(target, "/")));
        }
        for task in &web {
            let vip = works("the name", || match in_task(&swarm, task, || look_up("web", A))? {
                (0, found) if found.len() == 1 => Ok(found[0]),
                other => Err(std::io::Error::other(format!("{other:?}"))),
            });
            works("the virtual address", || in_task(&swarm, task, move || get((vip, 80).into(), "/")));
        }
    }
    let (answered, failed) = load.end();
    println!("{} of {answered} requests failed while things were deleted", failed.len());
    assert!(answered > 100 && failed.len() < answered as usize / 2, "{answered} answered: {failed:?}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn segments_are_no_longer_than_the_way_takes() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "s", &EVERYWHERE.replace("deploy: { mode: global }", ""));
    let web = swarm.running(0, "s_web", 1).remove(0);
    // By the node that has no task: neither end knows of the overlay between.
    let asked = at(&swarm, 1 - home(&swarm, &web), 8080);
    works("the port", || from_beside(&swarm, move || get(asked, "/")));
    let (longest, answer) = from_beside(&swarm, move || {
        let mut stream = TcpStream::connect_timeout(&asked, WITHIN).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let longest = SockRef::from(&stream).tcp_mss().unwrap();
        // Much more than a packet holds.
        let much = "x".repeat(300_000);
        write!(stream, "GET / HTTP/1.1\r\nHost: test\r\nMuch: {much}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (longest, answer)
    });
    assert!(longest <= 1500 - 50 - 40, "{longest}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
