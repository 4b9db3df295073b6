//! The log on disk: one redb file per node, every record sealed.
//!
//! What it holds: a header in the clear (whose log, which format), raft's hard state, the entries since the last
//! compaction, and one snapshot in chunks. Every call that changes something is one transaction, durable on return.
//! [`LogStore::write`] takes several of the machine's writes at once, so that one fsync serves all that gathered meanwhile.
//!
//! A log that says less than it once said is worse than none: a node that forgot what it acknowledged could vote away an
//! answered write. So [`LogStore::recover`] checks that everything is there, and refuses rather than truncates.
//!
//! Its driver is a thread that may block. It must not be asked from an async task.

mod records;
#[cfg(test)]
mod tests;

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use raft::eraftpb::{Entry, HardState, SnapshotMetadata};
use rand::CryptoRng;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};

pub use self::records::{Header, LogIdentity};
use self::records::{Place, SnapshotRecord};
use super::error::StoreError;
use super::machine::Write;
use super::seal::{Sealer, SealingKey};
use crate::spec::{FEATURE_LEVEL, FeatureLevel};

const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");

const HARD_STATE: &str = "hard-state";
const COMPACTED: &str = "compacted";
const SNAPSHOT_META: &str = "snapshot";

/// A snapshot is stored, and sent, in pieces of this size.
pub const CHUNK_BYTES: usize = 256 << 10;
/// redb's default of 1 GiB is not for a log whose reader keeps its entries in memory anyway.
const CACHE_BYTES: usize = 8 << 20;

/// A log's beginning.
#[derive(Debug)]
pub enum First {
    /// A new swarm, or one rescued from its last member: this snapshot, whose configuration names the members.
    Snapshot { meta: SnapshotMetadata, data: Vec<u8>, hard_state: HardState },
    /// A new member of a swarm, which its leader will fill.
    Empty,
}

/// All that a machine and a state need to start again.
#[derive(Debug, Default)]
pub struct Recovered {
    pub hard_state: HardState,
    pub compacted: (u64, u64),
    pub entries: Vec<Entry>,
    pub snapshot: Option<(SnapshotMetadata, Vec<u8>)>,
}

impl Recovered {
    pub fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }
}

/// See the module's doc.
#[derive(Debug)]
pub struct LogStore {
    db: Database,
    sealer: Sealer,
    header: Header,
    /// Index of the last entry on disk, so that a plain append need not look for a suffix to drop.
    last: u64,
}

impl LogStore {
    /// Makes a log in a file that does not exist. It appears there whole or not at all.
    pub fn create(
        path: &Path,
        key: &SealingKey,
        identity: LogIdentity,
        first: First,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Result<LogStore, StoreError> {
        let doing = |error: std::io::Error| io_error("created", &error);
        let unfinished = path.with_extension("unfinished");
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(doing(error)),
            _ => {}
        }
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(doing)?;
        let backend = redb::backends::FileBackend::new(file).map_err(open_error)?;
        let store = LogStore::create_on(backend, key, identity, first, rng)?;
        std::fs::rename(&unfinished, path).map_err(doing)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(doing)?;
        Ok(store)
    }

