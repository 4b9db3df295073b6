//! The API's unix sockets: one daemon behind them, root's alone.
//!
//! A socket that the service manager opened (systemd.socket(5)) is taken over from it and outlives the daemon: who has it
//! mounted in a container keeps what it leads to. Others are made when the daemon starts and removed when it stops.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{self, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::AcceptConn;
use tokio::net::UnixListener;

/// Those that the daemon listens on.
pub struct Sockets {
    listeners: Vec<UnixListener>,
    /// Removed with this, unless another one has taken their place.
    made: Vec<(PathBuf, Inode)>,
}

/// Device and number of a file.
type Inode = (u64, u64);

fn inode(path: &Path) -> std::io::Result<Inode> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// What the service manager opened for this process.
pub struct HandedOver(ListenFd);

impl HandedOver {
    /// Taken out of the environment, so that no program that is started takes it for its own: only while this process has no
    /// other thread.
    pub fn take() -> HandedOver {
        HandedOver(ListenFd::from_env())
    }
}

impl Sockets {
    /// One at each path, taken over where the service manager has it.
    pub fn open<'p>(handed: HandedOver, paths: impl IntoIterator<Item = &'p Path>) -> anyhow::Result<Sockets> {
        Sockets::of(unix_sockets(handed.0)?, paths)
    }

    fn of<'p>(
        mut handed: Vec<net::UnixListener>,
        paths: impl IntoIterator<Item = &'p Path>,
    ) -> anyhow::Result<Sockets> {
        let mut sockets = Sockets { listeners: Vec::new(), made: Vec::new() };
        let mut served: Vec<&Path> = Vec::new();
        for path in paths {
            if let Some(earlier) = served.iter().find(|earlier| place(earlier) == place(path)) {
                bail!(
                    "{} and {} are one socket: it serves flok's and Docker's clients alike, so leave docker-socket out, or \
                     give it another path",
                    earlier.display(),
                    path.display()
                );
            }
            sockets.listeners.push(match handed.iter().position(|socket| leads_to(socket, path)) {
                Some(at) => taken_over(handed.swap_remove(at), path)?,
                None => {
                    let listener = bind(path)?;
                    let inode = inode(path).with_context(|| format!("look at {}", path.display()))?;
                    sockets.made.push((path.to_owned(), inode));
                    listener
                }
            });
            served.push(path);
        }
        for unwanted in handed {
            let address = unwanted.local_addr()?;
            tracing::warn!(?address, "the service manager opened a socket that no setting names: nobody answers there");
        }
        Ok(sockets)
    }

    pub fn take(&mut self) -> Vec<UnixListener> {
        std::mem::take(&mut self.listeners)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for (path, made) in &self.made {
            if inode(path).is_ok_and(|found| found == *made) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn unix_sockets(mut from: ListenFd) -> anyhow::Result<Vec<net::UnixListener>> {
    let mut sockets = Vec::new();
    for at in 0..from.len() {
        let socket = from
            .take_unix_listener(at)
            .context("take a socket over from the service manager: its unit is to have unix sockets alone")?;
        let Some(socket) = socket else { continue };
        // Not for containerd and what else is started.
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("keep a socket to this process")?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn taken_over(socket: net::UnixListener, path: &Path) -> anyhow::Result<UnixListener> {
    let listens = getsockopt(&socket, AcceptConn).context("look at a socket of the service manager")?;
    if !listens {
        bail!(
            "the service manager handed over {} without listening there: its unit is to have it as ListenStream=, with \
             Accept=no",
            path.display()
        );
    }
    socket.set_nonblocking(true).context("wait for connections on a socket of the service manager")?;
    UnixListener::from_std(socket).with_context(|| format!("serve {}", path.display()))
}

/// Where a path leads, however it is written: `/var/run` is `/run`.
fn place(path: &Path) -> PathBuf {
    let in_place = || Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(in_place).unwrap_or_else(|| path.to_owned())
}

fn leads_to(socket: &net::UnixListener, path: &Path) -> bool {
    let address = socket.local_addr().ok();
    address.as_ref().and_then(|address| address.as_pathname()).is_some_and(|own| place(own) == place(path))
}

/// Binds the socket. One that nobody answers on is left over and replaced; one in use is an error.
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {} for the socket", dir.display()))?;
    }
    if let Ok(file) = fs::symlink_metadata(path) {
        if !file.file_type().is_socket() && !file.file_type().is_symlink() {
            bail!("{} is no socket: remove it, or name another place in the configuration", path.display());
        }
        if UnixStream::connect(path).is_ok() {
            bail!(
                "{} is in use: another daemon answers there. Stop it, or give this one another with --socket or \
                 --docker-socket",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_is_removed_and_what_is_left_over_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a/one.sock"), folder.path().join("two.sock")];
        drop(net::UnixListener::bind(&paths[1]).unwrap());
        let sockets = Sockets::of(Vec::new(), paths.iter().map(PathBuf::as_path)).unwrap();
        assert_eq!(sockets.listeners.len(), 2);
        assert!(paths.iter().all(|path| UnixStream::connect(path).is_ok()));
        let twice = Sockets::of(Vec::new(), [paths[0].as_path()]).err().unwrap().to_string();
        assert!(twice.contains("is in use: another daemon answers there"), "{twice}");
        fs::remove_file(&paths[1]).unwrap();
        let others = net::UnixListener::bind(&paths[1]).unwrap();
        drop(sockets);
        assert!(!paths[0].exists() && UnixStream::connect(&paths[1]).is_ok(), "another one's stays");
        drop(others);
        let folder = Sockets::of(Vec::new(), [folder.path()]).err().unwrap().to_string();
        assert!(folder.contains("is no socket: remove it"), "{folder}");
    }

    #[tokio::test]
    async fn one_socket_is_named_once_however_its_path_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (run, link) = (folder.path().join("run"), folder.path().join("var-run"));
        fs::create_dir(&run).unwrap();
        std::os::unix::fs::symlink(&run, &link).unwrap();
        std::os::unix::fs::symlink("run/s", folder.path().join("docker.sock")).unwrap();
        let socket = run.join("s");
        for other in [socket.clone(), link.join("s"), folder.path().join("docker.sock")] {
            let refused = Sockets::of(Vec::new(), [socket.as_path(), &other]).err().unwrap().to_string();
            assert!(refused.contains("are one socket") && refused.contains("docker-socket"), "{refused}");
            assert!(!socket.exists(), "nothing is left of it");
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_handed_over_is_to_listen() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
        let folder = tempfile::tempdir().unwrap();
        let (deaf, hears) = (folder.path().join("deaf"), folder.path().join("hears"));
        let bound = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&bound), &UnixAddr::new(&deaf).unwrap()).unwrap();
        let handed = || vec![net::UnixListener::from(bound.try_clone().unwrap())];
        let refused = Sockets::of(handed(), [deaf.as_path()]).err().unwrap().to_string();
        assert!(refused.contains("without listening") && refused.contains("ListenStream="), "{refused}");

        let handed = vec![net::UnixListener::bind(&hears).unwrap()];
        let sockets = Sockets::of(handed, [hears.as_path()]).unwrap();
        assert_eq!(sockets.listeners.len(), 1);
        drop(sockets);
        assert!(hears.exists(), "it is the service manager's");
    }

    #[test]
    fn a_socket_is_known_however_its_path_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("run"), folder.path().join("var-run"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let socket = net::UnixListener::bind(real.join("s")).unwrap();
        assert!(leads_to(&socket, &real.join("s")) && leads_to(&socket, &link.join("s")));
        assert!(!leads_to(&socket, &real.join("other")));
    }
}
