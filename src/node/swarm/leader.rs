//! The leader's loop: one tick over one draft of the state, from verdicts to placement, and the voters' loop beside it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Shared, decisions};
use crate::consensus::Consensus;
use crate::membership::verdicts::Verdicts;
use crate::membership::voters::{self, Circumstances, VoterStep};
use crate::node::clock;
use crate::spec::MonoMs;
use crate::state::{Command, State, Step};

/// At least this long between two ticks, so that what happens together is decided together.
const MIN_GAP: Duration = Duration::from_millis(10);
/// While somebody is suspected, time alone can change the decision.
const ALERT_TICK: Duration = Duration::from_millis(100);
/// Otherwise a tick this often catches what only time changes: restart windows, hold-downs, updates' delays.
const CALM_TICK: Duration = Duration::from_millis(500);

/// Runs on every manager that holds the log; decides only while it leads.
pub async fn run(shared: Arc<Shared>, log: Consensus) {
    let mut state_changed = log.changed();
    let mut table_changed = shared.observed.changed();
    let mut status = log.status();
    let mut tenure: Option<Tenure> = None;
    loop {
        let tick = if shared.observed.is_calm() { CALM_TICK } else { ALERT_TICK };
        let tick = if tenure.is_some() { tick.min(until_next_run(&log.state())) } else { tick };
        let woken = async {
            tokio::select! {
                changed = state_changed.changed() => changed.is_ok(),
                changed = table_changed.changed() => changed.is_ok(),
                changed = status.changed() => changed.is_ok(),
            }
        };
        if let Ok(false) = timeout(tick, woken).await {
            return;
        }
        let leads = status.borrow_and_update().is_leader();
        if !leads {
            tenure = None;
            shared.observed.detect(&log.state(), None);
            sleep(MIN_GAP).await;
            continue;
        }
        let tenure = tenure.get_or_insert_with(|| Tenure::new(&shared));
        tenure.tick(&shared, &log).await;
        state_changed.mark_unchanged();
        // What changed while the plan was under way is looked at again.
        if log.state().applied() > tenure.planned {
            state_changed.mark_changed();
        }
        sleep(MIN_GAP).await;
    }
}

/// A run by a schedule begins on time.
fn until_next_run(state: &State) -> Duration {
    let now = clock::now().unix;
    state.next_run_after(now).map_or(CALM_TICK, |next| next - now)
}

/// What a leader remembers while it leads.
struct Tenure {
    since: MonoMs,
    verdicts: Verdicts,
    rng: rand::rngs::StdRng,
    /// The state's index that the last tick planned from, with its own changes in.
    planned: u64,
    held_back_said: bool,
    membership: tokio::task::JoinSet<()>,
}

impl Tenure {
    fn new(shared: &Shared) -> Tenure {
        tracing::info!(node = %shared.me, "this node leads");
        Tenure {
            since: clock::mono(),
            verdicts: Verdicts::default(),
            rng: clock::rng(),
            planned: 0,
            held_back_said: false,
            membership: tokio::task::JoinSet::new(),
        }
    }

    async fn tick(&mut self, shared: &Shared, log: &Consensus) {
        let state = log.state();
        self.planned = state.applied();
        shared.observed.detect(&state, Some(self.since));
        for chunk in self.plan(shared, &state) {
            let count = chunk.len();
            match log.propose(Command::Plan(chunk)).await {
                Ok(Ok(reply)) => tracing::debug!(count, ?reply, "planned"),
                Ok(Err(refusal)) => tracing::warn!(%refusal, "a plan was refused"),
                Err(error) => {
                    tracing::warn!(%error, "a plan was not taken");
                    break;
                }
            }
            self.planned = log.state().applied();
        }
        self.settle_voters(shared, log);
    }

    fn plan(&mut self, shared: &Shared, state: &State) -> Vec<Vec<Step>> {
        let table = shared.observed.table();
        let (decided, entries) = shared.observed.with_detector(|detector| {
            decisions::plan(&mut self.verdicts, state, &table, detector, clock::now(), &mut self.rng)
        });
        for condemned in &decided.down {
            tracing::warn!(node = %condemned.node, accusers = condemned.accusers.len(), "node is down");
        }
        for node in &decided.returned {
            tracing::info!(%node, "node is back");
        }
        match &decided.held_back {
            Some(held_back) if !self.held_back_said => tracing::error!("{held_back}"),
            _ => {}
        }
        self.held_back_said = decided.held_back.is_some();
        entries
    }

    /// One change of the voters at a time, beside the ticks: it may wait for a new member to catch up.
    fn settle_voters(&mut self, shared: &Shared, log: &Consensus) {
        while self.membership.try_join_next().is_some() {}
        if !self.membership.is_empty() {
            return;
        }
        let state = log.state();
        let table = shared.observed.table();
        let status = log.status().borrow().clone();
        let progress = decisions::progress(&status, shared.me, &state);
        let step = voters::plan(&Circumstances {
            strangers: status.strangers,
            me: shared.me,
            state: &state,
            suspects: table.suspects(),
            progress: &progress,
            now: clock::now(),
        });
        let Some(step) = step else { return };
        let log = log.clone();
        self.membership.spawn(async move {
            let done = match step {
                VoterStep::Change(members) => {
                    tracing::info!(?members, "changing who holds the log");
                    log.change_membership(members).await.map_err(|error| error.to_string())
                }
                VoterStep::HandOver { to } => {
                    log.transfer_leadership(Some(to)).await.map_err(|error| error.to_string())
                }
            };
            if let Err(error) = done {
                tracing::warn!(%error, "the log's membership was not changed");
                sleep(CALM_TICK).await;
            }
        });
    }
}
