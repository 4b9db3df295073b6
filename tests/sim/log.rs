//! One daemon's place in the log: what `consensus::driver` and `consensus::handle` do around a [`Replica`], without tokio.
//!
//! Inputs come from the daemon; what is to happen outside (messages, jobs of the disk) goes into the [`Context`].

use std::collections::{BTreeMap, VecDeque};

use flok::consensus::machine::Write;
use flok::consensus::replica::{Fatal, Replica, ReplicaConfig, Retention, SendSnapshot};
use flok::consensus::wire::{Members, MembershipContext, Request, Response};
use flok::consensus::{LogStore, RaftRole, Refused, SealingKey, StoreError};
use flok::spec::{ClientId, FeatureLevel, NodeId, UnixMs};
use flok::state::{Applied, Command, Entry, Proposal, State, snapshot};
use raft::eraftpb::SnapshotMetadata;
use rand::RngExt;

use crate::context::{Context, Effect, Message, Ms};

const PROPOSE_DEADLINE: Ms = 10_000;
const FORWARD_DEADLINE: Ms = 1_000;
const RESEND_AFTER: Ms = 3_000;
const READ_RETRY_TICKS: u64 = 3;
const SNAPSHOT_DEADLINE: Ms = 10_000;

/// Who waits for a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// An operation of the workload.
    User(u64),
    /// The leader's loop.
    Plan,
    Voters,
}

/// What became of a proposal.
#[derive(Debug, Clone)]
pub enum Answer {
    Applied(Applied),
    /// Nobody knows whether it happens.
    Unknown,
    Invalid(String),
}

enum Job {
    Write(Vec<Write>),
    SaveSnapshot { meta: SnapshotMetadata, data: Vec<u8>, compact_to: (u64, u64) },
    LoadSnapshot(SendSnapshot),
    FeatureLevel(FeatureLevel),
}

struct Pending {
    asker: Asker,
    request: Request,
    deadline: Ms,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Ready,
    Asked { leader: NodeId, since: Ms },
    Taken { leader: NodeId, term: u64, since: Ms },
    Resting { until: Ms },
}

struct Reading {
    asked: Vec<u64>,
    id: Vec<u8>,
    began: u64,
}

pub struct Log {
    pub replica: Replica,
    store: LogStore,
    client: ClientId,
    me: NodeId,
    sequence: u64,
    ticks: u64,
    writes: Vec<Write>,
    writing: bool,
    jobs: VecDeque<Job>,
    busy: bool,
    pending: BTreeMap<u64, Pending>,
    pub answers: Vec<(Asker, Answer)>,
    waiting_reads: Vec<u64>,
    round: Option<Reading>,
    rounds: u64,
    known_reads: Vec<(u64, Vec<u64>)>,
    /// Answered reads.
    pub reads: Vec<u64>,
    snapshots_under_way: BTreeMap<u64, Ms>,
    /// The state has changed since the daemon last looked.
    pub advanced: bool,
    /// It has applied all that was acknowledged when it was opened.
    pub caught_up: bool,
}

/// The read by which a log catches up; no user's.
const CATCH_UP: u64 = 0;
/// Reads from here on are of streams that begin.
pub const STREAMS: u64 = 1 << 63;

pub fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

impl Log {
    pub fn start(
        mut store: LogStore,
        peers: BTreeMap<u64, NodeId>,
        retention: Retention,
        context: &mut Context<'_>,
    ) -> Result<Log, Fatal> {
        let identity = *store.identity();
        let recovered = store.recover()?;
        let seed = context.rng.random();
        let config = ReplicaConfig { node: identity.node, raft_id: identity.raft_id, seed, peers, retention };
        let replica = Replica::new(config, recovered)?;
        let mut log = Log {
            replica,
            store,
            client: ClientId(context.rng.random()),
            me: identity.node,
            sequence: 0,
            ticks: 0,
            writes: Vec::new(),
            writing: false,
            jobs: VecDeque::new(),
            busy: false,
            pending: BTreeMap::new(),
            answers: Vec::new(),
            waiting_reads: vec![CATCH_UP],
            round: None,
            rounds: 0,
            known_reads: Vec::new(),
            reads: Vec::new(),
            snapshots_under_way: BTreeMap::new(),
            advanced: true,
            caught_up: false,
        };
        context.check.log_opened(identity.node, &log.replica);
        log.round(context)?;
        Ok(log)
    }

    pub fn state(&self) -> &State {
        self.replica.state()
    }

    pub fn leads(&self) -> bool {
        self.replica.machine().status().role == RaftRole::Leader
    }

    pub fn has_quorum(&self) -> bool {
        self.replica.machine().status().has_quorum
    }

