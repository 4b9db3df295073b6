//! A swarm in virtual time: observers, a lossy network and the leader's detector, from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::verdicts::{Decided, Verdicts};
use super::*;
use crate::gossip::{NodeRecord, RecordVersion, Table};
use crate::spec::*;
use crate::state::fixture::{Fixture, node};
use crate::state::{NodeHealth, State};

/// Events happen on multiples of this.
const STEP: Duration = Duration::from_millis(10);
const LEADER: NodeId = NodeId(1);
/// How often a node publishes its record here.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Swarm {
    pub fixture: Fixture,
    pub now: MonoMs,
    pub table: Table,
    pub detector: CutDetector,
    verdicts: Verdicts,
    hosts: BTreeMap<NodeId, Host>,
    /// One-way: from, to.
    pub blocked: BTreeSet<(NodeId, NodeId)>,
    /// Share of datagrams lost each way.
    pub loss: f64,
    rng: StdRng,
    in_flight: Vec<(MonoMs, Message)>,
    pub decisions: Vec<(MonoMs, Decided)>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Life {
    Well,
    /// The process is gone, the host refuses.
    NoDaemon,
    /// Nothing answers.
    Dead,
    /// Its threads do not run until then; its sockets fill.
    Stopped(MonoMs),
    /// The probe thread answers, the rest hangs.
    Hung,
}

struct Host {
    observer: Observer,
    incarnation: u64,
    sequence: u64,
    progress: u64,
    life: Life,
    next_tick: MonoMs,
    next_record: MonoMs,
    watch_list: WatchList,
    leaving: bool,
}

enum Message {
    Probe { from: NodeId, to: NodeId, suspicion: u64 },
    Echo { from: NodeId, to: NodeId, reply: Reply },
    Refusal { from: NodeId, to: NodeId },
    Report(AlarmReport),
    Record(Arc<NodeRecord>),
    Watch(NodeId, WatchList),
}

