//! The failure detector on this node: whom the probe thread watches, and what becomes of its alarms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::dispatch::WatchOrders;
use super::observed::Observed;
use crate::membership::AlarmReport;
use crate::node::clock;
use crate::node::watcher::{self, Watcher, WatcherOutput};
use crate::spec::*;
use crate::state::codec;
use crate::transport::probe::{self, Probe, ProbeKey};
use crate::transport::{Protocol, Transport};

/// How often the main runtime shows that it runs.
const PROGRESS: Duration = Duration::from_millis(200);
/// A connection is not redialled more often than this on the word of the detector.
const REDIAL_GAP: Duration = Duration::from_secs(1);

/// The running detector.
pub struct Detector {
    /// `None` once it was stopped.
    probe: Mutex<Option<Probe<watcher::WatchOrders>>>,
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
        let (judge, output) = Watcher::new(node, incarnation);
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
        tokio::spawn(cancel.run_until_cancelled_owned(reporter.run(output)));
        Ok(Detector { probe: Mutex::new(Some(probe)) })
    }

    /// Whom to watch from now on.
    pub fn watch(&self, orders: &WatchOrders, incarnation: Incarnation) {
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(probe) = probe.as_ref() else { return };
        probe.identify(incarnation, orders.own_key.clone());
        let to_watch = watcher::WatchOrders { list: orders.list.clone(), incarnation };
        watcher::watch(probe, to_watch, |node| orders.keys.get(&node).cloned());
    }

    /// Ends the probe thread and gives its port back. Takes up to about a probe's interval.
    pub fn stop(&self) {
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(probe) = probe {
            probe.stop();
        }
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
    async fn run(mut self, mut output: WatcherOutput) {
        loop {
            tokio::select! {
                changed = output.reports.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let report = output.reports.borrow_and_update().clone();
                    report.into_iter().for_each(|report| self.report(report));
                }
                changed = output.suspected_by.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let observer = *output.suspected_by.borrow_and_update();
                    observer.into_iter().for_each(|observer| self.redial(observer));
                }
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
