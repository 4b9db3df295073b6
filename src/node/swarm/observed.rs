//! Observed state on this node: its own record, everybody's table where it is a manager, and who is suspect.
//!
//! Holds the pure machines of gossip and membership behind one lock, which is never held across an await, and says
//! through [`Observed::changed`] that there is something new to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};

use crate::gossip::{
    Echo, EchoVerdict, Exchange, Load, Publisher, RecordError, Repair, RepairAnswer, RepairRequest, SignedRecord,
    Statement, Surroundings, Table, Unreachable,
};
use crate::membership::{AlarmReport, CutDetector};
use crate::node::clock;
use crate::spec::*;
use crate::state::{State, codec};
use crate::transport::{self, Identity};

pub struct Observed {
    identity: Identity,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    /// Rung when the next deadline of the gossip loop may have come nearer.
    wake: Notify,
}

struct Inner {
    publisher: Publisher,
    exchange: Exchange,
    repair: Repair,
    detector: CutDetector,
    rng: StdRng,
    /// The table as readers see it, made anew when it is asked for after a change.
    table: Option<Arc<Table>>,
}

/// What the gossip loop is to do now.
pub struct Due {
    pub publish: Option<SignedRecord>,
    pub request: Option<(NodeId, RepairRequest)>,
    pub next: MonoMs,
}

/// When nothing has a deadline.
const IDLE: std::time::Duration = std::time::Duration::from_secs(1);

impl Observed {
    pub fn new(identity: Identity, publisher: Publisher) -> Observed {
        let detector = CutDetector::new(identity.node());
        let inner = Inner {
            publisher,
            exchange: Exchange::default(),
            repair: Repair::default(),
            detector,
            rng: clock::rng(),
            table: None,
        };
        Observed { identity, inner: Mutex::new(inner), changed: watch::Sender::new(0), wake: Notify::new() }
    }

    /// Counts up whenever the table, or who is suspect, has changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The table as it is now, shared.
    pub fn table(&self) -> Arc<Table> {
        let mut inner = self.inner();
        let Inner { table, exchange, .. } = &mut *inner;
        Arc::clone(table.get_or_insert_with(|| Arc::new(exchange.table().clone())))
    }

    // What this node says of itself.

    pub fn set_tasks(&self, tasks: BTreeMap<TaskId, TaskReport>) {
        self.write(|publisher, now| publisher.set_tasks(tasks, now));
    }

    pub fn set_stores(&self, images: Vec<String>, volumes: Vec<String>) {
        self.write(|publisher, now| {
            publisher.set_images(images, now);
            publisher.set_volumes(volumes, now);
        });
    }

    pub fn set_conditions(&self, conditions: Vec<Condition>) {
        self.write(|publisher, now| publisher.set_conditions(conditions, now));
    }

    pub fn set_description(&self, description: NodeDescription) {
        self.write(|publisher, now| publisher.set_description(description, now));
    }

    pub fn set_surroundings(&self, surroundings: Surroundings) {
        self.write(|publisher, now| publisher.set_surroundings(surroundings, now));
    }

    pub fn set_init(&self, has_init: bool) {
        self.write(|publisher, now| publisher.set_init(has_init, now));
    }

    pub fn set_load(&self, load: Load) {
        self.write(|publisher, _| publisher.set_load(load));
    }

    pub fn set_unreachable(&self, alarms: Vec<Unreachable>) {
        self.write(|publisher, now| publisher.set_unreachable(alarms, now));
    }

