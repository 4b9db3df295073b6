//! Who a node is: an ed25519 key, kept in one file, and the ids that follow from it.
//!
//! The same key is the libp2p identity (so a connection proves it) and signs gossip. [`NodeId`] is a hash of the public
//! key, so an id proves a key too. The secret half never leaves this file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::{self, ed25519};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::spec::NodeId;

/// An ed25519 public key as it is kept in the log and in certificates.
pub type PublicKey = [u8; 32];

/// Why a key file cannot be used. Nothing was changed on disk unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {doing} the node key {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} is not a node key: it has {found} bytes, a key has 32. Restore it from a copy, or remove it and join again as a new node"
    )]
    Malformed { path: PathBuf, found: usize },
}

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

    /// The key kept at `path`; a new one, written there first, where the file does not exist.
    pub fn load_or_create(path: &Path) -> Result<Identity, IdentityError> {
        let failed = |doing| move |source| IdentityError::Io { doing, path: path.to_path_buf(), source };
        match fs::read(path) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let secret: &[u8; 32] = bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| IdentityError::Malformed { path: path.to_path_buf(), found: bytes.len() })?;
                keep_private(path).map_err(failed("restrict access to"))?;
                Ok(Identity::from_secret(secret))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity::generate();
                let secret = Zeroizing::new(identity.secret());
                write_private(path, secret.as_slice()).map_err(failed("write"))?;
                Ok(identity)
            }
            Err(error) => Err(failed("read")(error)),
        }
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

    /// The secret half, for what derives keys from it and for the file.
    pub(super) fn secret(&self) -> [u8; 32] {
        self.key.secret().as_ref().try_into().expect("an ed25519 secret has 32 bytes")
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

fn keep_private(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the node key was readable by others: access is now restricted");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// All of it or nothing: a new file beside `path`, synced, then renamed over it.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_then_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/node.key");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.node(), second.node());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_key_others_may_read_is_restricted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Identity::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        fs::write(&path, b"short").unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Malformed { found: 5, .. })));
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }

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
