//! Reading a container's log: the last lines, since a time, and following it across rotations.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{CLOSED, CURRENT};
use crate::runtime::Runtime;
use crate::runtime::error::{Result, RuntimeError};
use crate::spec::{Labels, TaskId};

/// Lines read ahead of who reads them.
const QUEUE: usize = 256;
const BLOCK_BYTES: u64 = 64 * 1024;
/// How often a folder is looked at for a moment in which nothing is renamed there.
const LOOKS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time: Timestamp,
    pub stream: LogStream,
    /// With its line end, but for a line that was cut or never ended.
    pub text: String,
    /// What the log's options (`labels`, `env`, `tag`) keep with each line.
    pub attributes: Labels,
}

#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// The last so many lines; `None`: all that is kept.
    pub tail: Option<u64>,
    /// Only entries from this time on.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Go on with what is written from now on, until the container ends.
    pub follow: bool,
}

#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: String,
    time: String,
    #[serde(default)]
    attrs: Labels,
}

impl Runtime {
    /// The log of a task on this node. Ends with the log, or when the receiver is dropped.
    pub fn logs(&self, task: TaskId, query: LogQuery) -> Result<mpsc::Receiver<LogLine>> {
        let dir = self.task_dir(task);
        if !dir.exists() {
            return Err(RuntimeError::NotRunning(task));
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            if let Err(error) = follow(dir, query, sender).await {
                tracing::warn!(%task, %error, "reading a log ended early");
            }
        });
        Ok(receiver)
    }
}

async fn follow(dir: PathBuf, query: LogQuery, sender: mpsc::Sender<LogLine>) -> io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(
        &dir,
        AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF,
    )?;
    let readiness = inotify.as_fd().try_clone_to_owned()?;
    // SAFETY: an owned descriptor gives the same open descriptor at every call.
    let changes = unsafe { AsyncFd::register(readiness)? };
    let mut cursor = Cursor::start(&dir, query.tail)?;
    loop {
        // Looked at before reading: whatever was written before it, is read now.
        let closed = dir.join(CLOSED).exists() || !dir.exists();
        if !pump(&mut cursor, &query, &sender).await? || !query.follow || closed {
            return Ok(());
        }
        tokio::select! {
            ready = changes.readable() => {
                let mut ready = ready?;
                while inotify.read_events().is_ok() {}
                ready.clear_ready();
            }
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Sends all there is now; false when nobody wants more.
async fn pump(cursor: &mut Cursor, query: &LogQuery, sender: &mpsc::Sender<LogLine>) -> io::Result<bool> {
    while let Some(line) = cursor.next_line()? {
        // What is no entry was torn by a full disk.
        let Ok(entry) = serde_json::from_slice::<Entry>(&line) else {
            continue;
        };
        let Ok(time) = entry.time.parse::<Timestamp>() else {
            continue;
        };
        if query.until.is_some_and(|until| time > until) {
            return Ok(false);
        }
        if query.since.is_some_and(|since| time < since) {
            continue;
        }
        let stream = if entry.stream == "stderr" { LogStream::Stderr } else { LogStream::Stdout };
        if sender.send(LogLine { time, stream, text: entry.log, attributes: entry.attrs }).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A place in the chain of files, oldest to newest.
struct Cursor {
    dir: PathBuf,
    reader: Option<BufReader<File>>,
    inode: u64,
    /// A line whose end has not been written yet.
    partial: Vec<u8>,
}

impl Cursor {
    fn start(dir: &Path, tail: Option<u64>) -> io::Result<Cursor> {
        let mut cursor = Cursor { dir: dir.to_owned(), reader: None, inode: 0, partial: Vec::new() };
        let mut start = None;
        let mut wanted = tail;
        for found in files(dir) {
            let Some(mut file) = found.open()? else { continue };
            let mut offset = 0;
            if let Some(wanted) = &mut wanted {
                let (begin, lines) = last_lines(&mut file, *wanted)?;
                offset = begin;
                *wanted -= lines.min(*wanted);
            }
            start = Some((found.inode, file, offset));
            if wanted == Some(0) {
                break;
            }
        }
        if let Some((inode, file, offset)) = start {
            cursor.read(inode, file, offset)?;
        }
        Ok(cursor)
    }

    fn read(&mut self, inode: u64, mut file: File, offset: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        self.inode = inode;
        self.reader = Some(BufReader::new(file));
        self.partial.clear();
        Ok(())
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.rest()? {
                return Ok(Some(line));
            }
            let Some((inode, newer)) = self.newer()? else {
                return Ok(None);
            };
            // Nothing is written to a file once there is a newer one, but something may have been since it was read.
            if let Some(line) = self.rest()? {
                return Ok(Some(line));
            }
            self.read(inode, newer, 0)?;
        }
    }

    /// The next line of the file that is being read.
    fn rest(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        reader.read_until(b'\n', &mut self.partial)?;
        Ok((self.partial.last() == Some(&b'\n')).then(|| std::mem::take(&mut self.partial)))
    }

    /// The file after the one that is being read. `None` may mean that files are being renamed just now; a change of
    /// the folder follows then.
    fn newer(&self) -> io::Result<Option<(u64, File)>> {
        let files = files(&self.dir);
        let newer = match &self.reader {
            None => files.last(),
            Some(reader) => match files.iter().position(|file| file.inode == self.inode) {
                Some(at) => at.checked_sub(1).map(|newer| &files[newer]),
                // It was rotated away altogether: go on with the oldest that is left.
                None if reader.get_ref().metadata()?.nlink() == 0 => files.last(),
                None => None,
            },
        };
        let Some(newer) = newer else { return Ok(None) };
        Ok(newer.open()?.map(|file| (newer.inode, file)))
    }
}

/// A file of a log, as it was called when the folder was looked at.
#[derive(PartialEq, Eq)]
struct Found {
    path: PathBuf,
    inode: u64,
}

impl Found {
    /// `None` where the name is another file's by now.
    fn open(&self) -> io::Result<Option<File>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        Ok((file.metadata()?.ino() == self.inode).then_some(file))
    }
}

/// The log's files, newest first: what two looks agree on, as the writer may be renaming them.
fn files(dir: &Path) -> Vec<Found> {
    let mut seen = look(dir);
    for _ in 0..LOOKS {
        let again = look(dir);
        if again == seen {
            return seen;
        }
        seen = again;
    }
    Vec::new()
}

fn look(dir: &Path) -> Vec<Found> {
    let named = |number: usize| {
        let path = if number == 0 { dir.join(CURRENT) } else { dir.join(format!("{CURRENT}.{number}")) };
        let inode = fs::metadata(&path).ok()?.ino();
        Some(Found { path, inode })
    };
    let mut files = Vec::new();
    let mut missing = 0;
    // One name is nobody's while files move up.
    for number in 0.. {
        match named(number) {
            Some(file) => {
                files.push(file);
                missing = 0;
            }
            None if missing == 1 => break,
            None => missing += 1,
        }
    }
    files
}

/// Where the last `wanted` lines of a file begin, and how many there are.
fn last_lines(file: &mut File, wanted: u64) -> io::Result<(u64, u64)> {
    let len = file.metadata()?.len();
    let mut end = len;
    let mut found = 0;
    if wanted == 0 {
        return Ok((len, 0));
    }
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        let mut block = vec![0; usize::try_from(end - start).expect("a block is small")];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + at as u64 + 1;
            if after == len {
                continue;
            }
            found += 1;
            if found == wanted {
                return Ok((after, found));
            }
        }
        end = start;
    }
    Ok((0, found + u64::from(len > 0)))
}
