//! What must never happen. Every applied entry goes into a reference state once, in log order, whoever applied it first;
//! every log holder is compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flok::consensus::replica::Replica;
use flok::consensus::wire::MembershipContext;
use flok::dispatcher::{NetworkBuilder, Networks, SwarmNetworks};
use flok::gossip::Table;
use flok::spec::*;
use flok::state::watch::{self, Difference, ObjectChange};
use flok::state::{Applied, Entry, Fingerprint, Network, NodeHealth, Proposal, Refusal, Reply, State, Task};
use raft::eraftpb::EntryType;
use raft::{GetEntriesContext, Storage};
use sha2::{Digest, Sha256};

use crate::context::Ms;
use crate::daemon::surroundings;
use crate::isolation;
use crate::semantics::Semantics;

/// States kept for comparison with holders that come later.
const KEPT_STATES: u64 = 256;

/// Entries from one look at the nodes' plans to the next, which takes longer than all else that is looked at.
const PLANS_EVERY: u64 = 8;

/// Counted for the summary of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    pub entries: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub leaders: u64,
    pub crashes: u64,
    pub snapshots: u64,
    pub tasks: u64,
    pub verdicts: u64,
    pub false_verdicts: u64,
}

pub struct Checker {
    pub now: Ms,
    pub reference: State,
    pub counts: Counts,
    /// When each node was last really hard to reach.
    pub impaired: BTreeMap<NodeId, Ms>,
    pub leader_of: BTreeMap<u64, NodeId>,
    states: BTreeMap<u64, State>,
    prints: BTreeMap<u64, Fingerprint>,
    entries: BTreeMap<u64, [u8; 8]>,
    answers: BTreeMap<(ClientId, u64), Applied>,
    /// Up to where each holder has been looked at.
    seen: BTreeMap<NodeId, u64>,
    tasks_ever: BTreeSet<TaskId>,
    /// Where the data of each slot with a named volume is.
    homes: BTreeMap<(ServiceId, Slot), NodeId>,
    acknowledged_up_to: u64,
    trace: Sha256,
    networks: NetworkBuilder,
    /// As they were made last, and whether the nodes' plans of them were looked at.
    latest: (SwarmNetworks, bool),
    pub semantics: Semantics,
    pub verbose: bool,
}

impl Checker {
    pub fn new(verbose: bool) -> Checker {
        let mut reference = State::default();
        // As `consensus::new_swarm` begins it.
        reference.advance(1);
        Checker {
            now: 0,
            states: BTreeMap::from([(1, reference.clone())]),
            reference,
            counts: Counts::default(),
            impaired: BTreeMap::new(),
            leader_of: BTreeMap::new(),
            prints: BTreeMap::new(),
            entries: BTreeMap::new(),
            answers: BTreeMap::new(),
            seen: BTreeMap::new(),
            tasks_ever: BTreeSet::new(),
            homes: BTreeMap::new(),
            acknowledged_up_to: 0,
            trace: Sha256::new(),
            networks: NetworkBuilder::default(),
            latest: (SwarmNetworks::default(), true),
            semantics: Semantics::default(),
            verbose,
        }
    }

    /// Part of what two runs of one seed must have in common.
    pub fn trace(&mut self, what: &[u8]) {
        self.trace.update(self.now.to_le_bytes());
        self.trace.update(what);
    }

