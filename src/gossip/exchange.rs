//! A manager's side of the gossip: what it takes in, and what it answers to a digest.
//!
//! A repair is a conversation in pages. The asker sends the versions of all it holds within a range of node ids; the
//! answer carries what is newer or unknown to the asker, names what the answerer would like, and says where the asker
//! goes on. Every message is bounded, so a late joiner's first conversation is a few round trips, not one huge message.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::holder::{Echo, Holders, Refused};
use super::record::{NodeRecord, RecordVersion};
use super::table::Table;
use crate::spec::{MonoMs, NodeId};

/// Versions in one digest.
pub const MAX_DIGEST: usize = 512;
/// Bytes of records in one message; a single larger record goes alone.
pub const MAX_RECORDS_BYTES: usize = 256 * 1024;
/// A larger record is refused: its owner bounds what it says.
pub const MAX_RECORD_BYTES: usize = 512 * 1024;

/// A record as it travels: the encoded [`Statement`], signed by its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    pub bytes: Vec<u8>,
    pub signature: Vec<u8>,
    /// ed25519; its hash is the owner's id.
    pub public_key: [u8; 32],
}

/// What an owner signs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Drawn at each start of a daemon: tells two live holders of one key apart.
    pub instance: u64,
    pub record: NodeRecord,
}

/// Verifies and decodes; given by the shell, which has the cryptography.
pub trait Open {
    /// The signer and what it says; `None` if the signature or the encoding is wrong.
    fn open(&self, signed: &SignedRecord) -> Option<(NodeId, Statement)>;
}

impl<F: Fn(&SignedRecord) -> Option<(NodeId, Statement)>> Open for F {
    fn open(&self, signed: &SignedRecord) -> Option<(NodeId, Statement)> {
        self(signed)
    }
}

/// Why a record was not taken. The table is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record of {0} bytes is larger than {MAX_RECORD_BYTES}")]
    TooLarge(usize),
    #[error("a record whose signature or encoding is wrong")]
    Forged,
    #[error("node {signer} signed a record of node {subject}")]
    NotItsOwn { signer: NodeId, subject: NodeId },
    #[error("a record of node {0}, which is no member")]
    Stranger(NodeId),
    #[error("{0}")]
    SecondHolder(Box<Refused>),
}

/// The versions that the sender holds of every node in a range of ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// First id of the range.
    pub from: NodeId,
    /// Last id of the range; `None`: to the end.
    pub to: Option<NodeId>,
    /// In id order.
    pub versions: Vec<(NodeId, RecordVersion)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepairRequest {
    Compare(Digest),
    /// What the other side named as wanted.
    Offer(Vec<SignedRecord>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairAnswer {
    pub records: Vec<SignedRecord>,
    /// Records that the asker has newer.
    pub wanted: Vec<NodeId>,
    /// The first id not answered for, where the answer was full.
    pub resume: Option<NodeId>,
}

/// The table, and each record as its owner signed it, to be passed on.
#[derive(Debug, Default)]
pub struct Exchange {
    table: Table,
    signed: BTreeMap<NodeId, Arc<SignedRecord>>,
    holders: Holders,
}

impl Exchange {
    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Takes a record in, however it came. Says whose record was renewed, `None` if it was known.
    pub fn handle_record(
        &mut self,
        signed: SignedRecord,
        open: &impl Open,
        is_member: impl Fn(NodeId) -> bool,
        now: MonoMs,
    ) -> Result<Option<NodeId>, RecordError> {
        if signed.bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge(signed.bytes.len()));
        }
        let (signer, Statement { instance, record }) = open.open(&signed).ok_or(RecordError::Forged)?;
        if signer != record.node {
            return Err(RecordError::NotItsOwn { signer, subject: record.node });
        }
        if !is_member(signer) {
            return Err(RecordError::Stranger(signer));
        }
        let held = self.table.get(signer).map(|held| &*held.record);
        self.holders
            .admit(held, instance, &record, now)
            .map_err(|refused| RecordError::SecondHolder(refused.into()))?;
        if !self.table.merge(Arc::new(record), now) {
            return Ok(None);
        }
        self.holders.wrote(signer, instance);
        self.signed.insert(signer, Arc::new(signed));
        Ok(Some(signer))
    }

    /// Forgets whoever is no member any more.
    pub fn retain_members(&mut self, is_member: impl Fn(NodeId) -> bool) {
        let gone: Vec<NodeId> = self.signed.keys().copied().filter(|node| !is_member(*node)).collect();
        for node in gone {
            self.signed.remove(&node);
            self.holders.forget(node);
            self.table.forget(node);
        }
    }

    /// What to send `owner` back about itself: its newest record as held here. `None` if there is none.
    pub fn echo(&self, owner: NodeId) -> Option<Echo> {
        let held = self.table.get(owner)?;
        self.holders.echo(owner, held.record.version)
    }

    /// A page of what is held, from an id on.
    pub fn digest(&self, from: NodeId) -> Digest {
        let mut versions: Vec<(NodeId, RecordVersion)> =
            self.signed.range(from..).take(MAX_DIGEST).filter_map(|(id, _)| Some((*id, self.version(*id)?))).collect();
        let full = versions.len() == MAX_DIGEST;
        versions.shrink_to_fit();
        let to = versions.last().map(|(id, _)| *id).filter(|_| full);
        Digest { from, to, versions }
    }

    /// Answers a page: at most [`MAX_RECORDS_BYTES`] of what the asker lacks, and what it has newer.
    pub fn answer(&self, digest: &Digest) -> RepairAnswer {
        let theirs: BTreeMap<NodeId, RecordVersion> = digest.versions.iter().copied().take(MAX_DIGEST).collect();
        let end = digest.to.unwrap_or(NodeId(u128::MAX));
        let mut answer = RepairAnswer::default();
        let ours = if digest.from <= end { Some(self.signed.range(digest.from..=end)) } else { None };
        let mut bytes = 0;
        for (id, signed) in ours.into_iter().flatten() {
            if theirs.get(id).copied() >= self.version(*id) {
                continue;
            }
            bytes += signed.bytes.len();
            if bytes > MAX_RECORDS_BYTES && !answer.records.is_empty() {
                answer.resume = Some(*id);
                break;
            }
            answer.records.push(signed.as_ref().clone());
        }
        let in_reach = |id: &NodeId| answer.resume.is_none_or(|resume| *id < resume);
        let newer = theirs.iter().filter(|(id, version)| in_reach(id) && Some(**version) > self.version(**id));
        answer.wanted = newer.map(|(id, _)| *id).collect();
        answer
    }

    /// The wanted records, as many as fit; the next round brings the rest.
    pub fn offer(&self, wanted: &[NodeId]) -> Vec<SignedRecord> {
        let mut bytes = 0;
        let fits = |signed: &&Arc<SignedRecord>| {
            bytes += signed.bytes.len();
            bytes <= MAX_RECORDS_BYTES || bytes == signed.bytes.len()
        };
        let held = wanted.iter().take(MAX_DIGEST).filter_map(|id| self.signed.get(id));
        held.take_while(fits).map(|signed| signed.as_ref().clone()).collect()
    }

    fn version(&self, node: NodeId) -> Option<RecordVersion> {
        self.table.get(node).map(|held| held.record.version)
    }
}

#[cfg(test)]
pub(super) mod tests;
