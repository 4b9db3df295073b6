//! The API's unix socket: one daemon behind it, root's alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use tokio::net::UnixListener;

/// Binds the socket. One that nobody answers on is left over and replaced; one in use is an error.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {} for the socket", dir.display()))?;
    }
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            bail!(
                "{} is in use: another daemon answers there. Stop it, or give this one another with --socket",
                path.display()
            );
        }
        fs::remove_file(path).with_context(|| format!("remove the left-over socket {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("protect {}", path.display()))?;
    Ok(listener)
}

pub fn remove(path: &Path) {
    // Gone already, or replaced by somebody else's: nothing to do about either.
    let _ = fs::remove_file(path);
}
