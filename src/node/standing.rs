//! What this node is part of, kept across restarts: its swarm, its certificate, whether it holds the log.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::files::{self, DirLock};
use super::keyring::{Keyring, Locked};
use crate::consensus::SealingKey;
use crate::spec::{Incarnation, SwarmId};
use crate::transport::{Certificate, Identity, MemberList, PublicKey};

/// Of the data directory. Raised when an older daemon could not read it any more.
const FORMAT: u32 = 1;

/// The data directory, locked.
///
/// ```text
/// format             which format all this has
/// lock               held by the daemon
/// node.key           the node's ed25519 key, locked where the swarm locks its managers
/// incarnation        the life it is in
/// swarm/standing     what it is part of; absent while it is in no swarm
/// swarm/log.key      key of the encrypted log, sealed under the node's
/// swarm/log          the log, on managers that hold it
/// tasks/ volumes/ containerd/   what the runtime keeps
/// ```
pub struct DataDir {
    root: PathBuf,
    keyring: Keyring,
    _lock: DirLock,
}

/// The node's part in a swarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub swarm: SwarmId,
    pub ca_public_key: PublicKey,
    pub certificate: Certificate,
    /// As last heard; whoever holds the log asks that instead.
    pub members: MemberList,
    /// `Some` while this node holds the log.
    pub raft_id: Option<u64>,
}

impl DataDir {
    /// Opens or makes it. Fails with what to do where it is another daemon's or of a newer flok.
    pub fn open(root: &Path) -> anyhow::Result<DataDir> {
        files::create_dir(root)?;
        let lock = DirLock::take(root)?.with_context(|| {
            format!(
                "the data directory {} is in use by another flok daemon: stop that one, or give this one a directory of \
                 its own with --data-dir",
                root.display()
            )
        })?;
        check_format(root)?;
        let keyring = Keyring::open(&root.join("node.key"))?;
        let dir = DataDir { root: root.to_owned(), keyring, _lock: lock };
        if !dir.keyring.is_locked() || dir.standing()?.is_some() {
            return Ok(dir);
        }
        // A locked swarm was being left: nobody has a use for that key any more.
        dir.keyring.forget_swarm()?;
        Ok(DataDir { keyring: Keyring::open(&root.join("node.key"))?, ..dir })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn log_path(&self) -> PathBuf {
        self.swarm_dir().join("log")
    }

    fn swarm_dir(&self) -> PathBuf {
        self.root.join("swarm")
    }

    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub fn identity(&self) -> Result<Identity, Locked> {
        self.keyring.identity()
    }

    /// A life that was never used before: at least `at_least`, on the disk before this returns.
    pub fn next_incarnation(&self, at_least: Incarnation) -> anyhow::Result<Incarnation> {
        let path = self.root.join("incarnation");
        let last = match files::read(&path)? {
            None => 0,
            Some(text) => String::from_utf8_lossy(&text)
                .trim()
                .parse::<u64>()
                .with_context(|| format!("{} is damaged: it should hold a number", path.display()))?,
        };
        let next = Incarnation((last + 1).max(at_least.0));
        files::write_durably(&path, format!("{next}\n").as_bytes())?;
        Ok(next)
    }

    pub fn standing(&self) -> anyhow::Result<Option<Standing>> {
        let path = self.swarm_dir().join("standing");
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let standing = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged: restore it, or remove {} and join the swarm again",
                path.display(),
                self.swarm_dir().display()
            )
        })?;
        Ok(Some(standing))
    }

    pub fn save_standing(&self, standing: &Standing) -> anyhow::Result<()> {
        files::create_dir(&self.swarm_dir())?;
        let text = serde_json::to_vec_pretty(standing).expect("a standing is plain data");
        Ok(files::write_durably(&self.swarm_dir().join("standing"), &text)?)
    }

    /// Forgets the swarm and its lock: standing first, so that a crash in between leaves no half member.
    pub fn forget_swarm(&self) -> anyhow::Result<()> {
        files::remove(&self.swarm_dir().join("standing"))?;
        files::remove(&self.swarm_dir())?;
        self.keyring.forget_swarm()
    }

    /// Removes the log and its key, for a node that is to hold the log no more, or anew.
    pub fn remove_log(&self) -> anyhow::Result<()> {
        files::remove(&self.log_path())?;
        Ok(files::remove(&self.swarm_dir().join("log.key"))?)
    }

    /// The key of the log, drawn by `random` where there is none yet.
    pub fn log_key(&self, random: impl FnOnce() -> [u8; 32]) -> anyhow::Result<SealingKey> {
        files::create_dir(&self.swarm_dir())?;
        let path = self.swarm_dir().join("log.key");
        if let Some(bytes) = files::read(&path)? {
            return self.keyring.open_log_key(&bytes)?.with_context(|| {
                format!(
                    "{} is damaged, or another node's: without it the log cannot be read. Leave the swarm and join it again",
                    path.display()
                )
            });
        }
        let key = SealingKey::new(random());
        files::write_durably(&path, &self.keyring.seal_log_key(&key)?)?;
        Ok(key)
    }
}

fn check_format(root: &Path) -> anyhow::Result<()> {
    let path = root.join("format");
    match files::read(&path)? {
        None => files::write_durably(&path, format!("{FORMAT}\n").as_bytes())?,
        Some(text) => match String::from_utf8_lossy(&text).trim().parse::<u32>() {
            Ok(FORMAT) => {}
            Ok(other) => bail!(
                "the data directory {} has format {other}, this flok knows {FORMAT}: start the flok that wrote it, or \
                 a newer one",
                root.display()
            ),
            Err(_) => bail!("{} is damaged: it should hold the number {FORMAT}", path.display()),
        },
    }
    Ok(())
}
