//! On a directory of this machine in the place of a container's root.

use std::os::unix::fs::{PermissionsExt, symlink};

use tar::{Archive, Entry, EntryType};

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
        self.packed_as(path, &Place::at(&self.root, Path::new(path)).unwrap().stat(&self.root).unwrap().name)
    }

    fn packed_as(&self, path: &str, name: &str) -> Vec<(String, EntryType)> {
        let (pieces, mut archive) = mpsc::channel(1024);
        pack(&self.root, Path::new(path), name, Pieces(pieces)).unwrap();
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
        super::unpack(&self.root, Path::new(at), bytes.as_slice(), Unpack::default())
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
    let content = world.packed("/dir/.").into_iter().map(|(name, _)| name);
    assert_eq!(content.collect::<Vec<_>>(), [".", "./file", "./out"]);
}

#[test]
fn what_is_below_the_root_has_absolute_names_of_any_length() {
    let world = World::new();
    let long = format!("/dir/{}", "x".repeat(200));
    fs::write(world.outside.path().join("root").join(&long[1..]), "").unwrap();
    // Here the root has another name, being a directory of this machine.
    let names: Vec<String> = world.packed_as("/", "/").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["/", "/dir", "/dir/file", "/dir/out", &long, "/top"]);
}

#[test]
fn a_path_that_leads_out_ends_at_the_root() {
    let world = World::new();
    for path in ["/../host", "/dir/../../host", "/top/../../host"] {
        let found = Place::at(&world.root, Path::new(path)).and_then(|place| place.stat(&world.root));
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
    }
}

#[test]
fn a_link_is_told_with_where_it_leads_in_the_end() {
    let world = World::new();
    let root = world.outside.path().join("root");
    for (name, target) in [("dir/file", "dir/near"), ("near", "dir/far"), ("/nothing", "dir/lost")] {
        symlink(name, root.join(target)).unwrap();
    }
    fs::rename(root.join("dir/near"), root.join("near")).unwrap();
    symlink("../near", root.join("dir/chain")).unwrap();
    let link = |path: &str| Place::at(&world.root, Path::new(path)).unwrap().stat(&world.root).unwrap().link;
    assert_eq!(link("/dir/chain").as_deref(), Some("/dir/file"), "a link to a link");
    assert_eq!(link("/top").as_deref(), Some("/"));
    assert_eq!(link("/dir/lost").as_deref(), Some("/nothing"), "as it says");
    assert_eq!(link("/dir/out").as_deref(), Some("../../host"), "out of the container there is nothing");
    assert_eq!(link("/dir/file"), None);
}

#[test]
fn an_archive_belongs_to_whom_it_is_given() {
    let world = World::new();
    let (own, group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let mut archive = Builder::new(Vec::new());
    for (kind, name) in [(EntryType::Directory, "given"), (EntryType::Regular, "given/file")] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o755);
        // Whose this process can make nothing, or as root would.
        header.set_uid(u64::from(own) + 4242);
        header.set_gid(u64::from(group) + 4242);
        archive.append_data(&mut header, name, io::empty()).unwrap();
    }
    let how = Unpack { owner: Some((own, group)), ..Unpack::default() };
    super::unpack(&world.root, Path::new("/dir"), archive.into_inner().unwrap().as_slice(), how).unwrap();
    for made in ["given", "given/file"] {
        let found = fs::metadata(world.outside.path().join("root/dir").join(made)).unwrap();
        assert_eq!((found.uid(), found.gid()), (own, group), "{made}");
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

/// An archive, while whose first content is read something happens.
struct Meanwhile<F> {
    bytes: io::Cursor<Vec<u8>>,
    happens: Option<F>,
}

impl<F: FnOnce()> Read for Meanwhile<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.position() >= 512
            && let Some(happens) = self.happens.take()
        {
            happens();
        }
        self.bytes.read(buffer)
    }
}

#[test]
fn what_a_new_file_is_replaced_by_is_left_alone() {
    let world = World::new();
    let host = world.outside.path().join("host");
    fs::set_permissions(&host, fs::Permissions::from_mode(0o600)).unwrap();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, "new", "x");
    let new = world.outside.path().join("root/dir/new");
    let swap = || {
        fs::remove_file(&new).unwrap();
        symlink(&host, &new).unwrap();
    };
    let archive = Meanwhile { bytes: io::Cursor::new(archive.into_inner().unwrap()), happens: Some(swap) };
    super::unpack(&world.root, Path::new("/dir"), archive, Unpack::default()).unwrap();
    assert!(new.is_symlink());
    assert_eq!((fs::metadata(&host).unwrap().mode() & 0o777, world.host_file().as_str()), (0o600, "host's"));
}

