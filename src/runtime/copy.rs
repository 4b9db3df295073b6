//! Files out of containers and into them, as tar streams. No path leaves the container: each is resolved below its root by
//! the kernel, symbolic links as a process in it would follow them, and an archive's entries stay below where they go.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::statfs;
use tar::{Builder, Header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use unpack::unpack;

use super::Runtime;
use super::containers::container_id;
use super::error::{Result, RuntimeError};
use super::rootfs::{Rootfs, with_rootfs};
use crate::spec::TaskId;

mod unpack;

/// At once. Each holds a thread for as long as its client takes, and a client may stand still.
const MAX_COPIES: usize = 32;
/// Most that is read of an archive after what was wrong with it.
const MAX_REST_BYTES: u64 = 1 << 30;
/// A name that is longer needs more than the header's own field.
const MAX_NAME_BYTES: usize = 99;
/// Pieces of an archive that wait for their reader.
const QUEUE: usize = 8;

/// Those that run.
pub(super) struct Copies(Arc<Semaphore>);

impl Default for Copies {
    fn default() -> Copies {
        Copies(Arc::new(Semaphore::new(MAX_COPIES)))
    }
}

impl Copies {
    /// One more, until it is dropped.
    fn begin(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| RuntimeError::TooManyCopies(MAX_COPIES))
    }
}

/// What stands at a path; the last link is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    pub name: String,
    pub size: u64,
    /// As `stat(2)` has it.
    pub mode: u32,
    pub modified_unix_ns: i128,
    /// Where a symbolic link leads, as a path from the container's root where there is something.
    pub link: Option<String>,
}

/// How an archive goes into a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpack {
    /// A directory may take a file's place.
    pub replace_kinds: bool,
    /// User and group that all of it is to belong to; `None`: as the archive says.
    pub owner: Option<(u32, u32)>,
}

impl Runtime {
    /// `None` where there is nothing.
    pub async fn stat_path(&self, task: TaskId, path: PathBuf) -> Result<Option<PathStat>> {
        let shown = path.clone();
        let stat = self.in_root(task, move |root| found(Place::at(root, &path)?.stat(root))).await;
        missing(stat.map_err(RuntimeError::io("looking at", shown)))
    }

    /// The file or directory as an archive; an error under way ends it early.
    pub async fn copy_out(
        &self,
        task: TaskId,
        path: PathBuf,
    ) -> Result<Option<(PathStat, mpsc::Receiver<io::Result<Bytes>>)>> {
        let running = self.shared.copies.begin()?;
        let Some(stat) = self.stat_path(task, path.clone()).await? else { return Ok(None) };
        let (pieces, archive) = mpsc::channel(QUEUE);
        let (runtime, name) = (self.clone(), stat.name.clone());
        tokio::spawn(async move {
            let to = pieces.clone();
            let packing = move |root: &Rootfs| {
                let _running = running;
                pack(root, &path, &name, Pieces(to))
            };
            let packed = runtime.in_root(task, packing).await;
            if let Err(error) = packed {
                let _ = pieces.send(Err(error)).await;
            }
        });
        Ok(Some((stat, archive)))
    }

    /// Unpacks an archive in a directory of a running container. `None` where there is no such directory.
    pub async fn copy_in(
        &self,
        task: TaskId,
        path: PathBuf,
        mut archive: impl Read + Send + 'static,
        how: Unpack,
    ) -> Result<Option<()>> {
        let running = self.shared.copies.begin()?;
        self.pid(task).await?;
        let shown = path.clone();
        let done = self.in_root(task, move |root| {
            let _running = running;
            let there = !Place::directory(root, &path, false).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            let done = if there { unpack(root, &path, &mut archive, how).map(Some) } else { Ok(None) };
            // Who sends reads the answer when all is sent.
            let _ = io::copy(&mut archive.take(MAX_REST_BYTES), &mut io::sink());
            done
        });
        done.await.map_err(RuntimeError::io("copying to", shown))
    }

