//! The connections this node has, by peer: which is the main one, which carries bulk, who waits for one, and when to
//! dial again. Bookkeeping alone: the driver does what follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::members::Sender;
use super::protocol::{Lane, Protocol};
use super::{Opened, TransportError};
use tokio::sync::oneshot;

/// The first and the longest pause between two dials.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Streams that wait for one peer's connection.
const MAX_WAITING: usize = 256;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub id: ConnectionId,
    /// `None` until it is known: the dialer says so with its first stream.
    pub lane: Option<Lane>,
    pub dialed: bool,
    pub remote: Multiaddr,
    /// Who is at the other end; `None`: a stranger, from its first moment to its last.
    pub sender: Option<Sender>,
    pub since: Instant,
    /// Cancelled when the connection is given up, for its streams.
    pub lost: CancellationToken,
    /// Cloned by each join in progress on it.
    pub joining: Arc<()>,
}

impl Link {
    pub(super) fn is_joining(&self) -> bool {
        Arc::strong_count(&self.joining) > 1
    }
}

/// A stream to be opened as soon as there is a connection.
#[derive(Debug)]
pub(super) struct Waiting {
    pub protocol: Protocol,
    pub answer: oneshot::Sender<Result<Opened, TransportError>>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub links: Vec<Link>,
    pub dialing: BTreeMap<Lane, ConnectionId>,
    waiting: Vec<Waiting>,
    failures: u32,
    not_before: Instant,
    last_error: String,
    /// Has been shown this node's certificate since it last took a connection or failed: a showing that was lost is repeated,
    /// after a pause.
    pub presented: bool,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    peers: BTreeMap<PeerId, Peer>,
}

impl Links {
    pub(super) fn peer(&mut self, peer: PeerId) -> &mut Peer {
        self.peers.entry(peer).or_insert_with(Peer::new)
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Peer> {
        self.peers.get(peer)
    }

    pub(super) fn link(&mut self, peer: &PeerId, id: ConnectionId) -> Option<&mut Link> {
        self.peers.get_mut(peer)?.links.iter_mut().find(|link| link.id == id)
    }

    pub(super) fn remove(&mut self, peer: &PeerId, id: ConnectionId) -> Option<Link> {
        let links = &mut self.peers.get_mut(peer)?.links;
        let place = links.iter().position(|link| link.id == id)?;
        Some(links.remove(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Link)> {
        self.peers.iter().flat_map(|(peer, state)| state.links.iter().map(move |link| (peer, link)))
    }

    /// Drops what is remembered of peers with which nothing is going on and which `keep` does not name.
    pub(super) fn forget_idle(&mut self, keep: impl Fn(&PeerId) -> bool) {
        self.peers.retain(|peer, state| {
            !state.links.is_empty() || !state.dialing.is_empty() || !state.waiting.is_empty() || keep(peer)
        });
    }
}

impl Peer {
    fn new() -> Peer {
        Peer {
            links: Vec::new(),
            dialing: BTreeMap::new(),
            waiting: Vec::new(),
            failures: 0,
            not_before: Instant::now(),
            last_error: String::new(),
            presented: false,
        }
    }

    /// The newest connection for `lane`: an older one is more likely to be dead.
    pub(super) fn usable(&self, lane: Lane) -> Option<&Link> {
        self.links.iter().rev().find(|link| link.lane == Some(lane))
    }

    /// Whether a connection for `lane` is being dialed or greeted.
    pub(super) fn is_dialing(&self, lane: Lane) -> bool {
        let greeting = || self.links.iter().any(|link| link.dialed && link.lane.is_none());
        self.dialing.contains_key(&lane) || (lane == Lane::Main && greeting())
    }

    /// A stream that waits; given back where too many do.
    pub(super) fn wait(&mut self, waiting: Waiting) -> Result<(), Waiting> {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        if self.waiting.len() >= MAX_WAITING {
            return Err(waiting);
        }
        self.waiting.push(waiting);
        Ok(())
    }

    pub(super) fn take_waiting(&mut self, lane: Lane) -> Vec<Waiting> {
        let (taken, left) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.protocol.lane() == lane);
        self.waiting = left;
        taken
    }

    pub(super) fn connected(&mut self) {
        self.failures = 0;
        self.presented = false;
        self.last_error.clear();
        self.not_before = Instant::now();
    }

    /// `jitter` from 0.0 to 1.0 shortens the pause by up to half.
    pub(super) fn failed(&mut self, error: String, now: Instant, jitter: f64) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.presented = false;
        self.not_before = now + pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        self.last_error = error;
    }

    pub(super) fn forgive(&mut self, now: Instant) {
        self.failures = 0;
        self.not_before = now;
    }

    pub(super) fn may_dial(&self, now: Instant) -> bool {
        now >= self.not_before
    }

    pub(super) fn last_error(&self) -> &str {
        if self.last_error.is_empty() { "no connection yet" } else { &self.last_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_between_dials_grow_to_a_bound_and_a_connection_ends_them() {
        let start = Instant::now();
        let mut peer = Peer::new();
        let mut pauses = Vec::new();
        for _ in 0..20 {
            peer.failed("refused".into(), start, 0.0);
            pauses.push(peer.not_before - start);
        }
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[19], LONGEST_PAUSE);
        assert!(!peer.may_dial(start));
        peer.forgive(start);
        assert!(peer.may_dial(start));
    }

    #[tokio::test]
    async fn jitter_shortens_a_pause_by_half_at_most() {
        let start = Instant::now();
        let mut peer = Peer::new();
        peer.failed("refused".into(), start, 1.0);
        assert_eq!(peer.not_before - start, FIRST_PAUSE / 2);
    }

    #[tokio::test]
    async fn too_many_waiting_streams_are_given_back() {
        let mut peer = Peer::new();
        let mut kept = Vec::new();
        for _ in 0..MAX_WAITING {
            let (answer, receiver) = oneshot::channel();
            kept.push(receiver);
            peer.wait(Waiting { protocol: Protocol::Raft, answer }).unwrap();
        }
        let (answer, _receiver) = oneshot::channel();
        assert!(peer.wait(Waiting { protocol: Protocol::Raft, answer }).is_err());
        kept.pop();
        let (answer, _receiver) = oneshot::channel();
        assert!(peer.wait(Waiting { protocol: Protocol::Raft, answer }).is_ok(), "one that gave up makes room");
    }
}