    pub fn tick(&mut self, context: &mut Context<'_>) -> Result<(), Fatal> {
        self.ticks += 1;
        self.replica.handle_tick();
        if self.round.as_ref().is_some_and(|round| self.ticks >= round.began + READ_RETRY_TICKS) {
            let round = self.round.take().expect("it was just there");
            self.waiting_reads.extend(round.asked);
        }
        let overdue: Vec<u64> = self
            .snapshots_under_way
            .iter()
            .filter(|(_, since)| context.now >= **since + SNAPSHOT_DEADLINE)
            .map(|(id, _)| *id)
            .collect();
        for raft_id in overdue {
            self.snapshot_answered(raft_id, false);
        }
        self.pursue(context);
        self.round(context)
    }

    pub fn take_message(&mut self, from: NodeId, bytes: &[u8], context: &mut Context<'_>) -> Result<(), Fatal> {
        self.replica.handle_message(from, bytes)?;
        self.round(context)
    }

    pub fn take_snapshot(
        &mut self,
        from: NodeId,
        message: &[u8],
        data: Vec<u8>,
        context: &mut Context<'_>,
    ) -> Result<(), Fatal> {
        self.replica.handle_snapshot(from, message, data)?;
        self.round(context)
    }

    pub fn snapshot_answered(&mut self, raft_id: u64, arrived: bool) {
        if self.snapshots_under_way.remove(&raft_id).is_some() {
            self.replica.handle_snapshot_sent(raft_id, arrived);
        }
    }

    pub fn propose(&mut self, asker: Asker, command: Command, at: UnixMs, context: &mut Context<'_>) {
        let proposal = self.next_proposal();
        let request = Request::Propose(Entry { proposal, at, command }.to_bytes());
        self.submit(asker, proposal, request, context);
    }

    pub fn change_membership(&mut self, members: Members, context: &mut Context<'_>) {
        let proposal = self.next_proposal();
        let request = Request::ChangeMembership(MembershipContext { proposal, members });
        self.submit(Asker::Voters, proposal, request, context);
    }

    pub fn read(&mut self, id: u64) {
        self.waiting_reads.push(id);
    }

    pub fn hand_over(&mut self, to: NodeId, context: &mut Context<'_>) -> Result<bool, Fatal> {
        let done = self.replica.handle_transfer(Some(to)).is_ok();
        self.round(context)?;
        Ok(done)
    }

    fn next_proposal(&mut self) -> Proposal {
        self.sequence += 1;
        let answered_below = self.pending.keys().next().copied().unwrap_or(self.sequence);
        Proposal { client: self.client, sequence: self.sequence, answered_below }
    }

    fn submit(&mut self, asker: Asker, proposal: Proposal, request: Request, context: &mut Context<'_>) {
        let deadline = context.now + PROPOSE_DEADLINE;
        self.pending.insert(proposal.sequence, Pending { asker, request, deadline, stage: Stage::Ready });
        self.pursue(context);
    }

    /// Brings every proposal a step on.
    fn pursue(&mut self, context: &mut Context<'_>) {
        let (leader, term) = (self.replica.leader(), self.replica.machine().term());
        let now = context.now;
        let sequences: Vec<u64> = self.pending.keys().copied().collect();
        for sequence in sequences {
            let pending = self.pending.get_mut(&sequence).expect("its key was just seen");
            if now >= pending.deadline {
                let pending = self.pending.remove(&sequence).expect("it is there");
                self.answers.push((pending.asker, Answer::Unknown));
                continue;
            }
            match pending.stage {
                Stage::Asked { since, .. } if now >= since + FORWARD_DEADLINE => pending.stage = Stage::Ready,
                Stage::Taken { leader: l, term: t, since }
                    if leader != Some(l) || term != t || now >= since + RESEND_AFTER =>
                {
                    pending.stage = Stage::Ready;
                }
                Stage::Resting { until } if now >= until => pending.stage = Stage::Ready,
                _ => {}
            }
            let (Stage::Ready, Some(leader)) = (pending.stage, leader) else { continue };
            pending.stage = Stage::Asked { leader, since: now };
            let request = pending.request.clone();
            if leader == self.me {
                let response = self.serve(request);
                self.take_response(sequence, response, context);
            } else {
                let message = Message::Request { life: context.life, sequence, request };
                context.effects.push(Effect::Send { to: leader, message });
            }
        }
    }

    /// Answers another's request, or one's own.
    pub fn serve(&mut self, request: Request) -> Response {
        let result = match request {
            Request::Propose(entry) => self.replica.handle_proposals(vec![entry]).map(|_| true),
            Request::ChangeMembership(context) => self.replica.handle_membership(&context).map(|index| index.is_some()),
            Request::SnapshotChunk { .. } | Request::SnapshotEnd { .. } => unreachable!("snapshots travel whole here"),
        };
        match result {
            Ok(true) => Response::Accepted,
            Ok(false) => Response::Done,
            Err(Refused::NotLeader) => Response::NotLeader { leader: self.replica.leader() },
            Err(Refused::Busy) => Response::Busy,
            Err(Refused::Invalid) => Response::Invalid("the membership change is invalid".into()),
        }
    }

