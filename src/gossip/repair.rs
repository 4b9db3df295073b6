//! When to compare tables with whom: at the start at once and until done, then with a random peer each period.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::exchange::{Exchange, RepairAnswer, RepairRequest};
use crate::spec::{MonoMs, NodeId};

/// Between two conversations; half of it to one and a half, at random, so that managers do not fall into step.
pub const REPAIR_INTERVAL: Duration = Duration::from_secs(3);
/// A conversation that failed is begun anew with another peer after this, while the table has never been compared.
pub const FIRST_RETRY: Duration = Duration::from_millis(200);
/// A peer that has not answered within this is given up.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The same while the table has never been compared: a newcomer that meets a dead peer first still has the whole table
/// within two seconds.
pub const FIRST_ANSWER_WITHIN: Duration = Duration::from_millis(500);

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
        self.talk = Some(Talk { peer, deadline: now + self.patience(), page_end: None, next_page: None });
        Some((peer, self.compare(exchange, NodeId(0))))
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
        let deadline = now + self.patience();
        let talk = self.talk.as_mut().filter(|talk| talk.peer == from)?;
        talk.deadline = deadline;
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
            Some(from) => Some(self.compare(exchange, from)),
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

    fn compare(&mut self, exchange: &Exchange, from: NodeId) -> RepairRequest {
        let digest = exchange.digest(from);
        if let Some(talk) = &mut self.talk {
            talk.page_end = digest.to;
        }
        RepairRequest::Compare(digest)
    }

    fn patience(&self) -> Duration {
        if self.compared_once { ANSWER_WITHIN } else { FIRST_ANSWER_WITHIN }
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// The times at which conversations begin within `span`, and with whom, where only `living` answer (nothing new).
    fn conversations(peers: &[NodeId], living: &[NodeId], span: Duration) -> Vec<(MonoMs, NodeId)> {
        let (mut repair, mut rng) = (Repair::default(), StdRng::seed_from_u64(3));
        let exchange = Exchange::default();
        let mut begun = Vec::new();
        let mut now = MonoMs(0);
        while now < MonoMs(0) + span {
            if let Some((peer, _)) = repair.poll_request(&exchange, peers, now, &mut rng) {
                begun.push((now, peer));
                if living.contains(&peer) {
                    repair.handle_answer(&exchange, peer, &RepairAnswer::default(), now, &mut rng);
                }
            }
            now = now + Duration::from_millis(10);
        }
        begun
    }

    #[test]
    fn a_newcomer_asks_at_once_and_another_soon_when_one_is_dead() {
        let peers: Vec<NodeId> = (1..=4).map(NodeId).collect();
        let begun = conversations(&peers, &peers[2..], Duration::from_secs(10));
        assert_eq!(begun[0].0, MonoMs(0));
        let first_success = begun.iter().find(|(_, peer)| peers[2..].contains(peer)).unwrap();
        let failures = begun.iter().take_while(|(_, peer)| !peers[2..].contains(peer)).count() as u64;
        assert!(first_success.0 <= MonoMs(failures * 850), "{begun:?}");
    }

    #[test]
    fn conversations_are_spread_over_time_and_peers() {
        let peers: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let begun = conversations(&peers, &peers, Duration::from_secs(300));
        assert!((80..=120).contains(&begun.len()), "{}", begun.len());
        for peer in &peers {
            assert!(begun.iter().filter(|(_, with)| with == peer).count() >= 8);
        }
        let waits: std::collections::BTreeSet<Duration> = begun.windows(2).map(|two| two[1].0 - two[0].0).collect();
        assert!(waits.len() > 20, "no common step");
    }

    #[test]
    fn without_peers_nothing_is_asked_and_a_peer_is_asked_when_it_comes() {
        let (mut repair, mut rng) = (Repair::default(), StdRng::seed_from_u64(3));
        assert_eq!(repair.poll_request(&Exchange::default(), &[], MonoMs(0), &mut rng), None);
        assert_eq!(repair.next_deadline(), None);
        assert!(repair.poll_request(&Exchange::default(), &[NodeId(1)], MonoMs(1), &mut rng).is_some());
    }
}
