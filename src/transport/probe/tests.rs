#![expect(clippy::disallowed_methods, reason = "tests of a thread that paces itself by the clock")]

use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const SECRET: &[u8] = b"the managers' secret";
/// Far beyond anything these tests wait for.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Echo(NodeId, Echo),
    Refused(NodeId),
    Suspected(NodeId),
    Tick,
    Orders(u64),
}

/// Reports what it is told, and suspects everybody with the number it was ordered to.
struct Recorder {
    suspicion: u64,
    events: Sender<Event>,
}

impl Judge for Recorder {
    type Orders = u64;

    fn handle_orders(&mut self, orders: u64) {
        self.suspicion = orders;
        _ = self.events.send(Event::Orders(orders));
    }

    fn handle_echo(&mut self, from: NodeId, echo: Echo) {
        _ = self.events.send(Event::Echo(from, echo));
    }

    fn handle_refused(&mut self, from: NodeId) {
        _ = self.events.send(Event::Refused(from));
    }

    fn handle_suspected(&mut self, observer: NodeId) {
        _ = self.events.send(Event::Suspected(observer));
    }

    fn handle_tick(&mut self, _now: MonoMs) {
        _ = self.events.send(Event::Tick);
    }

    fn suspicion_of(&self, _peer: NodeId) -> u64 {
        self.suspicion
    }
}

struct Host {
    node: NodeId,
    probe: Probe<u64>,
    events: Receiver<Event>,
}

impl Host {
    fn start(number: u128) -> Host {
        Host::start_with_key(number, ProbeKey::of_node(SECRET, NodeId(number)))
    }

    fn start_with_key(number: u128, key: ProbeKey) -> Host {
        Host::start_on("127.0.0.1:0", number, key)
    }

    fn start_on(listen: &str, number: u128, key: ProbeKey) -> Host {
        let (sender, events) = channel();
        let node = NodeId(number);
        let listen = listen.parse().unwrap();
        let config = Config { node, incarnation: Incarnation(number as u64), key, listen, epoch: Instant::now() };
        let probe = Probe::start(config, Recorder { suspicion: 0, events: sender }).unwrap();
        Host { node, probe, events }
    }

    fn as_peer(&self) -> Peer {
        Peer { node: self.node, addr: self.probe.local_addr(), key: ProbeKey::of_node(SECRET, self.node) }
    }

    fn wait_for<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event comes in time");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    fn echo_from(&self, node: NodeId) -> Echo {
        self.wait_for(|event| match event {
            Event::Echo(from, echo) if from == node => Some(echo),
            _ => None,
        })
    }

    /// What happens in so many intervals.
    fn events_of(&self, ticks: usize) -> Vec<Event> {
        let mut seen = Vec::new();
        let mut left = ticks;
        self.wait_for(|event| {
            seen.push(event);
            left -= usize::from(event == Event::Tick);
            (left == 0).then_some(())
        });
        seen
    }
}

#[test]
fn a_probe_is_answered_with_incarnation_and_progress() {
    let (one, two) = (Host::start(1), Host::start(2));
    two.probe.progress().store(42, std::sync::atomic::Ordering::Relaxed);
    one.probe.watch(vec![two.as_peer()], 0);
    let echo = one.echo_from(two.node);
    assert_eq!(echo, Echo { incarnation: Incarnation(2), progress: 42, quotes: 0 });
    let ipv4_only_noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    ipv4_only_noise.send_to(b"noise", two.probe.local_addr()).unwrap();
    one.echo_from(two.node);
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let one = Host::start(1);
    // Left to itself, the kernel would answer from 127.0.0.1.
    let mut listeners = vec![("0.0.0.0:0", "127.0.0.2")];
    if UdpSocket::bind("[::1]:0").is_ok() {
        listeners.extend([("[::]:0", "127.0.0.2"), ("[::]:0", "::1")]);
    } else {
        eprintln!("this host has no IPv6: only IPv4 is tried");
    }
    for (listen, asked) in listeners {
        let everywhere = Host::start_on(listen, 2, ProbeKey::of_node(SECRET, NodeId(2)));
        let addr = SocketAddr::new(asked.parse().unwrap(), everywhere.probe.local_addr().port());
        one.probe.watch(vec![Peer { addr, ..everywhere.as_peer() }], 0);
        one.wait_for(|event| matches!(event, Event::Orders(_)).then_some(()));
        one.echo_from(everywhere.node);
    }
}

