//! The handle by which the rest of the daemon writes to the log and reads the state.
//!
//! A write goes to whoever leads, again and again under the same proposal until the local state has applied it or the
//! deadline has passed: the sessions in the state make all its copies one. A write that fails says whether it may happen
//! yet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::courier::{Courier, Lane};
use super::driver::{Input, Shared};
use super::error::{ProposeError, ReadError, Refused};
use super::status::Status;
use super::transfer::Assembly;
use super::wire::{Members, MembershipContext, Request, Response};
use crate::spec::{ClientId, NodeId, UnixMs};
use crate::state::{Applied, Command, Entry, Proposal, State, codec};

/// The largest entry, in the log's form.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;
/// For a write without a deadline of its own.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Without a quorum nobody waits longer than this plus a moment: two seconds in all.
const QUORUM_PATIENCE: Duration = Duration::from_millis(1600);
const QUORUM_MOMENT: Duration = Duration::from_millis(200);
/// One attempt to reach a leader elsewhere.
const FORWARD_DEADLINE: Duration = Duration::from_secs(1);
/// A proposal that a leader took and nobody has applied is proposed again.
const RESEND_AFTER: Duration = Duration::from_secs(3);
const TRANSFER_DEADLINE: Duration = Duration::from_millis(1500);
/// Writes of this node under way at once; the sessions in the state remember more than that.
const MAX_PROPOSALS: usize = 512;
const BACKOFF: std::ops::Range<u64> = 5..250;

/// One node's place in the log. Clones are the same place.
#[derive(Clone)]
pub struct Consensus {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub node: NodeId,
    pub client: ClientId,
    pub now: fn() -> UnixMs,
    pub seed: u64,
    pub inputs: mpsc::Sender<Input>,
    pub messages: mpsc::Sender<(NodeId, Bytes)>,
    pub courier: Arc<dyn Courier>,
    pub shared: Arc<Shared>,
    pub sequence: AtomicU64,
    pub slots: Semaphore,
    pub assembly: Mutex<Assembly>,
}

impl Inner {
    pub fn slots() -> Semaphore {
        Semaphore::new(MAX_PROPOSALS)
    }
}