    /// Opens the log that [`Self::create`] made. `expected` is who the node is now.
    pub fn open(
        path: &Path,
        key: &SealingKey,
        expected: &LogIdentity,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Result<LogStore, StoreError> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| io_error("opened", &error))?;
        let backend = redb::backends::FileBackend::new(file).map_err(open_error)?;
        LogStore::open_on(backend, key, expected, rng)
    }

    pub fn create_on(
        backend: impl StorageBackend,
        key: &SealingKey,
        identity: LogIdentity,
        first: First,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Result<LogStore, StoreError> {
        let db = open_database(backend)?;
        let mut sealer = Sealer::new(key, rng);
        let header = Header::new(identity, &mut sealer);
        let mut store = LogStore { db, sealer, header, last: 0 };
        let LogStore { db, sealer, header, .. } = &mut store;
        let txn = db.begin_write().map_err(written)?;
        txn.open_table(HEADER).map_err(written)?.insert("header", header.to_bytes().as_slice()).map_err(written)?;
        let mut writer = Writer { txn: &txn, sealer, header };
        writer.open_tables()?;
        if let First::Snapshot { meta, data, hard_state } = first {
            writer.replace_all(&meta, &data)?;
            writer.put_meta(HARD_STATE, &to_bytes(&hard_state))?;
            store.last = meta.index;
        }
        txn.commit().map_err(written)?;
        Ok(store)
    }

    pub fn open_on(
        backend: impl StorageBackend,
        key: &SealingKey,
        expected: &LogIdentity,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Result<LogStore, StoreError> {
        let db = open_database(backend)?;
        let sealer = Sealer::new(key, rng);
        let header = {
            let txn = db.begin_read().map_err(read)?;
            let table = txn.open_table(HEADER).map_err(|_| corrupt("no header"))?;
            let bytes = table.get("header").map_err(read)?.ok_or_else(|| corrupt("no header"))?;
            Header::from_bytes(bytes.value())?
        };
        header.check(expected, &sealer)?;
        Ok(LogStore { db, sealer, header, last: 0 })
    }

    /// Who this log says it belongs to.
    pub fn identity(&self) -> &LogIdentity {
        &self.header.identity
    }

    /// Everything, checked: complete, unaltered, in order. To be called once, before the first write.
    pub fn recover(&mut self) -> Result<Recovered, StoreError> {
        let txn = self.db.begin_read().map_err(read)?;
        let meta = txn.open_table(META).map_err(|_| corrupt("no table of records"))?;
        let get = |name: &'static str| -> Result<Option<Vec<u8>>, StoreError> {
            let Some(sealed) = meta.get(name).map_err(read)? else { return Ok(None) };
            let plain = self.sealer.open(&Place::Meta(name).bytes(&self.header), sealed.value());
            plain.map(Some).ok_or_else(|| corrupt(name))
        };
        let hard_state = get(HARD_STATE)?.map(|bytes| from_bytes(&bytes, HARD_STATE)).transpose()?.unwrap_or_default();
        let compacted = get(COMPACTED)?.map(|bytes| records::pair(&bytes)).transpose()?.unwrap_or_default();
        let snapshot = match get(SNAPSHOT_META)? {
            Some(bytes) => Some(SnapshotRecord::from_bytes(&bytes)?),
            None => None,
        };

        let mut entries = Vec::new();
        let log = txn.open_table(LOG).map_err(|_| corrupt("no table of entries"))?;
        for row in log.iter().map_err(read)? {
            let (index, sealed) = row.map_err(read)?;
            let index = index.value();
            let plain = self.sealer.open(&Place::Entry(index).bytes(&self.header), sealed.value());
            let entry: Entry = from_bytes(&plain.ok_or_else(|| corrupt(format!("entry {index}")))?, "an entry")?;
            entries.push(entry);
        }
        let snapshot = match snapshot {
            Some(record) => {
                let data = self.snapshot_data(&txn, &record)?;
                Some((record.meta, data))
            }
            None => None,
        };
        let recovered = Recovered { hard_state, compacted, entries, snapshot };
        check_complete(&recovered)?;
        self.last = recovered.last();
        Ok(recovered)
    }

    /// Makes the writes durable, in one transaction.
    pub fn write(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let Some(newest) = writes.last() else { return Ok(()) };
        let txn = self.db.begin_write().map_err(written)?;
        let mut writer = Writer { txn: &txn, sealer: &mut self.sealer, header: &self.header };
        let mut last = self.last;
        for write in writes {
            if let Some((meta, data)) = &write.snapshot {
                writer.replace_all(meta, data)?;
                last = meta.index;
            }
            last = writer.append(&write.entries, last)?;
        }
        writer.put_meta(HARD_STATE, &to_bytes(&newest.hard_state))?;
        txn.commit().map_err(written)?;
        self.last = last;
        Ok(())
    }

    /// Stores a snapshot of the state and drops entries up to `compact_to` (index and term), which it covers. A snapshot
    /// older than the stored one changes nothing.
    pub fn save_snapshot(
        &mut self,
        meta: &SnapshotMetadata,
        data: &[u8],
        compact_to: (u64, u64),
    ) -> Result<(), StoreError> {
        assert!(compact_to.0 <= meta.index, "only what the snapshot covers may be dropped");
        if self.stored_snapshot()?.is_some_and(|stored| stored.meta.index >= meta.index) {
            return Ok(());
        }
        let txn = self.db.begin_write().map_err(written)?;
        let mut writer = Writer { txn: &txn, sealer: &mut self.sealer, header: &self.header };
        writer.put_snapshot(meta, data)?;
        writer.compact(compact_to)?;
        txn.commit().map_err(written)
    }

    /// The stored snapshot's bytes, if it is the one at `index`.
    pub fn snapshot(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.stored_snapshot()? {
            Some(record) if record.meta.index == index => {
                let txn = self.db.begin_read().map_err(read)?;
                self.snapshot_data(&txn, &record).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Notes that the swarm's formats have moved on, so that an older build refuses the log before it reads an entry.
    pub fn set_feature_level(&mut self, level: FeatureLevel) -> Result<(), StoreError> {
        let mut header = self.header.clone();
        header.feature_level = level;
        let txn = self.db.begin_write().map_err(written)?;
        txn.open_table(HEADER).map_err(written)?.insert("header", header.to_bytes().as_slice()).map_err(written)?;
        txn.commit().map_err(written)?;
        self.header = header;
        Ok(())
    }

    fn stored_snapshot(&self) -> Result<Option<SnapshotRecord>, StoreError> {
        let txn = self.db.begin_read().map_err(read)?;
        let meta = txn.open_table(META).map_err(read)?;
        let Some(sealed) = meta.get(SNAPSHOT_META).map_err(read)? else { return Ok(None) };
        let plain = self.sealer.open(&Place::Meta(SNAPSHOT_META).bytes(&self.header), sealed.value());
        SnapshotRecord::from_bytes(&plain.ok_or_else(|| corrupt(SNAPSHOT_META))?).map(Some)
    }

    fn snapshot_data(&self, txn: &redb::ReadTransaction, record: &SnapshotRecord) -> Result<Vec<u8>, StoreError> {
        let chunks = txn.open_table(SNAPSHOT).map_err(read)?;
        let mut data = Vec::with_capacity(record.bytes as usize);
        for number in 0..record.chunks() {
            let missing = || corrupt(format!("chunk {number} of the snapshot at {}", record.meta.index));
            let sealed = chunks.get(number).map_err(read)?.ok_or_else(missing)?;
            let place = Place::Chunk { snapshot: record.meta.index, number };
            data.extend(self.sealer.open(&place.bytes(&self.header), sealed.value()).ok_or_else(missing)?);
        }
        if data.len() as u64 != record.bytes {
            return Err(corrupt(format!("length of the snapshot at {}", record.meta.index)));
        }
        Ok(data)
    }
}

/// What one transaction does, sealed.
struct Writer<'a> {
    txn: &'a WriteTransaction,
    sealer: &'a mut Sealer,
    header: &'a Header,
}

impl Writer<'_> {
    /// A table that was never opened for writing does not exist for readers.
    fn open_tables(&self) -> Result<(), StoreError> {
        self.txn.open_table(META).map_err(written)?;
        self.txn.open_table(LOG).map_err(written)?;
        self.txn.open_table(SNAPSHOT).map_err(written)?;
        Ok(())
    }

    fn put_meta(&mut self, name: &'static str, plain: &[u8]) -> Result<(), StoreError> {
        let sealed = self.sealer.seal(&Place::Meta(name).bytes(self.header), plain);
        self.txn.open_table(META).map_err(written)?.insert(name, sealed.as_slice()).map_err(written)?;
        Ok(())
    }

    /// Appends entries after dropping what they replace; `last` is the last index on disk before and the result after.
    fn append(&mut self, entries: &[Entry], last: u64) -> Result<u64, StoreError> {
        let Some(first) = entries.first() else { return Ok(last) };
        assert!(first.index <= last + 1, "the machine writes without a gap");
        let mut log = self.txn.open_table(LOG).map_err(written)?;
        if first.index <= last {
            log.retain_in(first.index.., |_, _| false).map_err(written)?;
        }
        for entry in entries {
            let sealed = self.sealer.seal(&Place::Entry(entry.index).bytes(self.header), &to_bytes(entry));
            log.insert(entry.index, sealed.as_slice()).map_err(written)?;
        }
        Ok(entries.last().map_or(last, |entry| entry.index))
    }

    /// A leader's snapshot: nothing older counts.
    fn replace_all(&mut self, meta: &SnapshotMetadata, data: &[u8]) -> Result<(), StoreError> {
        self.txn.open_table(LOG).map_err(written)?.retain(|_, _| false).map_err(written)?;
        self.put_meta(COMPACTED, &records::pair_bytes((meta.index, meta.term)))?;
        self.put_snapshot(meta, data)
    }

    fn put_snapshot(&mut self, meta: &SnapshotMetadata, data: &[u8]) -> Result<(), StoreError> {
        let record = SnapshotRecord { meta: meta.clone(), bytes: data.len() as u64 };
        {
            let mut chunks = self.txn.open_table(SNAPSHOT).map_err(written)?;
            chunks.retain(|_, _| false).map_err(written)?;
            for (number, chunk) in data.chunks(CHUNK_BYTES).enumerate() {
                let number = number as u64;
                let place = Place::Chunk { snapshot: meta.index, number };
                let sealed = self.sealer.seal(&place.bytes(self.header), chunk);
                chunks.insert(number, sealed.as_slice()).map_err(written)?;
            }
        }
        self.put_meta(SNAPSHOT_META, &record.to_bytes())
    }

    fn compact(&mut self, to: (u64, u64)) -> Result<(), StoreError> {
        self.txn.open_table(LOG).map_err(written)?.retain_in(..=to.0, |_, _| false).map_err(written)?;
        self.put_meta(COMPACTED, &records::pair_bytes(to))
    }
}

/// That nothing is missing between the snapshot, the entries and the hard state.
fn check_complete(log: &Recovered) -> Result<(), StoreError> {
    let lost = |what: String| Err(StoreError::LostEntries { what });
    let snapshot = log.snapshot.as_ref().map_or(0, |(meta, _)| meta.index);
    let (mut index, mut term) = log.compacted;
    if snapshot < index {
        return lost(format!("entries {} to {index} are neither in the log nor in a snapshot", snapshot + 1));
    }
    for entry in &log.entries {
        if entry.index != index + 1 {
            return lost(format!("entry {} follows entry {index}", entry.index));
        }
        if entry.term < term {
            return Err(corrupt(format!("the term of entry {}", entry.index)));
        }
        (index, term) = (entry.index, entry.term);
    }
    if log.hard_state.commit > index || snapshot > index {
        let committed = log.hard_state.commit.max(snapshot);
        return lost(format!("entry {committed} was committed, the log ends at {index}"));
    }
    if log.hard_state.term < term {
        return Err(corrupt(format!("the hard state: its term is {}, the log's {term}", log.hard_state.term)));
    }
    Ok(())
}

fn open_database(backend: impl StorageBackend) -> Result<Database, StoreError> {
    // The whole file is verified: it is small, and a damaged one must be known before it is trusted. redb asserts on some
    // kinds of damage, and this is the one place where its word is not enough.
    let open = std::panic::AssertUnwindSafe(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(backend)
    });
    match std::panic::catch_unwind(open) {
        Ok(opened) => opened.map_err(open_error),
        Err(_) => Err(corrupt("its structure")),
    }
}

