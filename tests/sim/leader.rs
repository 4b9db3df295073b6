//! The leader's loop, as `node::swarm::leader` runs it: verdicts, orchestrator, allocator, scheduler over one
//! draft; then the voters.

use std::collections::VecDeque;

use flok::allocator::Allocator;
use flok::consensus::replica::Fatal;
use flok::membership::verdicts::Verdicts;
use flok::membership::voters::{self, Circumstances, MemberProgress, RaftProgress, VoterStep};
use flok::spec::MonoMs;
use flok::state::{Command, Draft, State, Step, codec};
use flok::{orchestrator, scheduler};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::context::{Context, Ms};
use crate::daemon::Daemon;
use crate::log::{Answer, Asker, Log};

const MAX_PLAN_BYTES: usize = flok::consensus::MAX_ENTRY_BYTES - 4096;
const ALERT_TICK: Ms = 100;
const CALM_TICK: Ms = 500;

/// What is left of a loop between two ticks.
#[derive(Default)]
pub struct Leader {
    tenure: Option<Tenure>,
    /// Entries of the last plan that are still to be proposed.
    rest: VecDeque<Vec<Step>>,
    plan_under_way: bool,
    change_under_way: bool,
    change_rests_until: Ms,
    last: Ms,
}

struct Tenure {
    since: MonoMs,
    verdicts: Verdicts,
    rng: StdRng,
}

impl Daemon {
    pub fn lead(&mut self, context: &mut Context<'_>) -> Result<(), Fatal> {
        self.take_answers(context);
        let Some(log) = &self.log else {
            self.leader.tenure = None;
            return Ok(());
        };
        let due = self.stirred
            || context.now >= self.leader.last + if self.detector.is_calm() { CALM_TICK } else { ALERT_TICK };
        if !due || self.leader.plan_under_way {
            return Ok(());
        }
        self.stirred = false;
        self.leader.last = context.now;
        let state = log.state().clone();
        if !log.leads() {
            self.leader.tenure = None;
            self.detect(&state, None, context);
            return Ok(());
        }
        if self.leader.tenure.is_none() {
            let rng = StdRng::seed_from_u64(context.rng.random());
            self.leader.tenure = Some(Tenure { since: context.mono(), verdicts: Verdicts::default(), rng });
        }
        let since = self.leader.tenure.as_ref().map(|tenure| tenure.since);
        self.detect(&state, since, context);
        self.plan(&state, context);
        self.propose_rest(context);
        self.settle_voters(&state, context)
    }

    fn plan(&mut self, state: &State, context: &Context<'_>) {
        let tenure = self.leader.tenure.as_mut().expect("a leader has a tenure");
        let table = self.exchange.table();
        let mut draft = Draft::new(state, context.unix());
        tenure.verdicts.plan(&mut draft, table, &self.detector, context.clocks);
        orchestrator::plan(&mut draft, table, context.clocks, &mut tenure.rng);
        let mut allocator = Allocator::default();
        allocator.plan(&mut draft);
        scheduler::plan(&mut draft, table, context.clocks, &mut tenure.rng, &mut allocator);
        self.leader.rest = entries(draft.into_steps());
    }

    fn propose_rest(&mut self, context: &mut Context<'_>) {
        let (Some(log), Some(steps)) = (&mut self.log, self.leader.rest.pop_front()) else { return };
        self.leader.plan_under_way = true;
        log.propose(Asker::Plan, Command::Plan(steps), context.unix(), context);
    }

    fn take_answers(&mut self, context: &mut Context<'_>) {
        let Some(log) = &mut self.log else {
            (self.leader.plan_under_way, self.leader.change_under_way) = (false, false);
            return;
        };
        for (asker, answer) in log.answers.extract_if(.., |(asker, _)| !matches!(asker, Asker::User(_))) {
            match (asker, &answer) {
                (Asker::Plan, Answer::Applied(_)) => self.leader.plan_under_way = false,
                (Asker::Plan, _) => {
                    self.leader.plan_under_way = false;
                    self.leader.rest.clear();
                }
                (_, Answer::Applied(Ok(_))) => self.leader.change_under_way = false,
                (_, answer) => {
                    let why = match answer {
                        Answer::Invalid(why) => why.clone(),
                        other => format!("{other:?}"),
                    };
                    context.check.note(|| format!("{}: no change of the voters: {why}", self.me));
                    self.leader.change_under_way = false;
                    self.leader.change_rests_until = context.now + CALM_TICK;
                }
            }
            self.stirred = true;
        }
        if !self.leader.plan_under_way {
            self.propose_rest(context);
        }
    }

    fn settle_voters(&mut self, state: &State, context: &mut Context<'_>) -> Result<(), Fatal> {
        let log = self.log.as_mut().expect("a leader has a log");
        if self.leader.change_under_way || context.now < self.leader.change_rests_until {
            return Ok(());
        }
        let progress = progress(log, state);
        let step = voters::plan(&Circumstances {
            strangers: log.replica.strangers().next().is_some(),
            me: self.me,
            state,
            suspects: self.exchange.table().suspects(),
            progress: &progress,
            now: context.clocks,
        });
        match step {
            Some(VoterStep::Change(members)) => {
                self.leader.change_under_way = true;
                log.change_membership(members, context);
            }
            Some(VoterStep::HandOver) => {
                log.hand_over(context)?;
                self.leader.change_rests_until = context.now + CALM_TICK;
            }
            None => {}
        }
        Ok(())
    }
}

fn progress(log: &Log, state: &State) -> RaftProgress {
    let status = log.replica.machine().status();
    let followers = status
        .followers
        .iter()
        .map(|(id, follower)| (*id, MemberProgress { matched: follower.matched, recently_active: follower.active }));
    let own = (log.raft_id(), MemberProgress { matched: status.last, recently_active: true });
    let known = |id: &u64| state.nodes().any(|node| node.raft.is_some_and(|raft| raft.raft_id == *id));
    let members = followers.chain([own]).filter(|(id, _)| known(id)).collect();
    RaftProgress { committed: status.commit, members }
}

/// Cuts a plan into entries, as the daemon does.
fn entries(steps: Vec<Step>) -> VecDeque<Vec<Step>> {
    let mut entries = VecDeque::new();
    let (mut entry, mut size) = (Vec::new(), 0);
    for step in steps {
        let bytes = codec::encode(&step).len();
        if size + bytes > MAX_PLAN_BYTES && !entry.is_empty() {
            entries.push_back(std::mem::take(&mut entry));
            size = 0;
        }
        size += bytes;
        entry.push(step);
    }
    if !entry.is_empty() {
        entries.push_back(entry);
    }
    entries
}
