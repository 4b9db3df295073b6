//! The failure detector on this node: the probe thread's judge, and what becomes of its alarms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::dispatch::WatchOrders;
use super::observed::Observed;
use crate::membership::{AlarmReport, Observer, Reply, WatchList};
use crate::node::clock;
use crate::spec::*;
use crate::state::codec;
use crate::transport::probe::{self, Judge, Peer, Probe, ProbeKey};
use crate::transport::{Protocol, Transport};

/// Alarm reports on their way off the probe thread; more than this are a flood of one and the same.
const QUEUE: usize = 256;
/// How often the main runtime shows that it runs.
const PROGRESS: Duration = Duration::from_millis(200);
/// A connection is not redialled more often than this on the word of the detector.
const REDIAL_GAP: Duration = Duration::from_secs(1);

/// The running detector.
pub struct Detector {
    probe: Probe<Orders>,
}

/// For the probe thread's judge.
pub struct Orders {
    list: WatchList,
    /// This node's own.
    incarnation: Incarnation,
}

enum News {
    Report(AlarmReport),
    /// This observer suspects this node.
    Suspected(NodeId),
}

struct Watcher {
    observer: Observer,
    news: mpsc::Sender<News>,
}

impl Judge for Watcher {
    type Orders = Orders;

    fn handle_orders(&mut self, orders: Orders) {
        self.observer.set_incarnation(orders.incarnation);
        self.observer.handle_watch_list(&orders.list);
    }

    fn handle_echo(&mut self, from: NodeId, echo: probe::Echo) {
        let probe::Echo { incarnation, progress, quotes } = echo;
        self.observer.handle_reply(from, Reply { incarnation, progress, quotes });
    }

    fn handle_refused(&mut self, from: NodeId) {
        self.observer.handle_refused(from);
    }

    fn handle_suspected(&mut self, observer: NodeId) {
        let _ = self.news.try_send(News::Suspected(observer));
    }

    fn handle_tick(&mut self, now: MonoMs) {
        self.observer.handle_tick(now);
        if let Some(report) = self.observer.poll_report(now) {
            // A full queue loses this report; the next one repeats it.
            let _ = self.news.try_send(News::Report(report));
        }
    }

    fn suspicion_of(&self, peer: NodeId) -> u64 {
        self.observer.suspicion_of(peer)
    }
}

impl Detector {
    pub fn start(
        listen: std::net::SocketAddr,
        incarnation: Incarnation,
        key: ProbeKey,
        transport: Transport,
        observed: Arc<Observed>,
        managers: impl Fn() -> Vec<NodeId> + Send + 'static,
        cancel: CancellationToken,
    ) -> anyhow::Result<Detector> {
        let node = transport.local_node();
        let (news, inbox) = mpsc::channel(QUEUE);
        let judge = Watcher { observer: Observer::new(node, incarnation), news };
        let config = probe::Config { node, incarnation, key, listen, epoch: clock::epoch() };
        let probe = Probe::start(config, judge)?;
        let progress = Arc::clone(probe.progress());
        tokio::spawn(cancel.clone().run_until_cancelled_owned(async move {
            let mut tick = interval(PROGRESS);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                progress.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let reporter =
            Reporter { transport, observed, managers, standing: BTreeSet::new(), redialled: BTreeMap::new() };
        tokio::spawn(cancel.run_until_cancelled_owned(reporter.run(inbox)));
        Ok(Detector { probe })
    }

    /// Whom to watch from now on.
    pub fn watch(&self, orders: &WatchOrders, incarnation: Incarnation) {
        let peers = orders.list.watched.iter().filter_map(|(node, watched)| {
            Some(Peer { node: *node, addr: watched.addr, key: orders.keys.get(node)?.clone() })
        });
        self.probe.identify(incarnation, orders.own_key.clone());
        self.probe.watch(peers.collect(), Orders { list: orders.list.clone(), incarnation });
    }
}

struct Reporter<F> {
    transport: Transport,
    observed: Arc<Observed>,
    managers: F,
    /// Whom this node accuses.
    standing: BTreeSet<NodeId>,
    redialled: BTreeMap<NodeId, MonoMs>,
}

impl<F: Fn() -> Vec<NodeId>> Reporter<F> {
    async fn run(mut self, mut inbox: mpsc::Receiver<News>) {
        while let Some(news) = inbox.recv().await {
            match news {
                News::Report(report) => self.report(report),
                News::Suspected(observer) => self.redial(observer),
            }
        }
    }

    fn report(&mut self, report: AlarmReport) {
        let accused: BTreeSet<NodeId> = report.alarms.iter().map(|alarm| alarm.subject).collect();
        let turned: Vec<NodeId> = accused.symmetric_difference(&self.standing).copied().collect();
        self.standing = accused;
        self.observed.set_unreachable(report.alarms.clone());
        let me = self.transport.local_node();
        let message = Bytes::from(codec::encode(&report));
        for manager in (self.managers)() {
            if manager == me {
                self.observed.handle_alarms(me, report.clone());
            } else {
                // The record carries the alarm too, should this be lost.
                let _ = self.transport.send(manager, Protocol::Alarm, message.clone());
            }
        }
        // TCP's patience with a dead path costs seconds, on the way down and on the way up.
        for node in turned {
            self.redial(node);
        }
    }

    fn redial(&mut self, node: NodeId) {
        let now = clock::mono();
        if self.redialled.get(&node).is_some_and(|last| now - *last < REDIAL_GAP) {
            return;
        }
        self.redialled.insert(node, now);
        self.transport.redial(node);
    }
}
