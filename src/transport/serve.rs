//! What arrives: each inbound stream has a task that reads it and hands its messages, with their verified sender, to
//! the node. The member list is asked again for every message.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::counters::Counters;
use super::members::{Roster, Sender};
use super::protocol::{Mode, Protocol};
use super::requests::{ANSWERED, REFUSED};
use super::wire::{MessageStream, StreamError};
use crate::spec::NodeId;

/// For a stream's first byte.
const OPENING_LIMIT: Duration = Duration::from_secs(10);

/// For an answer of this node's rooms, which have deadlines of their own below it.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// What reaches a node.
#[derive(Debug)]
pub enum Incoming {
    /// One-way, in order for its sender and protocol.
    Message {
        from: Sender,
        protocol: Protocol,
        message: Bytes,
    },
    /// To be answered with `reply`.
    Request {
        from: Sender,
        protocol: Protocol,
        request: Bytes,
        reply: Reply,
    },
    /// A stream that a node opened to this one.
    Stream {
        from: Sender,
        protocol: Protocol,
        stream: MessageStream,
    },
    /// Published by `author`, whose signature has been verified; passed on by whomever.
    Gossip {
        author: Sender,
        message: Bytes,
    },
    /// A first, or no more, connection to the node. Says nothing about the node's life.
    Connected(NodeId),
    Disconnected(NodeId),
    /// A manager says that this node was removed from the swarm.
    Disowned(NodeId),
}

/// Where the answer to a request goes. Dropped without one, the request is refused.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Result<Bytes, String>>);

impl Reply {
    pub fn answer(self, message: impl Into<Bytes>) {
        // Nobody waits any more: the asker has gone.
        let _ = self.0.send(Ok(message.into()));
    }

    pub fn refuse(self, reason: impl Into<String>) {
        let _ = self.0.send(Err(reason.into()));
    }
}

/// The reader of one inbound stream.
pub(super) struct Server {
    pub peer: PeerId,
    pub protocol: Protocol,
    pub stream: MessageStream,
    pub roster: Arc<Roster>,
    pub counters: Arc<Counters>,
    pub incoming: mpsc::Sender<Incoming>,
}

impl Server {
    pub(super) async fn run(mut self) {
        let mode = match timeout(OPENING_LIMIT, self.stream.reader.receive_byte()).await {
            Ok(Ok(byte)) => Mode::from_byte(byte),
            _ => return,
        };
        let served = match mode {
            Some(Mode::Send) => self.take_messages().await,
            Some(Mode::Ask) => self.answer_requests().await,
            Some(Mode::Open) => {
                self.hand_over().await;
                Ok(())
            }
            None => Ok(()),
        };
        if let Err(error) = served {
            tracing::trace!(%error, "an inbound stream ended");
        }
    }

    async fn take_messages(&mut self) -> Result<(), StreamError> {
        while let Some(message) = self.stream.receive().await? {
            let Some(from) = self.speaker() else { break };
            let incoming = Incoming::Message { from, protocol: self.protocol, message };
            if self.incoming.send(incoming).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn answer_requests(&mut self) -> Result<(), StreamError> {
        while let Some(request) = self.stream.receive().await? {
            let Some(from) = self.speaker() else { break };
            let (sender, answer) = oneshot::channel();
            let incoming = Incoming::Request { from, protocol: self.protocol, request, reply: Reply(sender) };
            if self.incoming.send(incoming).await.is_err() {
                break;
            }
            let answer = match timeout(ANSWER_LIMIT, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err("it is not served here".to_string()),
                Err(_) => Err("it was not answered in time".to_string()),
            };
            self.stream.send(&encode_answer(answer)).await?;
        }
        Ok(())
    }

    async fn hand_over(self) {
        let Some(from) = self.speaker() else { return };
        // Where nobody takes it, the stream is dropped and so closed.
        let _ = self.incoming.send(Incoming::Stream { from, protocol: self.protocol, stream: self.stream }).await;
    }

    fn speaker(&self) -> Option<Sender> {
        let speaker = self.roster.speaker(&self.peer, self.protocol);
        if speaker.is_none() {
            Counters::count(&self.counters.refused);
        }
        speaker
    }
}

fn encode_answer(answer: Result<Bytes, String>) -> Bytes {
    let (status, body) = match answer {
        Ok(body) => (ANSWERED, body),
        Err(reason) => (REFUSED, reason.into()),
    };
    let mut bytes = BytesMut::with_capacity(body.len() + 1);
    bytes.put_u8(status);
    bytes.put(body);
    bytes.freeze()
}
