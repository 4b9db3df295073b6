//! The node's own key, on the disk and in use, and the lock on it.
//!
//! `node.key` is the one file that decides whether the disk alone is enough to be this node: the key of the log is sealed
//! under a key that follows from it. While the swarm locks its managers, `node.key` itself is sealed under the swarm's
//! unlock key, which no disk holds in the clear: the daemon then starts without its part in the swarm, and waits for
//! `flok swarm unlock`. What locks or opens it is one file that is renamed: there is no state in between.
//!
//! The file says from which entry of the log on it is as it is. A daemon that has just started may see an older state of
//! the swarm for a moment, and must not go back to an older key, which nobody may have any more.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::clock;
use super::files;
use crate::consensus::{Sealer, SealingKey};
use crate::spec::{NodeId, SecretBytes, UnlockKey};
use crate::state::codec;
use crate::transport::{Identity, PublicKey, node_id};

/// Begins `node.key`, unless that is a bare secret of 32 bytes.
const FORMAT: u8 = 1;
/// What the sealed bytes are authenticated with, so that none can stand for the other.
const NODE_KEY: &[u8] = b"flok node.key";
const LOG_KEY: &[u8] = b"flok log.key";

/// What `node.key` holds.
#[derive(Clone, Serialize, Deserialize)]
enum KeyFile {
    Open { since: u64, secret: SecretBytes },
    Locked { since: u64, public_key: PublicKey, sealed: Vec<u8> },
}

/// What this daemon has of the key.
enum Held {
    Open { identity: Box<Identity>, lock: Option<UnlockKey>, since: u64 },
    Locked { public_key: PublicKey, sealed: Vec<u8>, since: u64 },
}

/// The node is locked: its key cannot be used until [`Keyring::unlock`].
#[derive(Debug, thiserror::Error)]
#[error("this node is locked: unlock it with \"flok swarm unlock\"")]
pub struct Locked;

/// The key file of a data directory.
pub struct Keyring {
    path: PathBuf,
    held: Mutex<Held>,
}

impl Keyring {
    /// Of the key at `path`; a new one, written there first, where there is none.
    pub fn open(path: &Path) -> anyhow::Result<Keyring> {
        let held = match files::read(path)? {
            Some(bytes) => {
                keep_private(path)?;
                read(path, &bytes)?
            }
            None => {
                let identity = Identity::generate();
                write(path, &KeyFile::Open { since: 0, secret: secret_of(&identity) })?;
                Held::Open { identity: Box::new(identity), lock: None, since: 0 }
            }
        };
        Ok(Keyring { path: path.to_owned(), held: Mutex::new(held) })
    }

    /// Known even while it is locked.
    pub fn node(&self) -> NodeId {
        match &*self.held() {
            Held::Open { identity, .. } => identity.node(),
            Held::Locked { public_key, .. } => node_id(public_key),
        }
    }

    pub fn identity(&self) -> Result<Identity, Locked> {
        match &*self.held() {
            Held::Open { identity, .. } => Ok(Identity::clone(identity)),
            Held::Locked { .. } => Err(Locked),
        }
    }

    pub fn is_locked(&self) -> bool {
        matches!(&*self.held(), Held::Locked { .. })
    }

    /// Makes the key usable for this daemon's life; on the disk it stays locked. False where it is another key's lock.
    pub fn unlock(&self, key: &UnlockKey) -> bool {
        let mut held = self.held();
        let Held::Locked { public_key, sealed, since } = &*held else { return true };
        let opened = sealer(&sealing_key(key)).open(NODE_KEY, sealed);
        let Some(identity) = opened.and_then(|secret| identity_of(&secret)) else { return false };
        if identity.public_key() != *public_key {
            return false;
        }
        *held = Held::Open { identity: Box::new(identity), lock: Some(key.clone()), since: *since };
        true
    }

    /// Takes back an unlocking that came to nothing.
    pub fn lock_again(&self) -> anyhow::Result<()> {
        let bytes = files::read(&self.path)?.with_context(|| format!("{} is gone", self.path.display()))?;
        *self.held() = read(&self.path, &bytes)?;
        Ok(())
    }

