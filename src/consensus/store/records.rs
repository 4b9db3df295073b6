//! What the records of a log look like inside, and what binds each to its place.

use protobuf::Message as _;
use raft::eraftpb::SnapshotMetadata;

use super::{CHUNK_BYTES, StoreError, corrupt, from_bytes};
use crate::consensus::seal::Sealer;
use crate::spec::{FEATURE_LEVEL, FeatureLevel, NodeId, SwarmId};

const MAGIC: &[u8; 8] = b"flok-log";
/// Raised when the layout of this room's records changes; entries and snapshots carry versions of their own.
const FORMAT: u32 = 1;

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    pub swarm: SwarmId,
    pub node: NodeId,
    pub raft_id: u64,
}

/// In the clear, so that a wrong directory, build or key is named instead of called damaged.
/// Fixed fields behind the magic: format u32, feature level u32, swarm and node u128, raft id u64, all little-endian, and
/// then an empty record sealed with the log's key.
#[derive(Debug, Clone)]
pub struct Header {
    pub identity: LogIdentity,
    pub feature_level: FeatureLevel,
    key_check: Vec<u8>,
}

impl Header {
    pub fn new(identity: LogIdentity, sealer: &mut Sealer) -> Header {
        let mut header = Header { identity, feature_level: FEATURE_LEVEL, key_check: Vec::new() };
        header.key_check = sealer.seal(&Place::KeyCheck.bytes(&header), b"");
        header
    }

    pub fn opens_with(&self, sealer: &Sealer) -> bool {
        sealer.open(&Place::KeyCheck.bytes(self), &self.key_check).is_some()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.feature_level.0.to_le_bytes());
        bytes.extend(self.identity.swarm.0.to_le_bytes());
        bytes.extend(self.identity.node.0.to_le_bytes());
        bytes.extend(self.identity.raft_id.to_le_bytes());
        bytes.extend(&self.key_check);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Header, StoreError> {
        let short = || corrupt("the header");
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(short)?;
        let (format, rest) = rest.split_first_chunk().ok_or_else(short)?;
        match u32::from_le_bytes(*format) {
            FORMAT => {}
            found => return Err(StoreError::NewerFormat { found, known: FORMAT }),
        }
        let (feature_level, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (swarm, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (node, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (raft_id, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let identity = LogIdentity {
            swarm: SwarmId(u128::from_le_bytes(*swarm)),
            node: NodeId(u128::from_le_bytes(*node)),
            raft_id: u64::from_le_bytes(*raft_id),
        };
        Ok(Header {
            identity,
            feature_level: FeatureLevel(u32::from_le_bytes(*feature_level)),
            key_check: rest.to_vec(),
        })
    }
}

/// Where a record lies; authenticated with it.
pub enum Place {
    KeyCheck,
    Meta(&'static str),
    Entry(u64),
    Chunk { snapshot: u64, number: u64 },
}

impl Place {
    pub fn bytes(&self, header: &Header) -> Vec<u8> {
        let mut bytes = FORMAT.to_le_bytes().to_vec();
        bytes.extend(header.identity.swarm.0.to_le_bytes());
        bytes.extend(header.identity.node.0.to_le_bytes());
        match self {
            Place::KeyCheck => bytes.push(0),
            Place::Meta(name) => {
                bytes.push(1);
                bytes.extend(name.as_bytes());
            }
            Place::Entry(index) => {
                bytes.push(2);
                bytes.extend(index.to_le_bytes());
            }
            Place::Chunk { snapshot, number } => {
                bytes.push(3);
                bytes.extend(snapshot.to_le_bytes());
                bytes.extend(number.to_le_bytes());
            }
        }
        bytes
    }
}

/// The stored snapshot's description: raft's own, and its length.
pub struct SnapshotRecord {
    pub meta: SnapshotMetadata,
    pub bytes: u64,
}

impl SnapshotRecord {
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(CHUNK_BYTES as u64)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.to_le_bytes().to_vec();
        bytes.extend(self.meta.write_to_bytes().expect("a message in memory can be written"));
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<SnapshotRecord, StoreError> {
        let (length, meta) = bytes.split_first_chunk().ok_or_else(|| corrupt("the snapshot's description"))?;
        Ok(SnapshotRecord { meta: from_bytes(meta, "the snapshot's description")?, bytes: u64::from_le_bytes(*length) })
    }
}

/// An index and a term.
pub fn pair_bytes((index, term): (u64, u64)) -> Vec<u8> {
    [index.to_le_bytes(), term.to_le_bytes()].concat()
}

pub fn pair(bytes: &[u8]) -> Result<(u64, u64), StoreError> {
    let whole = <[u8; 16]>::try_from(bytes).map_err(|_| corrupt("the compaction's index"))?;
    let value = u128::from_le_bytes(whole);
    Ok((value as u64, (value >> 64) as u64))
}