impl Swarm {
    /// A swarm that has been running for a while.
    pub fn new(size: u128, seed: u64) -> Swarm {
        let mut rng = StdRng::seed_from_u64(seed);
        let fixture = Fixture::nodes(size);
        let hosts = fixture.state.nodes().map(|node| (node.id, Host::new(node.id, MonoMs(0), &mut rng))).collect();
        let mut detector = CutDetector::new(LEADER);
        detector.set_leading(Some(MonoMs(0)));
        let mut swarm = Swarm {
            fixture,
            now: MonoMs(0),
            table: Table::default(),
            detector,
            verdicts: Verdicts::default(),
            hosts,
            blocked: BTreeSet::new(),
            loss: 0.0,
            rng,
            in_flight: Vec::new(),
            decisions: Vec::new(),
        };
        swarm.run(Duration::from_secs(5));
        assert_eq!(swarm.down(), BTreeSet::new());
        swarm.decisions.clear();
        swarm
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// How long it took, at most `time`.
    pub fn run_until(&mut self, time: Duration, done: impl Fn(&Swarm) -> bool) -> Duration {
        let begun = self.now;
        while self.now - begun < time && !done(self) {
            self.now = self.now + STEP;
            self.deliver();
            let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
            ids.into_iter().for_each(|id| self.run_host(id));
            self.lead();
        }
        self.now - begun
    }

    pub fn set_life(&mut self, id: NodeId, life: Life) {
        let host = self.hosts.get_mut(&id).unwrap();
        if matches!(host.life, Life::NoDaemon | Life::Dead) && life == Life::Well {
            host.incarnation += 1;
            host.sequence = 0;
            host.observer = Observer::new(id, Incarnation(host.incarnation));
            host.observer.handle_watch_list(&host.watch_list);
        }
        host.life = life;
    }

    pub fn set_leaving(&mut self, id: NodeId) {
        self.hosts.get_mut(&id).unwrap().leaving = true;
    }

    /// Cuts `ids` off from everyone else, both ways; they reach one another.
    pub fn isolate(&mut self, ids: &BTreeSet<NodeId>) {
        for one in self.hosts.keys().filter(|one| ids.contains(one)) {
            for other in self.hosts.keys().filter(|other| !ids.contains(other)) {
                self.blocked.extend([(*one, *other), (*other, *one)]);
            }
        }
    }

    pub fn health(&self, id: NodeId) -> NodeHealth {
        self.fixture.state.node(id).unwrap().health
    }

    pub fn down(&self) -> BTreeSet<NodeId> {
        let down = |id: &NodeId| matches!(self.health(*id), NodeHealth::Down { .. });
        self.hosts.keys().copied().filter(down).collect()
    }

    /// When verdicts were passed, and on whom.
    pub fn cuts(&self) -> Vec<(MonoMs, BTreeSet<NodeId>)> {
        let cuts = self.decisions.iter().filter(|(_, decided)| !decided.down.is_empty());
        cuts.map(|(at, decided)| (*at, decided.down.iter().map(|one| one.node).collect())).collect()
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.blocked.contains(&(from, to)) {
            return;
        }
        let datagram = matches!(message, Message::Probe { .. } | Message::Echo { .. });
        let lost = self.rng.random_bool(self.loss);
        // A stream sends again what was lost, after a while.
        let delay = match (datagram, lost) {
            (true, true) => return,
            (_, false) => STEP,
            (false, true) => Duration::from_millis(self.rng.random_range(200..1500)),
        };
        self.in_flight.push((self.now + delay, message));
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.in_flight).into_iter().partition(|m| m.0 <= now);
        self.in_flight = later;
        for (_, message) in due {
            self.receive(message);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Probe { from, to, suspicion } => self.answer(from, to, suspicion),
            Message::Echo { to, .. } | Message::Refusal { to, .. } | Message::Watch(to, _) if self.asleep(to) => {
                self.in_flight.push((self.now + STEP, message));
            }
            Message::Echo { from, to, reply } => {
                self.hosts.get_mut(&to).unwrap().observer.handle_reply(from, reply);
            }
            Message::Refusal { from, to } => self.hosts.get_mut(&to).unwrap().observer.handle_refused(from),
            Message::Report(report) => self.detector.handle_report(report.observer, report, self.now),
            Message::Record(record) => _ = self.table.merge(record, self.now),
            Message::Watch(to, list) => {
                let host = self.hosts.get_mut(&to).unwrap();
                host.observer.handle_watch_list(&list);
                host.watch_list = list;
            }
        }
    }

    fn asleep(&self, id: NodeId) -> bool {
        matches!(self.hosts[&id].life, Life::Stopped(_))
    }

    fn answer(&mut self, from: NodeId, to: NodeId, suspicion: u64) {
        let host = &self.hosts[&to];
        let reply = Reply { incarnation: Incarnation(host.incarnation), progress: host.progress, quotes: suspicion };
        match host.life {
            Life::Well | Life::Hung => self.send(to, from, Message::Echo { from: to, to: from, reply }),
            Life::NoDaemon => self.send(to, from, Message::Refusal { from: to, to: from }),
            Life::Dead => {}
            Life::Stopped(_) => {
                self.in_flight.push((self.now + STEP, Message::Probe { from, to, suspicion }));
            }
        }
    }

    fn run_host(&mut self, id: NodeId) {
        let now = self.now;
        let host = self.hosts.get_mut(&id).unwrap();
        if let Life::Stopped(until) = host.life {
            if now < until {
                return;
            }
            host.life = Life::Well;
        }
        if matches!(host.life, Life::Dead | Life::NoDaemon) {
            return;
        }
        if now >= host.next_tick {
            host.next_tick = now + observer::PROBE_INTERVAL;
            host.progress += u64::from(host.life == Life::Well);
            host.observer.handle_tick(now);
            let report = host.observer.poll_report(now);
            let subjects: Vec<NodeId> = host.watch_list.watched.keys().copied().collect();
            let probes: Vec<_> = subjects.iter().map(|to| (*to, host.observer.suspicion_of(*to))).collect();
            if let Some(report) = report {
                self.send(id, LEADER, Message::Report(report));
            }
            for (to, suspicion) in probes {
                self.send(id, to, Message::Probe { from: id, to, suspicion });
            }
        }
        self.publish(id);
    }

