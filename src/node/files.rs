//! Small files that must be whole or absent: keys, the node's standing, its incarnation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// A file that could not be read or written; nothing of it was changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}")]
pub struct FileError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Replaces `path`, readable by root alone, and returns once it is on the disk.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError { operation: "write", path: path.to_owned(), source };
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let dir = path.parent().expect("a file has a directory");
        File::open(dir)?.sync_all()
    };
    write().map_err(failed)
}

/// `None` where there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError { operation: "read", path: path.to_owned(), source }),
    }
}

/// Removes a file or folder; nothing there is success.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError { operation: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes a folder that root alone may look into.
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FileError {
        operation: "create",
        path: path.to_owned(),
        source,
    })
}

/// Held as long as this daemon lives: one daemon for a data directory.
pub struct DirLock {
    _file: Flock<File>,
}

impl DirLock {
    /// `None` where another process holds it.
    pub fn take(dir: &Path) -> Result<Option<DirLock>, FileError> {
        let path = dir.join("lock");
        let failed = |source| FileError { operation: "lock", path: path.clone(), source };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(DirLock { _file: file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}
