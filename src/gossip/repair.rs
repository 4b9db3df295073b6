//! When to compare tables with whom: at the start at once and until done, then with a random peer each period.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::exchange::{Exchange, RepairAnswer, RepairRequest};
use crate::spec::{MonoMs, NodeId};

/// Between two conversations; half of it to one and a half, at random, so that managers do not fall into step.
pub const REPAIR_INTERVAL: Duration = Duration::from_secs(3);
/// A conversation that failed is begun anew with another peer after this, while the table has never been compared.
pub const FIRST_RETRY: Duration = Duration::from_millis(200);
/// A peer that has not answered within this is given up; the request's own deadline should be shorter.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A conversation with one peer at a time. The shell carries the requests and hands over the records that came with an
/// answer before the answer itself.
#[derive(Debug, Default)]
pub struct Repair {
    /// `None`: at once.
    next: Option<MonoMs>,
    talk: Option<Talk>,
    compared_once: bool,
}

#[derive(Debug)]
struct Talk {
    peer: NodeId,
    deadline: MonoMs,
    /// The page under way ends here.
    page_end: Option<NodeId>,
    /// Where the next page begins, once this one is through.
    next_page: Option<NodeId>,
}

impl Repair {
    /// The first request of a conversation, if one is due and there is a peer.
    pub fn poll_request(
        &mut self,
        exchange: &Exchange,
        peers: &[NodeId],
        now: MonoMs,
        rng: &mut impl Rng,
    ) -> Option<(NodeId, RepairRequest)> {
        if self.talk.as_ref().is_some_and(|talk| now >= talk.deadline) {
            self.end(false, now, rng);
        }
        if self.talk.is_some() || peers.is_empty() || self.next.is_some_and(|next| now < next) {
            return None;
        }
        let peer = peers[rng.random_range(0..peers.len())];
        self.talk = Some(Talk { peer, deadline: now + ANSWER_WITHIN, page_end: None, next_page: None });
        Some((peer, self.compare(exchange, NodeId(0), now)))
    }

    /// What to send next in this conversation; `None` ends it.
    pub fn handle_answer(
        &mut self,
        exchange: &Exchange,
        from: NodeId,
        answer: &RepairAnswer,
        now: MonoMs,
        rng: &mut impl Rng,
    ) -> Option<RepairRequest> {
        let talk = self.talk.as_mut().filter(|talk| talk.peer == from)?;
        talk.deadline = now + ANSWER_WITHIN;
        if let Some(resume) = answer.resume {
            talk.next_page = Some(resume);
        } else if let Some(end) = talk.page_end.take() {
            talk.next_page = end.0.checked_add(1).map(NodeId);
        }
        let offer = exchange.offer(&answer.wanted);
        if !offer.is_empty() {
            return Some(RepairRequest::Offer(offer));
        }
        match talk.next_page.take() {
            Some(from) => Some(self.compare(exchange, from, now)),
            None => {
                self.end(true, now, rng);
                None
            }
        }
    }

    /// The peer did not answer.
    pub fn handle_failure(&mut self, peer: NodeId, now: MonoMs, rng: &mut impl Rng) {
        if self.talk.as_ref().is_some_and(|talk| talk.peer == peer) {
            self.end(false, now, rng);
        }
    }

    /// Compares at once with the next peer, as after being cut off.
    pub fn hurry(&mut self) {
        self.next = None;
    }

    /// When to poll next; `None`: as soon as there is a peer.
    pub fn next_deadline(&self) -> Option<MonoMs> {
        self.talk.as_ref().map(|talk| talk.deadline).or(self.next)
    }

    /// Whether this table was ever compared to the end with another manager's.
    pub fn has_compared(&self) -> bool {
        self.compared_once
    }

    fn compare(&mut self, exchange: &Exchange, from: NodeId, now: MonoMs) -> RepairRequest {
        let digest = exchange.digest(from);
        if let Some(talk) = &mut self.talk {
            talk.page_end = digest.to;
            talk.deadline = now + ANSWER_WITHIN;
        }
        RepairRequest::Compare(digest)
    }

    fn end(&mut self, complete: bool, now: MonoMs, rng: &mut impl Rng) {
        self.talk = None;
        self.compared_once |= complete;
        let wait = if self.compared_once {
            REPAIR_INTERVAL.mul_f64(rng.random_range(0.5..1.5))
        } else {
            FIRST_RETRY.mul_f64(rng.random_range(0.5..1.5))
        };
        self.next = Some(now + wait);
    }
}
