//! What the swarm wants of this node: from its own log, or from a manager's stream; to the worker, the transport and the
//! failure detector.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::decisions::{self, LogChange};
use super::dispatch::{Downlink, WatchOrders, follow};
use super::{Shared, admission, gossiping, roster};
use crate::consensus::{Consensus, First};
use crate::dispatcher::{Dispatcher, Networks, SwarmNetworks, View};
use crate::membership::Rings;
use crate::node::clock;
use crate::spec::NodeId;
use crate::state::State;
use crate::transport::{Certificate, MemberList};

/// Changes of the state within this are taken together.
const COALESCE: Duration = Duration::from_millis(2);

/// A log holder without a leader asks another manager what it is to do after this long.
const ASK_AFTER: Duration = Duration::from_secs(3);
/// Between two attempts to catch up; each waits for a quorum itself.
const BETWEEN_READS: Duration = Duration::from_millis(100);

/// A removed node is cut off by every member this long after that member has learnt of the removal.
const CUT_OFF_AFTER: Duration = Duration::from_secs(2);

/// Alternates between the two sources as this node gains and loses the log.
pub async fn run(shared: Arc<Shared>) {
    let mut log_changed = shared.log.subscribe();
    tokio::spawn(shared.cancel.clone().run_until_cancelled_owned(keep_log(Arc::clone(&shared))));
    tokio::spawn(shared.cancel.clone().run_until_cancelled_owned(note_quorum(Arc::clone(&shared))));
    while !shared.cancel.is_cancelled() {
        let log = log_changed.borrow_and_update().clone();
        match log {
            Some(log) => {
                tokio::select! {
                    () = from_log(&shared, &log) => {}
                    () = when_cut_off(&shared, &log) => {}
                }
            }
            None => {
                tokio::select! {
                    () = from_manager(&shared) => {}
                    changed = log_changed.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}

/// Until the log stops. What it says of this node counts once it has caught up: the state a daemon starts with is older
/// than the one its tasks were made from, and an older view would end them.
async fn from_log(shared: &Shared, log: &Consensus) {
    let mut catching_up = pin!(catch_up(log));
    let mut caught_up = false;
    let mut changed = log.changed();
    let mut status = log.status();
    let mut observed = shared.observed.changed();
    let mut networks = shared.networks.subscribe();
    let mut dispatcher = Dispatcher::default();
    let mut orders = None;
    loop {
        if caught_up {
            take_own_networks(shared, &mut networks);
        }
        let state = log.state();
        let quorum = status.borrow_and_update().has_quorum;
        shared.quorum.send_if_modified(|known| std::mem::replace(known, quorum) != quorum);
        // An empty log says nothing of this node yet: what a manager's stream said goes on to count.
        if state.swarm().is_some() {
            let view = dispatcher.view(&state, shared.me);
            if caught_up && view.generation >= shared.view().generation {
                take_view(shared, view);
            }
            renew_own(shared, &state);
            let news = WatchOrders::of(shared.me, &Rings::of(&state), &state, &shared.observed);
            if let Some(news) = news.filter(|news| orders.as_ref() != Some(news)) {
                shared.detector.watch(&news, shared.incarnation());
                orders = Some(news);
            }
        }
        tokio::select! {
            stopped = changed.changed() => if stopped.is_err() { break },
            stopped = status.changed() => if stopped.is_err() { break },
            () = &mut catching_up, if !caught_up => caught_up = true,
            // Nothing else of the view depends on them.
            changed = networks.changed(), if caught_up => {
                if changed.is_err() { break }
                take_own_networks(shared, &mut networks);
                continue;
            }
            // Incarnations of whom to watch are in the records.
            _ = observed.changed() => sleep(COALESCE * 50).await,
        }
        sleep(COALESCE).await;
        if shared.log().is_none() {
            break;
        }
    }
}

/// A log that hears no leader may be one that was taken from this node while it was away: the others send it nothing
/// more, so it cannot say so itself. A manager can.
async fn when_cut_off(shared: &Shared, log: &Consensus) {
    let mut status = log.status();
    loop {
        // A log that stopped says nothing more; whoever stopped it takes it away.
        if status.wait_for(|status| !status.has_quorum).await.is_err() {
            return std::future::pending().await;
        }
        if timeout(ASK_AFTER, status.wait_for(|status| status.has_quorum)).await.is_err() {
            tokio::select! {
                () = from_manager(shared) => {}
                _ = status.wait_for(|status| status.has_quorum) => {}
            }
        }
    }
}

fn take_own_networks(shared: &Shared, networks: &mut watch::Receiver<Option<Arc<SwarmNetworks>>>) {
    let newest = networks.borrow_and_update().clone();
    if let Some(newest) = newest {
        shared.host.set_networks(newest.of(shared.me), newest.subnets());
    }
}

/// Until this node's state holds all that the swarm had acknowledged when it asked.
async fn catch_up(log: &Consensus) {
    while log.read().await.is_err() {
        sleep(BETWEEN_READS).await;
    }
}

/// For as long as this node holds no log, or one that hears no leader.
async fn from_manager(shared: &Shared) {
    let managers = || -> Vec<NodeId> {
        let wanted = roster::wanted(&shared.standing().members, shared.me);
        let mut choices: Vec<NodeId> = wanted.into_iter().collect();
        choices.extend(shared.managers().into_iter().filter(|manager| !choices.contains(manager)).collect::<Vec<_>>());
        choices
    };
    let quorum = shared.quorum.clone();
    // What the stream has said: it goes on from there, whatever this node's own log says meanwhile.
    let networks = Mutex::new(Networks::default());
    let take = |from: NodeId, message: Downlink| take_message(shared, from, message, &networks);
    follow(shared.transport.clone(), managers, take, quorum, shared.cancel.clone()).await;
}

fn take_message(shared: &Shared, from: NodeId, message: Downlink, networks: &Mutex<Networks>) {
    match message {
        Downlink::Update(update) => {
            let mut view = View::clone(&shared.view());
            match update.apply(&mut view) {
                Ok(()) => take_view(shared, view),
                Err(error) => {
                    tracing::debug!(%from, %error, "an update was refused");
                    // Its stream begins again with a snapshot.
                    shared.transport.redial(from);
                }
            }
        }
        Downlink::Networks(update) => {
            let mut held = networks.lock().unwrap_or_else(PoisonError::into_inner);
            match held.apply(*update) {
                Ok(()) => shared.host.set_networks(held.clone(), held.subnets()),
                Err(error) => {
                    tracing::debug!(%from, %error, "an update of networks was refused");
                    shared.transport.redial(from);
                }
            }
        }
        Downlink::Watch(orders) => shared.detector.watch(&orders, shared.incarnation()),
        Downlink::Pulse { echo: Some(echo), .. } => gossiping::heed(shared, shared.observed.handle_echo(&echo)),
        Downlink::Pulse { echo: None, .. } => {}
        Downlink::Certificate(certificate) => {
            take_certificate(shared, *certificate);
        }
    }
}

/// A newer view, wherever it came from.
fn take_view(shared: &Shared, view: View) {
    let before = shared.view();
    // A log that is still being filled, or hears nobody, knows less than a manager's stream.
    if view.generation < before.generation {
        return;
    }
    if view.members != before.members {
        let list = roster::member_list_of(&view.members);
        shared.observed.set_swarm_size(list.members.len());
        shared.transport.set_wanted(roster::wanted(&list, shared.me));
        if before.members.list.keys().all(|node| view.members.list.contains_key(node)) {
            shared.transport.set_members(list.clone());
        } else {
            cut_off_later(shared, list.clone());
        }
        shared.change_standing(|standing| standing.members = list);
        shared.observed.retain_members(|node| view.members.list.contains_key(&node));
    }
    if !view.members.list.contains_key(&shared.me) {
        return shared.host.removed_from_swarm();
    }
    if let Err(error) = shared.host.dir.keyring().lock_by(view.generation.0, view.unlock_key.as_ref()) {
        tracing::error!(%error, "this node's key is not locked on the disk as the swarm says; it is tried again with the next change");
    }
    if view.assignments != before.assignments || view.dependencies != before.dependencies || before.generation.0 == 0 {
        shared.host.assign(&view);
    }
    if view.members != before.members || before.generation.0 == 0 {
        shared.host.set_members(&view.members);
    }
    shared.view.send_replace(Arc::new(view));
}

/// Who was removed learns of it from the log or the stream before nobody listens to it any more: it stops its tasks.
fn cut_off_later(shared: &Shared, list: MemberList) {
    let transport = shared.transport.clone();
    tokio::spawn(shared.cancel.clone().run_until_cancelled_owned(async move {
        sleep(CUT_OFF_AFTER).await;
        transport.set_members(list);
    }));
}

/// A log holder issues its own certificate, as long as it is a member.
fn renew_own(shared: &Shared, state: &State) {
    let current = shared.transport.certificate();
    let held = Some((current.role, current.renew_at(0.5)));
    if let Some(certificate) = admission::renewal(state, shared.me, held, clock::unix()) {
        take_certificate(shared, certificate);
    }
}

fn take_certificate(shared: &Shared, certificate: Certificate) {
    let left = certificate.expires_at - clock::unix();
    tracing::info!(role = ?certificate.role, days_left = left.as_secs() / 86_400, "a new membership certificate");
    shared.transport.set_certificate(certificate.clone());
    shared.change_standing(|standing| standing.certificate = certificate);
}

/// Holds the log exactly while the members say so.
async fn keep_log(shared: Arc<Shared>) {
    let mut views = shared.view.subscribe();
    loop {
        let wanted = views.borrow_and_update().members.list.get(&shared.me).and_then(|member| member.raft);
        let held = shared.standing().raft_id;
        // By the log's own word, or by that of a manager that has read further in it.
        let released = shared.released() || is_behind(&shared);
        let done = match decisions::log_change(wanted, held, released) {
            LogChange::Make { raft_id } => {
                tracing::info!(raft_id, "this node is to hold the log");
                if shared.log().is_some() {
                    // Taken away, and given anew, while this node was away.
                    shared.drop_log().await;
                }
                shared.create_log(raft_id, First::Empty).await
            }
            LogChange::Drop => {
                tracing::info!("this node holds the log no more");
                shared.drop_log().await;
                Ok(())
            }
            LogChange::None => Ok(()),
        };
        if let Err(error) = done {
            tracing::error!(%error, "the log cannot be held");
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// What this node was told is of a later state than its own log's.
fn is_behind(shared: &Shared) -> bool {
    shared.log().is_some_and(|log| shared.view().generation.0 > log.state().applied())
}

/// Remembers since when no quorum is heard.
async fn note_quorum(shared: Arc<Shared>) {
    let mut quorum = shared.quorum.subscribe();
    loop {
        let heard = *quorum.borrow_and_update();
        {
            let mut lost = shared.quorum_lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *lost = if heard { None } else { Some(lost.unwrap_or_else(clock::mono)) };
        }
        shared.host.set_quorum(heard);
        if quorum.changed().await.is_err() {
            return;
        }
    }
}
