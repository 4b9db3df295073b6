//! Looking into an image's file system from the host: mounted in a mount namespace of a thread of its own, which takes
//! the mount with it when it ends, however it ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Renames that may meet one look-up.
const OPEN_TRIES: usize = 32;

/// A mounted root, open for lookups that never leave it.
pub struct Rootfs {
    root: OwnedFd,
}

impl Rootfs {
    /// What a container's process sees, the container's mounts included. Its number may have become another's: that is
    /// told by the cgroup, and everything is read of one process.
    pub fn of_process(pid: u32, container: &str) -> io::Result<Rootfs> {
        let process =
            File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(format!("/proc/{pid}"));
        let open = |process: File| {
            let process = PathBuf::from(format!("/proc/self/fd/{}", process.as_raw_fd()));
            let root = Rootfs::at(&process.join("root"))?;
            match is_in(&std::fs::read_to_string(process.join("cgroup"))?, container) {
                true => Ok(root),
                false => Err(io::Error::other("its process has ended")),
            }
        };
        // No path of the container is missing for that.
        process.and_then(open).map_err(|error| io::Error::other(format!("container {container}: {error}")))
    }

    pub fn at(path: &Path) -> io::Result<Rootfs> {
        let root = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(Rootfs { root: root.into() })
    }

    /// Opens a path inside, following symbolic links as a process in the container would.
    pub fn open(&self, path: &Path, flags: i32) -> io::Result<File> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let path = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let mut how: libc::open_how = unsafe_zeroed();
        how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
        how.resolve = libc::RESOLVE_IN_ROOT;
        let size = size_of::<libc::open_how>();
        // SAFETY: openat2 reads the path and `how`, both alive for the call; the descriptor it returns is owned by nobody.
        let open = || unsafe {
            match libc::syscall(libc::SYS_openat2, self.root.as_raw_fd(), path.as_ptr(), &how, size) {
                fd if fd >= 0 => Ok(File::from_raw_fd(fd as i32)),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // Something was renamed while a `..` was looked at: the kernel asks to be asked again.
        let tries = std::iter::repeat_with(open).take(OPEN_TRIES);
        let done =
            |opened: &io::Result<File>| !opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN));
        tries.into_iter().find(done).unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::EAGAIN)))
    }

    /// The whole of a small file; `None` where there is none.
    pub fn read(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        match self.open(Path::new(path), libc::O_RDONLY | libc::O_NONBLOCK) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(max_bytes).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the cgroups of a process, as `/proc/PID/cgroup` has them in either version, are a container's.
fn is_in(cgroups: &str, container: &str) -> bool {
    let mut paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.any(|path| path.split('/').any(|part| part == container))
}

fn unsafe_zeroed() -> libc::open_how {
    // SAFETY: open_how is three integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Mounts `mounts` (as a snapshotter gives them) read-only at `at`, a directory that exists, and runs `work` in there.
pub async fn with_rootfs<T: Send + 'static>(
    mounts: Vec<Mount>,
    at: PathBuf,
    work: impl FnOnce(&Rootfs) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("rootfs".to_owned()).spawn(move || {
        let result = mount_here(&mounts, &at).and_then(|rootfs| work(&rootfs));
        let _ = sender.send(result);
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the thread that mounts the image ended early")))
}

fn mount_here(mounts: &[Mount], at: &Path) -> io::Result<Rootfs> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    std::fs::create_dir_all(at)?;
    for part in mounts {
        let (mut flags, data) = options(part);
        flags |= MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some(part.source.as_str()), at, Some(part.r#type.as_str()), flags, Some(data.as_str()))?;
    }
    Ok(Rootfs { root: File::options().read(true).open(at)?.into() })
}

/// What snapshotters give: bind mounts of one layer, overlays of several.
fn options(mount: &Mount) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "rbind" | "bind" => flags |= MsFlags::MS_BIND,
            "ro" | "rw" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_containers_by_its_cgroup() {
        let v1 = "4:memory:/flok/abc\n2:cpu:/flok/abc\n0::/\n";
        assert!(is_in(v1, "abc") && is_in("0::/flok/abc/init.scope\n", "abc"));
        assert!(!is_in(v1, "ab") && !is_in("0::/\n", "abc") && !is_in("1:name=abc:/\n", "abc"));
        let other = Rootfs::of_process(std::process::id(), &"f".repeat(64));
        assert!(other.err().unwrap().to_string().contains("has ended"));
    }
}