    /// Locks the key on the disk by `key`, or opens it, as the swarm said in entry `at` of its log. What is as it should
    /// be, or was decided later than that, is left alone.
    pub fn lock_by(&self, at: u64, key: Option<&SecretBytes>) -> anyhow::Result<()> {
        let key = key.map(|key| UnlockKey::from_state(key).context("the swarm's unlock key is damaged")).transpose()?;
        let mut held = self.held();
        let Held::Open { identity, lock, since } = &mut *held else { return Ok(()) };
        if *lock == key || at <= *since {
            return Ok(());
        }
        let secret = secret_of(identity);
        let file = match &key {
            None => KeyFile::Open { since: at, secret },
            Some(key) => {
                let sealed = sealer(&sealing_key(key)).seal(NODE_KEY, &secret.0);
                KeyFile::Locked { since: at, public_key: identity.public_key(), sealed }
            }
        };
        write(&self.path, &file)?;
        let is_locked = key.is_some();
        (*lock, *since) = (key, at);
        tracing::info!(is_locked, "this node's key is kept as the swarm says");
        Ok(())
    }

    /// The swarm whose lock it was is left. A locked key goes with it: nobody here can open it.
    pub fn forget_swarm(&self) -> anyhow::Result<()> {
        match &mut *self.held() {
            Held::Open { identity, lock, since } => {
                write(&self.path, &KeyFile::Open { since: 0, secret: secret_of(identity) })?;
                (*lock, *since) = (None, 0);
            }
            Held::Locked { .. } => files::remove(&self.path)?,
        }
        Ok(())
    }

    /// Sealed so that this node alone opens it.
    pub fn seal_log_key(&self, key: &SealingKey) -> Result<Vec<u8>, Locked> {
        Ok(self.own_sealer()?.seal(LOG_KEY, key.bytes()))
    }

    /// `None` where the bytes are not what this node sealed.
    pub fn open_log_key(&self, sealed: &[u8]) -> Result<Option<SealingKey>, Locked> {
        let opened = self.own_sealer()?.open(LOG_KEY, sealed);
        Ok(opened.and_then(|bytes| Some(SealingKey::new(bytes.try_into().ok()?))))
    }

