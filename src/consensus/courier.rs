//! How this room reaches other nodes. The composition root implements it over the transport.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::spec::NodeId;

/// Raft messages and requests stay below this.
pub const MAX_MESSAGE_BYTES: usize = 2 << 20;

/// Why a request got no answer. The peer may have carried it out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no answer from node {node}: {why}")]
pub struct NoAnswer {
    pub node: NodeId,
    pub why: String,
}

/// Which connection a request takes, so that bulk never delays raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Forward,
    Bulk,
}

pub trait Courier: Send + Sync + 'static {
    /// One way, in order, bounded: what does not fit is dropped, and raft sends it again.
    fn send(&self, to: NodeId, message: Bytes);

    /// Answered by the peer's [`Consensus::serve`](super::Consensus::serve) within `deadline`.
    fn request(
        &self,
        to: NodeId,
        lane: Lane,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NoAnswer>>;
}
