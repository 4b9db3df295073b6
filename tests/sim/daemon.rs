//! One daemon's life: every machine of the core, wired as `node::swarm` wires them, driven by ticks and messages.

use std::collections::{BTreeMap, BTreeSet};

use flok::consensus::machine::TICK;
use flok::consensus::replica::{Fatal, Retention};
use flok::consensus::wire::Response;
use flok::consensus::{First, LogIdentity, LogStore};
use flok::dispatcher::{Dispatcher, Update, View, diff};
use flok::gossip::{
    EchoVerdict, Exchange, Publisher, Repair, RepairAnswer, RepairRequest, SignedRecord, Statement, Surroundings,
};
use flok::membership::{AlarmReport, CutDetector, Observer, Reply, Rings, WatchList, observer};
use flok::node::decisions::{self, LogChange};
use flok::spec::*;
use flok::state::{RaftMember, State, codec};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::context::{Context, Downlink, Message, Ms};
use crate::disk::Disk;
use crate::leader::Leader;
use crate::log::{self, Log};
use crate::worker::{Runtime, Worker};

pub const SWARM: SwarmId = SwarmId(7);
pub const TICK_MS: Ms = TICK.as_millis() as Ms;
pub const PROBE_MS: Ms = observer::PROBE_INTERVAL.as_millis() as Ms;
const PULSE: Ms = 1_000;
const ASK_AFTER: Ms = 3_000;
const PATIENCE: Ms = 3_000;
const ANSWER_WITHIN: Ms = 1_500;
const RETRY: std::ops::RangeInclusive<Ms> = 50..=2_000;

/// What a host's files say of its part in the swarm; written durably, one by one.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub raft_id: Option<u64>,
    pub incarnation: u64,
    pub managers: Vec<NodeId>,
}

/// The host's things that a daemon works with.
pub struct Parts<'a> {
    pub disk: &'a Disk,
    pub standing: &'a mut Standing,
    pub runtime: &'a mut Runtime,
    pub description: &'a NodeDescription,
    pub retention: Retention,
}

/// Why a daemon ends itself.
#[derive(Debug)]
pub enum Stop {
    Fatal(Fatal),
    Removed,
    Refused(String),
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Stop {
        Stop::Fatal(fatal)
    }
}

pub struct Daemon {
    pub me: NodeId,
    pub life: u64,
    pub log: Option<Log>,
    pub view: View,
    pub quorum: bool,
    pub publisher: Publisher,
    pub exchange: Exchange,
    pub detector: CutDetector,
    pub rng: StdRng,
    /// The table has changed since the last leader's tick.
    pub stirred: bool,
    pub worker: Worker,
    pub leader: Leader,
    repair: Repair,
    /// Whom a comparison is under way with, since when.
    comparing: Option<(NodeId, Ms)>,
    /// The probe thread's.
    observer: Observer,
    /// Whom to watch, as the thread was last told.
    watch: WatchList,
    /// What the thread said and nobody has sent on; the newest counts.
    report: Option<AlarmReport>,
    dispatcher: Dispatcher,
    servers: BTreeMap<NodeId, Server>,
    /// Streams that wait for their read: for whom, which session, since when.
    beginning: BTreeMap<u64, (NodeId, u64, Ms)>,
    uplink: Uplink,
    /// Since when its own log has heard no leader.
    cut_off_since: Option<Ms>,
    ticks: u64,
    next_pulse: Ms,
}

/// A manager's end of a stream.
struct Server {
    session: u64,
    number: u64,
    sent: Option<View>,
    watch: Option<WatchList>,
}

/// A node's end, while it holds no log.
#[derive(Default)]
struct Uplink {
    turn: usize,
    manager: Option<NodeId>,
    session: u64,
    next: u64,
    heard: Ms,
    retry_at: Ms,
    delay: Ms,
}

