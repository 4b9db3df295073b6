//! Snapshots between nodes: cut into chunks that each fit a request, sent one after another, put together again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::courier::{Courier, Lane, NoAnswer};
use super::replica::SendSnapshot;
use super::store::CHUNK_BYTES;
use super::wire::{Request, Response};
use crate::spec::NodeId;
use crate::state::codec;

/// A state larger than this does not travel.
pub const MAX_SNAPSHOT_BYTES: usize = 1 << 30;
const CHUNK_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("the peer refused the snapshot: {0}")]
    Refused(String),
}

/// Sends all of it, then raft's message. The peer's log has taken it when this returns.
pub async fn send(courier: Arc<dyn Courier>, snapshot: SendSnapshot, data: Vec<u8>) -> Result<(), TransferError> {
    let SendSnapshot { to, index, message, .. } = snapshot;
    for (number, chunk) in data.chunks(CHUNK_BYTES).enumerate() {
        let chunk = Request::SnapshotChunk { index, number: number as u64, data: chunk.to_vec() };
        request(&courier, to, &chunk).await?;
    }
    request(&courier, to, &Request::SnapshotEnd { index, bytes: data.len() as u64, message }).await
}

async fn request(courier: &Arc<dyn Courier>, to: NodeId, request: &Request) -> Result<(), TransferError> {
    let bytes = Bytes::from(codec::encode(request));
    let answer = courier.request(to, Lane::Bulk, bytes, CHUNK_DEADLINE).await?;
    match codec::decode(&answer) {
        Ok(Response::Accepted) => Ok(()),
        Ok(Response::Invalid(why)) => Err(TransferError::Refused(why)),
        Ok(other) => Err(TransferError::Refused(format!("{other:?}"))),
        Err(error) => Err(TransferError::Refused(error.to_string())),
    }
}

/// A snapshot on its way in. There is one leader, so there is one at a time; a new one's first chunk replaces it.
#[derive(Debug, Default)]
pub struct Assembly {
    from: Option<NodeId>,
    index: u64,
    next: u64,
    data: Vec<u8>,
}

impl Assembly {
    /// Takes a chunk; one that was taken before is taken again without effect, since a lost answer makes it come twice.
    pub fn chunk(&mut self, from: NodeId, index: u64, number: u64, data: &[u8]) -> Result<(), String> {
        if number == 0 {
            *self = Assembly { from: Some(from), index, next: 0, data: Vec::new() };
        }
        if (self.from, self.index) != (Some(from), index) || number > self.next {
            return Err("this chunk belongs to no snapshot under way; start again".into());
        }
        if number < self.next {
            return Ok(());
        }
        if data.len() > CHUNK_BYTES || self.data.len() + data.len() > MAX_SNAPSHOT_BYTES {
            return Err(format!("a snapshot may have {MAX_SNAPSHOT_BYTES} bytes in chunks of {CHUNK_BYTES}"));
        }
        self.data.extend_from_slice(data);
        self.next += 1;
        Ok(())
    }

    /// The whole, if it is as long as its sender says.
    pub fn end(&mut self, from: NodeId, index: u64, bytes: u64) -> Result<Vec<u8>, String> {
        let Assembly { from: sender, index: begun, data, .. } = std::mem::take(self);
        if (sender, begun) != (Some(from), index) || data.len() as u64 != bytes {
            return Err("the snapshot did not arrive whole; start again".into());
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: NodeId = NodeId(1);

    #[test]
    fn chunks_in_order_make_the_whole() {
        let mut assembly = Assembly::default();
        assembly.chunk(LEADER, 9, 0, b"ab").unwrap();
        assembly.chunk(LEADER, 9, 1, b"cd").unwrap();
        assembly.chunk(LEADER, 9, 1, b"cd").unwrap();
        assert_eq!(assembly.end(LEADER, 9, 4).unwrap(), b"abcd");
    }

    #[test]
    fn gaps_strangers_and_short_snapshots_are_refused() {
        let mut assembly = Assembly::default();
        assembly.chunk(LEADER, 9, 0, b"ab").unwrap();
        assert!(assembly.chunk(LEADER, 9, 2, b"ef").is_err());
        assert!(assembly.chunk(NodeId(2), 9, 1, b"cd").is_err());
        assert!(assembly.chunk(LEADER, 8, 1, b"cd").is_err());
        assert!(assembly.end(LEADER, 9, 4).is_err());
    }

    #[test]
    fn a_new_snapshot_replaces_one_that_was_given_up() {
        let mut assembly = Assembly::default();
        assembly.chunk(LEADER, 9, 0, b"ab").unwrap();
        assembly.chunk(NodeId(2), 12, 0, b"xy").unwrap();
        assert_eq!(assembly.end(NodeId(2), 12, 2).unwrap(), b"xy");
    }
}
