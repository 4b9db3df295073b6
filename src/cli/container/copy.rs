//! `flok cp`.

use std::ffi::OsStr;
use std::io::{IsTerminal, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bollard::Docker;
use bollard::container::PathStatResponse;
use bollard::query_parameters::{ContainerArchiveInfoOptions, DownloadFromContainerOptions, UploadToContainerOptions};
use bytes::Bytes;
use clap::Args;
use futures::{Stream, TryStreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::find;
use super::pack::Packing;
use crate::api::client::Client;
use crate::cli::Usage;

/// Large files and slow networks.
const WITHIN: Duration = Duration::from_secs(24 * 3600);
/// Go's bit for a directory, in what Docker's API says of a mode.
const GOS_DIRECTORY: u32 = 1 << 31;
/// And for a symbolic link.
const GOS_LINK: u32 = 1 << 27;
const PIECE_BYTES: usize = 64 * 1024;

/// Copy files between a task and this machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok cp web.1:/etc/nginx/nginx.conf .
  flok cp site/ web.1:/var/www
  flok cp db:/var/log ./logs
  flok cp db:/var/lib/data - | ssh backup tar -x      an archive, to standard output
  tar -c site | flok cp - web.1:/var/www              an archive's content, into a directory
  flok cp -a db:/var/lib/data ./data                  with the owners it has there

A directory that is there gets the copy below its own name, or the content of DIR/.; anything else becomes it. Without -a
what is copied belongs to root in the task, and to you on this machine.")]
pub struct Copy {
    /// Keep user and group ids
    #[arg(short = 'a', long)]
    archive: bool,
    /// Copy what FROM leads to where it is a link; those below a directory are copied as links
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// PATH, or TASK:PATH; - is an archive (tar) in standard input
    #[arg(value_name = "FROM")]
    from: String,
    /// PATH, or TASK:PATH; - is an archive to standard output
    #[arg(value_name = "TO")]
    to: String,
}

/// `TASK:PATH`; a path with a slash before its colon is one of this machine.
fn remote(text: &str) -> Option<(&str, &str)> {
    let (task, path) = text.split_once(':')?;
    (!task.is_empty() && !path.is_empty() && !task.contains('/') && !task.starts_with('.')).then_some((task, path))
}

impl Copy {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match (remote(&self.from), remote(&self.to)) {
            (Some((task, path)), None) => self.download(client, task, path).await,
            (None, Some((task, path))) if self.from == "-" => upload_archive(client, task, path).await,
            (None, Some((task, path))) => self.upload(client, task, path).await,
            (None, None) => Err(Usage::of("neither is in a task: write TASK:PATH for one of them")),
            (Some(_), Some(_)) => Err(Usage::of("both are in tasks: copy to this machine, and from there")),
        }
    }
}

/// What stands at a path of a container, where something does.
async fn look(docker: &Docker, container: &str, path: &str) -> Option<PathStatResponse> {
    let asked = ContainerArchiveInfoOptions { path: path.to_owned() };
    docker.get_container_archive_info(container, Some(asked)).await.ok()
}

/// Where the link leads that stands at a path of a container.
async fn followed(docker: &Docker, container: &str, path: &str) -> Option<String> {
    let stat = look(docker, container, path).await?;
    // One that leads to nothing is told as it is.
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    (stat.file_mode & GOS_LINK != 0).then(|| parent.join(stat.link_target).display().to_string())
}

/// The archive as it comes.
async fn print_archive(
    client: &Client,
    mut pieces: impl Stream<Item = Result<Bytes, bollard::errors::Error>> + Unpin,
) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    while let Some(piece) = pieces.try_next().await.map_err(|error| client.explain(error))? {
        out.write_all(&piece).await?;
    }
    Ok(out.flush().await?)
}

/// Standard input's content, into a directory that is there.
async fn upload_archive(client: &Client, task: &str, path: &str) -> anyhow::Result<()> {
    let container = find(client, task).await?;
    let options = unpacked_in(path.to_owned());
    let body = bollard::body_try_stream(ReaderStream::with_capacity(tokio::io::stdin(), PIECE_BYTES));
    let sent = client.patient(WITHIN).upload_to_container(&container, Some(options), body).await;
    Ok(sent.map_err(|error| client.explain(error))?)
}

