//! On a directory of this machine in the place of a container's root.

use std::os::unix::fs::symlink;

use super::*;

struct World {
    outside: tempfile::TempDir,
    root: Rootfs,
}

impl World {
    /// A root with `dir/file`, a link out of it, and a file beside it that nobody in it may reach.
    fn new() -> World {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "hello").unwrap();
        fs::write(outside.path().join("host"), "host's").unwrap();
        symlink("../../host", root.join("dir/out")).unwrap();
        symlink("/", root.join("top")).unwrap();
        World { root: Rootfs::at(&root).unwrap(), outside }
    }

    fn packed(&self, path: &str) -> Vec<(String, EntryType)> {
        let (pieces, mut archive) = mpsc::channel(1024);
        let name = Place::at(&self.root, Path::new(path)).unwrap().stat().unwrap().name;
        pack(&self.root, Path::new(path), &name, Pieces(pieces)).unwrap();
        let mut bytes = Vec::new();
        while let Ok(piece) = archive.try_recv() {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut archive = Archive::new(bytes.as_slice());
        let told = |entry: io::Result<Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().entry_type())
        };
        archive.entries().unwrap().map(told).collect()
    }

    fn unpack(&self, at: &str, add: impl FnOnce(&mut Builder<Vec<u8>>)) -> io::Result<()> {
        let mut archive = Builder::new(Vec::new());
        add(&mut archive);
        let bytes = archive.into_inner().unwrap();
        super::unpack(&self.root, Path::new(at), bytes.as_slice(), false)
    }

    fn host_file(&self) -> String {
        fs::read_to_string(self.outside.path().join("host")).unwrap()
    }
}

fn add(archive: &mut Builder<Vec<u8>>, name: &str, content: &str) {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(nix::unistd::getuid().as_raw().into());
    header.set_gid(nix::unistd::getgid().as_raw().into());
    // As a hand made archive may have it.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    archive.append(&header, content.as_bytes()).unwrap();
}

#[test]
fn a_directory_is_packed_under_its_name_and_a_link_as_a_link() {
    let world = World::new();
    let file = |name: &str, kind| (name.to_owned(), kind);
    let whole =
        [file("dir/", EntryType::Directory), file("dir/file", EntryType::Regular), file("dir/out", EntryType::Symlink)];
    let without_slash = |packed: Vec<(String, EntryType)>| -> Vec<(String, EntryType)> {
        packed.into_iter().map(|(name, kind)| (name.trim_end_matches('/').to_owned(), kind)).collect()
    };
    assert_eq!(without_slash(world.packed("/dir")), without_slash(whole.to_vec()));
    assert_eq!(world.packed("/dir/file"), [file("file", EntryType::Regular)]);
    assert_eq!(world.packed("/dir/out"), [file("out", EntryType::Symlink)]);
    assert_eq!(world.packed("/top/dir/../dir/file"), [file("file", EntryType::Regular)]);
    assert_eq!(world.packed("/dir/.").len(), 3);
}

#[test]
fn a_path_that_leads_out_ends_at_the_root() {
    let world = World::new();
    for path in ["/../host", "/dir/../../host", "/top/../../host"] {
        let found = Place::at(&world.root, Path::new(path)).and_then(|place| place.stat());
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
    }
}

#[test]
fn an_archive_goes_where_it_is_sent_and_nowhere_else() {
    let world = World::new();
    world.unpack("/dir", |archive| add(archive, "sub/new", "x")).unwrap();
    let root = world.outside.path().join("root");
    assert_eq!(fs::read_to_string(root.join("dir/sub/new")).unwrap(), "x");
    // A link that is there is replaced, not followed.
    world.unpack("/dir", |archive| add(archive, "out", "mine")).unwrap();
    assert_eq!(
        (world.host_file().as_str(), fs::read_to_string(root.join("dir/out")).unwrap().as_str()),
        ("host's", "mine")
    );
    for name in ["../escaped", "sub/../../escaped"] {
        let error = world.unpack("/dir", |archive| add(archive, name, "x")).unwrap_err();
        assert!(error.to_string().contains("leaves the directory"), "{error}");
    }
    // A link in the archive, and a file behind it: it ends in the root.
    let linked = world.unpack("/dir", |archive| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        header.set_uid(nix::unistd::getuid().as_raw().into());
        header.set_gid(nix::unistd::getgid().as_raw().into());
        archive.append_link(&mut header, "way", "../../..").unwrap();
        add(archive, "way/host", "overwritten");
    });
    linked.unwrap();
    assert_eq!(world.host_file(), "host's");
    assert_eq!(fs::read_to_string(root.join("host")).unwrap(), "overwritten");
}

#[test]
fn kinds_are_not_changed_unasked() {
    let world = World::new();
    let error = world.unpack("/", |archive| add(archive, "dir", "a file")).unwrap_err();
    assert!(error.to_string().contains("cannot overwrite directory"), "{error}");
}
