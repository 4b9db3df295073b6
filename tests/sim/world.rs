//! The world: hosts, a network, and time. One queue of events, one generator; nothing else decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use flok::consensus::replica::{Fatal, Retention};
use flok::consensus::{FIRST_RAFT_ID, StoreError, new_swarm};
use flok::spec::*;
use flok::state::{Command, Meta, Node, NodeHealth, RaftMember, RaftStanding, Swarm};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::SCHEDULED_FROM;
use crate::check::Checker;
use crate::context::{Context, Effect, Lane, Message, Ms};
use crate::daemon::{self, Daemon, PROBE_MS, Parts, Standing, Stop, TICK_MS};
use crate::disk::Disk;
use crate::faults::Faults;
use crate::log::{Answer, Asker};
use crate::worker::{Outcomes, Runtime};
use crate::workload::Workload;

/// When the world began, for people.
const EPOCH: u64 = 1_760_000_000_000;

#[derive(Debug)]
pub enum Event {
    Tick {
        host: usize,
        life: u64,
    },
    /// The probe thread's turn.
    Probe {
        host: usize,
        life: u64,
    },
    Disk {
        host: usize,
        life: u64,
    },
    Deliver {
        from: usize,
        to: usize,
        message: Message,
    },
    Execute {
        host: usize,
        boot: u64,
        life: u64,
        job: u64,
    },
    Exit {
        host: usize,
        boot: u64,
        task: TaskId,
        pid: u32,
        code: i32,
    },
    /// The service manager starts the daemon, the operator the host.
    Start {
        host: usize,
    },
    /// A daemon that said goodbye stops.
    Leave {
        host: usize,
        patience_ends: Ms,
    },
    Fault,
    Work,
}

/// A machine.
pub struct Host {
    pub node: NodeId,
    pub description: NodeDescription,
    pub retention: Retention,
    /// That it is admitted with.
    pub role: Role,
    pub disk: Disk,
    pub standing: Standing,
    pub runtime: Runtime,
    pub daemon: Option<Daemon>,
    /// The machine runs, whether the daemon does or not.
    pub power: bool,
    pub boot: u64,
    /// Was admitted; its daemon may run.
    pub joined: bool,
    /// Left, was removed, or was given up: never returns.
    pub gone: bool,
    pub slow_disk: bool,
    /// The daemon's main runtime stands still until then, and its probe thread until that.
    pub frozen_until: Ms,
    pub probe_frozen_until: Ms,
    pub wall_offset: i64,
    mono_offset: u64,
    /// A fault of its disk explains that its log ends.
    pub excused: bool,
    /// A copy of its data directory.
    pub copy: Option<Copy>,
    /// Lives on such a copy: its log may lack what it had acknowledged.
    pub restored: bool,
    pub start_under_way: bool,
}

/// Of the daemon's data directory, while the daemon did not run. What containerd holds is no part of it.
pub struct Copy {
    disk: Vec<u8>,
    standing: Standing,
    outcomes: Outcomes,
}

#[derive(Debug, Clone)]
pub struct Network {
    pub loss: f64,
    pub duplicate: f64,
    /// Of a message to be held up, and for how long at most.
    pub held: f64,
    pub held_for: Ms,
    /// From, to.
    pub blocked: BTreeSet<(usize, usize)>,
}

impl Network {
    pub fn calm() -> Network {
        Network { loss: 0.0, duplicate: 0.0, held: 0.0, held_for: 0, blocked: BTreeSet::new() }
    }
}

pub struct World {
    pub now: Ms,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub network: Network,
    pub check: Checker,
    pub faults: Faults,
    pub workload: Workload,
    queue: BTreeMap<(Ms, u64), Event>,
    events: u64,
    lives: u64,
    /// When the last message of each stream arrives.
    streams: BTreeMap<(usize, usize), Ms>,
}