    fn publish(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).unwrap();
        if self.now < host.next_record || host.life != Life::Well {
            return;
        }
        host.next_record = self.now + RECORD_INTERVAL;
        host.sequence += 1;
        let record = NodeRecord {
            unreachable: host.observer.alarms(),
            leaving: host.leaving,
            ..NodeRecord::new(
                id,
                RecordVersion { incarnation: Incarnation(host.incarnation), sequence: host.sequence },
                self.fixture.state.node(id).unwrap().description.clone(),
            )
        };
        self.send(id, LEADER, Message::Record(Arc::new(record)));
    }

    fn lead(&mut self) {
        let before = self.fixture.state.applied();
        self.fixture.now = UnixMs(1_000_000) + (self.now - MonoMs(0));
        self.detector.update(&self.fixture.state, &self.table, self.now);
        self.table.set_suspects(self.detector.suspects().clone());
        let now = Now { mono: self.now, unix: self.fixture.now };
        let mut draft = self.fixture.draft();
        let decided = self.verdicts.plan(&mut draft, &self.table, &self.detector, now);
        if !draft.is_empty() {
            let steps = draft.into_steps();
            let wanted = steps.len() as u32;
            assert_eq!(self.fixture.plan(steps), (wanted, 0));
        }
        if decided != Decided::default() {
            self.decisions.push((self.now, decided));
        }
        if self.fixture.state.applied() != before || self.now == MonoMs(0) + STEP {
            self.tell_whom_to_watch();
        }
    }

    fn tell_whom_to_watch(&mut self) {
        let state: State = self.fixture.state.clone();
        let rings = Rings::of(&state);
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids {
            let list = WatchList::for_observer(id, &rings, &state, &self.table);
            self.send(LEADER, id, Message::Watch(id, list));
        }
    }
}

impl Host {
    fn new(id: NodeId, now: MonoMs, rng: &mut StdRng) -> Host {
        Host {
            observer: Observer::new(id, Incarnation(1)),
            incarnation: 1,
            sequence: 0,
            progress: 0,
            life: Life::Well,
            next_tick: now + Duration::from_millis(rng.random_range(1..100)),
            next_record: now + Duration::from_millis(rng.random_range(1..1000)),
            watch_list: WatchList::default(),
            leaving: false,
        }
    }
}