#[test]
fn pipes_and_modes_are_replaced() {
    let world = World::new();
    let root = world.outside.path().join("root");
    nix::unistd::mkfifo(&root.join("dir/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let made = world.unpack("/dir", |archive| {
        add(archive, "pipe", "x");
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o1711);
        header.set_uid(nix::unistd::getuid().as_raw().into());
        header.set_gid(nix::unistd::getgid().as_raw().into());
        archive.append_data(&mut header, "sub", io::empty()).unwrap();
    });
    made.unwrap();
    let mode = |name: &str| fs::metadata(root.join(name)).unwrap().mode();
    assert_eq!(fs::read_to_string(root.join("dir/pipe")).unwrap(), "x");
    assert_eq!((mode("dir/pipe") & 0o7777, mode("dir/sub") & 0o7777), (0o644, 0o1711));
}

#[test]
fn the_head_of_an_entry_is_bounded_and_its_content_is_not() {
    let world = World::new();
    let long = |size: usize| {
        world.unpack("/dir", |archive| {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::GNULongName);
            header.set_size(size as u64);
            header.set_cksum();
            archive.append(&header, io::repeat(b'x').take(size as u64)).unwrap();
            add(archive, "short", "x");
        })
    };
    let error = long(2 << 20).unwrap_err();
    assert!(error.to_string().contains("attributes exceed"), "{error}");
    world.unpack("/dir", |archive| add(archive, "large", &"x".repeat(3 << 20))).unwrap();
    assert_eq!(fs::metadata(world.outside.path().join("root/dir/large")).unwrap().len(), 3 << 20);
}

#[test]
fn the_kernels_directories_are_told_from_files() {
    let root = Rootfs::at(Path::new("/")).unwrap();
    assert!(is_kernels(&root.open(Path::new("/proc"), libc::O_RDONLY).unwrap()).unwrap());
    let world = World::new();
    assert!(!is_kernels(&world.root.open(Path::new("/dir"), libc::O_RDONLY).unwrap()).unwrap());
}

/// A mount in a namespace of this process's own, as a container's mounts are to the daemon.
#[test]
#[ignore = "needs root"]
fn what_is_mounted_is_written_over_and_the_kernels_directories_are_left_out() {
    use nix::mount::{MsFlags, mount};
    let world = World::new();
    let root = world.outside.path().join("root");
    fs::create_dir(root.join("proc")).unwrap();
    let (host, at) = (world.outside.path().join("host"), root.clone());
    let ((tell, told), (keep, kept)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let namespace = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some(&host), &at.join("dir/file"), none, MsFlags::MS_BIND, none).unwrap();
        mount(Some("proc"), &at.join("proc"), Some("proc"), MsFlags::empty(), none).unwrap();
        tell.send(Rootfs::at(&at).unwrap()).unwrap();
        // The mounts last as long as this thread.
        let _ = kept.recv();
    });
    let mounted = told.recv().unwrap();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, "dir/file", "mine");
    super::unpack(&mounted, Path::new("/"), archive.into_inner().unwrap().as_slice(), Unpack::default()).unwrap();
    assert_eq!(world.host_file(), "mine");
    assert_eq!(fs::read_to_string(root.join("dir/file")).unwrap(), "hello");
    let world = World { root: mounted, outside: world.outside };
    let packed = world.packed("/");
    assert!(packed.iter().any(|(name, _)| name.contains("proc")), "{packed:?}");
    assert!(!packed.iter().any(|(name, _)| name.contains("proc/") && !name.ends_with("proc/")), "{packed:?}");
    drop(keep);
    namespace.join().unwrap();
}

#[test]
fn copies_are_bounded() {
    let copies = Copies::default();
    let mut running: Vec<_> = (0..MAX_COPIES).map(|_| copies.begin().unwrap()).collect();
    assert!(matches!(copies.begin(), Err(RuntimeError::TooManyCopies(MAX_COPIES))));
    running.pop();
    drop(copies.begin().unwrap());
}

#[test]
fn kinds_are_not_changed_unasked() {
    let world = World::new();
    let error = world.unpack("/", |archive| add(archive, "dir", "a file")).unwrap_err();
    assert!(error.to_string().contains("cannot overwrite directory"), "{error}");
}