    pub fn trace_hash(&self) -> String {
        let digest: [u8; 32] = self.trace.clone().finalize().into();
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// For the reader of a failed run.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>8} {}", self.now, what());
        }
    }

    /// A log was opened: its snapshot is all that its state holds yet.
    pub fn log_opened(&mut self, node: NodeId, replica: &Replica) {
        self.seen.insert(node, replica.machine().delivered());
        self.compare(node, replica);
    }

    pub fn advanced(&mut self, node: NodeId, replica: &Replica) {
        let delivered = replica.machine().delivered();
        let seen = self.seen.get(&node).copied().unwrap_or(0);
        if delivered <= seen {
            return;
        }
        self.seen.insert(node, delivered);
        let log = replica.machine().log();
        // What came by a snapshot is compared as a state.
        let first = (seen + 1).max(log.first());
        if first > seen + 1 {
            self.counts.snapshots += 1;
        }
        if first <= delivered {
            let entries = log.entries(first, delivered + 1, None, GetEntriesContext::empty(false));
            for entry in entries.expect("what was just delivered is in the log") {
                self.take(node, &entry);
            }
        }
        self.compare(node, replica);
    }

    fn take(&mut self, node: NodeId, entry: &raft::eraftpb::Entry) {
        let index = entry.index;
        let hash = Sha256::new()
            .chain_update(entry.term.to_le_bytes())
            .chain_update(&entry.data)
            .chain_update(&entry.context)
            .finalize();
        let hash: [u8; 8] = hash[..8].try_into().expect("eight bytes");
        if let Some(known) = self.entries.get(&index) {
            assert_eq!(*known, hash, "two histories: {node} applied another entry {index}");
            return;
        }
        assert_eq!(index, self.reference.applied() + 1, "{node} applied an entry whose predecessor nobody applied");
        self.entries.insert(index, hash);
        self.trace(&hash);
        self.counts.entries += 1;
        let before = self.reference.clone();
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => self.reference.advance(index),
            EntryType::EntryNormal => self.apply(index, &entry.data),
            _ => match MembershipContext::from_bytes(&entry.context) {
                Some(context) => {
                    self.reference.apply_raft_membership(index, &context.members);
                    self.answered(&context.proposal, &Ok(Reply::Done));
                    self.note(|| format!("log {index}: members {:?}", context.members));
                }
                None => self.reference.advance(index),
            },
        }
        self.look_at_changes(&before);
        self.states.insert(index, self.reference.clone());
        self.states.remove(&index.saturating_sub(KEPT_STATES));
    }

    fn apply(&mut self, index: u64, data: &[u8]) {
        let entry = Entry::from_bytes(data).expect("the log holds entries");
        let key = (entry.proposal.client, entry.proposal.sequence);
        let before = self.reference.clone();
        let answer = self.reference.apply(index, &entry).expect("one build, one level");
        self.note(|| format!("log {index}: {:?} -> {answer:?}", entry.command));
        match self.answers.get(&key) {
            None => self.answered(&entry.proposal, &answer),
            Some(first) => {
                let forgotten = matches!(answer, Err(Refusal::AnswerForgotten));
                assert!(forgotten || *first == answer, "a copy of {key:?} was answered {answer:?}, not {first:?}");
                let mut unchanged = before;
                unchanged.advance(index);
                assert!(unchanged == self.reference, "a copy of {key:?} was applied again at {index}");
            }
        }
    }

    fn answered(&mut self, proposal: &Proposal, answer: &Applied) {
        self.answers.entry((proposal.client, proposal.sequence)).or_insert_with(|| answer.clone());
    }

    fn compare(&mut self, node: NodeId, replica: &Replica) {
        let index = replica.state().applied();
        // A fresh log, before its first snapshot; or older than what is kept.
        let Some(state) = self.states.get(&index) else {
            assert!(index <= self.reference.applied(), "{node} is at {index}, which nobody applied");
            return;
        };
        if !index.is_multiple_of(4) {
            return;
        }
        let print = *self.prints.entry(index).or_insert_with(|| state.fingerprint());
        if print != replica.state().fingerprint() {
            panic!("{node} has another state at {index}: {:#?}", watch::changes(state, replica.state()));
        }
    }

    /// Compares at any index; for the end.
    pub fn compare_closely(&mut self, node: NodeId, replica: &Replica) {
        let state = &self.states[&replica.state().applied()];
        assert_eq!(state.fingerprint(), replica.state().fingerprint(), "{node} has another state at the end");
    }

    /// A client was answered.
    pub fn acknowledged(&mut self, proposal: &Proposal, applied: &Applied) {
        self.counts.acknowledged += 1;
        let key = (proposal.client, proposal.sequence);
        let known = self.answers.get(&key);
        assert_eq!(known, Some(applied), "{key:?} was answered what the log does not say");
        self.acknowledged_up_to = self.acknowledged_up_to.max(self.reference.applied());
    }

    /// What a read that begins now must see.
    pub fn read_begins(&self) -> u64 {
        self.acknowledged_up_to
    }

    pub fn read_answered(&mut self, began: u64, applied: u64) {
        self.counts.reads += 1;
        assert!(applied >= began, "a fresh read saw {applied}, though {began} had been acknowledged");
    }

    pub fn led(&mut self, node: NodeId, replica: &Replica) {
        let machine = replica.machine();
        if !machine.leads() {
            return;
        }
        let term = machine.term();
        if let Some(other) = self.leader_of.get(&term) {
            assert_eq!(*other, node, "two leaders in term {term}");
            return;
        }
        self.leader_of.insert(term, node);
        self.counts.leaders += 1;
        self.trace(&term.to_le_bytes());
        self.note(|| format!("{node} leads term {term}"));
    }

    fn look_at_changes(&mut self, before: &State) {
        let after = self.reference.clone();
        let changes = watch::changes(before, &after);
        self.semantics.look(before, &after, &changes);
        for change in changes {
            match change {
                ObjectChange::Task(Difference::Created(task)) => {
                    self.counts.tasks += 1;
                    assert!(self.tasks_ever.insert(task.id), "task {} exists a second time", task.id);
                    check_slot(&after, &task);
                }
                ObjectChange::Task(Difference::Updated { old, new }) => {
                    check_forward(&old, &new);
                    if old.assigned_at.is_none() && new.assigned_at.is_some() {
                        let held = after.service(new.service).is_some_and(|of| of.holds_back(new.spec_version));
                        assert!(!held, "{} starts, and what it depends on is not there", new.id);
                        check_node(&after, new.node.expect("an assigned task has a node"));
                        self.check_home(&after, &new);
                    }
                    check_slot(&after, &new);
                }
                ObjectChange::Network(Difference::Updated { old, new }) => check_subnets(&after, &old, &new),
                ObjectChange::Node(Difference::Updated { old, new }) => self.look_at_health(old.health, &new),
                _ => {}
            }
        }
        check_addresses(&after);
        if let Some(networks) = self.networks.build(&after, &Table::default()) {
            after.nodes().for_each(|node| check_isolation(&after, node.id, &networks.of(node.id)));
            self.latest = (networks, false);
        }
        if after.applied().is_multiple_of(PLANS_EVERY) {
            self.check_plans();
        }
        if let Some(swarm) = after.swarm() {
            let knows_less = after.nodes().find(|node| node.description.feature_level < swarm.feature_level);
            assert!(knows_less.is_none(), "the swarm is at a level that {knows_less:?} does not know");
        }
        let mut raft_ids = BTreeSet::new();
        for raft in after.nodes().filter_map(|node| node.raft) {
            assert!(raft_ids.insert(raft.raft_id), "raft id {} is held twice", raft.raft_id);
        }
    }

    /// Looks at the plans that the nodes make of the networks, unless they are as they were.
    pub fn check_plans(&mut self) {
        if !std::mem::replace(&mut self.latest.1, true) {
            isolation::check(&self.reference, &self.latest.0);
        }
    }

    /// Data stays where it is, unless the spec lets its task begin anew elsewhere.
    fn check_home(&mut self, state: &State, task: &Task) {
        let spec = state.task_spec(task.service, task.spec_version).expect("a task's spec is kept");
        let (true, Slot::Replica(_)) = (spec.named_local_volumes().next().is_some(), task.slot) else { return };
        let node = task.node.expect("an assigned task has a node");
        if let Some(home) = self.homes.insert((task.service, task.slot), node) {
            let empty = spec.volume_policy == VolumePolicy::StartEmpty;
            assert!(home == node || empty, "{} is on {node}, its data on {home}", task.id);
        }
    }

    fn look_at_health(&mut self, before: NodeHealth, node: &flok::state::Node) {
        if !matches!(node.health, NodeHealth::Down { .. }) || matches!(before, NodeHealth::Down { .. }) {
            return;
        }
        self.counts.verdicts += 1;
        // Down to the last word: a verdict takes its time, and so does what led to it.
        let since = self.impaired.get(&node.id).map(|at| self.now - at);
        if since.is_none_or(|since| since > 15_000) {
            self.counts.false_verdicts += 1;
            let id = node.id;
            self.note(|| format!("a verdict on {id}, which was well"));
        }
    }
}