fn nodes(numbers: impl IntoIterator<Item = u128>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(node).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_dead_host_is_declared_down_in_little_more_than_a_second() {
    for (size, within_ms) in [(3, 2400), (4, 1400), (5, 1400), (12, 1400), (50, 1400)] {
        let mut swarm = Swarm::new(size, size as u64);
        swarm.set_life(node(2), Life::Dead);
        let took = swarm.run_until(10 * SECOND, |swarm| !swarm.down().is_empty());
        assert!(took.as_millis() >= 900 && took.as_millis() <= within_ms, "{size} nodes: {took:?}");
        swarm.run(20 * SECOND);
        assert_eq!(swarm.down(), nodes([2]), "{size} nodes");
    }
}

#[test]
fn a_third_of_the_swarm_is_lost_at_once_and_nobody_else_suffers() {
    for seed in 0..4 {
        let mut swarm = Swarm::new(48, seed);
        let lost = nodes(2..18);
        swarm.isolate(&lost);
        let took = swarm.run_until(20 * SECOND, |swarm| swarm.down().len() >= lost.len());
        assert!(took <= 4 * SECOND, "seed {seed}: {took:?}");
        swarm.run(20 * SECOND);
        assert_eq!(swarm.down(), lost, "seed {seed}");
        let first = swarm.cuts()[0].1.len();
        assert!(first * 3 >= lost.len() * 2, "seed {seed}: one cut takes most of them, not {first}");
    }
}

#[test]
fn two_of_five_cut_off_together_go_down_together() {
    let mut swarm = Swarm::new(5, 1);
    swarm.isolate(&nodes([3, 4]));
    swarm.run(3 * SECOND);
    assert_eq!(swarm.down(), nodes([3, 4]));
    assert!(swarm.cuts()[0].0 - MonoMs(5000) <= Duration::from_millis(1500), "{:?}", swarm.cuts());
}

#[test]
fn a_fifth_of_all_datagrams_lost_each_way_condemns_nobody() {
    for size in [3, 5, 20] {
        let mut swarm = Swarm::new(size, 7);
        swarm.loss = 0.2;
        swarm.run(120 * SECOND);
        assert_eq!(swarm.cuts(), Vec::new(), "{size} nodes");
    }
}

#[test]
fn under_loss_a_dead_host_is_found_all_the_same() {
    let mut swarm = Swarm::new(5, 3);
    swarm.loss = 0.2;
    swarm.set_life(node(4), Life::Dead);
    swarm.run_until(10 * SECOND, |swarm| !swarm.down().is_empty());
    assert_eq!(swarm.down(), nodes([4]));
}

#[test]
fn a_node_that_can_only_send_or_only_receive_is_down_and_takes_nobody_with_it() {
    for deaf in [true, false] {
        let mut swarm = Swarm::new(7, 5);
        for other in (1..=7).map(node).filter(|other| *other != node(3)) {
            swarm.blocked.insert(if deaf { (other, node(3)) } else { (node(3), other) });
        }
        swarm.run(60 * SECOND);
        let condemned: BTreeSet<NodeId> = swarm.cuts().into_iter().flat_map(|(_, down)| down).collect();
        assert_eq!(condemned, nodes([3]), "deaf: {deaf}");
        assert_ne!(swarm.health(node(3)), NodeHealth::Up);
        assert!(swarm.cuts().len() <= 7, "its records come through when it is deaf, but it does not flap for ever");
    }
}

#[test]
fn one_bad_link_condemns_nobody() {
    for size in [3, 4, 5, 9] {
        let mut swarm = Swarm::new(size, 11);
        swarm.blocked.extend([(node(2), node(3)), (node(3), node(2))]);
        swarm.run(60 * SECOND);
        assert_eq!(swarm.cuts(), Vec::new(), "{size} nodes");
    }
}

#[test]
fn a_node_that_was_stopped_accuses_nobody_when_it_wakes() {
    let mut swarm = Swarm::new(5, 13);
    for _ in 0..20 {
        let until = swarm.now + Duration::from_millis(900);
        swarm.set_life(node(3), Life::Stopped(until));
        swarm.run(3 * SECOND);
    }
    assert_eq!(swarm.cuts(), Vec::new());
    assert!(swarm.detector.is_calm());
}

#[test]
fn a_daemon_that_restarts_in_time_keeps_its_tasks() {
    let mut swarm = Swarm::new(5, 17);
    swarm.set_life(node(3), Life::NoDaemon);
    swarm.run(4 * SECOND);
    assert!(swarm.table.is_suspect(node(3)), "no new tasks and no traffic meanwhile");
    swarm.set_life(node(3), Life::Well);
    swarm.run(10 * SECOND);
    assert_eq!(swarm.cuts(), Vec::new());
    assert!(!swarm.table.is_suspect(node(3)));
}

#[test]
fn a_daemon_that_does_not_restart_is_declared_down_after_its_grace() {
    let mut swarm = Swarm::new(5, 19);
    swarm.set_life(node(3), Life::NoDaemon);
    let took = swarm.run_until(20 * SECOND, |swarm| !swarm.down().is_empty());
    assert!(took >= SECOND * 49 / 10 && took <= 6 * SECOND, "{took:?}");
}

#[test]
fn a_hung_daemon_with_a_live_echo_is_found() {
    let mut swarm = Swarm::new(5, 23);
    swarm.set_life(node(3), Life::Hung);
    let took = swarm.run_until(20 * SECOND, |swarm| !swarm.down().is_empty());
    assert!(took >= SECOND * 49 / 10 && took <= 6 * SECOND, "{took:?}");
    assert_eq!(swarm.down(), nodes([3]));
}

#[test]
fn a_goodbye_is_no_failure_and_no_waiting() {
    let mut swarm = Swarm::new(5, 29);
    swarm.set_leaving(node(3));
    let left = |swarm: &Swarm| matches!(swarm.health(node(3)), NodeHealth::Left { .. });
    assert!(swarm.run_until(10 * SECOND, left) <= 2 * SECOND);
    swarm.set_life(node(3), Life::NoDaemon);
    swarm.run(10 * SECOND);
    assert!(left(&swarm) && swarm.cuts().is_empty());
}

#[test]
fn a_node_that_flaps_is_held_down_twice_as_long_each_time() {
    let mut swarm = Swarm::new(5, 31);
    let mut holds = Vec::new();
    for _ in 0..3 {
        swarm.isolate(&nodes([3]));
        swarm.run_until(10 * SECOND, |swarm| !swarm.down().is_empty());
        swarm.blocked.clear();
        swarm.run_until(10 * SECOND, |swarm| swarm.down().is_empty());
        holds.push(swarm.run_until(100 * SECOND, |swarm| swarm.health(node(3)) == NodeHealth::Up).as_secs());
    }
    assert_eq!(holds, [10, 20, 40]);
}

#[test]
fn when_most_of_the_swarm_would_be_down_nothing_is_replaced_for_a_while() {
    for (members, lost) in [(9, 2..=7), (5, 3..=5), (3, 2..=3)] {
        let mut swarm = Swarm::new(members, 37);
        swarm.isolate(&nodes(lost.clone()));
        swarm.run(25 * SECOND);
        assert_eq!(swarm.cuts(), Vec::new(), "{members} members");
        let reason = swarm.decisions.iter().find_map(|(_, decided)| decided.held_back).unwrap().to_string();
        assert!(reason.contains(&format!("of {members} nodes would be down, more than half")), "{reason}");
        assert!(swarm.table.is_suspect(node(*lost.end())), "{members} members");
        swarm.run(10 * SECOND);
        assert_eq!(swarm.down(), nodes(lost), "{members} members");
    }
}

#[test]
fn a_mass_failure_that_passes_in_time_costs_nothing() {
    for (members, lost) in [(9, 2..=7), (5, 3..=5), (3, 2..=3)] {
        let mut swarm = Swarm::new(members, 41);
        swarm.isolate(&nodes(lost));
        swarm.run(20 * SECOND);
        swarm.blocked.clear();
        swarm.run(60 * SECOND);
        assert_eq!(swarm.cuts(), Vec::new(), "{members} members");
        assert!(swarm.table.suspects().is_empty(), "{members} members");
    }
}

#[test]
fn a_manager_that_does_not_lead_or_hears_no_quorum_passes_no_verdict() {
    let mut swarm = Swarm::new(5, 43);
    swarm.detector.set_leading(None);
    swarm.set_life(node(3), Life::Dead);
    swarm.run(10 * SECOND);
    assert!(swarm.cuts().is_empty() && swarm.table.is_suspect(node(3)));
    swarm.detector.set_leading(Some(swarm.now));
    assert!(swarm.run_until(SECOND, |swarm| !swarm.down().is_empty()) <= Duration::from_millis(400));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut swarm = Swarm::new(12, seed);
        swarm.loss = 0.3;
        swarm.isolate(&nodes([4, 5]));
        swarm.run(10 * SECOND);
        swarm.cuts()
    };
    assert_eq!(run(99), run(99));
}
