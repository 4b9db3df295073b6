//! Messages from peers: what is looked at before raft-rs sees them, since it aborts on some that it should refuse.

use protobuf::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};

use super::Machine;
use crate::consensus::error::MessageError;

/// A message from a peer, read but not yet believed.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerMessage(Message);

impl PeerMessage {
    pub fn parse(bytes: &[u8]) -> Result<PeerMessage, MessageError> {
        let mut message = Message::default();
        message.merge_from_bytes(bytes).map_err(|_| MessageError::Dropped("unreadable"))?;
        Ok(PeerMessage(message))
    }

    /// Raft id of the peer that says it sent this.
    pub fn sender(&self) -> u64 {
        self.0.from
    }
}

impl Machine {
    /// A message from a peer. Of the errors only [`MessageError::Dropped`] lets this node go on.
    pub fn handle_message(&mut self, message: PeerMessage) -> Result<(), MessageError> {
        if message.0.get_msg_type() == MessageType::MsgSnapshot {
            return Err(MessageError::Dropped("a snapshot without its bytes"));
        }
        self.step(message.0)
    }

    /// An [`Outgoing::Snapshot`](super::Outgoing::Snapshot) from a leader with the bytes that go with it.
    pub fn handle_snapshot(&mut self, mut message: PeerMessage, data: Vec<u8>) -> Result<(), MessageError> {
        if message.0.get_msg_type() != MessageType::MsgSnapshot {
            return Err(MessageError::Dropped("no snapshot"));
        }
        message.0.mut_snapshot().set_data(data);
        self.step(message.0)
    }

    fn step(&mut self, message: Message) -> Result<(), MessageError> {
        if message.to != self.id() || message.from == self.id() || message.from == 0 {
            return Err(MessageError::Dropped("addressed to another raft id"));
        }
        check_form(&message)?;
        // Until a snapshot is durable, raft-rs would look for entries that it has already replaced.
        if self.pending.iter().any(|pending| pending.snapshot.is_some()) {
            return Err(MessageError::Dropped("while a snapshot is being written"));
        }
        // It would put its own membership in force at once, and the changes that wait for the disk on top of it.
        let changes_wait = self.pending.iter().any(|pending| !pending.committed.is_empty());
        if changes_wait && message.get_msg_type() == MessageType::MsgSnapshot {
            return Err(MessageError::Dropped("while a membership change is being written"));
        }
        self.check_against_log(&message)?;
        self.heard.insert(message.from, self.ticks);
        // What raft refuses (an unknown peer's response) is as good as lost.
        let _ = self.raw.step(message);
        Ok(())
    }

    fn check_against_log(&self, message: &Message) -> Result<(), MessageError> {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        if message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject && message.index > last {
            return Err(MessageError::Dropped("acknowledging entries that do not exist"));
        }
        if message.term < raft.term {
            return Ok(());
        }
        match message.get_msg_type() {
            // A leader's heartbeat carries no commit index above what this node acknowledged to it.
            MessageType::MsgHeartbeat if message.commit > last => {
                Err(MessageError::LostEntries { acknowledged: message.commit, last })
            }
            MessageType::MsgAppend => {
                let known = raft.raft_log.first_index()..=raft.raft_log.committed;
                let differs =
                    |entry: &&Entry| known.contains(&entry.index) && !raft.raft_log.match_term(entry.index, entry.term);
                message
                    .entries
                    .iter()
                    .find(differs)
                    .map_or(Ok(()), |entry| Err(MessageError::Diverged { index: entry.index }))
            }
            _ => Ok(()),
        }
    }
}

/// Only what peers send; raft-rs takes some of the other kinds for the word of its own node.
fn check_form(message: &Message) -> Result<(), MessageError> {
    use MessageType::*;
    let kind = message.get_msg_type();
    match kind {
        MsgAppend
        | MsgAppendResponse
        | MsgRequestVote
        | MsgRequestVoteResponse
        | MsgSnapshot
        | MsgHeartbeat
        | MsgHeartbeatResponse
        | MsgTimeoutNow
        | MsgRequestPreVote
        | MsgRequestPreVoteResponse
        | MsgReadIndexResp
            if message.term > 0 => {}
        MsgReadIndex if message.entries.len() == 1 => {}
        _ => return Err(MessageError::Dropped("of a kind no peer sends")),
    }
    let consecutive = message.entries.windows(2).all(|pair| pair[1].index == pair[0].index + 1);
    let follows = kind != MsgAppend || message.entries.first().is_none_or(|entry| entry.index == message.index + 1);
    if !consecutive || !follows {
        return Err(MessageError::Dropped("with entries out of order"));
    }
    Ok(())
}
