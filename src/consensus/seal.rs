//! Encryption at rest, of the log's records and of a node's keys: XChaCha20-Poly1305.
//!
//! Each record gets a nonce of 192 random bits. A counter would be shorter, but it would have to survive what a disk
//! survives: a data directory restored from a copy, or cloned, would count again from where the copy stood and use nonces
//! twice under one key. Random nonces of this size do not meet within any log's life.
//!
//! The place of a record (table, key, whose log) is authenticated with it, so records cannot be swapped unseen.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use rand::CryptoRng;
use zeroize::Zeroizing;

const NONCE_LEN: usize = 24;

/// What a [`Sealer`] seals with, such as the log's key. Wiped when dropped.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    pub fn new(bytes: [u8; 32]) -> SealingKey {
        SealingKey(Zeroizing::new(bytes))
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// Seals and opens what one key protects.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    rng: Box<dyn CryptoRng + Send>,
}

impl Sealer {
    pub fn new(key: &SealingKey, rng: Box<dyn CryptoRng + Send>) -> Sealer {
        Sealer { cipher: XChaCha20Poly1305::new(Key::from_slice(key.bytes())), rng }
    }

    /// Nonce, then ciphertext with its tag.
    pub fn seal(&mut self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        let sealed = self
            .cipher
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: place })
            .expect("a record is far smaller than the cipher's limit");
        [nonce.as_slice(), &sealed].concat()
    }

    /// `None` when the bytes, the place or the key are not those of the sealing.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        self.cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: place }).ok()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}
