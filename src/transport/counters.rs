//! What went over the wire, counted: messages and bytes by protocol, and what was dropped or refused.

use std::sync::atomic::{AtomicU64, Ordering};

use super::protocol::Protocol;

#[derive(Debug, Default)]
struct Traffic {
    messages_sent: AtomicU64,
    bytes_sent: AtomicU64,
    messages_received: AtomicU64,
    bytes_received: AtomicU64,
}

/// Shared by everything that moves bytes; relaxed, since they are only ever shown.
#[derive(Debug, Default)]
pub struct Counters {
    traffic: [Traffic; Protocol::ALL.len()],
    /// One-way messages that found their queue full or their node unreachable.
    pub unsent: AtomicU64,
    pub gossip_published: AtomicU64,
    pub gossip_received: AtomicU64,
    /// Gossip whose author is no member, or for which nobody took time.
    pub gossip_dropped: AtomicU64,
    pub dials: AtomicU64,
    pub dials_failed: AtomicU64,
    /// Connections and streams of strangers, and words that a role may not say.
    pub refused: AtomicU64,
}

/// A protocol's numbers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficCount {
    pub messages_sent: u64,
    pub bytes_sent: u64,
    pub messages_received: u64,
    pub bytes_received: u64,
}

impl Counters {
    pub fn traffic(&self, protocol: Protocol) -> TrafficCount {
        let traffic = &self.traffic[protocol.index()];
        TrafficCount {
            messages_sent: traffic.messages_sent.load(Ordering::Relaxed),
            bytes_sent: traffic.bytes_sent.load(Ordering::Relaxed),
            messages_received: traffic.messages_received.load(Ordering::Relaxed),
            bytes_received: traffic.bytes_received.load(Ordering::Relaxed),
        }
    }

    pub(super) fn sent(&self, protocol: Protocol, bytes: usize) {
        let traffic = &self.traffic[protocol.index()];
        traffic.messages_sent.fetch_add(1, Ordering::Relaxed);
        traffic.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, protocol: Protocol, bytes: usize) {
        let traffic = &self.traffic[protocol.index()];
        traffic.messages_received.fetch_add(1, Ordering::Relaxed);
        traffic.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