#[test]
fn a_suspect_hears_of_it_and_quotes_the_suspicion() {
    let (one, two) = (Host::start(1), Host::start(2));
    one.probe.watch(vec![two.as_peer()], 77);
    two.wait_for(|event| (event == Event::Suspected(one.node)).then_some(()));
    let quotes = one.wait_for(|event| match event {
        Event::Echo(_, echo) if echo.quotes != 0 => Some(echo.quotes),
        _ => None,
    });
    assert_eq!(quotes, 77);
}

#[test]
fn a_port_nobody_listens_on_refuses() {
    let one = Host::start(1);
    let two = Host::start(2);
    let peer = two.as_peer();
    two.probe.stop();
    one.probe.watch(vec![peer], 0);
    for _ in 0..2 {
        one.wait_for(|event| (event == Event::Refused(NodeId(2))).then_some(()));
    }
}

#[test]
fn a_daemon_that_comes_back_is_heard_again() {
    let one = Host::start(1);
    let two = Host::start(2);
    let peer = two.as_peer();
    one.probe.watch(vec![peer.clone()], 0);
    one.echo_from(NodeId(2));
    two.probe.stop();
    one.wait_for(|event| (event == Event::Refused(NodeId(2))).then_some(()));
    let (sender, _events) = channel();
    let config = Config {
        node: NodeId(2),
        incarnation: Incarnation(9),
        key: peer.key,
        listen: peer.addr,
        epoch: Instant::now(),
    };
    let _again = Probe::start(config, Recorder { suspicion: 0, events: sender }).unwrap();
    one.wait_for(|event| match event {
        Event::Echo(_, echo) if echo.incarnation == Incarnation(9) => Some(()),
        _ => None,
    });
}

#[test]
fn without_the_key_there_is_no_answer_and_none_is_believed() {
    let one = Host::start(1);
    let impostor = Host::start_with_key(2, ProbeKey::of_node(b"a guess", NodeId(2)));
    let three = Host::start(3);
    one.probe.watch(vec![impostor.as_peer(), three.as_peer()], 0);
    one.echo_from(three.node);
    let heard = |event: &Event| matches!(event, Event::Echo(from, _) if *from == impostor.node);
    assert!(!one.events_of(5).iter().any(heard));
}

#[test]
fn an_echo_counts_once_and_only_for_a_probe_under_way() {
    let two = Host::start(2);
    // A relay between the two, which records what passes and plays it again.
    let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
    relay.set_read_timeout(Some(PATIENCE)).unwrap();
    let one = Host::start(1);
    one.probe.watch(vec![Peer { addr: relay.local_addr().unwrap(), ..two.as_peer() }], 0);
    let mut buffer = [0; 200];
    let mut next_from = |wanted: Option<SocketAddr>| loop {
        let (length, from) = relay.recv_from(&mut buffer).expect("a datagram passes");
        if wanted.is_none_or(|wanted| wanted == from) {
            return (buffer[..length].to_vec(), from);
        }
    };
    let (probe, prober) = next_from(None);
    relay.send_to(&probe, two.probe.local_addr()).unwrap();
    let (echo, _) = next_from(Some(two.probe.local_addr()));
    for _ in 0..10 {
        relay.send_to(&echo, prober).unwrap();
    }
    one.echo_from(two.node);
    let again = one.events_of(3).iter().filter(|event| matches!(event, Event::Echo(..))).count();
    assert_eq!(again, 0);
}

#[test]
fn a_peer_that_is_no_longer_watched_is_not_probed() {
    let (one, two) = (Host::start(1), Host::start(2));
    one.probe.watch(vec![two.as_peer()], 1);
    one.echo_from(two.node);
    one.probe.watch(Vec::new(), 2);
    one.wait_for(|event| (event == Event::Orders(2)).then_some(()));
    assert!(!one.events_of(3).iter().any(|event| matches!(event, Event::Echo(..) | Event::Refused(_))));
}

#[test]
fn a_port_in_use_is_an_error_that_says_what_to_do() {
    let one = Host::start(1);
    let key = ProbeKey::of_node(SECRET, NodeId(2));
    let listen = one.probe.local_addr();
    let config = Config { node: NodeId(2), incarnation: Incarnation(1), key, listen, epoch: Instant::now() };
    let error = Probe::start(config, Recorder { suspicion: 0, events: channel().0 }).unwrap_err();
    assert!(error.to_string().contains("--listen-addr"), "{error}");
}
