//! Who a node is: an ed25519 key, and the ids that follow from it.
//!
//! The same key is the libp2p identity (so a connection proves it) and signs gossip. [`NodeId`] is a hash of the public
//! key, so an id proves a key too.

use hmac::{Hmac, KeyInit, Mac};
use libp2p::PeerId;
use libp2p::identity::{self, ed25519};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::spec::NodeId;

/// An ed25519 public key as it is kept in the log and in certificates.
pub type PublicKey = [u8; 32];

/// A node's key. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    key: ed25519::Keypair,
    public: PublicKey,
    node: NodeId,
}

impl Identity {
    pub fn generate() -> Identity {
        Identity::from_key(ed25519::Keypair::generate())
    }

    /// From the 32 bytes of an ed25519 secret.
    pub fn from_secret(secret: &[u8; 32]) -> Identity {
        let mut copy = Zeroizing::new(*secret);
        let secret = ed25519::SecretKey::try_from_bytes(copy.as_mut_slice()).expect("any 32 bytes are an ed25519 key");
        Identity::from_key(secret.into())
    }

    fn from_key(key: ed25519::Keypair) -> Identity {
        let public = key.public().to_bytes();
        Identity { key, public, node: node_id(&public) }
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).try_into().expect("an ed25519 signature has 64 bytes")
    }

    /// The secret half, for the file that keeps it.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.secret().as_ref().try_into().expect("an ed25519 secret has 32 bytes"))
    }

    /// 32 bytes that this node alone can compute, others for each purpose.
    pub fn derived_key(&self, purpose: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret().as_slice()).expect("HMAC takes a key of any length");
        mac.update(purpose);
        mac.finalize().into_bytes().into()
    }

    pub(super) fn keypair(&self) -> identity::Keypair {
        self.key.clone().into()
    }

    #[cfg(test)]
    pub(super) fn peer(&self) -> PeerId {
        self.keypair().public().to_peer_id()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.node).finish()
    }
}

/// The first 128 bits of the key's SHA-256.
pub fn node_id(public_key: &PublicKey) -> NodeId {
    let digest = Sha256::digest(public_key);
    NodeId(u128::from_be_bytes(digest[..16].try_into().expect("a SHA-256 has 32 bytes")))
}

/// Whether `signature` is the key's on `message`. False, too, where the bytes are no key at all.
pub fn verify(public_key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    ed25519::PublicKey::try_from_bytes(public_key).is_ok_and(|key| key.verify(message, signature))
}

/// libp2p's name for the holder of a key; `None` where the bytes are no point on the curve.
pub(super) fn peer_id(public_key: &PublicKey) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(public_key).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The key behind a peer id, which holds it whole where it is an ed25519 key.
pub(super) fn public_key(peer: &PeerId) -> Option<PublicKey> {
    let key = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    Some(key.try_into_ed25519().ok()?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_peer_and_node_name_one_another() {
        let identity = Identity::from_secret(&[7; 32]);
        assert_eq!(public_key(&identity.peer()), Some(identity.public_key()));
        assert_eq!(peer_id(&identity.public_key()), Some(identity.peer()));
        assert_eq!(node_id(&identity.public_key()), identity.node());
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_alone() {
        let (identity, other) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
        let signature = identity.sign(b"hello");
        assert!(verify(&identity.public_key(), b"hello", &signature));
        assert!(!verify(&identity.public_key(), b"hallo", &signature));
        assert!(!verify(&other.public_key(), b"hello", &signature));
    }
}