impl Daemon {
    pub fn start(
        me: NodeId,
        parts: &mut Parts<'_>,
        first: Option<First>,
        context: &mut Context<'_>,
    ) -> Result<Daemon, Stop> {
        parts.standing.incarnation += 1;
        let incarnation = Incarnation(parts.standing.incarnation);
        let mut publisher = Publisher::new(me, context.rng.random(), incarnation, parts.description.clone());
        publisher.set_surroundings(surroundings(me), context.mono());
        publisher.set_init(true, context.mono());
        let mut daemon = Daemon {
            me,
            life: context.life,
            log: None,
            view: View::default(),
            quorum: false,
            publisher,
            exchange: Exchange::default(),
            repair: Repair::default(),
            comparing: None,
            detector: CutDetector::new(me),
            rng: StdRng::seed_from_u64(context.rng.random()),
            stirred: true,
            worker: Worker::start(parts.runtime, context),
            leader: Leader::default(),
            observer: Observer::new(me, incarnation),
            watch: WatchList::default(),
            report: None,
            dispatcher: Dispatcher::default(),
            servers: BTreeMap::new(),
            beginning: BTreeMap::new(),
            uplink: Uplink { delay: *RETRY.start(), ..Uplink::default() },
            cut_off_since: None,
            ticks: 0,
            next_pulse: 0,
        };
        daemon.worker.set_quorum(false);
        if let Some(raft_id) = parts.standing.raft_id {
            let store = match first {
                Some(first) => daemon.create_store(raft_id, first, parts, context),
                None => LogStore::open_on(parts.disk.open(), &log::key(), &daemon.identity(raft_id), daemon.nonces()),
            };
            daemon.log = Some(Log::start(store.map_err(Fatal::from)?, BTreeMap::new(), parts.retention, context)?);
            daemon.look_at_log(parts, context)?;
        }
        Ok(daemon)
    }

    fn identity(&self, raft_id: u64) -> LogIdentity {
        LogIdentity { swarm: SWARM, node: self.me, raft_id }
    }

    fn nonces(&mut self) -> Box<StdRng> {
        Box::new(StdRng::seed_from_u64(self.rng.random()))
    }

    fn create_store(
        &mut self,
        raft_id: u64,
        first: First,
        parts: &mut Parts<'_>,
        context: &mut Context<'_>,
    ) -> Result<LogStore, flok::consensus::StoreError> {
        // The real one is made beside its place and put there whole, so no power cut shows a half of it.
        parts.disk.wipe();
        parts.standing.raft_id = Some(raft_id);
        context.check.note(|| format!("{} makes a log, raft id {raft_id}", self.me));
        LogStore::create_on(parts.disk.open(), &log::key(), self.identity(raft_id), first, self.nonces())
    }

    /// Every [`TICK_MS`].
    pub fn tick(&mut self, parts: &mut Parts<'_>, context: &mut Context<'_>) -> Result<(), Stop> {
        self.ticks += 1;
        if let Some(log) = &mut self.log {
            log.tick(context)?;
        }
        self.look_at_log(parts, context)?;
        self.follow(parts, context);
        if context.now >= self.next_pulse {
            self.next_pulse = context.now + PULSE;
            self.pulse(context);
        }
        self.worker.tick(context);
        self.work(parts, context);
        self.gossip(parts, context)?;
        self.renew_watch();
        self.report_alarms(context);
        self.lead(context)?;
        Ok(())
    }

    /// The probe thread's turn, every [`PROBE_MS`]. It has read what arrived.
    pub fn probe(&mut self, context: &mut Context<'_>) {
        self.observer.handle_watch_list(&self.watch);
        self.observer.handle_tick(context.mono());
        for subject in self.watch.watched.keys() {
            context.send(*subject, Message::Probe { suspicion: self.observer.suspicion_of(*subject) });
        }
        if let Some(report) = self.observer.poll_report(context.mono()) {
            self.report = Some(report);
        }
    }

