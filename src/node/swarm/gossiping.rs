//! The gossip loop: publishes this node's record, compares tables with other managers, and keeps the record current.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Shared;
use crate::gossip::{EchoVerdict, RepairAnswer, RepairRequest};
use crate::node::clock;
use crate::spec::NodeId;
use crate::state::codec;
use crate::transport::Protocol;

/// For one page of a comparison.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// How often load is measured.
const MEASURE: Duration = Duration::from_secs(2);
/// How often the host's routes are read.
const LOOK_AROUND: Duration = Duration::from_secs(10);

pub async fn run(shared: Arc<Shared>) {
    loop {
        let peers = if shared.is_manager() { connected_managers(&shared) } else { Vec::new() };
        let due = shared.observed.poll(&peers);
        if let Some(signed) = due.publish {
            shared.transport.publish(Bytes::from(codec::encode(&signed)));
            if shared.is_manager() {
                shared.observed.handle_record(signed, |node| node == shared.me || shared.is_member(node));
            }
        }
        if let Some((peer, request)) = due.request {
            tokio::spawn(shared.cancel.clone().run_until_cancelled_owned(compare(Arc::clone(&shared), peer, request)));
        }
        if let Some(verdict) = shared.observed.own_echo() {
            heed(&shared, verdict);
        }
        let wait = due.next - clock::mono();
        tokio::select! {
            () = shared.observed.woken() => {}
            () = sleep(wait.max(Duration::from_millis(1))) => {}
        }
    }
}

fn connected_managers(shared: &Shared) -> Vec<NodeId> {
    let connected = shared.transport.connected().borrow().clone();
    shared.managers().into_iter().filter(|manager| connected.contains(manager)).collect()
}

/// One conversation with one manager, page by page.
async fn compare(shared: Arc<Shared>, peer: NodeId, first: RepairRequest) {
    let mut request = Some(first);
    while let Some(asked) = request {
        let message = Bytes::from(codec::encode(&asked));
        let answered = shared.transport.request(peer, Protocol::Repair, message, ANSWER_WITHIN).await;
        let answer = answered.ok().and_then(|answer| codec::decode::<RepairAnswer>(&answer).ok());
        let Some(answer) = answer else { return shared.observed.handle_silence(peer) };
        request = shared.observed.handle_answer(peer, answer, |node| shared.is_member(node));
    }
}

/// What the swarm sends a node back of itself.
pub fn heed(shared: &Shared, verdict: EchoVerdict) {
    match verdict {
        EchoVerdict::Fine => {}
        EchoVerdict::TakeIncarnation(at_least) => match shared.host.dir.next_incarnation(at_least) {
            Ok(incarnation) => {
                tracing::warn!(%incarnation, "the swarm knows a later life of this node (was its disk restored?): taking a new one");
                *shared.incarnation.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = incarnation;
                shared.observed.set_incarnation(incarnation);
            }
            Err(error) => tracing::error!(%error, "a new incarnation cannot be written down"),
        },
        EchoVerdict::Refused(refused) => {
            tracing::error!("{refused}");
            shared.host.stop_because(refused.to_string());
        }
    }
}

/// Keeps the record at what the worker reports, the host measures and the network lacks.
pub async fn describe(shared: Arc<Shared>) {
    let mut reports = shared.host.reports();
    let mut conditions = shared.host.task_networks().conditions();
    shared.observed.set_conditions(conditions.borrow_and_update().clone());
    let mut measure = interval(MEASURE);
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK_AROUND);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            Ok(()) = conditions.changed() => {
                shared.observed.set_conditions(conditions.borrow_and_update().clone());
                continue;
            }
            _ = measure.tick() => {
                shared.observed.set_load(shared.host.measure());
                continue;
            }
            _ = look.tick() => {
                look_around(&shared).await;
                continue;
            }
        }
        let report = reports.borrow_and_update().clone();
        shared.observed.set_tasks(report.tasks);
        shared.observed.set_stores(report.images.names, report.volumes);
    }
}

async fn look_around(shared: &Arc<Shared>) {
    let host = Arc::clone(&shared.host);
    let look = move || (host.surroundings(), host.look_for_devices(), host.has_init());
    let Ok((surroundings, has_other_devices, has_init)) = tokio::task::spawn_blocking(look).await else {
        // The runtime ends.
        return;
    };
    if has_other_devices {
        tracing::info!("other devices than before are described on this node");
        shared.observed.set_description(shared.host.description());
    }
    shared.observed.set_init(has_init);
    match surroundings {
        Ok(surroundings) => shared.observed.set_surroundings(surroundings),
        Err(error) => tracing::warn!(%error, "this host's routes cannot be read: what was read last counts on"),
    }
}
