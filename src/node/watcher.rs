//! Joins the probe thread to the observer: what probes hear goes in, alarm reports come out.

use tokio::sync::watch;

use crate::membership::{AlarmReport, Observer, Reply, WatchList};
use crate::spec::{Incarnation, MonoMs, NodeId};
use crate::transport::probe::{Echo, Judge, Peer, Probe, ProbeKey};

/// Sent to the probe thread whenever whom to watch, or this node's incarnation, changes.
#[derive(Debug, Clone)]
pub struct WatchOrders {
    pub list: WatchList,
    pub incarnation: Incarnation,
}

/// An [`Observer`] on the probe thread.
#[derive(Debug)]
pub struct Watcher {
    observer: Observer,
    reports: watch::Sender<Option<AlarmReport>>,
    suspected_by: watch::Sender<Option<NodeId>>,
}

/// What the watcher says. Both hold the newest only: reports are whole, and an older one is worth nothing.
#[derive(Debug, Clone)]
pub struct WatcherOutput {
    /// To be sent to every manager whenever it changes, and kept in this node's record.
    pub reports: watch::Receiver<Option<AlarmReport>>,
    /// Marked changed each time an observer says that it suspects this node.
    pub suspected_by: watch::Receiver<Option<NodeId>>,
}

impl Watcher {
    pub fn new(me: NodeId, incarnation: Incarnation) -> (Watcher, WatcherOutput) {
        let (reports, reports_out) = watch::channel(None);
        let (suspected_by, suspected_by_out) = watch::channel(None);
        let watcher = Watcher { observer: Observer::new(me, incarnation), reports, suspected_by };
        (watcher, WatcherOutput { reports: reports_out, suspected_by: suspected_by_out })
    }
}

/// Has the probe thread watch as `orders` say; `key_of` knows the probe keys of those on the list, as far as this node
/// was given them.
pub fn watch(probe: &Probe<WatchOrders>, orders: WatchOrders, key_of: impl Fn(NodeId) -> Option<ProbeKey>) {
    let peer = |(node, watched): (&NodeId, &crate::membership::Watched)| {
        Some(Peer { node: *node, addr: watched.addr, key: key_of(*node)? })
    };
    let peers = orders.list.watched.iter().filter_map(peer).collect();
    probe.watch(peers, orders);
}

impl Judge for Watcher {
    type Orders = WatchOrders;

    fn handle_orders(&mut self, orders: WatchOrders) {
        self.observer.set_incarnation(orders.incarnation);
        self.observer.handle_watch_list(&orders.list);
    }

    fn handle_echo(&mut self, from: NodeId, echo: Echo) {
        let Echo { incarnation, progress, quotes } = echo;
        self.observer.handle_reply(from, Reply { incarnation, progress, quotes });
    }

    fn handle_refused(&mut self, from: NodeId) {
        self.observer.handle_refused(from);
    }

    fn handle_suspected(&mut self, observer: NodeId) {
        self.suspected_by.send_replace(Some(observer));
    }

    fn handle_tick(&mut self, now: MonoMs) {
        self.observer.handle_tick(now);
        if let Some(report) = self.observer.poll_report(now) {
            self.reports.send_replace(Some(report));
        }
    }

    fn suspicion_of(&self, peer: NodeId) -> u64 {
        self.observer.suspicion_of(peer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::membership::Watched;
    use crate::spec::Version;
    use crate::transport::probe::Config;

    struct Host {
        node: NodeId,
        probe: Probe<WatchOrders>,
        output: WatcherOutput,
    }

    #[expect(clippy::disallowed_methods, reason = "the shell's clock")]
    fn hosts(count: u128) -> Vec<Host> {
        let start = |number| {
            let node = NodeId(number);
            let (watcher, output) = Watcher::new(node, Incarnation(1));
            let listen = "127.0.0.1:0".parse().unwrap();
            let config = Config { node, incarnation: Incarnation(1), key: key(node), listen, epoch: Instant::now() };
            Host { node, probe: Probe::start(config, watcher).unwrap(), output }
        };
        let hosts: Vec<Host> = (1..=count).map(start).collect();
        let watched: BTreeMap<NodeId, Watched> = hosts
            .iter()
            .map(|host| {
                let addr = host.probe.local_addr();
                (host.node, Watched { addr, incarnation: Incarnation(1), starting: false })
            })
            .collect();
        for host in &hosts {
            let mut watched = watched.clone();
            watched.remove(&host.node);
            let list = WatchList { membership_version: Version(1), watched };
            watch(&host.probe, WatchOrders { list, incarnation: Incarnation(1) }, |node| Some(key(node)));
        }
        hosts
    }

    fn key(node: NodeId) -> ProbeKey {
        ProbeKey::of_node(b"secret", node)
    }

    async fn accuses(host: &mut Host, subject: NodeId) -> bool {
        let accused = |report: &Option<AlarmReport>| {
            report.as_ref().is_some_and(|report| report.alarms.iter().any(|alarm| alarm.subject == subject))
        };
        let report = host.output.reports.wait_for(accused);
        tokio::time::timeout(Duration::from_secs(30), report).await.is_ok()
    }

    #[tokio::test]
    async fn observers_report_a_daemon_that_is_gone() {
        let mut hosts = hosts(4);
        let gone = hosts.pop().unwrap();
        gone.probe.stop();
        for host in &mut hosts {
            assert!(accuses(host, gone.node).await);
        }
    }

    #[tokio::test]
    async fn a_runtime_that_stands_still_is_reported_though_its_probes_answer() {
        let mut hosts = hosts(2);
        // Nobody adds to its progress.
        let hung = hosts[1].node;
        assert!(accuses(&mut hosts[0], hung).await);
    }
}