impl Consensus {
    /// Writes to the log, and answers once the local state has applied it.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.propose_within(command, PROPOSE_DEADLINE).await
    }

    /// [`Self::propose`] with a deadline of the caller's. Without a quorum the answer comes within two seconds.
    pub async fn propose_within(&self, command: Command, within: Duration) -> Result<Applied, ProposeError> {
        let at = (self.inner.now)();
        let make = |proposal| {
            let entry = Entry { proposal, at, command }.to_bytes();
            match entry.len() {
                0..=MAX_ENTRY_BYTES => Ok(Request::Propose(entry)),
                bytes => Err(ProposeError::TooLarge { bytes, limit: MAX_ENTRY_BYTES }),
            }
        };
        self.deliver(make, within).await
    }

    /// Changes who holds the log, and how: several at once in one joint change. Each node must be in the state; a raft id
    /// is given once. A leader that loses its own vote hands leadership over first.
    pub async fn change_membership(&self, members: Members) -> Result<(), ProposeError> {
        let make = |proposal| Ok(Request::ChangeMembership(MembershipContext { proposal, members }));
        self.deliver(make, PROPOSE_DEADLINE).await.map(|_| ())
    }

    /// The state with everything in it that was answered before this call, anywhere in the swarm.
    pub async fn read(&self) -> Result<Arc<State>, ReadError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.inner.inputs.send(Input::Read { reply }).await.map_err(|_| ())?;
            answer.await.map_err(|_| ())
        };
        tokio::select! {
            biased;
            read = asked => read.map_err(|()| ReadError::Stopped { why: self.why_stopped(), state: self.state() }),
            missing = self.quorum_is_gone() => Err(ReadError::NoQuorum { missing, state: self.state() }),
        }
    }

    /// What this node knows, without asking anybody.
    pub fn state(&self) -> Arc<State> {
        self.inner.shared.state.borrow().clone()
    }

    /// Changes with each batch of applied entries.
    pub fn changed(&self) -> watch::Receiver<Arc<State>> {
        self.inner.shared.state.subscribe()
    }

    /// The state after each entry that is applied from now on. Who is slow misses the oldest.
    pub fn applied(&self) -> broadcast::Receiver<Arc<State>> {
        self.inner.shared.applied.subscribe()
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.shared.status.subscribe()
    }

    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// A raft message from a peer, as the transport received it. Never waits: a message too many is lost, and raft sends
    /// it again.
    pub fn receive(&self, from: NodeId, message: Bytes) {
        if self.inner.messages.try_send((from, message)).is_err() {
            tracing::debug!(%from, "a raft message was dropped: too many are waiting");
        }
    }

    /// Answers a request that another log holder's courier brought.
    pub async fn serve(&self, from: NodeId, request: Bytes) -> Bytes {
        let response = match codec::decode(&request) {
            Ok(Request::Propose(_) | Request::ChangeMembership(_)) if !self.may_command(from) => {
                Response::Invalid("only managers may change the swarm".into())
            }
            Ok(request) => self.take(from, request).await,
            Err(error) => Response::Invalid(error.to_string()),
        };
        codec::encode(&response).into()
    }

    /// Hands leadership to `to`, or to the voter that is furthest, and waits for it. Only on the leader.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<(), ProposeError> {
        let (reply, taken) = oneshot::channel();
        let stopped = |_| ProposeError::Stopped(self.why_stopped());
        self.inner.inputs.send(Input::Transfer { to, reply }).await.map_err(|_| stopped(()))?;
        match taken.await.map_err(|_| stopped(()))? {
            Ok(()) => {}
            Err(Refused::NotLeader) => return Err(ProposeError::Invalid("this node does not lead".into())),
            Err(_) => return Err(ProposeError::Invalid("no other voter can take over".into())),
        }
        let mut status = self.status();
        let handed_over = status.wait_for(|status| !status.is_leader() && status.leader.is_some());
        match timeout(TRANSFER_DEADLINE, handed_over).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopped(())),
            Err(_) => Err(ProposeError::Deadline { may_happen: true }),
        }
    }

    /// Hands over leadership where this node leads, takes everything to the disk and closes the log.
    pub async fn shutdown(&self) {
        if self.status().borrow().is_leader() {
            // Nobody to take over is no reason to stay.
            let _ = self.transfer_leadership(None).await;
        }
        let (reply, stopped) = oneshot::channel();
        if self.inner.inputs.send(Input::Stop { reply }).await.is_ok() {
            let _ = stopped.await;
        }
        self.stopped().await;
    }

    /// Resolves when this node no longer takes part, with the reason.
    pub async fn stopped(&self) -> String {
        let mut status = self.status();
        // The sender lives in `self`, so this ends only by being stopped.
        let _ = status.wait_for(|status| status.stopped.is_some()).await;
        self.why_stopped()
    }

    /// Brings a request to the leader until its answer shows in the local state.
    async fn deliver(
        &self,
        make: impl FnOnce(Proposal) -> Result<Request, ProposeError>,
        within: Duration,
    ) -> Result<Applied, ProposeError> {
        let may_happen = AtomicBool::new(false);
        let sent = || may_happen.load(Ordering::Relaxed);
        let delivery = async {
            let _slot = self.inner.slots.acquire().await.expect("the semaphore is never closed");
            let mut ticket = Ticket::new(self);
            let request = make(ticket.proposal)?;
            self.attempts(&mut ticket, &request, &may_happen).await
        };
        tokio::select! {
            biased;
            result = timeout(within, delivery) => {
                result.unwrap_or_else(|_| Err(ProposeError::Deadline { may_happen: sent() }))
            }
            missing = self.quorum_is_gone() => Err(ProposeError::NoQuorum { missing, may_happen: sent() }),
        }
    }

    async fn attempts(
        &self,
        ticket: &mut Ticket<'_>,
        request: &Request,
        may_happen: &AtomicBool,
    ) -> Result<Applied, ProposeError> {
        let mut status = self.status();
        let mut rng = StdRng::seed_from_u64(self.inner.seed ^ ticket.proposal.sequence);
        let mut backoff = BACKOFF.start;
        loop {
            let (leader, term) = self.wait_for_leader(&mut status).await?;
            let attempt = self.submit(leader, request, may_happen);
            let response = tokio::select! {
                biased;
                applied = &mut ticket.answer => return applied.map_err(|_| self.stopped_error()),
                response = attempt => response,
            };
            match response {
                Some(Response::Done) => return Ok(Ok(crate::state::Reply::Done)),
                Some(Response::Invalid(why)) => return Err(ProposeError::Invalid(why)),
                Some(Response::Accepted) => {
                    let another = status.wait_for(|now| now.leader != Some(leader) || now.term != term);
                    tokio::select! {
                        biased;
                        applied = &mut ticket.answer => return applied.map_err(|_| self.stopped_error()),
                        _ = another => {}
                        () = sleep(RESEND_AFTER) => {}
                    }
                }
                Some(Response::NotLeader { .. } | Response::Busy) | None => {
                    let pause = Duration::from_millis(rng.random_range(backoff / 2..=backoff));
                    backoff = (backoff * 2).min(BACKOFF.end);
                    tokio::select! {
                        biased;
                        applied = &mut ticket.answer => return applied.map_err(|_| self.stopped_error()),
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    async fn wait_for_leader(&self, status: &mut watch::Receiver<Status>) -> Result<(NodeId, u64), ProposeError> {
        let known = status.wait_for(|status| status.leader.is_some() || status.stopped.is_some());
        let (leader, term) =
            known.await.map(|status| (status.leader, status.term)).map_err(|_| self.stopped_error())?;
        leader.map(|leader| (leader, term)).ok_or_else(|| self.stopped_error())
    }

    /// `None`: no answer, the leader may have taken it.
    async fn submit(&self, leader: NodeId, request: &Request, may_happen: &AtomicBool) -> Option<Response> {
        let response = if leader == self.inner.node {
            Some(self.take(leader, request.clone()).await)
        } else {
            let bytes = Bytes::from(codec::encode(request));
            // Even if this future is dropped while it waits.
            let before = may_happen.swap(true, Ordering::Relaxed);
            let answer = self.inner.courier.request(leader, Lane::Forward, bytes, FORWARD_DEADLINE).await;
            let response = answer.ok().and_then(|answer| codec::decode(&answer).ok());
            if response.as_ref().is_some_and(|response| *response != Response::Accepted) {
                may_happen.store(before, Ordering::Relaxed);
            }
            response
        };
        if response == Some(Response::Accepted) {
            may_happen.store(true, Ordering::Relaxed);
        }
        response
    }

    async fn take(&self, from: NodeId, request: Request) -> Response {
        match request {
            Request::Propose(entry) => self.take_entry(entry).await,
            Request::ChangeMembership(context) => {
                let (reply, taken) = oneshot::channel();
                match self.ask(Input::Membership { context, reply }, taken).await {
                    Ok(true) => Response::Accepted,
                    Ok(false) => Response::Done,
                    Err(refused) => self.refusal(refused),
                }
            }
            Request::SnapshotChunk { index, number, data } => {
                let mut assembly = self.inner.assembly.lock().expect("no holder of the assembly panics");
                assembly.chunk(from, index, number, &data).map_or_else(Response::Invalid, |()| Response::Accepted)
            }
            Request::SnapshotEnd { index, bytes, message } => {
                let whole =
                    self.inner.assembly.lock().expect("no holder of the assembly panics").end(from, index, bytes);
                match whole {
                    Ok(data) => match self.inner.inputs.send(Input::Snapshot { from, message, data }).await {
                        Ok(()) => Response::Accepted,
                        Err(_) => Response::Invalid(self.why_stopped()),
                    },
                    Err(why) => Response::Invalid(why),
                }
            }
        }
    }

    /// Raft's own messages cannot be checked like this: a follower that lags does not know its new leader yet. Who may
    /// speak raft at all is for the transport to hold, by certificates and the member list.
    fn may_command(&self, node: NodeId) -> bool {
        let state = self.state();
        state.swarm().is_none() || state.node(node).is_some_and(|node| node.is_manager())
    }

    async fn take_entry(&self, entry: Vec<u8>) -> Response {
        if entry.len() > MAX_ENTRY_BYTES {
            return Response::Invalid(format!("an entry of {} bytes; the limit is {MAX_ENTRY_BYTES}", entry.len()));
        }
        // What cannot be read must not get into the log: every holder would stop at it.
        if let Err(error) = Entry::from_bytes(&entry) {
            return Response::Invalid(error.to_string());
        }
        let (reply, taken) = oneshot::channel();
        match self.ask(Input::Propose { entry, reply }, taken).await {
            Ok(()) => Response::Accepted,
            Err(refused) => self.refusal(refused),
        }
    }

    async fn ask<T>(&self, input: Input, reply: oneshot::Receiver<Result<T, Refused>>) -> Result<T, Refused> {
        self.inner.inputs.send(input).await.map_err(|_| Refused::NotLeader)?;
        reply.await.map_err(|_| Refused::NotLeader)?
    }

    fn refusal(&self, refused: Refused) -> Response {
        match refused {
            Refused::NotLeader => Response::NotLeader { leader: self.inner.shared.status.borrow().leader },
            Refused::Busy => Response::Busy,
            Refused::Invalid => Response::Invalid(
                "the membership change is invalid: it leaves no voter, or names a node that is no member".into(),
            ),
        }
    }

    /// Resolves when patience has run out and there is still no quorum, with those that were not heard.
    async fn quorum_is_gone(&self) -> Vec<NodeId> {
        sleep(QUORUM_PATIENCE).await;
        let mut status = self.status();
        loop {
            // A stopped node has no quorum either, and whoever asks is told so by its own way.
            if status.wait_for(|status| !status.has_quorum).await.is_err() {
                return Vec::new();
            }
            if timeout(QUORUM_MOMENT, status.wait_for(|status| status.has_quorum)).await.is_err() {
                return status.borrow().missing.clone();
            }
        }
    }

    fn stopped_error(&self) -> ProposeError {
        ProposeError::Stopped(self.why_stopped())
    }

    fn why_stopped(&self) -> String {
        self.inner.shared.status.borrow().stopped.clone().unwrap_or_else(|| "it is stopping".into())
    }
}

/// A proposal under way, and the place where its answer arrives. Dropped, it counts as answered.
struct Ticket<'a> {
    consensus: &'a Consensus,
    proposal: Proposal,
    answer: oneshot::Receiver<Applied>,
}

impl Ticket<'_> {
    fn new(consensus: &Consensus) -> Ticket<'_> {
        let (sender, answer) = oneshot::channel();
        let mut waiters = consensus.inner.shared.waiters.lock().expect("no waiter's holder panics");
        // Under the lock, so that no lower sequence registers later.
        let sequence = consensus.inner.sequence.fetch_add(1, Ordering::Relaxed);
        waiters.insert(sequence, sender);
        let answered_below = *waiters.keys().next().expect("one was just inserted");
        let proposal = Proposal { client: consensus.inner.client, sequence, answered_below };
        Ticket { consensus, proposal, answer }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.consensus.inner.shared.waiters.lock().expect("no waiter's holder panics").remove(&self.proposal.sequence);
    }
}
