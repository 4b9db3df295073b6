//! The task that runs a replica: one loop that counts ticks, brings in what arrived, and carries out what comes of it.
//!
//! Its order is the machine's: handle, write, send what may be sent, report. It never waits for the disk: while a write is
//! under way it goes on, and what gathers meanwhile is the next write. It owns the replica alone; everybody else reads
//! what it publishes in [`Shared`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::SnapshotMetadata;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use super::courier::Courier;
use super::disk::{Disk, Done, Job};
use super::error::Refused;
use super::machine::{TICK, Write};
use super::replica::{Fatal, Replica, SendSnapshot, SnapshotJob, Step};
use super::status::Status;
use super::transfer;
use super::wire::MembershipContext;
use crate::spec::{ClientId, NodeId};
use crate::state::{Applied, State, snapshot};

/// Inputs taken before the machine is polled: the largest batch of proposals in one append.
const MAX_BATCH: usize = 512;
/// Readers waiting for one round; more are refused, and ask again.
const MAX_READERS: usize = 16_384;
/// A round of ReadIndex without an answer is begun anew after this many ticks: raft-rs drops it silently without a leader
/// and before the leader has committed in its term.
const READ_RETRY_TICKS: u64 = 3;
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Whether a leader took it.
type Taken = oneshot::Sender<Result<(), Refused>>;
type Reader = oneshot::Sender<Arc<State>>;