    pub fn take_response(&mut self, sequence: u64, response: Response, context: &mut Context<'_>) {
        let Some(pending) = self.pending.get_mut(&sequence) else { return };
        let Stage::Asked { leader, .. } = pending.stage else { return };
        match response {
            Response::Accepted => {
                pending.stage = Stage::Taken { leader, term: self.replica.machine().term(), since: context.now };
            }
            Response::NotLeader { .. } | Response::Busy => {
                pending.stage = Stage::Resting { until: context.now + context.rng.random_range(5..250) };
            }
            Response::Done => {
                let asker = self.pending.remove(&sequence).expect("it is there").asker;
                self.answers.push((asker, Answer::Applied(Ok(flok::state::Reply::Done))));
            }
            Response::Invalid(why) => {
                let asker = self.pending.remove(&sequence).expect("it is there").asker;
                self.answers.push((asker, Answer::Invalid(why)));
            }
        }
    }

    /// Does what the replica says until it has nothing to say.
    pub fn round(&mut self, context: &mut Context<'_>) -> Result<(), Fatal> {
        if self.round.is_none() && !self.waiting_reads.is_empty() {
            self.rounds += 1;
            let id = [self.client.0.to_le_bytes().as_slice(), &self.rounds.to_le_bytes()].concat();
            self.replica.handle_read(id.clone());
            self.round = Some(Reading { asked: std::mem::take(&mut self.waiting_reads), id, began: self.ticks });
        }
        while let Some(step) = self.replica.poll()? {
            self.writes.extend(step.writes);
            for (to, bytes) in step.send {
                context.effects.push(Effect::Send { to, message: Message::Raft(bytes) });
            }
            for snapshot in step.send_snapshots {
                self.snapshots_under_way.insert(snapshot.raft_id, context.now);
                self.enqueue(Job::LoadSnapshot(snapshot), context);
            }
            if let Some(level) = step.feature_level {
                self.enqueue(Job::FeatureLevel(level), context);
            }
            self.advanced |= step.advanced;
            context.check.advanced(self.me, &self.replica);
            for (proposal, applied) in step.answers {
                if proposal.client != self.client {
                    continue;
                }
                if let Some(pending) = self.pending.remove(&proposal.sequence) {
                    context.check.acknowledged(&proposal, &applied);
                    self.answers.push((pending.asker, Answer::Applied(applied)));
                }
            }
            for (id, index) in step.reads {
                if let Some(round) = self.round.take_if(|round| round.id == id) {
                    self.known_reads.push((index, round.asked));
                }
            }
            let applied = self.replica.machine().delivered();
            for (_, reads) in self.known_reads.extract_if(.., |(index, _)| *index <= applied) {
                let own = reads.contains(&CATCH_UP);
                self.caught_up |= own;
                self.advanced |= own;
                self.reads.extend(reads.into_iter().filter(|read| *read != CATCH_UP));
            }
        }
        if !self.writing && !self.writes.is_empty() {
            self.writing = true;
            let writes = std::mem::take(&mut self.writes);
            self.enqueue(Job::Write(writes), context);
        }
        if let Some(job) = self.replica.poll_snapshot() {
            let data = snapshot::encode(&job.state);
            self.enqueue(Job::SaveSnapshot { meta: job.meta, data, compact_to: job.compact_to }, context);
        }
        context.check.led(self.me, &self.replica);
        Ok(())
    }

    fn enqueue(&mut self, job: Job, context: &mut Context<'_>) {
        self.jobs.push_back(job);
        if !self.busy {
            self.busy = true;
            context.effects.push(Effect::DiskBusy);
        }
    }

    /// The disk has got round to its first job.
    pub fn disk_job(&mut self, context: &mut Context<'_>) -> Result<(), Fatal> {
        let job = self.jobs.pop_front().expect("a busy disk has a job");
        self.perform(job, context)?;
        self.busy = !self.jobs.is_empty();
        if self.busy {
            context.effects.push(Effect::DiskBusy);
        }
        self.round(context)
    }

    fn perform(&mut self, job: Job, context: &mut Context<'_>) -> Result<(), StoreError> {
        match job {
            Job::Write(writes) => {
                self.store.write(&writes)?;
                self.writing = false;
                let number = writes.last().expect("no job is empty").number;
                self.replica.handle_written(number);
            }
            Job::SaveSnapshot { meta, data, compact_to } => {
                self.store.save_snapshot(&meta, &data, compact_to)?;
                self.replica.handle_snapshot_saved(meta, compact_to.0, Some(data.len() as u64));
            }
            Job::LoadSnapshot(snapshot) => match self.store.snapshot(snapshot.index)? {
                Some(data) => {
                    let SendSnapshot { to, raft_id, message, .. } = snapshot;
                    let message = Message::Snapshot { life: context.life, raft_id, message, data };
                    context.effects.push(Effect::Send { to, message });
                }
                None => self.snapshot_answered(snapshot.raft_id, false),
            },
            Job::FeatureLevel(level) => self.store.set_feature_level(level)?,
        }
        Ok(())
    }
}