    /// Work on the files as the container's processes see them; on its layer alone where none runs.
    async fn in_root<T: Send + 'static>(
        &self,
        task: TaskId,
        work: impl FnOnce(&Rootfs) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self.pid(task).await {
            Ok(pid) => {
                let work = move || work(&Rootfs::of_process(pid, &container_id(task))?);
                tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            Err(_) => {
                let mounts = self.rootfs(task, &container_id(task)).await.map_err(io::Error::other)?;
                with_rootfs(mounts, self.task_dir(task).join("rootfs"), work).await
            }
        }
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}

fn missing<T>(result: Result<Option<T>>) -> Result<Option<T>> {
    match result {
        Err(RuntimeError::Io { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        other => other,
    }
}

/// A name in a directory that is held open: what is done to it follows no link.
struct Place {
    dir: OwnedFd,
    name: PathBuf,
}

impl Place {
    /// Of a path in the container. The root, and a path that ends in `/` or `/.`, is a directory itself.
    fn at(root: &Rootfs, path: &Path) -> io::Result<Place> {
        let text = path.as_os_str().as_bytes();
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if !text.ends_with(b"/") && !text.ends_with(b"/.") => (parent, Path::new(name)),
            _ => (path, Path::new(".")),
        };
        Ok(Place { dir: Place::directory(root, parent, false)?, name: name.to_owned() })
    }

    /// A directory of the container, links followed; `make`: made where it is missing.
    fn directory(root: &Rootfs, path: &Path, make: bool) -> io::Result<OwnedFd> {
        match root.open(path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
                let place = Place { dir: Place::directory(root, parent, true)?, name: name.into() };
                fs::DirBuilder::new().mode(0o755).create(place.path())?;
                root.open(path, libc::O_PATH | libc::O_DIRECTORY).map(Into::into)
            }
            opened => opened.map(Into::into),
        }
    }

    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.dir.as_raw_fd().to_string()).join(&self.name)
    }

    /// What the link leads to in the end; where it leads to nothing, what it says.
    fn target(&self, root: &Rootfs) -> io::Result<PathBuf> {
        let top = place_of(&root.open(Path::new("/"), libc::O_PATH)?)?;
        let inside = |whole: &Path| Some(Path::new("/").join(whole.strip_prefix(&top).ok()?));
        let place = inside(&place_of(&self.dir)?).unwrap_or_default().join(&self.name);
        let end = root.open(&place, libc::O_PATH).and_then(|end| place_of(&end)).ok();
        match end.and_then(|end| inside(&end)) {
            Some(end) => Ok(end),
            None => fs::read_link(self.path()),
        }
    }

    fn stat(&self, root: &Rootfs) -> io::Result<PathStat> {
        let path = self.path();
        let found = fs::symlink_metadata(&path)?;
        let link = found.is_symlink().then(|| self.target(root)).transpose()?;
        let whole = place_of(&self.dir)?;
        let name = match self.name.to_str() {
            Some(".") => whole.file_name().map(|name| name.to_string_lossy().into_owned()),
            _ => Some(self.name.to_string_lossy().into_owned()),
        };
        Ok(PathStat {
            name: name.unwrap_or_else(|| "/".to_owned()),
            size: found.len(),
            mode: found.mode(),
            modified_unix_ns: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
            link: link.map(|link| link.display().to_string()),
        })
    }
}

/// Where what is open lies, as its own mounts have it.
fn place_of(open: &impl AsRawFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd()))
}

/// Writes pieces to whoever reads the archive.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs what stands at a path under its own name, `.` where the path ends so: what is below it has names that begin with
/// `./`. That of the root is `/`, and what is below it has absolute names. Docker's clients put another directory's name in
/// the place of that beginning.
fn pack(root: &Rootfs, path: &Path, name: &str, to: Pieces) -> io::Result<()> {
    let name = if path.as_os_str().as_bytes().ends_with(b"/.") { "." } else { name };
    let mut archive = Builder::new(io::BufWriter::with_capacity(64 * 1024, to));
    let mut todo = vec![(path.to_owned(), PathBuf::from(name))];
    let mut kernels_wanted = None;
    while let Some((path, name)) = todo.pop() {
        let place = Place::at(root, &path)?;
        // Gone since it was listed.
        let Some(found) = found(fs::symlink_metadata(place.path()))? else { continue };
        append(&mut archive, &place.path(), &name, &found)?;
        if found.is_dir() {
            let dir = root.open(&path, libc::O_RDONLY | libc::O_DIRECTORY)?;
            let kernels = is_kernels(&dir)?;
            // The first is what was asked for.
            let wanted = *kernels_wanted.get_or_insert(kernels);
            if kernels && !wanted {
                continue;
            }
            let mut entries: Vec<_> =
                fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))?.collect::<io::Result<_>>()?;
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            todo.extend(entries.iter().map(|entry| (path.join(entry.file_name()), name.join(entry.file_name()))));
        }
    }
    archive.into_inner()?.flush()
}

/// Whether a directory shows the kernel's state, whose files mean nothing elsewhere and often cannot be read: below a
/// directory of files it is packed empty.
fn is_kernels(dir: &fs::File) -> io::Result<bool> {
    let kernels =
        [statfs::PROC_SUPER_MAGIC, statfs::SYSFS_MAGIC, statfs::CGROUP_SUPER_MAGIC, statfs::CGROUP2_SUPER_MAGIC];
    Ok(kernels.contains(&statfs::fstatfs(dir)?.filesystem_type()))
}

fn append<W: Write>(archive: &mut Builder<W>, path: &Path, name: &Path, found: &fs::Metadata) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_metadata(found);
    let kind = found.file_type();
    // A socket means nothing elsewhere.
    if kind.is_socket() {
        return Ok(());
    }
    let is_below_dot = name.starts_with(".") && name != Path::new(".");
    let name = if name.is_absolute() || is_below_dot { exactly(archive, name)? } else { name };
    if kind.is_symlink() {
        header.set_size(0);
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    if !kind.is_file() {
        header.set_size(0);
        return archive.append_data(&mut header, name, io::empty());
    }
    let file = fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    // Something else may stand there by now.
    let opened = file.metadata()?;
    if !opened.is_file() {
        return Err(io::Error::other(format!("{} was replaced while it was copied", name.display())));
    }
    header.set_metadata(&opened);
    // As long as the header says, whatever is written meanwhile.
    let content = file.chain(io::repeat(0)).take(opened.len());
    archive.append_data(&mut header, name, content)
}

/// A header holds no name that is absolute or begins with `./`: an extension before it does (POSIX pax, `path`). Returns what
/// stands in the header then, short enough to need no extension of its own.
fn exactly<'n, W: Write>(archive: &mut Builder<W>, name: &'n Path) -> io::Result<&'n Path> {
    archive.append_pax_extensions([("path", name.as_os_str().as_bytes())])?;
    let below = name.strip_prefix("/").unwrap_or(name);
    Ok(match below.as_os_str().len() {
        0 | MAX_NAME_BYTES.. => Path::new("."),
        _ => below,
    })
}

#[cfg(test)]
mod tests;
