//! An archive's entries, put in a container's directory. Processes of the container may replace what was just made: each
//! file is written, owned and given its mode by what was opened, never by its name again.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchownat};
use tar::{Archive, Entry, EntryType, Header};

use super::{Place, Unpack, found};
use crate::runtime::rootfs::Rootfs;

/// Of an entry's head, long names and attributes included: they are read whole.
const MAX_HEAD_BYTES: u64 = 1 << 20;

pub(super) fn unpack(root: &Rootfs, at: &Path, archive: impl Read, how: Unpack) -> io::Result<()> {
    let left = Rc::new(Cell::new(MAX_HEAD_BYTES));
    let mut archive = Archive::new(Budgeted { from: archive, left: Rc::clone(&left) });
    let mut entries = archive.entries()?;
    loop {
        left.set(MAX_HEAD_BYTES);
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry?;
        left.set(u64::MAX);
        if let Some(inside) = inside(&entry.path()?)? {
            let target = at.join(&inside);
            let parent = target.parent().unwrap_or(Path::new("/"));
            let name = target.file_name().map(PathBuf::from).unwrap_or_default();
            let place = Place { dir: Place::directory(root, parent, true)?, name };
            put(root, at, &place, &mut entry, how)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", inside.display())))?;
        }
        // What is left of it is no head.
        io::copy(&mut entry, &mut io::sink())?;
    }
}

/// Fails where more is read than is left.
struct Budgeted<R> {
    from: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(refused(format!(
                "the archive has an entry whose name and attributes exceed {MAX_HEAD_BYTES} bytes"
            )));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.from.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// An entry's way below the directory; `None` for the directory itself.
fn inside(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(format!("the archive's entry {} leaves the directory", path.display())));
            }
        }
    }
    Ok((!inside.as_os_str().is_empty()).then_some(inside))
}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

fn put<R: Read>(root: &Rootfs, at: &Path, place: &Place, entry: &mut Entry<'_, R>, how: Unpack) -> io::Result<()> {
    let path = place.path();
    let kind = entry.header().entry_type();
    let before = found(fs::symlink_metadata(&path))?;
    if let Some(before) = &before
        && before.is_dir() != kind.is_dir()
    {
        match before.is_dir() {
            true => return Err(refused("cannot overwrite directory with non-directory")),
            false if !how.replace_kinds => return Err(refused("cannot overwrite non-directory with directory")),
            false => remove(place)?,
        }
    }
    match kind {
        EntryType::Directory => {
            if before.is_none_or(|before| !before.is_dir()) {
                fs::create_dir(&path)?;
            }
            let dir = hold(&path, libc::O_DIRECTORY)?;
            own(&dir, entry.header(), how)?;
            fs::set_permissions(format!("/proc/self/fd/{}", dir.as_raw_fd()), permissions(entry.header())?)
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mut file = new_file(place)?;
            io::copy(entry, &mut file)?;
            own(&file, entry.header(), how)?;
            file.set_permissions(permissions(entry.header())?)
        }
        EntryType::Symlink => {
            remove(place)?;
            std::os::unix::fs::symlink(link_of(entry)?, &path)?;
            let link = hold(&path, 0)?;
            match link.metadata()?.is_symlink() {
                true => own(&link, entry.header(), how),
                false => Err(io::Error::other("it was replaced while it was made")),
            }
        }
        EntryType::Link => {
            let target = inside(&link_of(entry)?)?.ok_or_else(|| refused("a link to the directory itself"))?;
            remove(place)?;
            fs::hard_link(Place::at(root, &at.join(target))?.path(), &path)
        }
        EntryType::XGlobalHeader => Ok(()),
        other => Err(refused(format!("an entry of the kind {other:?} cannot be copied"))),
    }
}

fn link_of<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    entry.link_name()?.map(|link| link.into_owned()).ok_or_else(|| refused("a link without a target"))
}

/// What stands at a path, and not where it leads; good for asking what it is, and for giving it away.
fn hold(path: &Path, flags: i32) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW | flags).open(path)
}

fn own(held: &File, header: &Header, how: Unpack) -> io::Result<()> {
    let (uid, gid) = match how.owner {
        Some((uid, gid)) => (Some(uid), Some(gid)),
        None => (u32::try_from(header.uid()?).ok(), u32::try_from(header.gid()?).ok()),
    };
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    fchownat(held, c"", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(Into::into)
}

fn permissions(header: &Header) -> io::Result<fs::Permissions> {
    Ok(fs::Permissions::from_mode(header.mode()? & 0o7777))
}

/// Makes room for something new.
fn remove(place: &Place) -> io::Result<()> {
    let path = place.path();
    let Some(held) = found(hold(&path, 0))? else { return Ok(()) };
    // The kernel keeps what is mounted there from this process's own mounts alone, and would undo a container's.
    if mount_of(&held)? != mount_of(&place.dir)? {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    found(fs::remove_file(&path)).map(|_| ())
}

/// The kernel's number for the mount that an open file is on.
fn mount_of(open: &impl AsRawFd) -> io::Result<Option<String>> {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd()))?;
    Ok(told.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|id| id.trim().to_owned()))
}

/// In place of what is there; a file that is mounted there is written over.
fn new_file(place: &Place) -> io::Result<File> {
    let mut options = File::options();
    options.write(true);
    match remove(place) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(place.path())?;
            if !file.metadata()?.is_file() {
                return Err(refused("something that is no file is mounted there"));
            }
            file.set_len(0)?;
            Ok(file)
        }
        Err(error) => Err(error),
        // Nothing that another process puts there meanwhile is opened.
        Ok(()) => options.create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(place.path()),
    }
}
