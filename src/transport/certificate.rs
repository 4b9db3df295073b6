//! Membership certificates, signed with the swarm's CA key.
//!
//! A certificate is what a node shows to one that does not hold it in its member list yet: a joiner that checks whom it
//! has reached, a log holder that lags behind the entry which admitted the other. Whoever holds a list at least as new
//! as the certificate decides by the list alone.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::identity::{self, Identity, PublicKey};
use crate::spec::{NodeId, Role, SwarmId, UnixMs, Version};
use crate::state::codec;

/// Stands before the signed bytes, so that no other signature of the CA key can pass for a certificate's.
const DOMAIN: &[u8] = b"flok membership certificate 1\0";

/// A certificate is valid from this long before it is made, so that clocks may differ a little.
pub const BACKDATED: Duration = Duration::from_secs(3600);

/// What the CA says about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub swarm: SwarmId,
    pub node: NodeId,
    pub public_key: PublicKey,
    pub role: Role,
    /// Of the member list it was issued under: a newer list overrules it.
    pub membership_version: Version,
    pub not_before: UnixMs,
    pub expires_at: UnixMs,
    signature: Signature,
}

/// 64 bytes, which serde does not take as an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature(Vec<u8>);

/// Why a certificate does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it is not signed by this swarm's CA")]
    NotSigned,
    #[error("its node id is not the hash of its key")]
    WrongNode,
    #[error("it belongs to another node's key")]
    WrongKey,
    #[error("it belongs to another swarm, {0}")]
    WrongSwarm(SwarmId),
    #[error("it is not valid yet: this machine's clock is {} s behind the swarm's", .0.as_secs())]
    NotYetValid(Duration),
    #[error("it expired {} s ago by this machine's clock", .0.as_secs())]
    Expired(Duration),
}

/// Who a certificate is for, and in which role.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub public_key: PublicKey,
    pub role: Role,
    pub membership_version: Version,
}

impl Certificate {
    /// Everything but the expiry, which binds only where no state is held: see [`Self::check_time`].
    pub fn verify(&self, ca: &PublicKey) -> Result<(), CertificateError> {
        if !identity::verify(ca, &self.signed_bytes(), &self.signature.0) {
            return Err(CertificateError::NotSigned);
        }
        if identity::node_id(&self.public_key) != self.node {
            return Err(CertificateError::WrongNode);
        }
        Ok(())
    }

    pub fn check_time(&self, now: UnixMs) -> Result<(), CertificateError> {
        if now < self.not_before {
            return Err(CertificateError::NotYetValid(self.not_before - now));
        }
        if now >= self.expires_at {
            return Err(CertificateError::Expired(now - self.expires_at));
        }
        Ok(())
    }

    /// When to ask for the next one: after two thirds of its life, later by up to a sixth, as `jitter` (0.0 to 1.0)
    /// says, so that a swarm which was formed at once does not renew at once.
    pub fn renew_at(&self, jitter: f64) -> UnixMs {
        let life = self.expires_at - self.not_before;
        self.not_before + life.mul_f64(2.0 / 3.0 + jitter.clamp(0.0, 1.0) / 6.0)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let body = (
            self.swarm,
            self.node,
            self.public_key,
            self.role,
            self.membership_version,
            self.not_before,
            self.expires_at,
        );
        [DOMAIN, &codec::encode(&body)].concat()
    }
}

/// The swarm's CA: an ed25519 key whose secret half every manager has from the log.
#[derive(Debug, Clone)]
pub struct Authority {
    key: Identity,
    swarm: SwarmId,
}

impl Authority {
    /// For a new swarm.
    pub fn generate(swarm: SwarmId) -> Authority {
        Authority { key: Identity::generate(), swarm }
    }

    pub fn from_secret(swarm: SwarmId, secret: &[u8; 32]) -> Authority {
        Authority { key: Identity::from_secret(secret), swarm }
    }

    pub fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// To be kept encrypted, in the log.
    pub fn secret(&self) -> [u8; 32] {
        *self.key.secret()
    }

    pub fn issue(&self, subject: Subject, now: UnixMs, life: Duration) -> Certificate {
        let mut certificate = Certificate {
            swarm: self.swarm,
            node: identity::node_id(&subject.public_key),
            public_key: subject.public_key,
            role: subject.role,
            membership_version: subject.membership_version,
            not_before: UnixMs(now.0.saturating_sub(u64::try_from(BACKDATED.as_millis()).unwrap_or(u64::MAX))),
            expires_at: now + life,
            signature: Signature(Vec::new()),
        };
        certificate.signature = Signature(self.key.sign(&certificate.signed_bytes()).to_vec());
        certificate
    }
}

/// SHA-256 of a CA's public key: what a join token carries.
pub fn ca_hash(public_key: &PublicKey) -> [u8; 32] {
    Sha256::digest(public_key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn issued() -> (Authority, Certificate) {
        let ca = Authority::from_secret(SwarmId(5), &[9; 32]);
        let subject = Subject {
            public_key: Identity::from_secret(&[1; 32]).public_key(),
            role: Role::Worker,
            membership_version: Version(3),
        };
        let certificate = ca.issue(subject, UnixMs(1_000_000_000), DAY * 90);
        (ca, certificate)
    }

    #[test]
    fn a_certificate_holds_under_its_own_ca_alone() {
        let (ca, certificate) = issued();
        assert_eq!(certificate.verify(&ca.public_key()), Ok(()));
        let other = Authority::from_secret(SwarmId(5), &[8; 32]);
        assert_eq!(certificate.verify(&other.public_key()), Err(CertificateError::NotSigned));
    }

    #[test]
    fn a_certificate_that_was_altered_is_refused() {
        let (ca, certificate) = issued();
        let ca = ca.public_key();
        let promoted = Certificate { role: Role::Manager, ..certificate.clone() };
        let prolonged = Certificate { expires_at: certificate.expires_at + DAY, ..certificate.clone() };
        let newer = Certificate { membership_version: Version(4), ..certificate.clone() };
        let stolen = Certificate { public_key: Identity::from_secret(&[2; 32]).public_key(), ..certificate };
        for altered in [promoted, prolonged, newer, stolen] {
            assert_eq!(altered.verify(&ca), Err(CertificateError::NotSigned));
        }
    }

    #[test]
    fn time_is_checked_apart() {
        let (_, certificate) = issued();
        assert_eq!(certificate.check_time(UnixMs(1_000_000_000)), Ok(()));
        assert_eq!(certificate.check_time(certificate.expires_at + DAY), Err(CertificateError::Expired(DAY)));
        assert!(matches!(certificate.check_time(UnixMs(0)), Err(CertificateError::NotYetValid(_))));
    }

    #[test]
    fn renewal_comes_long_before_the_end_and_not_for_all_at_once() {
        let (_, certificate) = issued();
        let (first, last) = (certificate.renew_at(0.0), certificate.renew_at(1.0));
        assert!(certificate.not_before < first && first < last && last < certificate.expires_at);
        assert!(certificate.expires_at - last > DAY * 14);
    }

    #[test]
    fn a_certificate_survives_its_bytes() {
        let (ca, certificate) = issued();
        let read: Certificate = codec::decode(&codec::encode(&certificate)).unwrap();
        assert_eq!(read, certificate);
        assert_eq!(read.verify(&ca.public_key()), Ok(()));
    }
}
