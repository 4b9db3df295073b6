//! `flok cp`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bollard::query_parameters::{ContainerArchiveInfoOptions, DownloadFromContainerOptions, UploadToContainerOptions};
use clap::Args;
use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::find;
use crate::api::client::Client;

/// Large files and slow networks.
const WITHIN: Duration = Duration::from_secs(24 * 3600);
/// Go's bit for a directory, in what Docker's API says of a mode.
const GOS_DIRECTORY: u32 = 1 << 31;
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

A directory that is there gets the copy below its own name, or the content of DIR/.; anything else becomes it.")]
pub struct Copy {
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
            (Some((task, path)), None) if self.to == "-" => print_archive(client, task, path).await,
            (None, Some((task, path))) if self.from == "-" => upload_archive(client, task, path).await,
            (Some((task, path)), None) => download(client, task, path, Path::new(&self.to)).await,
            (None, Some((task, path))) => upload(client, Path::new(&self.from), task, path).await,
            (None, None) => bail!("neither is in a task: write TASK:PATH for one of them"),
            (Some(_), Some(_)) => bail!("both are in tasks: copy to this machine, and from there"),
        }
    }
}

/// The archive as it comes.
async fn print_archive(client: &Client, task: &str, path: &str) -> anyhow::Result<()> {
    let container = find(client, task).await?;
    if std::io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal: send it to a file or to tar");
    }
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let mut pieces = Box::pin(client.patient(WITHIN).download_from_container(&container, Some(options)));
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

async fn download(client: &Client, task: &str, path: &str, to: &Path) -> anyhow::Result<()> {
    let container = find(client, task).await?;
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let pieces = client.patient(WITHIN).download_from_container(&container, Some(options));
    let pieces = Box::pin(pieces.map_err(|error| std::io::Error::other(client_words(error))));
    let mut archive = SyncIoBridge::new(StreamReader::new(pieces));
    // Under its own name in a directory that is there, else as what is named.
    let (into, name) = match to.is_dir() {
        true => (to.to_owned(), None),
        false => {
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (parent.to_owned(), Some(to.file_name().context("the target has no name")?.to_owned()))
        }
    };
    if !into.is_dir() {
        bail!("there is no directory {}", into.display());
    }
    tokio::task::block_in_place(|| unpack(&mut archive, &into, name.as_deref()))
}

fn client_words(error: bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message,
        other => other.to_string(),
    }
}

fn unpack(archive: impl Read, into: &Path, name: Option<&OsStr>) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let inside = inside(&entry.path()?, name)?;
        let target = into.join(&inside);
        let kind = entry.header().entry_type();
        let is_directory = kind.is_dir();
        let dir = if is_directory { Some(inside.as_path()) } else { inside.parent() };
        make(into, dir.unwrap_or(Path::new("")))?;
        if is_directory {
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

async fn upload(client: &Client, from: &Path, task: &str, path: &str) -> anyhow::Result<()> {
    let found = from.metadata().with_context(|| format!("cannot read {}", from.display()))?;
    let container = find(client, task).await?;
    let docker = client.patient(WITHIN);
    let asked = ContainerArchiveInfoOptions { path: path.to_owned() };
    let stat = docker.get_container_archive_info(&container, Some(asked)).await;
    let is_directory = stat.is_ok_and(|stat| stat.file_mode & GOS_DIRECTORY != 0);
    if path.ends_with('/') && !is_directory && !found.is_dir() {
        bail!(
            "there is no directory {path} in {task}: make it first, or leave the slash out to give the file that name"
        );
    }
    let target = Path::new(path);
    let own = match is_content(from) {
        true => PathBuf::from("."),
        false => from.canonicalize()?.file_name().map(PathBuf::from).unwrap_or_default(),
    };
    let (into, name) = match (is_directory, target.parent(), target.file_name()) {
        (false, Some(parent), Some(name)) => (parent.display().to_string(), PathBuf::from(name)),
        _ => (path.to_owned(), own),
    };
    let (pieces, packed) = mpsc::channel(8);
    let from = from.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack(&from, &name, found.is_dir(), Pieces(pieces)));
    let stream = futures::stream::unfold(packed, |mut packed| async move { Some((packed.recv().await?, packed)) });
    let options = unpacked_in(if into.is_empty() { "/".into() } else { into });
    let sent = docker.upload_to_container(&container, Some(options), bollard::body_stream(stream)).await;
    // What the daemon says comes before what the broken pipe says.
    sent.map_err(|error| client.explain(error))?;
    packing.await?.context("the files cannot be packed")
}

/// A directory takes no file's place, nor a file a directory's.
fn unpacked_in(path: String) -> UploadToContainerOptions {
    UploadToContainerOptions { path, no_overwrite_dir_non_dir: Some("1".into()), ..UploadToContainerOptions::default() }
}

/// `DIR/.` is what is in it.
fn is_content(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/.")
}

struct Pieces(mpsc::Sender<bytes::Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(bytes::Bytes::copy_from_slice(bytes));
        sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn pack(from: &Path, name: &Path, is_directory: bool, to: Pieces) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(PIECE_BYTES, to));
    archive.follow_symlinks(false);
    match is_directory {
        true => archive.append_dir_all(name, from)?,
        false => archive.append_file(name, &mut File::open(from)?)?,
    }
    archive.into_inner()?.flush()
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
        unpack(packed("file").as_slice(), folder.path(), Some("other".as_ref())).unwrap();
        unpack(packed("file").as_slice(), folder.path(), None).unwrap();
        assert!(folder.path().join("other").is_file() && folder.path().join("file").is_file());
        assert!(unpack(packed("../out").as_slice(), folder.path(), None).is_err());
        // Of the root.
        unpack(packed("/etc/file").as_slice(), folder.path(), Some("whole".as_ref())).unwrap();
        assert!(folder.path().join("whole/etc/file").is_file());
        // Of a directory's content.
        unpack(packed("./sub/file").as_slice(), folder.path(), Some("content".as_ref())).unwrap();
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
            let refused = unpack(archive(kind, name, to).as_slice(), &into, None);
            assert!(refused.is_err(), "{name} {to}");
        }
        assert_eq!(outside.read_dir().unwrap().count(), 2);
        assert!(!into.join("a/mine").exists() && !outside.join("sub/x").exists());
        // The link itself is replaced, and one file may be another.
        unpack(archive(file, "a/l", "").as_slice(), &into, None).unwrap();
        unpack(archive(link, "a/mine", "a/l").as_slice(), &into, None).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "theirs");
    }
}
