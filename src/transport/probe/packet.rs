//! One datagram: a probe or its echo, 84 bytes, big-endian, with a truncated HMAC-SHA256 at its end.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::spec::{Incarnation, NodeId};

pub(super) const PACKET_LEN: usize = 84;
const MAC_LEN: usize = 16;
const BODY_LEN: usize = PACKET_LEN - MAC_LEN;
/// First byte of every datagram; another layout takes another number.
const FORMAT: u8 = 1;

/// Authenticates the probes of one node and its echoes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeKey([u8; 32]);

impl ProbeKey {
    /// The key of `node` under a secret of the swarm's managers.
    pub fn of_node(secret: &[u8], node: NodeId) -> ProbeKey {
        let mut mac = keyed(secret);
        mac.update(b"flok probe key 1");
        mac.update(&node.0.to_be_bytes());
        ProbeKey(mac.finalize().into_bytes().into())
    }

    pub(super) fn mac(&self) -> Authenticator {
        Authenticator(keyed(&self.0))
    }
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeKey(..)")
    }
}

/// A key, prepared.
#[derive(Clone)]
pub(super) struct Authenticator(Hmac<Sha256>);

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Probe,
    Echo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub kind: Kind,
    pub from: NodeId,
    pub to: NodeId,
    pub nonce: u64,
    /// Of the prober against the probed; the echo quotes it.
    pub suspicion: u64,
    /// Of the node that answers; 0 in a probe, like `progress`.
    pub incarnation: Incarnation,
    pub progress: u64,
}

impl Packet {
    pub(super) fn seal(&self, key: &Authenticator) -> [u8; PACKET_LEN] {
        let mut bytes = [0; PACKET_LEN];
        let kind = match self.kind {
            Kind::Probe => 1,
            Kind::Echo => 2,
        };
        let fields: [&[u8]; 7] = [
            &[FORMAT, kind, 0, 0],
            &self.from.0.to_be_bytes(),
            &self.to.0.to_be_bytes(),
            &self.nonce.to_be_bytes(),
            &self.suspicion.to_be_bytes(),
            &self.incarnation.0.to_be_bytes(),
            &self.progress.to_be_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        let mut mac = key.0.clone();
        mac.update(&bytes[..BODY_LEN]);
        bytes[BODY_LEN..].copy_from_slice(&mac.finalize().into_bytes()[..MAC_LEN]);
        bytes
    }

    /// `None` for whatever is not a packet under this key.
    pub(super) fn open(bytes: &[u8], key: &Authenticator) -> Option<Packet> {
        let bytes: &[u8; PACKET_LEN] = bytes.try_into().ok()?;
        let (body, tag) = bytes.split_at(BODY_LEN);
        let mut mac = key.0.clone();
        mac.update(body);
        mac.verify_truncated_left(tag).ok()?;
        let kind = match body[..4] {
            [FORMAT, 1, 0, 0] => Kind::Probe,
            [FORMAT, 2, 0, 0] => Kind::Echo,
            _ => return None,
        };
        let id = |at: usize| NodeId(u128::from_be_bytes(body[at..at + 16].try_into().expect("16 bytes")));
        let number = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().expect("8 bytes"));
        Some(Packet {
            kind,
            from: id(4),
            to: id(20),
            nonce: number(36),
            suspicion: number(44),
            incarnation: Incarnation(number(52)),
            progress: number(60),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        kind: Kind::Echo,
        from: NodeId(1),
        to: NodeId(2),
        nonce: 3,
        suspicion: 4,
        incarnation: Incarnation(5),
        progress: 6,
    };

    #[test]
    fn a_packet_reads_back_under_its_key_only() {
        let key = ProbeKey::of_node(b"secret", NodeId(1)).mac();
        let bytes = PACKET.seal(&key);
        assert_eq!(Packet::open(&bytes, &key), Some(PACKET));
        assert_eq!(Packet::open(&bytes, &ProbeKey::of_node(b"secret", NodeId(2)).mac()), None);
        assert_eq!(Packet::open(&bytes, &ProbeKey::of_node(b"other", NodeId(1)).mac()), None);
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let key = ProbeKey::of_node(b"secret", NodeId(1)).mac();
        let bytes = PACKET.seal(&key);
        for at in 0..PACKET_LEN {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(Packet::open(&changed, &key), None, "byte {at}");
            assert_eq!(Packet::open(&bytes[..at], &key), None);
        }
    }
}
