//! One-way messages: one stream, one bounded queue and one task for each (node, protocol), in order.
//!
//! A message is dropped, never delayed without bound: when the queue is full the newest is, and while the node cannot
//! be reached all are. The sender is told at once and decides what that means (Raft: report unreachable).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::counters::Counters;
use super::handle::Transport;
use super::protocol::{Mode, Protocol};
use super::wire::{MessageStream, StreamError};
use crate::spec::NodeId;

/// Messages and bytes that wait for one node on one protocol.
const MAX_QUEUED: usize = 1024;
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// For a connection and a stream on it.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// A connection that takes nothing for so long is given up and dialed again.
const STALL_LIMIT: Duration = Duration::from_secs(5);

/// After an attempt to reach the node failed, unless it is connected earlier.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a one-way message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    #[error("the node is no member")]
    NotAMember,
    #[error("the roles do not allow it")]
    NotPermitted,
    #[error("the node cannot be reached now")]
    Unreachable,
    #[error("the queue to the node is full")]
    QueueFull,
    #[error("the message is larger than the protocol takes")]
    TooLarge,
}

/// The way to one node on one protocol.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    queue: mpsc::Sender<Bytes>,
    state: Arc<LaneState>,
}

#[derive(Debug, Default)]
struct LaneState {
    queued_bytes: AtomicUsize,
    down: AtomicBool,
}

impl Lane {
    pub(super) fn start(transport: Transport, node: NodeId, protocol: Protocol) -> Lane {
        let (queue, messages) = mpsc::channel(MAX_QUEUED);
        let state = Arc::new(LaneState::default());
        let worker = Worker { transport, node, protocol, messages, state: state.clone(), stream: None };
        tokio::spawn(worker.run());
        Lane { queue, state }
    }

    pub(super) fn send(&self, message: Bytes) -> Result<(), Unsent> {
        if self.state.down.load(Ordering::Relaxed) {
            return Err(Unsent::Unreachable);
        }
        let size = message.len();
        if self.state.queued_bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_QUEUED_BYTES {
            self.state.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(Unsent::QueueFull);
        }
        self.queue.try_send(message).map_err(|error| {
            self.state.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => Unsent::QueueFull,
                mpsc::error::TrySendError::Closed(_) => Unsent::Unreachable,
            }
        })
    }
}

struct Worker {
    transport: Transport,
    node: NodeId,
    protocol: Protocol,
    messages: mpsc::Receiver<Bytes>,
    state: Arc<LaneState>,
    stream: Option<MessageStream>,
}

impl Worker {
    /// Until the node is no member any more or the transport stops: then the queue's sender is gone.
    async fn run(mut self) {
        while let Some(message) = self.messages.recv().await {
            self.taken(&message);
            if self.stream.as_ref().is_none_or(MessageStream::is_lost) {
                match self.transport.open_stream(self.node, self.protocol, Mode::Send, OPEN_LIMIT).await {
                    Ok(stream) => self.stream = Some(stream),
                    Err(error) => {
                        tracing::debug!(node = %self.node, protocol = self.protocol.as_str(), %error, "not sent");
                        self.rest().await;
                        continue;
                    }
                }
            }
            if let Err(error) = self.write(&message).await {
                tracing::debug!(node = %self.node, protocol = self.protocol.as_str(), %error, "a stream broke");
                self.stream = None;
            }
        }
    }

    fn taken(&self, message: &Bytes) {
        self.state.queued_bytes.fetch_sub(message.len(), Ordering::Relaxed);
    }

    /// The message and what has queued up behind it, in one flush.
    async fn write(&mut self, first: &Bytes) -> Result<(), StreamError> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let writing = async {
            stream.writer.write(first).await?;
            while let Ok(next) = self.messages.try_recv() {
                self.taken(&next);
                stream.writer.write(&next).await?;
            }
            stream.writer.flush().await
        };
        match timeout(STALL_LIMIT, writing).await {
            Ok(result) => result?,
            Err(_) => {
                self.transport.redial(self.node);
                return Err(StreamError::Lost);
            }
        }
        self.stream = Some(stream);
        Ok(())
    }

    /// Refuses messages for a while, or until the node is connected.
    async fn rest(&mut self) {
        self.state.down.store(true, Ordering::Relaxed);
        let unsent = &self.transport.counters().unsent;
        Counters::count(unsent);
        while let Ok(message) = self.messages.try_recv() {
            self.state.queued_bytes.fetch_sub(message.len(), Ordering::Relaxed);
            Counters::count(unsent);
        }
        let mut connected = self.transport.connected();
        // An error is a pause that ended by itself.
        let _ = timeout(PAUSE, connected.wait_for(|nodes| nodes.contains(&self.node))).await;
        self.state.down.store(false, Ordering::Relaxed);
    }
}
