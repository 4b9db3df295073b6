//! The part of the log that raft reads: every entry since the last compaction, in memory.
//!
//! It mirrors the disk, one write ahead: an entry is here as soon as raft has it, and counts as persisted when the
//! machine is told so. The tail kept after a compaction is bounded, so this memory is too.

use std::cell::Cell;
use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

/// What raft reads. Only the machine writes it.
#[derive(Debug)]
pub struct MemLog {
    /// As of the start; raft reads it once.
    start: RaftState,
    /// Index and term of the last entry that is no longer here.
    compacted: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: u64,
    /// The snapshot on disk. Its bytes stay there.
    snapshot: Option<SnapshotMetadata>,
    /// A peer needs a snapshot that the one on disk cannot be.
    wanted: Cell<bool>,
}

impl MemLog {
    pub fn new(
        hard_state: HardState,
        compacted: (u64, u64),
        entries: Vec<Entry>,
        snapshot: Option<SnapshotMetadata>,
    ) -> MemLog {
        let conf_state = snapshot.as_ref().map(|meta| meta.get_conf_state().clone()).unwrap_or_default();
        let bytes = entries.iter().map(size_of_entry).sum();
        MemLog {
            start: RaftState { hard_state, conf_state },
            compacted,
            entries: entries.into(),
            bytes,
            snapshot,
            wanted: Cell::new(false),
        }
    }

    pub fn first(&self) -> u64 {
        self.compacted.0 + 1
    }

    pub fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    pub fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |meta| meta.index)
    }

    /// Takes entries from raft, dropping what they replace.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index >= self.first() && first.index <= self.last() + 1, "raft appends without a gap");
        let keep = (first.index - self.first()) as usize;
        self.bytes -= self.entries.drain(keep..).map(|entry| size_of_entry(&entry)).sum::<u64>();
        self.bytes += entries.iter().map(size_of_entry).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Starts over from a snapshot that a leader sent.
    pub fn install(&mut self, meta: SnapshotMetadata) {
        self.compacted = (meta.index, meta.term);
        self.entries.clear();
        self.bytes = 0;
        self.snapshot = Some(meta);
    }

    /// A snapshot of our own is on disk.
    pub fn set_snapshot(&mut self, meta: SnapshotMetadata) {
        if meta.index > self.snapshot_index() {
            self.snapshot = Some(meta);
        }
        self.wanted.set(false);
    }

    /// Forgets entries up to `index`, which the snapshot covers.
    pub fn compact(&mut self, index: u64) {
        let index = index.min(self.snapshot_index()).min(self.last());
        if index <= self.compacted.0 {
            return;
        }
        let term = self.term_of(index).expect("an entry between the compaction and the end is here");
        let gone = (index - self.compacted.0) as usize;
        self.bytes -= self.entries.drain(..gone).map(|entry| size_of_entry(&entry)).sum::<u64>();
        self.compacted = (index, term);
    }

    /// The highest index to compact to that keeps the newest entries, at most `count` of them and `bytes` bytes.
    pub fn tail_start(&self, count: u64, bytes: u64) -> u64 {
        let mut kept = (0, 0);
        for entry in self.entries.iter().rev() {
            kept = (kept.0 + 1, kept.1 + size_of_entry(entry));
            if kept.0 > count || kept.1 > bytes {
                return entry.index;
            }
        }
        self.compacted.0
    }

    /// Bytes of the entries in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn snapshot_wanted(&self) -> bool {
        self.wanted.get()
    }

    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.compacted.0 {
            return Some(self.compacted.1);
        }
        let at = index.checked_sub(self.first())?;
        self.entries.get(at as usize).map(|entry| entry.term)
    }
}

impl Storage for MemLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.start.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let range = (low - self.first()) as usize..(high - self.first()) as usize;
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut total = 0;
        // At least one, so that an entry larger than a message still travels.
        let entries = self.entries.range(range).take_while(|entry| {
            let first = total == 0;
            total += size_of_entry(entry);
            first || total <= max
        });
        Ok(entries.cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_of(index).ok_or_else(|| {
            let compacted = index < self.compacted.0;
            Error::Store(if compacted { StorageError::Compacted } else { StorageError::Unavailable })
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The description of the snapshot on disk; whoever sends the message adds the bytes. A peer that joined after it was
    /// taken would refuse it, and gets a new one.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let fits = |meta: &&SnapshotMetadata| meta.index >= request_index && holds(meta.get_conf_state(), to);
        let Some(meta) = self.snapshot.as_ref().filter(fits) else {
            self.wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(meta.clone());
        Ok(snapshot)
    }
}

/// Whether a member is in a configuration, in whatever standing.
pub fn holds(conf: &ConfState, id: u64) -> bool {
    [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next].iter().any(|ids| ids.contains(&id))
}

fn size_of_entry(entry: &Entry) -> u64 {
    u64::from(entry.compute_size())
}