fn check_forward(old: &Task, new: &Task) {
    let id = new.id;
    assert!(new.desired >= old.desired, "{id} is wanted {:?} after {:?}", new.desired, old.desired);
    assert!(old.outcome.is_none() || new.outcome == old.outcome, "the outcome of {id} changed");
    assert!(old.assigned_at.is_none() || new.node == old.node, "{id} moved to another node");
    assert!(old.assigned_at.is_none() || new.assigned_at == old.assigned_at, "{id} was assigned a second time");
}

fn check_slot(state: &State, task: &Task) {
    let Some(service) = state.service(task.service) else { return };
    // Runs by a schedule may be beside one another.
    let counts = |other: &Task| service.cron.is_none() || other.job_iteration == task.job_iteration;
    let live = state.tasks_in_slot(task.service, task.slot).filter(|other| other.is_live() && counts(other)).count();
    let most = if service.starts_first() { 2 } else { 1 };
    // A change of the update's order does not undo what was begun.
    let begun = service.previous.as_ref().is_some_and(|previous| {
        previous.spec.update.order == UpdateOrder::StartFirst || previous.spec.rollback.order == UpdateOrder::StartFirst
    });
    assert!(live <= most.max(if begun { 2 } else { 1 }), "slot {} has {live} live tasks", task.slot);
}

