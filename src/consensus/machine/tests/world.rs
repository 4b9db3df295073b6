//! The machines' world: a network, disks that write late, and checks of what must never happen.

use std::collections::BTreeMap;

use raft::eraftpb::{ConfState, Entry, HardState, SnapshotMetadata};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use crate::consensus::MessageError;
use crate::state::codec;

/// Chances in a hundred.
#[derive(Clone, Copy)]
pub struct Faults {
    pub loss: u32,
    pub duplicate: u32,
    /// Of a message to wait for another round.
    pub delay: u32,
    /// Of a disk to be slow this round.
    pub slow_disk: u32,
}

impl Faults {
    pub const NONE: Faults = Faults { loss: 0, duplicate: 0, delay: 0, slow_disk: 0 };
    pub const HARSH: Faults = Faults { loss: 8, duplicate: 5, delay: 30, slow_disk: 40 };
}

/// What survives a crash.
#[derive(Clone, Default, Debug)]
pub struct Disk {
    pub hard_state: HardState,
    pub compacted: (u64, u64),
    pub entries: Vec<Entry>,
    pub snapshot: Option<(SnapshotMetadata, Vec<u8>)>,
}

impl Disk {
    fn write(&mut self, write: Write) {
        if let Some((meta, data)) = write.snapshot {
            self.compacted = (meta.index, meta.term);
            self.entries.clear();
            self.snapshot = Some((meta, data));
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(write.entries);
        }
        self.hard_state = write.hard_state;
    }
}

struct Node {
    machine: Machine,
    under_way: Vec<Write>,
    applied: Vec<Vec<u8>>,
    /// Index of each applied entry, so that histories can be compared.
    reads: BTreeMap<Vec<u8>, u64>,
    failure: Option<MessageError>,
}

pub struct World {
    pub faults: Faults,
    pub trace: Vec<String>,
    rng: StdRng,
    seed: u64,
    nodes: BTreeMap<u64, Node>,
    disks: BTreeMap<u64, Disk>,
    held: BTreeMap<u64, bool>,
    cut: Option<(u64, u64)>,
    wires: Vec<(u64, Outgoing)>,
    sent: BTreeMap<u64, usize>,
    lost_snapshots: u32,
    leaders_of: BTreeMap<u64, u64>,
    history: BTreeMap<u64, Vec<u8>>,
    membership_index: u64,
    lives: u64,
}

impl World {
    pub fn new(seed: u64, voters: &[u64]) -> World {
        let mut meta = SnapshotMetadata::default();
        (meta.index, meta.term) = (1, 1);
        meta.set_conf_state(ConfState::from((voters.to_vec(), Vec::new())));
        let mut hard_state = HardState::default();
        (hard_state.term, hard_state.commit) = (1, 1);
        let nothing = codec::encode(&Vec::<Vec<u8>>::new());
        let disk = Disk { hard_state, compacted: (1, 1), entries: Vec::new(), snapshot: Some((meta, nothing)) };
        let mut world = World {
            faults: Faults::NONE,
            trace: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            seed,
            nodes: BTreeMap::new(),
            disks: voters.iter().map(|id| (*id, disk.clone())).collect(),
            held: BTreeMap::new(),
            cut: None,
            wires: Vec::new(),
            sent: BTreeMap::new(),
            lost_snapshots: 0,
            leaders_of: BTreeMap::new(),
            history: BTreeMap::new(),
            membership_index: 0,
            lives: 0,
        };
        world.restart_all();
        world
    }

    /// A new member with nothing on its disk.
    pub fn add(&mut self, id: u64) {
        self.disks.insert(id, Disk::default());
        self.restart(id);
    }

    pub fn crash(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.sent.remove(&id);
    }

    pub fn restart(&mut self, id: u64) {
        let disk = self.disks[&id].clone();
        self.lives += 1;
        let (snapshot, data) = disk.snapshot.unzip();
        let machine = Machine::new(Start {
            id,
            hard_state: disk.hard_state,
            compacted: disk.compacted,
            entries: disk.entries,
            snapshot,
            seed: self.seed * 1000 + self.lives,
        });
        let applied = data.map_or_else(Vec::new, |data| codec::decode(&data).unwrap());
        let node = Node { machine, under_way: Vec::new(), applied, reads: BTreeMap::new(), failure: None };
        self.nodes.insert(id, node);
    }

    pub fn restart_all(&mut self) {
        for id in self.disks.keys().copied().collect::<Vec<_>>() {
            if !self.nodes.contains_key(&id) {
                self.restart(id);
            }
        }
    }

