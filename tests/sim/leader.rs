//! The leader's loop, as `node::swarm::leader` runs it: verdicts, orchestrator, allocator, scheduler over one
//! draft; then the voters.

use std::collections::VecDeque;

use flok::consensus::Status;
use flok::consensus::replica::Fatal;
use flok::membership::verdicts::Verdicts;
use flok::membership::voters::{self, Circumstances, VoterStep};
use flok::node::decisions;
use flok::spec::{MonoMs, UnixMs};
use flok::state::{Command, State, Step};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::context::{Context, Ms};
use crate::daemon::Daemon;
use crate::log::{Answer, Asker};
use crate::semantics;

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
    /// By the host's own clock: what was due then has been seen.
    looked_at: UnixMs,
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
        let run_due = log.state().next_run_after(self.leader.looked_at).is_some_and(|next| next <= context.unix());
        let due = self.stirred
            || run_due
            || context.now >= self.leader.last + if self.detector.is_calm() { CALM_TICK } else { ALERT_TICK };
        if !due || self.leader.plan_under_way {
            return Ok(());
        }
        self.stirred = false;
        self.leader.last = context.now;
        self.leader.looked_at = context.unix();
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
        let Tenure { verdicts, rng, .. } = tenure;
        let (_, entries) = decisions::plan(verdicts, state, self.exchange.table(), &self.detector, context.clocks, rng);
        semantics::check_plan(state, self.exchange.table(), context.clocks, &entries);
        self.leader.rest = entries.into();
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
        let status = Status::of(&log.replica);
        let progress = decisions::progress(&status, self.me, state);
        let step = voters::plan(&Circumstances {
            strangers: status.strangers,
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
            Some(VoterStep::HandOver { to }) => {
                log.hand_over(to, context)?;
                self.leader.change_rests_until = context.now + CALM_TICK;
            }
            None => {}
        }
        Ok(())
    }
}