    pub fn set_leaving(&self) {
        self.write(|publisher, now| publisher.set_leaving(now));
    }

    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.write(|publisher, now| publisher.set_incarnation(incarnation, now));
    }

    pub fn set_swarm_size(&self, nodes: usize) {
        self.write(|publisher, _| publisher.set_swarm_size(nodes));
    }

    /// Has the record go out again, and tables compared, soon: after a reconnection.
    pub fn hurry(&self) {
        self.write(|publisher, now| publisher.republish(now));
        self.inner().repair.hurry();
    }

    fn write(&self, change: impl FnOnce(&mut Publisher, MonoMs)) {
        change(&mut self.inner().publisher, clock::mono());
        self.wake.notify_one();
    }

    pub fn handle_echo(&self, echo: &Echo) -> EchoVerdict {
        self.inner().publisher.handle_echo(echo)
    }

    /// What came back of this node's own record through the table.
    pub fn own_echo(&self) -> Option<EchoVerdict> {
        let inner = self.inner();
        let echo = inner.exchange.echo(self.identity.node())?;
        Some(inner.publisher.handle_echo(&echo))
    }

    // What others say.

    pub fn echo(&self, owner: NodeId) -> Option<Echo> {
        self.inner().exchange.echo(owner)
    }

    pub fn handle_record(&self, signed: SignedRecord, is_member: impl Fn(NodeId) -> bool) {
        let taken = self.inner().exchange.handle_record(signed, &open, is_member, clock::mono());
        match taken {
            Ok(Some(_)) => self.table_changed(),
            Ok(None) => {}
            // A node that was just removed, or is not known here yet: its next record will come.
            Err(error @ RecordError::Stranger(_)) => tracing::debug!(%error, "a gossip record was not taken"),
            Err(error) => tracing::warn!(%error, "a gossip record was not taken"),
        }
    }

    pub fn retain_members(&self, is_member: impl Fn(NodeId) -> bool) {
        self.inner().exchange.retain_members(is_member);
        self.table_changed();
    }

    pub fn handle_alarms(&self, from: NodeId, report: AlarmReport) {
        self.inner().detector.handle_report(from, report, clock::mono());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Answers a repair request of another manager.
    pub fn answer(&self, request: RepairRequest, is_member: impl Fn(NodeId) -> bool) -> RepairAnswer {
        match request {
            RepairRequest::Compare(digest) => self.inner().exchange.answer(&digest),
            RepairRequest::Offer(records) => {
                for record in records {
                    self.handle_record(record, &is_member);
                }
                RepairAnswer::default()
            }
        }
    }

    /// Takes an answer's records, and says what to ask next in the same conversation.
    pub fn handle_answer(
        &self,
        from: NodeId,
        answer: RepairAnswer,
        is_member: impl Fn(NodeId) -> bool,
    ) -> Option<RepairRequest> {
        for record in &answer.records {
            self.handle_record(record.clone(), &is_member);
        }
        let mut inner = self.inner();
        let Inner { repair, exchange, rng, .. } = &mut *inner;
        repair.handle_answer(exchange, from, &answer, clock::mono(), rng)
    }

    pub fn handle_silence(&self, peer: NodeId) {
        let mut inner = self.inner();
        let Inner { repair, rng, .. } = &mut *inner;
        repair.handle_failure(peer, clock::mono(), rng);
    }

    /// What is due now. `peers` are the managers to compare tables with; a worker passes none.
    pub fn poll(&self, peers: &[NodeId]) -> Due {
        let now = clock::mono();
        let mut inner = self.inner();
        let Inner { publisher, exchange, repair, rng, .. } = &mut *inner;
        let instance = publisher.instance();
        let publish = publisher.poll_publish(now).map(|record| self.sign(Statement { instance, record }));
        let request = repair.poll_request(exchange, peers, now, rng);
        let mut next = publisher.next_deadline().min(now + IDLE);
        if !peers.is_empty()
            && let Some(deadline) = repair.next_deadline()
        {
            next = next.min(deadline);
        }
        Due { publish, request, next }
    }

    fn sign(&self, statement: Statement) -> SignedRecord {
        let bytes = codec::encode(&statement);
        let signature = self.identity.sign(&bytes).to_vec();
        SignedRecord { bytes, signature, public_key: self.identity.public_key() }
    }

    // The failure detector's manager side.

    /// Weighs all alarms; the suspects become part of the table.
    pub fn detect(&self, state: &State, leading: Option<MonoMs>) {
        let mut inner = self.inner();
        let Inner { detector, exchange, .. } = &mut *inner;
        detector.set_leading(leading);
        detector.update(state, exchange.table(), clock::mono());
        let suspects: BTreeSet<NodeId> = detector.suspects().clone();
        if *exchange.table().suspects() != suspects {
            exchange.table_mut().set_suspects(suspects);
            drop(inner);
            self.table_changed();
        }
    }

    /// Runs `plan` with the detector as it stands.
    pub fn with_detector<T>(&self, plan: impl FnOnce(&CutDetector) -> T) -> T {
        plan(&self.inner().detector)
    }

    pub fn is_calm(&self) -> bool {
        self.inner().detector.is_calm()
    }

    fn table_changed(&self) {
        self.inner().table = None;
        self.changed.send_modify(|count| *count += 1);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

/// Checks a record's signature and reads it.
fn open(signed: &SignedRecord) -> Option<(NodeId, Statement)> {
    let signature = signed.signature.as_slice();
    if !transport::verify(&signed.public_key, &signed.bytes, signature) {
        return None;
    }
    Some((transport::node_id(&signed.public_key), codec::decode(&signed.bytes).ok()?))
}