impl World {
    pub fn new(seed: u64, hosts: usize, verbose: bool) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World {
            now: 0,
            hosts: Vec::new(),
            network: Network::calm(),
            check: Checker::new(verbose),
            faults: Faults::draw(&mut rng),
            workload: Workload::new(rng.random_range(100..2_500), rng.random_bool(0.3), seed >= SCHEDULED_FROM),
            queue: BTreeMap::new(),
            events: 0,
            lives: 0,
            streams: BTreeMap::new(),
            rng,
        };
        for _ in 0..hosts {
            world.add_host();
        }
        world
    }

    pub fn add_host(&mut self) -> usize {
        let number = self.hosts.len();
        let addr = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 99, 0, 1).to_bits() + number as u32));
        let retention = self.retention();
        self.hosts.push(Host {
            node: NodeId(self.rng.random()),
            description: NodeDescription {
                hostname: format!("host-{number}"),
                platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
                resources: NodeResources { nano_cpus: 8_000_000_000, memory_bytes: 16 << 30, generic: Vec::new() },
                engine_version: "sim".into(),
                engine_labels: Labels::new(),
                addr,
                transport_port: 2377,
                probe_port: 7946,
                feature_level: FEATURE_LEVEL,
            },
            retention,
            role: Role::Manager,
            disk: Disk::default(),
            standing: Standing::default(),
            runtime: Runtime::default(),
            daemon: None,
            power: true,
            boot: 0,
            joined: false,
            gone: false,
            slow_disk: false,
            frozen_until: 0,
            probe_frozen_until: 0,
            wall_offset: 0,
            mono_offset: self.rng.random_range(0..1_000_000),
            excused: false,
            copy: None,
            restored: false,
            start_under_way: false,
        });
        number
    }

    /// Some hosts keep a long log, some nearly none.
    fn retention(&mut self) -> Retention {
        Retention {
            snapshot_entries: self.rng.random_range(8..200),
            keep_entries: self.rng.random_range(0..100),
            ..Retention::default()
        }
    }

    /// The first node makes the swarm.
    pub fn begin(&mut self) {
        let host = &mut self.hosts[0];
        (host.joined, host.standing.raft_id) = (true, Some(FIRST_RAFT_ID));
        let mut node = self.node_of(0);
        node.raft = Some(RaftMember { raft_id: FIRST_RAFT_ID, standing: RaftStanding::Voter });
        let swarm = Swarm {
            id: daemon::SWARM,
            meta: Meta::default(),
            // Small subnets, so that networks grow.
            spec: SwarmSpec { task_history: 2, subnet_size: 28, ..SwarmSpec::default() },
            ca_public_key: [1; 32],
            ca_secret_key: SecretBytes(vec![2; 32]),
            worker_token: SecretBytes(vec![3; 16]),
            manager_token: SecretBytes(vec![4; 16]),
            token_generation: 0,
            unlock_key: None,
            feature_level: FEATURE_LEVEL,
            membership_version: Version(0),
        };
        self.start_daemon(0, true);
        self.command(0, Command::InitSwarm { swarm: Box::new(swarm), node: Box::new(node) });
    }

    pub fn node_of(&self, host: usize) -> Node {
        let host = &self.hosts[host];
        Node {
            id: host.node,
            meta: Meta::default(),
            spec: NodeSpec { name: None, labels: Labels::new(), role: host.role, availability: Availability::Active },
            public_key: daemon::public_key(host.node),
            description: host.description.clone(),
            raft: None,
            health: NodeHealth::Unknown,
            flaps: 0,
        }
    }

    pub fn host_of(&self, node: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.node == node)
    }

    /// Proposes through one host's daemon; the operation's number, if it holds the log.
    pub fn command(&mut self, host: usize, command: Command) -> Option<u64> {
        self.hosts[host].daemon.as_ref()?.log.as_ref()?;
        let id = self.workload.next_operation();
        self.with_daemon(host, |daemon, _, context| {
            let log = daemon.log.as_mut().expect("just looked at");
            log.propose(Asker::User(id), command, context.unix(), context);
            Ok(log.round(context)?)
        });
        Some(id)
    }

    pub fn read(&mut self, host: usize) {
        let Some(log) = self.hosts[host].daemon.as_mut().and_then(|daemon| daemon.log.as_mut()) else { return };
        let id = self.workload.next_operation();
        self.workload.reads.insert(id, self.check.read_begins());
        log.read(id);
    }

    pub fn schedule(&mut self, after: Ms, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + after, self.events), event);
    }

    /// Until `time` has passed or `done` says so; whether it did.
    pub fn run(&mut self, time: Ms, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + time;
        let mut next_look = self.now;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.check.now = at;
            self.happen(event);
            if at >= next_look {
                next_look = at + 100;
                if done(self) {
                    return true;
                }
            }
        }
        self.now = end;
        self.check.now = end;
        done(self)
    }

    fn happen(&mut self, event: Event) {
        if let Some(until) = self.is_frozen(&event) {
            // In the order in which they came; the probe thread reads what has arrived before it judges.
            let wait = until - self.now + Ms::from(matches!(event, Event::Probe { .. }));
            self.schedule(wait, event);
            return;
        }
        match event {
            Event::Tick { host, life } => {
                if self.lives(host, life) {
                    self.schedule(TICK_MS, Event::Tick { host, life });
                    self.with_daemon(host, |daemon, parts, context| daemon.tick(parts, context));
                }
            }
            Event::Probe { host, life } => {
                if self.lives(host, life) {
                    self.schedule(PROBE_MS, Event::Probe { host, life });
                    self.with_daemon(host, |daemon, _, context| {
                        daemon.probe(context);
                        Ok(())
                    });
                }
            }
            Event::Disk { host, life } => {
                if self.lives(host, life) {
                    self.with_daemon(host, |daemon, parts, context| {
                        if let Some(log) = &mut daemon.log {
                            log.disk_job(context)?;
                        }
                        daemon.look_at_log(parts, context)
                    });
                }
            }
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Execute { host, boot, life, job } => self.execute(host, boot, life, job),
            Event::Exit { host, boot, task, pid, code } => self.exit(host, boot, task, pid, code),
            Event::Start { host } => {
                self.hosts[host].start_under_way = false;
                self.start_host(host);
            }
            Event::Leave { host, patience_ends } => self.leave_if_released(host, patience_ends),
            Event::Fault => self.fault(),
            Event::Work => self.work(),
        }
    }

    fn is_frozen(&self, event: &Event) -> Option<Ms> {
        let until = match event {
            Event::Tick { host, .. } | Event::Disk { host, .. } | Event::Execute { host, .. } => {
                self.hosts[*host].frozen_until
            }
            Event::Deliver { to, message, .. } if message.lane() == Lane::Datagram => {
                self.hosts[*to].probe_frozen_until
            }
            Event::Deliver { to, .. } => self.hosts[*to].frozen_until,
            Event::Probe { host, .. } => self.hosts[*host].probe_frozen_until,
            _ => return None,
        };
        (until > self.now).then_some(until)
    }

    fn lives(&self, host: usize, life: u64) -> bool {
        self.hosts[host].daemon.as_ref().is_some_and(|daemon| daemon.life == life)
    }

    /// Lets a daemon act, and does what it asks for.
    pub fn with_daemon(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Daemon, &mut Parts<'_>, &mut Context<'_>) -> Result<(), Stop>,
    ) {
        let World { now, rng, hosts, check, .. } = self;
        let host = &mut hosts[at];
        let Some(mut daemon) = host.daemon.take() else { return };
        let clocks = clocks(*now, host);
        let mut context = Context { now: *now, clocks, life: daemon.life, rng, check, effects: Vec::new() };
        let Host { disk, standing, runtime, description, retention, .. } = host;
        let mut parts = Parts { disk, standing, runtime, description, retention: *retention };
        let result = act(&mut daemon, &mut parts, &mut context);
        let effects = std::mem::take(&mut context.effects);
        let life = daemon.life;
        let (mut answers, mut reads) = (Vec::new(), Vec::new());
        if let Some(log) = &mut daemon.log {
            answers = log.answers.extract_if(.., |(asker, _)| matches!(asker, Asker::User(_))).collect();
            let applied = log.state().applied();
            let users = log.reads.extract_if(.., |id| *id < crate::log::STREAMS);
            reads = users.map(|id| (id, applied)).collect::<Vec<_>>();
        }
        host.daemon = Some(daemon);
        for effect in effects {
            self.carry_out(at, life, effect);
        }
        for (asker, answer) in answers {
            let Asker::User(id) = asker else { unreachable!("only users' were taken") };
            self.answered(id, answer);
        }
        for (id, applied) in reads {
            let began = self.workload.reads.remove(&id).expect("a read is answered once");
            self.check.read_answered(began, applied);
        }
        if let Err(stop) = result {
            self.daemon_stopped(at, stop);
        }
    }

    fn carry_out(&mut self, at: usize, life: u64, effect: Effect) {
        let boot = self.hosts[at].boot;
        match effect {
            Effect::Send { to, message } => {
                if let Some(to) = self.host_of(to) {
                    self.send(at, to, message);
                }
            }
            Effect::DiskBusy => {
                let slow = self.hosts[at].slow_disk;
                let wait = if slow { self.rng.random_range(20..700) } else { self.rng.random_range(1..8) };
                self.schedule(wait, Event::Disk { host: at, life });
            }
            Effect::Execute { after, done } => {
                let job = self.hosts[at].runtime.keep(done);
                self.schedule(after, Event::Execute { host: at, boot, life, job });
            }
            Effect::Exit { after, task, pid, code } => {
                self.schedule(after, Event::Exit { host: at, boot, task, pid, code });
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.network.blocked.contains(&(from, to)) {
            return;
        }
        let lane = message.lane();
        let lost = self.network.loss > 0.0 && self.rng.random_bool(self.network.loss);
        let mut delay = self.rng.random_range(1..6);
        if self.network.held > 0.0 && self.rng.random_bool(self.network.held) {
            delay += self.rng.random_range(0..=self.network.held_for);
        }
        if lane == Lane::Stream {
            // TCP sends again what was lost, after a while, and keeps the order.
            if lost {
                delay += self.rng.random_range(200..1_500);
            }
            let arrival = self.streams.get(&(from, to)).copied().unwrap_or(0).max(self.now + delay);
            self.streams.insert((from, to), arrival);
            let wait = arrival - self.now;
            self.schedule(wait, Event::Deliver { from, to, message });
            return;
        }
        if lost {
            return;
        }
        if self.network.duplicate > 0.0 && self.rng.random_bool(self.network.duplicate) {
            let later = delay + self.rng.random_range(0..400);
            self.schedule(later, Event::Deliver { from, to, message: message.clone() });
        }
        self.schedule(delay, Event::Deliver { from, to, message });
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let host = &self.hosts[to];
        if !host.power {
            return;
        }
        if host.daemon.is_none() {
            if matches!(message, Message::Probe { .. }) {
                self.send(to, from, Message::NobodyListens);
            }
            return;
        }
        if let Message::Raft(bytes) = &message {
            self.check.trace(bytes);
        }
        let sender = self.hosts[from].node;
        self.with_daemon(to, |daemon, parts, context| daemon.take(sender, message, parts, context));
    }

    fn execute(&mut self, host: usize, boot: u64, life: u64, job: u64) {
        let at = &mut self.hosts[host];
        if at.boot != boot || !at.power {
            return;
        }
        // A daemon that died meanwhile took its jobs with it.
        let Some(done) = at.runtime.under_way.remove(&job) else { return };
        if self.lives(host, life) {
            self.with_daemon(host, |daemon, parts, context| {
                daemon.worker.job_done(&done, parts.runtime, context);
                daemon.work(parts, context);
                Ok(())
            });
        }
    }

    fn exit(&mut self, host: usize, boot: u64, task: TaskId, pid: u32, code: i32) {
        let at = &mut self.hosts[host];
        let by_itself = code < 100;
        if at.boot != boot || !at.power || (by_itself && at.runtime.goes_on(task)) {
            return;
        }
        let Some(exit) = at.runtime.exit(task, pid, code) else { return };
        if exit.code == 0 {
            self.check.semantics.succeeded(task);
        }
        self.with_daemon(host, |daemon, parts, context| {
            daemon.worker.exited(task, exit, context);
            daemon.work(parts, context);
            Ok(())
        });
    }

    // Lives and deaths.

    pub fn start_daemon(&mut self, at: usize, first: bool) {
        self.lives += 1;
        let life = self.lives;
        let World { now, rng, hosts, check, .. } = self;
        let host = &mut hosts[at];
        assert!(host.power && host.daemon.is_none(), "a host runs one daemon");
        let clocks = clocks(*now, host);
        let mut context = Context { now: *now, clocks, life, rng, check, effects: Vec::new() };
        let Host { node, disk, standing, runtime, description, retention, .. } = host;
        let mut parts = Parts { disk, standing, runtime, description, retention: *retention };
        let started = Daemon::start(*node, &mut parts, first.then(new_swarm), &mut context);
        let effects = std::mem::take(&mut context.effects);
        check.note(|| format!("{node} starts, life {life}"));
        match started {
            Ok(daemon) => {
                host.daemon = Some(daemon);
                let phase = self.rng.random_range(1..TICK_MS);
                self.schedule(phase, Event::Tick { host: at, life });
                let phase = self.rng.random_range(1..PROBE_MS);
                self.schedule(phase, Event::Probe { host: at, life });
                for effect in effects {
                    self.carry_out(at, life, effect);
                }
            }
            Err(stop) => self.daemon_stopped(at, stop),
        }
    }

    pub fn start_host(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.gone || !host.joined {
            return;
        }
        if !host.power {
            host.power = true;
            host.boot += 1;
        }
        if host.daemon.is_none() {
            self.start_daemon(at, false);
        }
    }

    pub fn start_later(&mut self, at: usize, after: Ms) {
        if !std::mem::replace(&mut self.hosts[at].start_under_way, true) {
            self.schedule(after, Event::Start { host: at });
        }
    }

    pub fn kill_daemon(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.daemon.take().is_some() {
            self.check.counts.crashes += 1;
            let node = host.node;
            self.check.note(|| format!("{node}: the daemon dies"));
            host.disk.kill_process();
            self.abandon_jobs(at);
        }
        self.impair(at);
    }

    /// What a dead daemon had under way.
    fn abandon_jobs(&mut self, at: usize) {
        let exits = self.hosts[at].runtime.daemon_died(self.now, &mut self.rng);
        self.hosts[at].runtime.ever_started().for_each(|task| self.check.semantics.started(task));
        exits.into_iter().for_each(|exit| self.carry_out(at, 0, exit));
    }

    /// The machine dies with everything on it.
    pub fn cut_power(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if !std::mem::replace(&mut host.power, false) {
            return;
        }
        self.check.counts.crashes += 1;
        let node = host.node;
        self.check.note(|| format!("{node}: the host dies"));
        host.daemon = None;
        (host.frozen_until, host.probe_frozen_until) = (0, 0);
        host.disk.power_cut(self.rng.random());
        host.runtime.host_died();
        self.impair(at);
    }

    pub fn copy_disk(&mut self, at: usize) {
        self.kill_daemon(at);
        let host = &mut self.hosts[at];
        if host.power {
            let (standing, outcomes) = (host.standing.clone(), host.runtime.outcomes());
            host.copy = Some(Copy { disk: host.disk.image(), standing, outcomes });
        }
    }

    /// The machine dies, and what its daemon wrote since the copy is lost.
    pub fn restore_disk(&mut self, at: usize) {
        self.cut_power(at);
        let host = &mut self.hosts[at];
        let Some(copy) = host.copy.take() else { return };
        let node = host.node;
        self.check.note(|| format!("{node}: its data directory is that of a copy"));
        host.disk.restore(copy.disk);
        (host.standing, host.restored) = (copy.standing, true);
        host.runtime.restore_outcomes(copy.outcomes);
    }

    /// Remembers that this host was really hard to reach now.
    pub fn impair(&mut self, at: usize) {
        self.check.impaired.insert(self.hosts[at].node, self.now);
    }

    fn daemon_stopped(&mut self, at: usize, stop: Stop) {
        let host = &mut self.hosts[at];
        let node = host.node;
        self.check.note(|| format!("{node}: the daemon stops: {stop:?}"));
        if host.disk.is_cut() {
            self.cut_power(at);
            let after = self.rng.random_range(500..15_000);
            self.start_later(at, after);
            return;
        }
        host.daemon = None;
        host.disk.kill_process();
        self.abandon_jobs(at);
        let host = &mut self.hosts[at];
        match stop {
            Stop::Removed => host.gone = true,
            // The kernel dropped what it could not write.
            Stop::Fatal(Fatal::Store(StoreError::Io { .. })) if host.excused => {
                host.excused = false;
                host.disk.power_cut(self.rng.random());
                let after = self.rng.random_range(500..5_000);
                self.start_later(at, after);
            }
            // It is for its operator to empty the directory and to join it as another node.
            Stop::Fatal(Fatal::Store(StoreError::LostEntries { .. })) if host.restored => {
                (host.gone, host.power) = (true, false);
                host.runtime.host_died();
            }
            Stop::Fatal(fatal) => panic!("{node} stopped without a cause: {fatal}"),
            Stop::Refused(why) => panic!("{node} was refused: {why}"),
        }
        self.impair(at);
    }

    fn answered(&mut self, id: u64, answer: Answer) {
        self.check.note(|| format!("operation {id}: {answer:?}"));
        if let Some(host) = self.workload.admissions.remove(&id).map(|asked| asked.host) {
            let too_old = self.hosts[host].description.feature_level < FEATURE_LEVEL;
            match answer {
                Answer::Applied(Ok(_)) => {
                    assert!(!too_old, "a node was admitted that knows less than the swarm");
                    self.admitted(host);
                }
                Answer::Applied(Err(_)) if too_old => {}
                // It asks again.
                _ => self.workload.to_admit.push(host),
            }
        }
    }

    fn admitted(&mut self, at: usize) {
        let managers = self.check.reference.nodes().filter(|node| node.is_manager()).map(|node| node.id).collect();
        let host = &mut self.hosts[at];
        host.standing.managers = managers;
        if !std::mem::replace(&mut host.joined, true) {
            self.start_host(at);
        }
    }

    pub fn members(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|at| self.hosts[*at].joined && !self.hosts[*at].gone).collect()
    }

    /// Hosts through which the swarm can be commanded now.
    pub fn log_holders(&self) -> Vec<usize> {
        let holds = |at: &usize| self.hosts[*at].daemon.as_ref().is_some_and(|daemon| daemon.log.is_some());
        (0..self.hosts.len()).filter(holds).collect()
    }

    /// For whoever has to find out what went wrong.
    pub fn dump(&self) {
        for host in &self.hosts {
            let Host { node, power, joined, gone, frozen_until, .. } = host;
            println!("{node} power {power} joined {joined} gone {gone} frozen until {frozen_until}");
            if let Some(daemon) = &host.daemon {
                println!("  {}", daemon.describe());
            }
        }
    }

    pub fn leader(&self) -> Option<usize> {
        let log = |at: &usize| self.hosts[*at].daemon.as_ref().and_then(|daemon| daemon.log.as_ref());
        let leads = self.log_holders().into_iter().filter(|at| log(at).is_some_and(|log| log.leads()));
        leads.max_by_key(|at| log(at).map(|log| log.replica.machine().term()))
    }
}

pub fn clocks(now: Ms, host: &Host) -> Now {
    let unix = (EPOCH + now).saturating_add_signed(host.wall_offset);
    Now { mono: MonoMs(now + host.mono_offset), unix: UnixMs(unix) }
}

pub const SECOND: Ms = 1_000;