    pub fn restore_disk(&mut self, id: u64, disk: Disk) {
        self.disks.insert(id, disk);
    }

    pub fn hold_disk(&mut self, id: u64, held: bool) {
        self.held.insert(id, held);
    }

    /// No message reaches it or leaves it.
    pub fn cut(&mut self, id: u64) {
        self.cut = Some((id, self.machine(id).term()));
    }

    pub fn term_when_cut(&self) -> u64 {
        self.cut.unwrap().1
    }

    pub fn lose_snapshots(&mut self, count: u32) {
        self.lost_snapshots = count;
    }

    pub fn machine(&self, id: u64) -> &Machine {
        &self.nodes[&id].machine
    }

    pub fn disk(&self, id: u64) -> &Disk {
        &self.disks[&id]
    }

    pub fn applied(&self, id: u64) -> &[Vec<u8>] {
        &self.nodes[&id].applied
    }

    pub fn failure(&self, id: u64) -> Option<MessageError> {
        self.nodes[&id].failure.clone()
    }

    pub fn read_answer(&self, id: u64, read: &[u8]) -> Option<u64> {
        self.nodes[&id].reads.get(read).copied()
    }

    pub fn voters(&self, id: u64) -> Vec<u64> {
        self.machine(id).status().voters
    }

    pub fn sent_by(&self, id: u64) -> usize {
        self.sent.get(&id).copied().unwrap_or(0)
    }

    pub fn last_membership_index(&self) -> u64 {
        self.membership_index
    }

    /// Who leads in the newest term.
    pub fn leaders(&self) -> Vec<u64> {
        let leads = self.nodes.iter().filter(|(_, node)| node.machine.leads());
        let newest = leads.clone().map(|(_, node)| node.machine.term()).max();
        leads.filter(|(_, node)| Some(node.machine.term()) == newest).map(|(id, _)| *id).collect()
    }

    pub fn with<T>(&mut self, id: u64, act: impl FnOnce(&mut Machine) -> T) -> T {
        let result = act(&mut self.nodes.get_mut(&id).unwrap().machine);
        self.poll(id);
        result
    }

    /// To the leader, if there is one that takes it.
    pub fn propose(&mut self, data: &[u8]) {
        if let Some(leader) = self.leaders().first().copied() {
            let _ = self.with(leader, |machine| machine.handle_proposals(vec![data.to_vec()]));
        }
    }

    pub fn change(&mut self, changes: &[MemberChange]) {
        if let Some(leader) = self.leaders().first().copied() {
            let _ = self.with(leader, |machine| machine.handle_membership(changes, b"change".to_vec()));
        }
    }

    /// The node's driver stores a snapshot of what it has applied and compacts all of the log.
    pub fn snapshot(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.under_way.is_empty() {
            return;
        }
        let Some(meta) = node.machine.snapshot_metadata() else { return };
        let disk = self.disks.get_mut(&id).unwrap();
        disk.snapshot = Some((meta.clone(), codec::encode(&node.applied)));
        disk.entries.retain(|entry| entry.index > meta.index);
        disk.compacted = (meta.index, meta.term);
        let index = meta.index;
        self.with(id, |machine| machine.handle_snapshot_saved(meta, index));
    }

