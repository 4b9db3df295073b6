//! Network namespaces, held by a bind mount and made without a fork: a thread that enters one ends right after.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Makes a namespace and holds it at `path`.
pub fn create(path: &Path) -> io::Result<()> {
    File::create(path)?;
    let held = path.to_owned();
    let made = on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), &held, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    });
    if made.is_err() {
        let _ = fs::remove_file(path);
    }
    made
}

/// Lets go of the namespace at `path`; it ends with its last process. Nothing there is success.
pub fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a plain file, as after a reboot.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a namespace, and not a left-over file, is held at `path`.
pub fn is_held(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type().0 == NSFS_MAGIC)
}

/// Runs `inside` on a thread of its own in the namespace at `path`. A socket that it opens stays in that namespace.
pub fn within<T: Send + 'static>(
    path: &Path,
    inside: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = File::open(path)?;
    on_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        inside()
    })
}

fn on_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = thread::Builder::new().name("flok-netns".into()).spawn(work)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
}
