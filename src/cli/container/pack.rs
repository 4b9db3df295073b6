//! Files of this machine as an archive.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::{Builder, Header};

const PIECE_BYTES: usize = 64 * 1024;

/// A file or directory, and how it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    pub from: PathBuf,
    /// In the archive.
    pub name: PathBuf,
    /// As root's otherwise.
    pub keep_owners: bool,
    /// What a link leads to, in its place; links below a directory are packed as such.
    pub follow: bool,
}

impl Packing {
    /// Of what is packed itself.
    pub fn metadata(&self) -> io::Result<Metadata> {
        if self.follow { self.from.metadata() } else { self.from.symlink_metadata() }
    }

    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut archive = Builder::new(io::BufWriter::with_capacity(PIECE_BYTES, to));
        let mut todo = vec![(self.from.clone(), self.name.clone(), self.metadata()?)];
        while let Some((path, name, found)) = todo.pop() {
            self.append(&mut archive, &path, &name, &found)?;
            if !found.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                todo.push((entry.path(), name.join(entry.file_name()), entry.metadata()?));
            }
        }
        archive.into_inner()?.flush()
    }

    fn append(&self, archive: &mut Builder<impl Write>, path: &Path, name: &Path, found: &Metadata) -> io::Result<()> {
        let kind = found.file_type();
        // A socket means nothing elsewhere.
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_metadata(found);
        if !self.keep_owners {
            header.set_uid(0);
            header.set_gid(0);
        }
        if kind.is_file() {
            let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
            // As long as the header says, whatever is written meanwhile.
            let content = file.chain(io::repeat(0)).take(found.len());
            return archive.append_data(&mut header, name, content);
        }
        header.set_size(0);
        match kind.is_symlink() {
            true => archive.append_link(&mut header, name, fs::read_link(path)?),
            false => archive.append_data(&mut header, name, io::empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// Each entry's name, kind, owner and content, by name.
    fn packed(packing: &Packing) -> Vec<(String, tar::EntryType, u64, String)> {
        let mut bytes = Vec::new();
        packing.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let told = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let name = entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned();
            (name, entry.header().entry_type(), entry.header().uid().unwrap(), content)
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by(|one, other| one.0.cmp(&other.0));
        told
    }

    #[test]
    fn links_and_owners_are_packed_as_asked_for() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("tree")).unwrap();
        fs::write(path("tree/file"), "text").unwrap();
        symlink("file", path("tree/link")).unwrap();
        symlink("tree", path("way")).unwrap();
        let own = u64::from(path("tree").metadata().unwrap().uid());
        let packing = |from: &str, keep_owners, follow| {
            packed(&Packing { from: path(from), name: "x".into(), keep_owners, follow })
        };
        let text = String::new;
        let whole = |owner| {
            let file = ("x/file".into(), Regular, owner, "text".to_owned());
            vec![("x".into(), Directory, owner, text()), file, ("x/link".into(), Symlink, owner, text())]
        };
        assert_eq!(packing("tree", true, false), whole(own));
        assert_eq!(packing("way", false, true), whole(0), "a link below it stays one");
        assert_eq!(packing("way", true, false), [("x".into(), Symlink, own, text())]);
        assert_eq!(packing("tree/link", false, true), [("x".into(), Regular, 0, "text".to_owned())]);
    }
}