    /// Until nothing moves without a tick.
    pub fn settle(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.poll(id);
        }
        self.steps(50);
    }

    pub fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.with(id, Machine::handle_tick);
            }
            self.steps(8);
        }
    }

    /// Rounds of disk and network, at most so many.
    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.disks_write();
            self.deliver();
        }
    }

    /// Proposals, crashes, restarts, snapshots and membership changes as the seed has it.
    pub fn random_life(&mut self, ticks: usize) {
        for tick in 0..ticks {
            self.ticks(1);
            let id = self.rng.random_range(1..=3);
            match self.rng.random_range(0..100) {
                0..40 => self.propose(&tick.to_le_bytes()),
                40..43 if self.nodes.len() == 3 => self.crash(id),
                43..60 => self.restart_all(),
                60..65 if self.nodes.contains_key(&id) => self.snapshot(id),
                65..70 => self.change(&[MemberChange::Learner(id)]),
                70..80 => self.change(&[MemberChange::Voter(1), MemberChange::Voter(2), MemberChange::Voter(3)]),
                80..83 => {
                    if let Some(leader) = self.leaders().first().copied() {
                        let _ = self.with(leader, |machine| machine.handle_transfer(None));
                    }
                }
                _ => {}
            }
        }
        self.change(&[MemberChange::Voter(1), MemberChange::Voter(2), MemberChange::Voter(3)]);
    }

    fn disks_write(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].machine.log().snapshot_wanted() {
                self.snapshot(id);
            }
            let slow = self.chance(self.faults.slow_disk);
            if slow || self.held.get(&id) == Some(&true) {
                continue;
            }
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(number) = node.under_way.last().map(|write| write.number) else { continue };
            for write in std::mem::take(&mut node.under_way) {
                self.disks.get_mut(&id).unwrap().write(write);
            }
            self.with(id, |machine| machine.handle_written(number));
        }
    }

    fn deliver(&mut self) {
        for (from, outgoing) in std::mem::take(&mut self.wires) {
            if self.chance(self.faults.delay) {
                self.wires.push((from, outgoing));
                continue;
            }
            let (Outgoing::Message { to, .. } | Outgoing::Snapshot { to, .. }) = outgoing;
            let cut = self.cut.is_some_and(|(cut, _)| cut == from || cut == to);
            let lost = cut || self.chance(self.faults.loss) || !self.nodes.contains_key(&to);
            match outgoing {
                Outgoing::Message { bytes, .. } => {
                    if self.chance(self.faults.duplicate) {
                        self.wires.push((from, Outgoing::Message { to, bytes: bytes.clone() }));
                    }
                    if !lost {
                        let message = PeerMessage::parse(&bytes).unwrap();
                        let result = self.with(to, |machine| machine.handle_message(message));
                        self.note(to, result);
                    }
                }
                Outgoing::Snapshot { index, bytes, .. } => self.deliver_snapshot(from, to, index, &bytes, lost),
            }
        }
    }

    fn deliver_snapshot(&mut self, from: u64, to: u64, index: u64, bytes: &[u8], lost: bool) {
        let unlucky = self.lost_snapshots > 0;
        self.lost_snapshots = self.lost_snapshots.saturating_sub(1);
        let stored = self.disks[&from].snapshot.clone().filter(|(meta, _)| meta.index == index);
        let arrived = match stored {
            Some((_, data)) if !lost && !unlucky => {
                let message = PeerMessage::parse(bytes).unwrap();
                let result = self.with(to, |machine| machine.handle_snapshot(message, data));
                self.note(to, result);
                true
            }
            _ => false,
        };
        if self.nodes.contains_key(&from) {
            self.with(from, |machine| machine.handle_snapshot_sent(to, arrived));
        }
    }

    fn note(&mut self, id: u64, result: Result<(), MessageError>) {
        match result {
            Ok(()) | Err(MessageError::Dropped(_)) => {}
            Err(fatal) => {
                let failure = &mut self.nodes.get_mut(&id).unwrap().failure;
                failure.get_or_insert(fatal);
            }
        }
    }

    fn poll(&mut self, id: u64) {
        while let Some(effects) = self.nodes.get_mut(&id).unwrap().machine.poll() {
            *self.sent.entry(id).or_default() += effects.send.len();
            self.wires.extend(effects.send.into_iter().map(|outgoing| (id, outgoing)));
            let node = self.nodes.get_mut(&id).unwrap();
            node.under_way.extend(effects.writes);
            node.reads.extend(effects.reads);
            for committed in effects.committed {
                self.apply(id, committed);
            }
        }
        let machine = &self.nodes[&id].machine;
        if machine.leads() {
            let first = *self.leaders_of.entry(machine.term()).or_insert(id);
            assert_eq!(first, id, "two leaders in term {} (seed {})", machine.term(), self.seed);
        }
    }

    fn apply(&mut self, id: u64, committed: Committed) {
        self.trace.push(format!("{id} {committed:?}"));
        let node = self.nodes.get_mut(&id).unwrap();
        let (index, what) = match committed {
            Committed::Entry { index, data } => {
                node.applied.push(data.clone());
                (index, data)
            }
            Committed::Membership { index, context } => {
                self.membership_index = self.membership_index.max(index);
                (index, [b"membership", context.as_slice()].concat())
            }
            Committed::Blank { index } => (index, b"blank".to_vec()),
            Committed::Snapshot { data, .. } => {
                node.applied = codec::decode(&data).unwrap();
                return;
            }
        };
        let first = self.history.entry(index).or_insert_with(|| what.clone());
        assert_eq!(*first, what, "two histories at {index} (seed {})", self.seed);
    }

    fn chance(&mut self, in_hundred: u32) -> bool {
        in_hundred > 0 && self.rng.random_range(0..100) < in_hundred
    }
}