/// The leader cuts no subnet that a node which is up reaches outside of the swarm.
fn check_subnets(state: &State, old: &Network, new: &Network) {
    let before: Vec<Subnet> = old.parsed_subnets().collect();
    for subnet in new.parsed_subnets().filter(|subnet| !before.contains(subnet)) {
        for node in state.nodes().filter(|node| node.health == NodeHealth::Up) {
            let occupied = surroundings(node.id).overlapping(&subnet);
            assert!(occupied.is_none(), "{subnet} was cut for {}; on {} it is {occupied:?}", new.id, node.id);
        }
    }
}

/// No address of a network belongs to two at once, and each lies in a subnet of its network.
fn check_addresses(state: &State) {
    let mut given = BTreeSet::new();
    let mut give = |network: NetworkId, addr: &IpAddr| {
        assert!(given.insert(*addr), "{addr} is given twice");
        let subnets = state.network(network).map(|network| network.parsed_subnets().collect::<Vec<_>>());
        // A network may go while its last tasks stop.
        assert!(subnets.is_none_or(|all| all.iter().any(|subnet| subnet.contains(*addr))), "{addr} is of no subnet");
    };
    for task in state.tasks().filter(|task| task.outcome.is_none()) {
        for place in &task.attachments {
            place.addresses.iter().for_each(|addr| give(place.network, addr));
        }
    }
    for (network, vips) in state.services().flat_map(|service| &service.vips) {
        vips.iter().for_each(|addr| give(*network, addr));
    }
}

/// A node learns of the networks that its tasks are on and of the ingress network, and of their members alone.
fn check_isolation(state: &State, node: NodeId, networks: &Networks) {
    for (id, view) in &networks.list {
        let on_it = |task: &&std::sync::Arc<Task>| {
            task.outcome.is_none() && task.attachments.iter().any(|place| place.network == *id)
        };
        assert!(view.ingress || state.tasks_of_node(node).any(|task| on_it(&task)), "{node} learns of network {id}");
        for (task, endpoint) in &view.endpoints {
            let task = state.task(*task).filter(on_it).unwrap_or_else(|| panic!("{task} is not on network {id}"));
            let place = task.attachments.iter().find(|place| place.network == *id).expect("it was just found");
            assert_eq!(place.addresses, endpoint.addresses, "{} has other addresses on {id}", task.id);
        }
        for (service, shown) in &view.services {
            let service = state.service(*service).expect("a service that is shown is there");
            let on_it = state.networks_of(&service.spec.task).contains(id);
            // Of one that is not on the ingress network its ports may be told there, and nothing by which it is found.
            let for_its_ports =
                view.ingress && !shown.ports.is_empty() && shown.vips.is_empty() && shown.aliases.is_empty();
            assert!(on_it || for_its_ports, "service {} is not on network {id}", service.spec.name);
        }
    }
}

/// Nothing of a node is given twice.
fn check_node(state: &State, id: NodeId) {
    let node = state.node(id).expect("a task's node is a member");
    let (mut cpus, mut memory) = (0, 0);
    let mut ports = BTreeSet::new();
    let mut named = BTreeSet::new();
    for task in state.tasks_of_node(id).filter(|task| task.assigned_at.is_some() && task.holds_resources()) {
        let spec = state.task_spec(task.service, task.spec_version).expect("a task's spec is kept");
        cpus += spec.resources.reservations.nano_cpus;
        memory += spec.resources.reservations.memory_bytes;
        for port in &task.host_ports {
            assert!(ports.insert((port.protocol, port.published)), "port {} of {id} given twice", port.published);
        }
        for generic in &task.generic {
            if let GenericResource::Named { .. } = generic {
                assert!(named.insert(generic.clone()), "{generic:?} of {id} given twice");
            }
        }
    }
    let resources = &node.description.resources;
    assert!(cpus <= resources.nano_cpus, "{id} has {} CPUs, {cpus} were given", resources.nano_cpus);
    assert!(memory <= resources.memory_bytes, "{id} has {} bytes, {memory} were given", resources.memory_bytes);
}