impl Copy {
    async fn download(&self, client: &Client, task: &str, path: &str) -> anyhow::Result<()> {
        let container = find(client, task).await?;
        if self.to == "-" && std::io::stdout().is_terminal() {
            bail!("an archive is nothing for a terminal: send it to a file or to tar");
        }
        let docker = client.patient(WITHIN);
        let link = match self.follow_link {
            true => followed(&docker, &container, path).await,
            false => None,
        };
        let options = DownloadFromContainerOptions { path: link.as_deref().unwrap_or(path).to_owned() };
        let pieces = Box::pin(docker.download_from_container(&container, Some(options)));
        if self.to == "-" {
            return print_archive(client, pieces).await;
        }
        // In a directory that is there under its own name, which is the link's; else as what is named.
        let to = Path::new(&self.to);
        let (into, name) = match to.is_dir() {
            true => (to.to_owned(), link.and_then(|_| Path::new(path).file_name())),
            false => {
                let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                (parent.to_owned(), Some(to.file_name().context("the target has no name")?))
            }
        };
        if !into.is_dir() {
            bail!("there is no directory {}", into.display());
        }
        let pieces = pieces.map_err(|error| std::io::Error::other(client_words(error)));
        let mut archive = SyncIoBridge::new(StreamReader::new(pieces));
        tokio::task::block_in_place(|| unpack(&mut archive, &into, name, self.archive))
    }
}

fn client_words(error: bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message,
        other => other.to_string(),
    }
}

fn unpack(archive: impl Read, into: &Path, name: Option<&OsStr>, keep_owners: bool) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(keep_owners);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let inside = inside(&entry.path()?, name)?;
        let target = into.join(&inside);
        let kind = entry.header().entry_type();
        let is_directory = kind.is_dir();
        let dir = if is_directory { Some(inside.as_path()) } else { inside.parent() };
        make(into, dir.unwrap_or(Path::new("")))?;
        if is_directory {
            if keep_owners {
                own(&target, entry.header())?;
            }
            continue;
        }
        if kind.is_hard_link() {
            let link = entry.link_name()?.with_context(|| format!("{} is a link to nothing", inside.display()))?;
            let source = self::inside(&link, name)?;
            no_link(into, source.parent().unwrap_or(Path::new("")))?;
            if target.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
                std::fs::remove_file(&target)?;
            }
            let linked = std::fs::hard_link(into.join(source), &target);
            linked.with_context(|| format!("cannot write {}", target.display()))?;
            continue;
        }
        entry.unpack(&target).with_context(|| format!("cannot write {}", target.display()))?;
    }
    Ok(())
}

fn own(made: &Path, header: &tar::Header) -> anyhow::Result<()> {
    let (uid, gid) = (u32::try_from(header.uid()?).ok(), u32::try_from(header.gid()?).ok());
    let owned = std::os::unix::fs::lchown(made, uid, gid);
    owned.with_context(|| format!("cannot give {} its owner: run it as root, or without -a", made.display()))
}

/// Where an entry goes. Its first part is what was asked for, unless that was a directory's content, or the root.
fn inside(path: &Path, name: Option<&OsStr>) -> anyhow::Result<PathBuf> {
    let parts: Vec<_> =
        path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir)).collect();
    if parts.iter().any(|part| !matches!(part, Component::Normal(_))) {
        bail!("the archive has an entry {}, which leads out of it", path.display());
    }
    let first = usize::from(name.is_some() && !path.starts_with(".") && !path.is_absolute());
    let below: PathBuf = parts.iter().skip(first).collect();
    Ok(match name {
        Some(name) if below.as_os_str().is_empty() => PathBuf::from(name),
        Some(name) => Path::new(name).join(below),
        None => below,
    })
}

/// Nothing goes through a link, an earlier entry's or one that was there.
fn no_link(into: &Path, dir: &Path) -> anyhow::Result<()> {
    let ways = dir.ancestors().filter(|way| !way.as_os_str().is_empty());
    for way in ways.map(|way| into.join(way)) {
        if way.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            bail!("the archive has an entry behind the link {}: remove that, or copy to another place", way.display());
        }
    }
    Ok(())
}

fn make(into: &Path, dir: &Path) -> anyhow::Result<()> {
    no_link(into, dir)?;
    let dir = into.join(dir);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))
}