fn open_error(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
        DatabaseError::UpgradeRequired(_) => corrupt("an unknown file format"),
        DatabaseError::Storage(error) => storage_error("opened", error.into()),
        error => StoreError::Io { doing: "opened", why: error.to_string() },
    }
}

fn written(error: impl Into<redb::Error>) -> StoreError {
    storage_error("written", error.into())
}

fn read(error: impl Into<redb::Error>) -> StoreError {
    storage_error("read", error.into())
}

fn storage_error(doing: &'static str, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => io_error(doing, &error),
        redb::Error::Corrupted(what) => StoreError::Corrupt { what },
        error => StoreError::Io { doing, why: error.to_string() },
    }
}

fn io_error(doing: &'static str, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::DiskFull,
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => corrupt(error.to_string()),
        _ => StoreError::Io { doing, why: error.to_string() },
    }
}

fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

fn to_bytes(message: &impl protobuf::Message) -> Vec<u8> {
    message.write_to_bytes().expect("a message in memory can be written")
}

/// `parse_from_bytes` of raft's codec is unimplemented, so this merges into a default.
fn from_bytes<M: protobuf::Message + Default>(bytes: &[u8], what: &'static str) -> Result<M, StoreError> {
    let mut message = M::default();
    message.merge_from_bytes(bytes).map_err(|_| corrupt(what))?;
    Ok(message)
}

impl Header {
    /// Whether this node and this build may open the log.
    fn check(&self, expected: &LogIdentity, sealer: &Sealer) -> Result<(), StoreError> {
        if self.identity.node != expected.node {
            return Err(StoreError::OtherNode { found: self.identity.node, expected: expected.node });
        }
        if self.identity.swarm != expected.swarm {
            return Err(StoreError::OtherSwarm { found: self.identity.swarm, expected: expected.swarm });
        }
        if self.feature_level > FEATURE_LEVEL {
            return Err(StoreError::NewerFeatureLevel { found: self.feature_level, known: FEATURE_LEVEL });
        }
        if !self.opens_with(sealer) {
            return Err(StoreError::WrongKey);
        }
        Ok(())
    }
}