    pub fn take(
        &mut self,
        from: NodeId,
        message: Message,
        parts: &mut Parts<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Stop> {
        match message {
            Message::Raft(bytes) => {
                if let Some(log) = &mut self.log {
                    log.take_message(from, &bytes, context)?;
                }
            }
            Message::Snapshot { life, raft_id, message, data } => {
                if let Some(log) = &mut self.log {
                    log.take_snapshot(from, &message, data, context)?;
                    context.send(from, Message::SnapshotTaken { life, raft_id });
                }
            }
            Message::SnapshotTaken { life, raft_id } => {
                if let Some(log) = self.log.as_mut().filter(|_| life == context.life) {
                    log.snapshot_answered(raft_id, true);
                }
            }
            Message::Request { life, sequence, request } => {
                if let Some(log) = &mut self.log {
                    let response = if may_command(log.state(), from) {
                        log.serve(request)
                    } else {
                        Response::Invalid("only managers may change the swarm".into())
                    };
                    log.round(context)?;
                    context.send(from, Message::Response { life, sequence, response });
                }
            }
            Message::Response { life, sequence, response } => {
                if let Some(log) = self.log.as_mut().filter(|_| life == context.life) {
                    log.take_response(sequence, response, context);
                }
            }
            Message::Record(signed) => self.take_record(signed, context),
            Message::Repair { life, request } => {
                let answer = match request {
                    RepairRequest::Compare(digest) => self.exchange.answer(&digest),
                    RepairRequest::Offer(records) => {
                        records.into_iter().for_each(|record| self.take_record(record, context));
                        RepairAnswer::default()
                    }
                };
                context.send(from, Message::RepairAnswer { life, answer });
            }
            Message::RepairAnswer { life, answer } => {
                if life == context.life {
                    self.take_repair(from, &answer, context);
                }
            }
            Message::Alarm(report) => {
                self.detector.handle_report(from, report, context.mono());
                self.stirred = true;
            }
            Message::Probe { suspicion } => {
                let incarnation = self.publisher.record().version.incarnation;
                let reply = Reply { incarnation, progress: self.ticks / 4, quotes: suspicion };
                context.send(from, Message::Echo(reply));
            }
            Message::Echo(reply) => self.observer.handle_reply(from, reply),
            Message::NobodyListens => self.observer.handle_refused(from),
            Message::Follow { session } => self.serve(from, session, context),
            Message::Downlink { session, number, news } => {
                self.take_downlink(from, session, number, news, parts, context)?;
            }
        }
        self.look_at_log(parts, context)
    }

    /// Acts on what the log has applied since the last look.
    pub fn look_at_log(&mut self, parts: &mut Parts<'_>, context: &mut Context<'_>) -> Result<(), Stop> {
        self.begin_streams(context);
        let Some(log) = &mut self.log else { return Ok(()) };
        if !std::mem::take(&mut log.advanced) {
            return Ok(());
        }
        self.stirred = true;
        let state = log.state().clone();
        // An empty log says nothing of this node yet.
        let caught_up = self.log.as_ref().is_some_and(|log| log.caught_up);
        if state.swarm().is_some() && caught_up {
            let view = self.dispatcher.view(&state, self.me);
            self.take_view(view, parts, context)?;
        }
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        for node in nodes {
            self.tell(node, context);
        }
        self.work(parts, context);
        Ok(())
    }

    fn take_view(&mut self, view: View, parts: &mut Parts<'_>, context: &mut Context<'_>) -> Result<(), Stop> {
        if view.generation < self.view.generation {
            return Ok(());
        }
        if view.members != self.view.members {
            self.publisher.set_swarm_size(view.members.list.len());
            self.exchange.retain_members(|node| view.members.list.contains_key(&node));
            parts.standing.managers = managers(&view).filter(|id| *id != self.me).collect();
        }
        let Some(member) = view.members.list.get(&self.me) else { return Err(Stop::Removed) };
        let later = view.generation.0;
        let wanted = member.raft;
        if view.assignments != self.view.assignments || self.view.generation.0 == 0 {
            self.worker.assign(&view, context);
        }
        self.view = view;
        self.keep_log(wanted, later, parts, context)
    }

    /// Holds the log exactly while the members say so.
    fn keep_log(
        &mut self,
        wanted: Option<RaftMember>,
        told: u64,
        parts: &mut Parts<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Stop> {
        let behind = self.log.as_ref().is_some_and(|log| told > log.state().applied());
        let released = self.log.as_ref().and_then(|log| log.state().node(self.me)).is_some_and(|n| n.raft.is_none());
        let change = decisions::log_change(wanted, parts.standing.raft_id, released || behind);
        if change != LogChange::None && self.log.is_some() {
            context.check.note(|| format!("{} holds the log no more", self.me));
            self.log = None;
            parts.disk.wipe();
            parts.standing.raft_id = None;
        }
        if let LogChange::Make { raft_id } = change {
            let store = self.create_store(raft_id, First::Empty, parts, context).map_err(Fatal::from)?;
            let list = &self.view.members.list;
            let peers = list.iter().filter_map(|(id, member)| Some((member.raft?.raft_id, *id))).collect();
            self.log = Some(Log::start(store, peers, parts.retention, context)?);
        }
        Ok(())
    }

    pub fn is_manager(&self) -> bool {
        self.view.members.list.get(&self.me).is_some_and(|member| member.role == Role::Manager)
    }

    fn other_managers(&self, parts: &Parts<'_>) -> Vec<NodeId> {
        if self.view.members.list.is_empty() {
            return parts.standing.managers.clone();
        }
        managers(&self.view).filter(|id| *id != self.me).collect()
    }

    /// Hands actions to the executor, and what they came to, to the record.
    pub fn work(&mut self, parts: &mut Parts<'_>, context: &mut Context<'_>) {
        self.worker.act(parts.runtime, context);
        self.publisher.set_tasks(self.worker.reports(context), context.mono());
    }

    // Gossip.

    fn gossip(&mut self, parts: &mut Parts<'_>, context: &mut Context<'_>) -> Result<(), Stop> {
        let managers = self.other_managers(parts);
        if let Some(record) = self.publisher.poll_publish(context.mono()) {
            let signed = sign(&Statement { instance: self.publisher.instance(), record });
            for manager in &managers {
                context.send(*manager, Message::Record(signed.clone()));
            }
            if self.is_manager() {
                self.take_record(signed, context);
            }
        }
        if self.is_manager() {
            if let Some((peer, since)) = self.comparing
                && context.now >= since + ANSWER_WITHIN
            {
                self.comparing = None;
                self.repair.handle_failure(peer, context.mono(), &mut self.rng);
            }
            if let Some((peer, request)) =
                self.repair.poll_request(&self.exchange, &managers, context.mono(), &mut self.rng)
            {
                self.comparing = Some((peer, context.now));
                context.send(peer, Message::Repair { life: context.life, request });
            }
            if let Some(echo) = self.exchange.echo(self.me) {
                let verdict = self.publisher.handle_echo(&echo);
                self.heed(verdict, parts, context)?;
            }
        }
        Ok(())
    }

    fn take_record(&mut self, signed: SignedRecord, context: &Context<'_>) {
        if !self.is_manager() {
            return;
        }
        let list = &self.view.members.list;
        // A record that is not taken comes again.
        let taken = self.exchange.handle_record(signed, &open, |node| list.contains_key(&node), context.mono());
        self.stirred |= matches!(taken, Ok(Some(_)));
    }

    fn take_repair(&mut self, from: NodeId, answer: &RepairAnswer, context: &mut Context<'_>) {
        for record in &answer.records {
            self.take_record(record.clone(), context);
        }
        let next = self.repair.handle_answer(&self.exchange, from, answer, context.mono(), &mut self.rng);
        self.comparing = next.as_ref().map(|_| (from, context.now));
        if let Some(request) = next {
            context.send(from, Message::Repair { life: context.life, request });
        }
    }

    fn heed(&mut self, verdict: EchoVerdict, parts: &mut Parts<'_>, context: &mut Context<'_>) -> Result<(), Stop> {
        match verdict {
            EchoVerdict::Fine => {}
            EchoVerdict::TakeIncarnation(at_least) => {
                parts.standing.incarnation = at_least.0.max(parts.standing.incarnation + 1);
                let incarnation = Incarnation(parts.standing.incarnation);
                context.check.note(|| format!("{} takes incarnation {incarnation}", self.me));
                self.publisher.set_incarnation(incarnation, context.mono());
                self.observer.set_incarnation(incarnation);
            }
            EchoVerdict::Refused(refused) => return Err(Stop::Refused(refused.to_string())),
        }
        Ok(())
    }

    // The failure detector.

    fn renew_watch(&mut self) {
        if let Some(state) = self.log.as_ref().map(Log::state).filter(|state| state.swarm().is_some()) {
            self.watch = WatchList::for_observer(self.me, &Rings::of(state), state, self.exchange.table());
        }
    }

    /// What the probe thread last said goes to the managers.
    fn report_alarms(&mut self, context: &mut Context<'_>) {
        let Some(report) = self.report.take() else { return };
        self.publisher.set_unreachable(report.alarms.clone(), context.mono());
        for manager in managers(&self.view).collect::<Vec<_>>() {
            if manager == self.me {
                self.detector.handle_report(self.me, report.clone(), context.mono());
                self.stirred = true;
            } else {
                context.send(manager, Message::Alarm(report.clone()));
            }
        }
    }

    // Views for those without the log: the manager's end.

    fn serve(&mut self, node: NodeId, session: u64, context: &mut Context<'_>) {
        if self.log.is_none() {
            context.send(node, Message::Downlink { session, number: 0, news: Downlink::End });
            return;
        }
        // A manager that was cut off must not show an older state than the node's tasks were made from.
        let Some(log) = &mut self.log else { return };
        let id = log::STREAMS | context.rng.random::<u64>();
        log.read(id);
        self.beginning.insert(id, (node, session, context.now));
    }

    fn begin_streams(&mut self, context: &mut Context<'_>) {
        let Some(log) = &mut self.log else { return self.beginning.clear() };
        for id in log.reads.extract_if(.., |id| *id >= log::STREAMS).collect::<Vec<_>>() {
            let Some((node, session, _)) = self.beginning.remove(&id) else { continue };
            self.servers.insert(node, Server { session, number: 0, sent: None, watch: None });
            self.tell(node, context);
        }
        let now = context.now;
        for (_, (node, session, _)) in self.beginning.extract_if(.., |_, (_, _, since)| now >= *since + PATIENCE) {
            context.send(node, Message::Downlink { session, number: 0, news: Downlink::End });
        }
    }

    fn tell(&mut self, node: NodeId, context: &mut Context<'_>) {
        let state = self.log.as_ref().map(|log| log.state().clone());
        let (Some(server), Some(state)) = (self.servers.get_mut(&node), state) else {
            return self.end_stream(node, context);
        };
        let view = self.dispatcher.view(&state, node);
        let update = match &server.sent {
            None => Update::snapshot(&view),
            Some(sent) => diff(sent, &view),
        };
        if !update.is_empty() {
            server.sent = Some(view);
            server.say(node, Downlink::Update(Box::new(update)), context);
        }
        // A node that was removed is told so, and no more.
        if state.node(node).is_none() {
            return self.end_stream(node, context);
        }
        let watch = WatchList::for_observer(node, &Rings::of(&state), &state, self.exchange.table());
        if server.watch.as_ref() != Some(&watch) {
            server.watch = Some(watch.clone());
            server.say(node, Downlink::Watch(watch), context);
        }
    }

    fn end_stream(&mut self, node: NodeId, context: &mut Context<'_>) {
        if let Some(mut server) = self.servers.remove(&node) {
            server.say(node, Downlink::End, context);
        }
    }

    fn pulse(&mut self, context: &mut Context<'_>) {
        let quorum = self.log.as_ref().is_some_and(Log::has_quorum);
        for node in self.servers.keys().copied().collect::<Vec<_>>() {
            self.tell(node, context);
            let echo = self.exchange.echo(node);
            if let Some(server) = self.servers.get_mut(&node) {
                server.say(node, Downlink::Pulse { quorum, echo }, context);
            }
        }
    }

    // The node's end.

    fn follow(&mut self, parts: &Parts<'_>, context: &mut Context<'_>) {
        if let Some(quorum) = self.log.as_ref().map(Log::has_quorum) {
            if quorum || self.cut_off_since.is_none() {
                self.set_quorum(quorum);
                self.uplink.manager = None;
            }
            if quorum {
                self.cut_off_since = None;
                return;
            }
            if context.now < *self.cut_off_since.get_or_insert(context.now) + ASK_AFTER {
                return;
            }
        }
        if self.uplink.manager.is_some() && context.now < self.uplink.heard + PATIENCE {
            return;
        }
        if self.uplink.manager.take().is_some() {
            self.uplink_lost(context);
        }
        let choices = self.other_managers(parts);
        if context.now < self.uplink.retry_at || choices.is_empty() {
            return;
        }
        let manager = choices[self.uplink.turn % choices.len()];
        let session = context.rng.random();
        let uplink = &mut self.uplink;
        (uplink.manager, uplink.session, uplink.next, uplink.heard) = (Some(manager), session, 0, context.now);
        uplink.turn += 1;
        context.send(manager, Message::Follow { session });
    }

    fn uplink_lost(&mut self, context: &Context<'_>) {
        self.uplink.manager = None;
        self.uplink.retry_at = context.now + self.uplink.delay;
        self.uplink.delay = (self.uplink.delay * 2).min(*RETRY.end());
        self.set_quorum(false);
    }

    fn take_downlink(
        &mut self,
        from: NodeId,
        session: u64,
        number: u64,
        news: Downlink,
        parts: &mut Parts<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Stop> {
        if self.uplink.manager != Some(from) || self.uplink.session != session {
            return Ok(());
        }
        // What is missing was lost with the connection.
        if number != self.uplink.next || matches!(news, Downlink::End) {
            self.uplink_lost(context);
            return Ok(());
        }
        (self.uplink.next, self.uplink.heard) = (number + 1, context.now);
        match news {
            Downlink::Update(update) => {
                let mut view = self.view.clone();
                match update.apply(&mut view) {
                    Ok(()) => self.take_view(view, parts, context)?,
                    Err(_) => self.uplink_lost(context),
                }
            }
            Downlink::Watch(list) => self.watch = list,
            Downlink::Pulse { quorum, echo } => {
                self.uplink.delay = *RETRY.start();
                self.set_quorum(quorum);
                if let Some(echo) = echo {
                    let verdict = self.publisher.handle_echo(&echo);
                    self.heed(verdict, parts, context)?;
                }
            }
            Downlink::End => unreachable!("looked at above"),
        }
        self.work(parts, context);
        Ok(())
    }

    fn set_quorum(&mut self, quorum: bool) {
        if self.quorum != quorum {
            self.quorum = quorum;
            self.worker.set_quorum(quorum);
        }
    }

    /// Weighs the alarms; the suspects become part of the table.
    pub fn detect(&mut self, state: &State, leading: Option<MonoMs>, context: &Context<'_>) {
        self.detector.set_leading(leading);
        self.detector.update(state, self.exchange.table(), context.mono());
        let suspects: BTreeSet<NodeId> = self.detector.suspects().clone();
        if *self.exchange.table().suspects() != suspects {
            self.exchange.table_mut().set_suspects(suspects);
            self.stirred = true;
        }
    }

    pub fn describe(&self) -> String {
        let log =
            self.log.as_ref().map(|log| (log.replica.machine().status(), log.replica.strangers().collect::<Vec<_>>()));
        let held = self.exchange.table().iter().map(|(id, held)| (id, held.record.version, held.received));
        format!(
            "life {} ticks {} quorum {} record {:?} tasks {} suspects {:?} table {:?}\n  log {log:?}\n  uplink {:?}",
            self.life,
            self.ticks,
            self.quorum,
            self.publisher.record().version,
            self.publisher.record().tasks.len(),
            self.exchange.table().suspects(),
            held.collect::<Vec<_>>(),
            self.uplink.manager,
        )
    }

    pub fn say_goodbye(&mut self, context: &Context<'_>) {
        self.publisher.set_leaving(context.mono());
    }
}

impl Server {
    fn say(&mut self, node: NodeId, news: Downlink, context: &mut Context<'_>) {
        context.send(node, Message::Downlink { session: self.session, number: self.number, news });
        self.number += 1;
    }
}

fn may_command(state: &State, node: NodeId) -> bool {
    state.swarm().is_none() || state.node(node).is_some_and(|node| node.is_manager())
}

pub fn managers(view: &View) -> impl Iterator<Item = NodeId> {
    view.members.list.iter().filter(|(_, member)| member.role == Role::Manager).map(|(id, _)| *id)
}

/// Each host has a LAN of its own within the swarm's pool.
pub fn surroundings(node: NodeId) -> Surroundings {
    let lan = format!("10.0.{}.0/23", node.0 % 16 * 2);
    Surroundings::new(lan.parse().into_iter().collect(), None)
}

/// The simulator's keys are ids, and its signatures are trusted.
pub fn public_key(node: NodeId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&node.0.to_le_bytes());
    key
}

fn sign(statement: &Statement) -> SignedRecord {
    let public_key = public_key(statement.record.node);
    SignedRecord { bytes: codec::encode(statement), signature: Vec::new(), public_key }
}

fn open(signed: &SignedRecord) -> Option<(NodeId, Statement)> {
    let id: [u8; 16] = signed.public_key[..16].try_into().ok()?;
    Some((NodeId(u128::from_le_bytes(id)), codec::decode(&signed.bytes).ok()?))
}