    fn own_sealer(&self) -> Result<Sealer, Locked> {
        Ok(sealer(&SealingKey::new(self.identity()?.derived_key(LOG_KEY))))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path, bytes: &[u8]) -> anyhow::Result<Held> {
    let damaged = || {
        format!(
            "{} is not a node key: restore it from a copy, or remove it and join again as a new node",
            path.display()
        )
    };
    if let Some(identity) = identity_of(bytes) {
        return Ok(Held::Open { identity: Box::new(identity), lock: None, since: 0 });
    }
    let file = bytes.strip_prefix(&[FORMAT]).and_then(|bytes| codec::decode(bytes).ok());
    match file.with_context(damaged)? {
        KeyFile::Open { since, secret } => {
            let identity = Box::new(identity_of(&secret.0).with_context(damaged)?);
            Ok(Held::Open { identity, lock: None, since })
        }
        KeyFile::Locked { since, public_key, sealed } => Ok(Held::Locked { public_key, sealed, since }),
    }
}

fn write(path: &Path, file: &KeyFile) -> anyhow::Result<()> {
    Ok(files::write_durably(path, &[&[FORMAT], codec::encode(file).as_slice()].concat())?)
}

fn secret_of(identity: &Identity) -> SecretBytes {
    SecretBytes(identity.secret().to_vec())
}

fn identity_of(secret: &[u8]) -> Option<Identity> {
    Some(Identity::from_secret(secret.try_into().ok()?))
}

fn sealing_key(key: &UnlockKey) -> SealingKey {
    SealingKey::new(key.bytes().0.as_slice().try_into().expect("an unlock key has 32 bytes"))
}

fn sealer(key: &SealingKey) -> Sealer {
    Sealer::new(key, Box::new(clock::rng()))
}

fn keep_private(path: &Path) -> anyhow::Result<()> {
    let restrict = || {
        if fs::metadata(path)?.permissions().mode() & 0o077 == 0 {
            return Ok(());
        }
        tracing::warn!(path = %path.display(), "the node key was readable by others: access is now restricted");
        fs::set_permissions(path, Permissions::from_mode(0o600))
    };
    restrict().with_context(|| format!("restrict access to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Dir {
            Dir(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("node.key")
        }

        fn keyring(&self) -> Keyring {
            Keyring::open(&self.path()).unwrap()
        }

        fn mode(&self) -> u32 {
            fs::metadata(self.path()).unwrap().permissions().mode() & 0o777
        }

        fn holds(&self, secret: &[u8]) -> bool {
            fs::read(self.path()).unwrap().windows(secret.len()).any(|window| window == secret)
        }
    }

    fn key(seed: u8) -> UnlockKey {
        UnlockKey::new([seed; 32])
    }

    #[test]
    fn a_key_is_made_once_and_then_read_back() {
        let dir = Dir::new();
        let node = dir.keyring().node();
        assert_eq!(dir.keyring().node(), node);
        assert_eq!(dir.keyring().identity().unwrap().node(), node);
        assert_eq!(dir.mode(), 0o600);
        assert_eq!(fs::read_dir(dir.0.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_key_others_may_read_is_restricted() {
        let dir = Dir::new();
        dir.keyring();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o644)).unwrap();
        dir.keyring();
        assert_eq!(dir.mode(), 0o600);
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_alone() {
        let dir = Dir::new();
        for bytes in [b"".as_slice(), b"short", &[FORMAT; 90], &[9; 40]] {
            fs::write(dir.path(), bytes).unwrap();
            let error = Keyring::open(&dir.path()).err().unwrap();
            assert!(format!("{error:#}").contains("is not a node key: restore it"), "{error:#}");
            assert_eq!(fs::read(dir.path()).unwrap(), bytes);
        }
    }

    #[test]
    fn a_bare_secret_is_a_key() {
        let dir = Dir::new();
        fs::write(dir.path(), [7; 32]).unwrap();
        assert_eq!(dir.keyring().node(), Identity::from_secret(&[7; 32]).node());
    }

    #[test]
    fn a_locked_key_is_used_by_this_daemon_and_opened_by_its_unlock_key_alone() {
        let dir = Dir::new();
        let keyring = dir.keyring();
        let identity = keyring.identity().unwrap();
        let log_key = keyring.seal_log_key(&SealingKey::new([3; 32])).unwrap();
        keyring.lock_by(5, Some(key(1).bytes())).unwrap();
        assert_eq!(keyring.identity().unwrap().node(), identity.node());
        assert!(!dir.holds(identity.secret().as_slice()) && dir.mode() == 0o600);

        let later = dir.keyring();
        assert!(later.is_locked() && later.identity().is_err() && later.open_log_key(&log_key).is_err());
        assert_eq!(later.node(), identity.node());
        assert!(!later.unlock(&key(2)) && later.is_locked());
        assert!(later.unlock(&key(1)) && !later.is_locked());
        assert_eq!(later.open_log_key(&log_key).unwrap().unwrap().bytes(), &[3; 32]);
        assert!(dir.keyring().is_locked(), "on the disk it stays locked");
        later.lock_again().unwrap();
        assert!(later.is_locked());
    }

    #[test]
    fn what_the_swarm_said_last_counts_whatever_is_seen_again() {
        let dir = Dir::new();
        let keyring = dir.keyring();
        keyring.lock_by(5, Some(key(1).bytes())).unwrap();
        keyring.lock_by(9, Some(key(2).bytes())).unwrap();
        let restarted = dir.keyring();
        assert!(!restarted.unlock(&key(1)) && restarted.unlock(&key(2)));
        for (at, older) in [(3, None), (5, Some(key(1)))] {
            restarted.lock_by(at, older.as_ref().map(UnlockKey::bytes)).unwrap();
            assert!(dir.keyring().unlock(&key(2)), "entry {at} is older");
        }
        restarted.lock_by(12, None).unwrap();
        assert!(!dir.keyring().is_locked());
        restarted.lock_by(9, Some(key(2).bytes())).unwrap();
        dir.keyring().lock_by(9, Some(key(2).bytes())).unwrap();
        assert!(!dir.keyring().is_locked(), "opened later than that");
    }

    #[test]
    fn a_swarm_that_is_left_locks_no_more() {
        let dir = Dir::new();
        let keyring = dir.keyring();
        let node = keyring.node();
        keyring.lock_by(500, Some(key(1).bytes())).unwrap();
        keyring.forget_swarm().unwrap();
        assert_eq!((dir.keyring().is_locked(), dir.keyring().node()), (false, node));
        // The next swarm counts its entries from the beginning.
        keyring.lock_by(2, Some(key(2).bytes())).unwrap();
        assert!(dir.keyring().is_locked());

        dir.keyring().forget_swarm().unwrap();
        assert_ne!(dir.keyring().node(), node, "nobody could open it: it is gone");
    }

    #[test]
    fn a_log_key_is_opened_by_the_node_that_sealed_it() {
        let (dir, other) = (Dir::new(), Dir::new());
        let sealed = dir.keyring().seal_log_key(&SealingKey::new([3; 32])).unwrap();
        assert_eq!(dir.keyring().open_log_key(&sealed).unwrap().unwrap().bytes(), &[3; 32]);
        assert!(other.keyring().open_log_key(&sealed).unwrap().is_none());
        assert!(dir.keyring().open_log_key(&[3; 32]).unwrap().is_none());
    }
}