impl Copy {
    async fn upload(&self, client: &Client, task: &str, path: &str) -> anyhow::Result<()> {
        let from = Path::new(&self.from);
        let (keep_owners, follow) = (self.archive, self.follow_link);
        let mut packing = Packing { from: from.to_owned(), name: own_name(from)?, keep_owners, follow };
        let found = packing.metadata().with_context(|| format!("cannot read {}", from.display()))?;
        let container = find(client, task).await?;
        let docker = client.patient(WITHIN);
        // Where a link leads, as for a process there.
        let target = followed(&docker, &container, path).await.unwrap_or_else(|| path.to_owned());
        let stat = look(&docker, &container, &target).await;
        let is_directory = stat.is_some_and(|stat| stat.file_mode & GOS_DIRECTORY != 0);
        if path.ends_with('/') && !is_directory && !found.is_dir() {
            bail!(
                "there is no directory {path} in {task}: make it first, or leave the slash out to give the file that name"
            );
        }
        let place = Path::new(&target);
        let into = match (is_directory, place.parent(), place.file_name()) {
            (false, Some(parent), Some(name)) => {
                packing.name = PathBuf::from(name);
                parent.display().to_string()
            }
            _ => target,
        };
        let (pieces, packed) = mpsc::channel(8);
        let packing = tokio::task::spawn_blocking(move || packing.write(Pieces(pieces)));
        let stream = futures::stream::unfold(packed, |mut packed| async move { Some((packed.recv().await?, packed)) });
        let options = unpacked_in(if into.is_empty() { "/".into() } else { into });
        let sent = docker.upload_to_container(&container, Some(options), bollard::body_stream(stream)).await;
        // What the daemon says comes before what the broken pipe says.
        sent.map_err(|error| client.explain(error))?;
        packing.await?.context("the files cannot be packed")
    }
}

/// What it is called below a directory that is there: `.` for a directory's content.
fn own_name(path: &Path) -> anyhow::Result<PathBuf> {
    match path.file_name() {
        _ if is_content(path) => Ok(PathBuf::from(".")),
        Some(name) => Ok(PathBuf::from(name)),
        // `..` is called as what it is.
        None => {
            let whole = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
            Ok(whole.file_name().map(PathBuf::from).unwrap_or_default())
        }
    }
}

/// A directory takes no file's place, nor a file a directory's.
fn unpacked_in(path: String) -> UploadToContainerOptions {
    UploadToContainerOptions { path, no_overwrite_dir_non_dir: Some("1".into()), ..UploadToContainerOptions::default() }
}

/// `DIR/.` is what is in it.
fn is_content(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/.")
}

struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_told_from_a_path() {
        assert_eq!(remote("web.1:/etc"), Some(("web.1", "/etc")));
        for local in ["/a:b", "./a:b", "plain", ":x", "x:"] {
            assert_eq!(remote(local), None, "{local}");
        }
    }

    #[test]
    fn what_comes_is_named_as_asked_for_and_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let packed = |name: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o600);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, b"x".as_slice()).unwrap();
            archive.into_inner().unwrap()
        };
        unpack(packed("file").as_slice(), folder.path(), Some("other".as_ref()), false).unwrap();
        unpack(packed("file").as_slice(), folder.path(), None, false).unwrap();
        assert!(folder.path().join("other").is_file() && folder.path().join("file").is_file());
        assert!(unpack(packed("../out").as_slice(), folder.path(), None, false).is_err());
        // Of the root.
        unpack(packed("/etc/file").as_slice(), folder.path(), Some("whole".as_ref()), false).unwrap();
        assert!(folder.path().join("whole/etc/file").is_file());
        // Of a directory's content.
        unpack(packed("./sub/file").as_slice(), folder.path(), Some("content".as_ref()), false).unwrap();
        assert!(folder.path().join("content/sub/file").is_file());
    }

    #[test]
    fn nothing_goes_through_a_link_however_deep() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, into) = (folder.path().join("outside"), folder.path().join("into"));
        std::fs::create_dir_all(outside.join("sub")).unwrap();
        std::fs::write(outside.join("file"), "theirs").unwrap();
        std::fs::create_dir(&into).unwrap();
        let archive = |kind, name: &str, link: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            let header = |kind| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(0);
                header.set_mode(0o755);
                header
            };
            archive.append_link(&mut header(tar::EntryType::Symlink), "a/l", &outside).unwrap();
            match link {
                "" => archive.append_data(&mut header(kind), name, std::io::empty()).unwrap(),
                link => archive.append_link(&mut header(kind), name, link).unwrap(),
            }
            archive.into_inner().unwrap()
        };
        let (file, directory, link) = (tar::EntryType::Regular, tar::EntryType::Directory, tar::EntryType::Link);
        for (kind, name, to) in [
            (file, "a/l/x", ""),
            (file, "a/l/sub/x", ""),
            (directory, "a/l/sub/made", ""),
            (directory, "a/l", ""),
            (link, "a/mine", "a/l/file"),
            (link, "a/mine", "../outside/file"),
        ] {
            let refused = unpack(archive(kind, name, to).as_slice(), &into, None, false);
            assert!(refused.is_err(), "{name} {to}");
        }
        assert_eq!(outside.read_dir().unwrap().count(), 2);
        assert!(!into.join("a/mine").exists() && !outside.join("sub/x").exists());
        // The link itself is replaced, and one file may be another.
        unpack(archive(file, "a/l", "").as_slice(), &into, None, false).unwrap();
        unpack(archive(link, "a/mine", "a/l").as_slice(), &into, None, false).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "theirs");
    }
}
