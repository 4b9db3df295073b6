//! Requests: a stream carries one request and its answer, and is then kept for the next one to the same node, which so
//! costs a round trip and not a negotiation.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::TransportError;
use super::handle::Transport;
use super::protocol::{Mode, Protocol};
use super::wire::{MessageStream, StreamError};
use crate::spec::NodeId;

/// Idle streams kept for one node and protocol.
const MAX_IDLE: usize = 16;

/// First byte of an answer.
pub(super) const ANSWERED: u8 = 0;
pub(super) const REFUSED: u8 = 1;

#[derive(Debug, Default)]
pub(super) struct IdleStreams {
    idle: Mutex<BTreeMap<(NodeId, Protocol), Vec<MessageStream>>>,
}

impl IdleStreams {
    fn take(&self, key: (NodeId, Protocol)) -> Option<MessageStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = idle.get_mut(&key)?;
        streams.retain(|stream| !stream.is_lost());
        streams.pop()
    }

    fn put(&self, key: (NodeId, Protocol), stream: MessageStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = idle.entry(key).or_default();
        if streams.len() < MAX_IDLE {
            streams.push(stream);
        }
    }

    /// Of a node that is disconnected or no member any more; `None`: of all.
    pub(super) fn clear(&self, of: Option<NodeId>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(node, _), _| of.is_some_and(|gone| *node != gone));
    }
}

pub(super) async fn request(
    transport: &Transport,
    node: NodeId,
    protocol: Protocol,
    message: &[u8],
    deadline: Duration,
) -> Result<Bytes, TransportError> {
    let asking = async {
        let idle = transport.idle_streams();
        let mut stream = match idle.take((node, protocol)) {
            Some(stream) => stream,
            None => transport.open_stream(node, protocol, Mode::Ask, deadline).await?,
        };
        let answer = exchange(&mut stream, message).await.map_err(|source| TransportError::Broken { node, source })?;
        idle.put((node, protocol), stream);
        match answer.first() {
            Some(&ANSWERED) => Ok(answer.slice(1..)),
            _ => {
                let reason = String::from_utf8_lossy(answer.get(1..).unwrap_or_default()).into_owned();
                Err(TransportError::Refused { node, protocol, reason })
            }
        }
    };
    timeout(deadline, asking).await.unwrap_or(Err(TransportError::TimedOut { node, protocol, deadline }))
}

async fn exchange(stream: &mut MessageStream, message: &[u8]) -> Result<Bytes, StreamError> {
    stream.send(message).await?;
    match stream.receive().await? {
        Some(answer) => Ok(answer),
        None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
    }
}