pub enum Input {
    Propose {
        entry: Vec<u8>,
        reply: Taken,
    },
    /// The answer is whether there is a change to wait for.
    Membership {
        context: MembershipContext,
        reply: oneshot::Sender<Result<bool, Refused>>,
    },
    Read {
        reply: Reader,
    },
    Snapshot {
        from: NodeId,
        message: Vec<u8>,
        data: Vec<u8>,
    },
    Transfer {
        to: Option<NodeId>,
        reply: Taken,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// From tasks of the driver's own.
enum Internal {
    Encoded { meta: SnapshotMetadata, data: Vec<u8>, compact_to: (u64, u64) },
    SnapshotSent { raft_id: u64, arrived: bool },
}

/// What the driver publishes.
pub struct Shared {
    pub state: watch::Sender<Arc<State>>,
    /// One after another, each before it is in `state`.
    pub applied: broadcast::Sender<Arc<State>>,
    pub status: watch::Sender<Status>,
    pub waiters: Mutex<BTreeMap<u64, oneshot::Sender<Applied>>>,
}

impl Shared {
    /// The end: nobody is answered any more.
    fn stop(&self, why: &str) {
        self.status.send_modify(|status| {
            status.stopped.get_or_insert_with(|| why.to_owned());
            status.has_quorum = false;
            status.leader = None;
        });
        self.waiters.lock().expect("no waiter's holder panics").clear();
    }
}

pub struct Driver {
    pub replica: Replica,
    pub disk: Disk,
    pub done: mpsc::UnboundedReceiver<Done>,
    pub inputs: mpsc::Receiver<Input>,
    pub messages: mpsc::Receiver<(NodeId, Bytes)>,
    pub courier: Arc<dyn Courier>,
    pub shared: Arc<Shared>,
    pub client: ClientId,
}

impl Driver {
    /// Runs until it is stopped or must stop, and says so in the status either way.
    pub fn spawn(self) {
        let shared = self.shared.clone();
        let task = tokio::spawn(Loop::new(self).run());
        tokio::spawn(async move {
            match task.await {
                Ok(Ok(())) => shared.stop("it was shut down"),
                Ok(Err(fatal)) => {
                    tracing::error!(%fatal, "this node stops holding the log");
                    shared.stop(&fatal.to_string());
                }
                Err(_) => shared.stop("an internal error; see the daemon's log"),
            }
        });
    }
}

/// The driver with what it remembers between rounds.
struct Loop {
    driver: Driver,
    internal: mpsc::UnboundedReceiver<Internal>,
    to_self: mpsc::UnboundedSender<Internal>,
    ticks: u64,
    /// Gathered while a write is under way.
    writes: Vec<Write>,
    writing: bool,
    proposals: Vec<(Vec<u8>, Taken)>,
    reads: Reads,
    stopping: Option<oneshot::Sender<()>>,
}

impl Loop {
    fn new(driver: Driver) -> Loop {
        // Bounded by the snapshots under way: one being encoded, one going to each peer.
        let (to_self, internal) = mpsc::unbounded_channel();
        let reads = Reads { client: driver.client, ..Reads::default() };
        Loop {
            driver,
            internal,
            to_self,
            ticks: 0,
            writes: Vec::new(),
            writing: false,
            proposals: Vec::new(),
            reads,
            stopping: None,
        }
    }

    async fn run(mut self) -> Result<(), Fatal> {
        let mut ticks = tokio::time::interval(TICK);
        // A task that was held up must not think that the others were silent meanwhile.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.round()?;
        while self.stopping.is_none() {
            tokio::select! {
                biased;
                _ = ticks.tick() => self.tick(),
                Some(done) = self.driver.done.recv() => self.disk_did(done)?,
                Some(internal) = self.internal.recv() => self.own_task_did(internal),
                Some((from, message)) = self.driver.messages.recv() => self.take_messages(from, &message)?,
                input = self.driver.inputs.recv() => match input {
                    Some(input) => self.take_inputs(input)?,
                    // Every handle is gone.
                    None => break,
                },
            }
            self.round()?;
        }
        self.finish().await
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.driver.replica.handle_tick();
        if self.reads.is_overdue(self.ticks) {
            self.reads.give_up_round();
        }
    }

    fn take_messages(&mut self, from: NodeId, message: &[u8]) -> Result<(), Fatal> {
        self.driver.replica.handle_message(from, message)?;
        for _ in 1..MAX_BATCH {
            let Ok((from, message)) = self.driver.messages.try_recv() else { break };
            self.driver.replica.handle_message(from, &message)?;
        }
        Ok(())
    }

    fn take_inputs(&mut self, first: Input) -> Result<(), Fatal> {
        self.take_input(first)?;
        for _ in 1..MAX_BATCH {
            let Ok(input) = self.driver.inputs.try_recv() else { break };
            self.take_input(input)?;
        }
        Ok(())
    }

    /// Replies may go nowhere: their askers have deadlines.
    fn take_input(&mut self, input: Input) -> Result<(), Fatal> {
        let replica = &mut self.driver.replica;
        match input {
            Input::Propose { entry, reply } => self.proposals.push((entry, reply)),
            Input::Membership { context, reply } => {
                let _ = reply.send(replica.handle_membership(&context).map(|index| index.is_some()));
            }
            Input::Read { reply } => self.reads.wait(reply),
            Input::Snapshot { from, message, data } => replica.handle_snapshot(from, &message, data)?,
            Input::Transfer { to, reply } => {
                let _ = reply.send(replica.handle_transfer(to));
            }
            Input::Stop { reply } => self.stopping = Some(reply),
        }
        Ok(())
    }

    fn disk_did(&mut self, done: Done) -> Result<(), Fatal> {
        match done {
            Done::Written(number) => {
                self.writing = false;
                self.driver.replica.handle_written(number);
            }
            Done::SnapshotSaved { meta, compacted, bytes } => {
                self.driver.replica.handle_snapshot_saved(meta, compacted, Some(bytes));
            }
            Done::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn own_task_did(&mut self, internal: Internal) {
        match internal {
            Internal::Encoded { meta, data, compact_to } => {
                self.driver.disk.enqueue(Job::SaveSnapshot { meta, data, compact_to });
            }
            Internal::SnapshotSent { raft_id, arrived } => self.driver.replica.handle_snapshot_sent(raft_id, arrived),
        }
    }

    /// Hands over what was gathered, then does what the replica says until it has nothing to say.
    fn round(&mut self) -> Result<(), Fatal> {
        self.propose_gathered();
        if let Some(id) = self.reads.next_round(self.ticks) {
            self.driver.replica.handle_read(id);
        }
        self.driver.replica.leave_trail(self.driver.shared.applied.receiver_count() > 0);
        while let Some(step) = self.driver.replica.poll()? {
            self.carry_out(step);
        }
        self.write_gathered();
        if let Some(job) = self.driver.replica.poll_snapshot() {
            self.encode_snapshot(job);
        }
        let status = Status::of(&self.driver.replica);
        self.driver.shared.status.send_if_modified(|old| {
            *old != status && {
                *old = status;
                true
            }
        });
        Ok(())
    }

    fn propose_gathered(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let (entries, replies): (Vec<_>, Vec<_>) = std::mem::take(&mut self.proposals).into_iter().unzip();
        let result = self.driver.replica.handle_proposals(entries).map(|_| ());
        for reply in replies {
            let _ = reply.send(result);
        }
    }

    fn carry_out(&mut self, step: Step) {
        self.writes.extend(step.writes);
        for (to, message) in step.send {
            self.driver.courier.send(to, message.into());
        }
        for snapshot in step.send_snapshots {
            self.send_snapshot(snapshot);
        }
        if let Some(level) = step.feature_level {
            self.driver.disk.enqueue(Job::FeatureLevel(level));
        }
        for state in step.trail {
            // Somebody may have stopped listening.
            let _ = self.driver.shared.applied.send(Arc::new(state));
        }
        if step.advanced {
            // Before the answers: who is answered finds it in the state.
            self.driver.shared.state.send_replace(Arc::new(self.driver.replica.state().clone()));
        }
        let own = step.answers.into_iter().filter(|(proposal, _)| proposal.client == self.driver.client);
        let mut waiters = self.driver.shared.waiters.lock().expect("no waiter's holder panics");
        for (proposal, answer) in own {
            if let Some(waiter) = waiters.remove(&proposal.sequence) {
                let _ = waiter.send(answer);
            }
        }
        drop(waiters);
        for (id, index) in step.reads {
            self.reads.index_known(&id, index);
        }
        self.reads.answer(self.driver.replica.machine().delivered(), &self.driver.shared.state);
    }

    fn write_gathered(&mut self) {
        if !self.writing && !self.writes.is_empty() {
            self.writing = true;
            self.driver.disk.enqueue(Job::Write(std::mem::take(&mut self.writes)));
        }
    }

    fn encode_snapshot(&self, job: SnapshotJob) {
        let to_self = self.to_self.clone();
        tokio::task::spawn_blocking(move || {
            let SnapshotJob { meta, state, compact_to } = job;
            // The driver may have stopped.
            let _ = to_self.send(Internal::Encoded { meta, data: snapshot::encode(&state), compact_to });
        });
    }

    fn send_snapshot(&self, snapshot: SendSnapshot) {
        let (reply, loaded) = oneshot::channel();
        self.driver.disk.enqueue(Job::LoadSnapshot { index: snapshot.index, reply });
        let (courier, to_self) = (self.driver.courier.clone(), self.to_self.clone());
        tokio::spawn(async move {
            let (to, raft_id) = (snapshot.to, snapshot.raft_id);
            let sent = match loaded.await {
                Ok(Some(data)) => transfer::send(courier, snapshot, data).await.map_err(|error| error.to_string()),
                _ => Err("it was replaced by a newer one".to_owned()),
            };
            if let Err(error) = &sent {
                tracing::debug!(%to, error, "a snapshot was not sent; raft tries again");
            }
            let _ = to_self.send(Internal::SnapshotSent { raft_id, arrived: sent.is_ok() });
        });
    }

    /// Takes to the disk what is on its way there, and the commit index.
    async fn finish(mut self) -> Result<(), Fatal> {
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            self.driver.replica.save_commit();
            while let Some(step) = self.driver.replica.poll()? {
                self.carry_out(step);
            }
            self.write_gathered();
            if !self.writing {
                break;
            }
            match timeout_at(deadline, self.driver.done.recv()).await {
                Ok(Some(done)) => self.disk_did(done)?,
                Ok(None) | Err(_) => break,
            }
        }
        self.driver.disk.stop().await;
        if let Some(reply) = self.stopping {
            let _ = reply.send(());
        }
        Ok(())
    }
}

/// Fresh reads, in rounds: all that came before a round share it.
struct Reads {
    client: ClientId,
    counter: u64,
    waiting: Vec<Reader>,
    round: Option<Round>,
    /// Answered once the state has applied the index.
    known: Vec<(u64, Vec<Reader>)>,
}

struct Round {
    id: Vec<u8>,
    began_tick: u64,
    readers: Vec<Reader>,
}

impl Default for Reads {
    fn default() -> Self {
        Reads { client: ClientId(0), counter: 0, waiting: Vec::new(), round: None, known: Vec::new() }
    }
}

impl Reads {
    fn wait(&mut self, reply: Reader) {
        if self.waiting.len() < MAX_READERS {
            self.waiting.push(reply);
        }
    }

    /// The id of a round to begin now.
    fn next_round(&mut self, tick: u64) -> Option<Vec<u8>> {
        if self.round.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.counter += 1;
        let id = [self.client.0.to_le_bytes().as_slice(), &self.counter.to_le_bytes()].concat();
        self.round = Some(Round { id: id.clone(), began_tick: tick, readers: std::mem::take(&mut self.waiting) });
        Some(id)
    }

    fn is_overdue(&self, tick: u64) -> bool {
        self.round.as_ref().is_some_and(|round| tick >= round.began_tick + READ_RETRY_TICKS)
    }

    fn give_up_round(&mut self) {
        if let Some(round) = self.round.take() {
            self.waiting.extend(round.readers.into_iter().filter(|reader| !reader.is_closed()));
        }
    }

    fn index_known(&mut self, id: &[u8], index: u64) {
        if let Some(round) = self.round.take_if(|round| round.id == id) {
            self.known.push((index, round.readers));
        }
    }

    fn answer(&mut self, applied: u64, state: &watch::Sender<Arc<State>>) {
        for (_, readers) in self.known.extract_if(.., |(index, _)| *index <= applied) {
            let state = state.borrow().clone();
            for reader in readers {
                let _ = reader.send(state.clone());
            }
        }
    }
}
