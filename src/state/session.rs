//! Answers kept for retries, so that a proposal that was sent twice is applied once and answered alike both times.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::command::{Applied, Proposal, Refusal};
use crate::spec::ClientId;

/// Clients remembered. One is one daemon's life, so this many daemons must have started since before one that may still
/// retry is forgotten; the one that proposed longest ago goes first.
pub const MAX_SESSIONS: usize = 1024;

/// Answers kept for one client, that is, the proposals it may have under way at once.
pub const MAX_ANSWERS: usize = 1024;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sessions {
    by_client: OrdMap<ClientId, Arc<Session>>,
}

/// One client's answers.
#[derive(Debug, Clone, Default, PartialEq)]
struct Session {
    /// Log index of its newest proposal.
    last_index: u64,
    /// Below this the client has its answers, or they were evicted; what comes now is a late copy.
    floor: u64,
    answers: OrdMap<u64, Applied>,
}

/// A session as a snapshot holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SessionRecord {
    client: ClientId,
    last_index: u64,
    floor: u64,
    answers: Vec<(u64, Applied)>,
}

impl Sessions {
    /// What this proposal was answered before, if it was seen before.
    pub(super) fn recall(&self, proposal: &Proposal) -> Option<Applied> {
        let session = self.by_client.get(&proposal.client)?;
        if proposal.sequence < session.floor {
            return Some(Err(Refusal::AnswerForgotten));
        }
        session.answers.get(&proposal.sequence).cloned()
    }

    /// Keeps the answer to a proposal, and forgets what its client says it has.
    pub(super) fn record(&mut self, proposal: &Proposal, index: u64, answer: &Applied) {
        if !self.by_client.contains_key(&proposal.client) && self.by_client.len() >= MAX_SESSIONS {
            self.evict_oldest();
        }
        let session = Arc::make_mut(self.by_client.entry(proposal.client).or_default());
        session.last_index = index;
        session.answers.insert(proposal.sequence, answer.clone());
        // A client that claims the answer to this very proposal would lose it: the claim is cut there.
        session.raise_floor(proposal.answered_below.min(proposal.sequence));
        while session.answers.len() > MAX_ANSWERS {
            let oldest = session.answers.get_min().expect("more than the limit is not none").0;
            session.raise_floor(oldest + 1);
        }
    }

    /// Indices differ between sessions, so every log holder evicts the same one.
    fn evict_oldest(&mut self) {
        let oldest = self.by_client.iter().min_by_key(|(_, session)| session.last_index).map(|(client, _)| *client);
        if let Some(client) = oldest {
            self.by_client.remove(&client);
        }
    }

    pub(super) fn to_records(&self) -> Vec<SessionRecord> {
        self.by_client
            .iter()
            .map(|(client, session)| SessionRecord {
                client: *client,
                last_index: session.last_index,
                floor: session.floor,
                answers: session.answers.iter().map(|(sequence, answer)| (*sequence, answer.clone())).collect(),
            })
            .collect()
    }

    pub(super) fn from_records(records: Vec<SessionRecord>) -> Sessions {
        let by_client = records
            .into_iter()
            .map(|r| {
                let answers = r.answers.into_iter().collect();
                (r.client, Arc::new(Session { last_index: r.last_index, floor: r.floor, answers }))
            })
            .collect();
        Sessions { by_client }
    }
}

impl Session {
    fn raise_floor(&mut self, to: u64) {
        while let Some((sequence, _)) = self.answers.get_min().filter(|(sequence, _)| *sequence < to) {
            let sequence = *sequence;
            self.answers.remove(&sequence);
        }
        self.floor = self.floor.max(to);
    }
}
