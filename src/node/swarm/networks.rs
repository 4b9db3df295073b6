//! What nodes must know of the swarm's networks, made on each log holder for the nodes that it serves and for itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Shared;
use crate::consensus::Consensus;
use crate::dispatcher::NetworkBuilder;
use crate::gossip::Table;
use crate::state::{NodeHealth, State};

/// Changes within this are told together. It is a small part of the 200 ms in which a task that went ill is out of every
/// node's balance.
const COALESCE: Duration = Duration::from_millis(10);
/// A manager that was just started waits at most this long for the nodes' records before it says who serves.
const HEAR_WITHIN: Duration = Duration::from_secs(3);

/// Keeps [`Shared::networks`] at what state and table say, until the log ends.
pub async fn run(shared: Arc<Shared>, log: Consensus) {
    let mut builder = NetworkBuilder::default();
    let mut state_changed = log.changed();
    let mut table_changed = shared.observed.changed();
    let hear_until = Instant::now() + HEAR_WITHIN;
    let mut heard = false;
    loop {
        // In this order: a suspicion ends where the verdict is in the state, and the verdict has to be seen with its end.
        let table = shared.observed.table();
        let state = log.state();
        heard = heard || Instant::now() >= hear_until || all_heard(&state, &table);
        // A state without a swarm is a log that is still to be filled.
        if heard
            && state.swarm().is_some()
            && let Some(news) = builder.build(&state, &table)
        {
            shared.networks.send_replace(Some(Arc::new(news)));
        }
        let changed = async {
            tokio::select! {
                changed = state_changed.changed() => changed.is_ok(),
                changed = table_changed.changed() => changed.is_ok(),
            }
        };
        let changed = if heard { changed.await } else { timeout_at(hear_until, changed).await.unwrap_or(true) };
        if !changed {
            return;
        }
        sleep(COALESCE).await;
    }
}

/// Whether every node that is thought to be up has said something.
fn all_heard(state: &State, table: &Table) -> bool {
    state.nodes().filter(|node| node.health == NodeHealth::Up).all(|node| table.get(node.id).is_some())
}
