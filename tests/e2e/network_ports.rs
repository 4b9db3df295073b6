//! Published ports by ways that are seldom tried: from within tasks, by other nodes, by IPv6, and with nobody to serve.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::client::{WITHIN, ask, from_beside, get, home, in_task, said, within, works};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

const STACK: &str = "
services:
  web:
    image: flok/whoami:latest
    networks: [six]
    ports:
      - '8080:80'
      - '80'
      - '5300:80/udp'
      - { target: 80, published: 8081, mode: host }
    deploy: { placement: { constraints: [ node.hostname == n1 ] } }
  nobody:
    image: flok/none:latest
    ports: ['8400:80', '5400:80/udp']
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    networks: [four]
    deploy: { mode: global }
networks:
  six: { enable_ipv6: true }
  four: {}
";

/// The addresses of a host, IPv4 first.
fn addresses(swarm: &Swarm, host: usize) -> [IpAddr; 2] {
    [swarm.hosts[host].addr().parse().unwrap(), swarm.hosts[host].addr6().parse().unwrap()]
}

fn any_of(to: &SocketAddr) -> IpAddr {
    if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// What comes back of a datagram that nobody takes.
fn answer_of_nobody(to: SocketAddr) -> std::io::Result<usize> {
    let socket = UdpSocket::bind((any_of(&to), 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    socket.connect(to)?;
    socket.send(b"who?")?;
    socket.recv(&mut [0; 64])
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn published_ports_answer_tasks_and_others_by_every_address_of_every_node() {
    let swarm = Swarm::of(3);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    swarm.deploy(0, "s", STACK);
    let web = swarm.running(0, "s_web", 1).remove(0);
    let clients = swarm.running(0, "s_client", 3);
    let automatic = eventually("a port of the swarm's choice", PATIENCE, || {
        let service = swarm.hosts[0].get("/services/s_web")?;
        let ports = service["Endpoint"]["Ports"].as_array().cloned().unwrap_or_default();
        let number =
            |port: &serde_json::Value| port["PublishedPort"].as_u64().and_then(|port| u16::try_from(port).ok());
        let chosen = ports.iter().filter(|port| port["PublishMode"] == "ingress" && port["Protocol"] == "tcp");
        let mut chosen = chosen.filter_map(number).filter(|port| *port != 8080);
        chosen.next().filter(|port| (30_000..=32_767).contains(port)).ok_or_else(|| service.to_string())
    });
    // By IPv6 nodes that know each other by IPv4 do not serve, through another one, a node that has the task.
    let askers = |to: &SocketAddr, host: usize| {
        let is_served = |task: &&Task| to.is_ipv4() || host == 0 || home(&swarm, task) != 0;
        clients.iter().chain([&web]).filter(is_served).collect::<Vec<_>>()
    };
    for host in 0..3 {
        for address in addresses(&swarm, host) {
            let mut tcp = vec![8080, automatic];
            // In `host` mode, where the task is.
            tcp.extend((host == 0).then_some(8081));
            for port in tcp {
                let to = SocketAddr::new(address, port);
                let client = if to.is_ipv6() { "fd99::254" } else { "10.99.0.254" };
                let answer = works(&format!("{to} from outside"), || from_beside(&swarm, move || get(to, "/")));
                let seen: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
                assert_eq!(seen.ip().to_string(), client, "{to}");
                for task in askers(&to, host) {
                    works(&format!("{to} from {}", task.id), || in_task(&swarm, task, move || get(to, "/")));
                }
            }
            let to = SocketAddr::new(address, 5300);
            for task in askers(&to, host) {
                let question = move || ask(&UdpSocket::bind((any_of(&to), 0))?, to);
                works(&format!("{to}/udp from {}", task.id), || in_task(&swarm, task, question));
            }
        }
        if host != 0 {
            let to = SocketAddr::new(addresses(&swarm, host)[0], 8081);
            let error = from_beside(&swarm, move || TcpStream::connect_timeout(&to, WITHIN)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to} is another node's");
        }
    }
    is_refused(&swarm, &[8400], 5400);
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_web=0"]);
    swarm.running(0, "s_web", 0);
    is_refused(&swarm, &[8080, automatic], 5300);
}

/// Nobody serves: a connection is told so at once, a datagram may be told, and is not answered.
fn is_refused(swarm: &Swarm, tcp: &[u16], udp: u16) {
    for host in 0..3 {
        for address in addresses(swarm, host) {
            for (whence, netns) in [("outside", swarm.switch_netns()), ("the node", swarm.hosts[host].netns())] {
                for port in tcp {
                    let to = SocketAddr::new(address, *port);
                    eventually(&format!("{to} to refuse, from {whence}"), PATIENCE, || {
                        match within(&netns, move || TcpStream::connect_timeout(&to, WITHIN)).join().unwrap() {
                            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
                            other => Err(format!("{other:?}")),
                        }
                    });
                }
                let to = SocketAddr::new(address, udp);
                let answer = within(&netns, move || answer_of_nobody(to)).join().unwrap();
                let kind = answer.as_ref().map_err(std::io::Error::kind);
                let told = matches!(kind, Err(ErrorKind::WouldBlock | ErrorKind::ConnectionRefused));
                assert!(told, "{to}/udp from {whence}: {answer:?}");
            }
        }
    }
}
