//! The log writer: a process of its own for each container, started by containerd's shim with stdout on descriptor 3 and
//! stderr on 4, which waits until 5 is closed; or by the daemon, with named pipes in the log's directory. Small and
//! synchronous; it ends when both streams do. It holds the container's input open, where it has one.
//!
//! It never blocks the container for long: what cannot be written (a full disk, a collector that is away) is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::forward::{DRAIN_WITHIN, Forwarder};
use super::live::Live;
use super::syslog::Line;
use super::{CLOSED, LogTarget};
use crate::runtime::input::{STDERR, STDIN, STDOUT};

/// Longest line that is kept whole, as in Docker; a longer one becomes several entries.
const MAX_LINE_BYTES: usize = 16 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// Runs as the log writer with the target from [`LogTarget::uri`]; returns the process's exit code.
pub fn run(target: &str) -> i32 {
    let Some(target) = read(target) else { return 2 };
    // SAFETY: the shim's contract: these three descriptors are open and ours.
    let (stdout, stderr, ready) = unsafe { (File::from_raw_fd(3), File::from_raw_fd(4), File::from_raw_fd(5)) };
    write(target, stdout, stderr, || drop(ready))
}

/// The same for a container whose output goes through named pipes; says that it is there by a byte on its own output.
pub fn run_on_pipes(target: &str) -> i32 {
    let Some(target) = read(target) else { return 2 };
    // Opened without waiting for the shim, which waits for this.
    let open = |name| File::options().read(true).custom_flags(libc::O_NONBLOCK).open(target.dir.join(name));
    match (open(STDOUT), open(STDERR)) {
        (Ok(stdout), Ok(stderr)) => write(target, stdout, stderr, || {
            let mut daemon = io::stdout();
            // A daemon that has ended meanwhile is told nothing.
            let _ = daemon.write_all(b"\n").and_then(|()| daemon.flush());
        }),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("flok's log writer: {error}");
            1
        }
    }
}

fn read(target: &str) -> Option<LogTarget> {
    let read = serde_json::from_str(target).ok();
    if read.is_none() {
        eprintln!("flok's log writer is started by containerd, not by hand");
    }
    read
}

fn write(target: LogTarget, stdout: File, stderr: File, ready: impl FnOnce()) -> i32 {
    // SAFETY: the handler is the kernel's own. The shim sends SIGTERM when the container is deleted, and waits for what
    // is still in the pipes; their end is the sign to leave.
    let _ = unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) };
    // As long as it is open here too, its reader never comes to the end; opened for both, it waits for nobody.
    let _input = File::options().read(true).write(true).open(target.dir.join(STDIN)).ok();
    let mut log = match Log::open(target) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("flok's log writer: {error}");
            return 1;
        }
    };
    ready();
    copy(stdout, stderr, &mut log);
    log.close();
    0
}

fn copy(stdout: File, stderr: File, log: &mut Log) {
    let mut streams = [Some(Source::new("stdout", stdout)), Some(Source::new("stderr", stderr))];
    while streams.iter().any(Option::is_some) {
        let sources = streams.iter().flatten().map(|source| PollFd::new(source.file.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = sources.collect();
        let count = fds.len();
        let listeners = log.live.iter().flat_map(Live::watched);
        fds.extend(listeners.map(|(fd, writes)| {
            let flags = if writes { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            PollFd::new(fd, flags)
        }));
        if matches!(poll(&mut fds, PollTimeout::NONE), Err(error) if error != nix::errno::Errno::EINTR) {
            return;
        }
        let happened: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        if let (true, Some(live)) = (happened[count..].contains(&true), &mut log.live) {
            live.attend();
        }
        let mut readable = happened.into_iter().take(count);
        for stream in &mut streams {
            if let Some(source) = stream
                && readable.next().unwrap_or(false)
                && !source.pump(log)
            {
                *stream = None;
            }
        }
    }
}

/// One stream, and its line that is not complete yet.
struct Source {
    name: &'static str,
    file: File,
    line: Vec<u8>,
}

impl Source {
    fn new(name: &'static str, file: File) -> Source {
        Source { name, file, line: Vec::new() }
    }

    /// Takes what is there; false at the end.
    fn pump(&mut self, log: &mut Log) -> bool {
        let mut buffer = vec![0; READ_BYTES];
        let count = match self.file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                return true;
            }
            Err(_) => 0,
        };
        if count == 0 {
            if !self.line.is_empty() {
                log.entry(self.name, &std::mem::take(&mut self.line));
            }
            log.flush();
            return false;
        }
        if let Some(live) = &mut log.live {
            live.tell(self.name == "stderr", &buffer[..count]);
        }
        for part in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            while self.line.len() > MAX_LINE_BYTES {
                let rest = self.line.split_off(MAX_LINE_BYTES);
                log.entry(self.name, &std::mem::replace(&mut self.line, rest));
            }
            if self.line.last() == Some(&b'\n') {
                log.entry(self.name, &std::mem::take(&mut self.line));
            }
        }
        log.tell();
        log.flush();
        true
    }
}

struct Log {
    target: LogTarget,
    file: File,
    size: u64,
    pending: Vec<u8>,
    /// Lines go to the files, too.
    kept: bool,
    attributes: BTreeMap<String, String>,
    forwarder: Option<Forwarder>,
    /// For who is attached; `None` where its socket cannot be made.
    live: Option<Live>,
}

impl Log {
    fn open(target: LogTarget) -> io::Result<Log> {
        let file = File::options().create(true).append(true).open(target.current())?;
        let _ = fs::remove_file(target.dir.join(CLOSED));
        let size = file.metadata()?.len();
        let context = target.context()?;
        let attributes = context.attributes;
        let forwarder = context.forward.map(|forward| Forwarder::start(forward, attributes.clone())).transpose()?;
        let (kept, live) = (context.kept, Live::open(&target.dir).ok());
        Ok(Log { target, file, size, pending: Vec::new(), kept, attributes, forwarder, live })
    }

    fn entry(&mut self, stream: &str, line: &[u8]) {
        let time = jiff::Timestamp::now();
        if let Some(forwarder) = &self.forwarder {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let (text, partial) = (text.to_owned(), line.len() >= MAX_LINE_BYTES && text.len() == line.len());
            forwarder.push(Line { stderr: stream == "stderr", time, text, partial });
        }
        self.keep(stream, line, time);
    }

    /// Says in the log of the container what its collector did not get.
    fn tell(&mut self) {
        if let Some(note) = self.forwarder.as_mut().and_then(Forwarder::note) {
            self.keep("stderr", note.as_bytes(), jiff::Timestamp::now());
        }
    }

    fn keep(&mut self, stream: &str, line: &[u8], time: jiff::Timestamp) {
        if !self.kept {
            return;
        }
        let mut entry = serde_json::json!({
            "log": String::from_utf8_lossy(line),
            "stream": stream,
            "time": format!("{time:.9}"),
        });
        if !self.attributes.is_empty() {
            entry["attrs"] = serde_json::json!(self.attributes);
        }
        let text = entry.to_string();
        let full = self.size + (self.pending.len() + text.len()) as u64 >= self.target.max_bytes;
        if full && self.size + self.pending.len() as u64 > 0 {
            self.flush();
            self.rotate();
        }
        self.pending.extend_from_slice(text.as_bytes());
        self.pending.push(b'\n');
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match self.file.write_all(&self.pending) {
            Ok(()) => self.size += self.pending.len() as u64,
            // A torn entry must not swallow the next one.
            Err(_) => {
                let _ = self.file.set_len(self.size);
            }
        }
        self.pending.clear();
    }

    /// The oldest file goes, the others move up by one, and a new one begins.
    fn rotate(&mut self) {
        let keep = self.target.max_files.saturating_sub(1);
        if keep == 0 {
            if self.file.set_len(0).is_ok() {
                self.size = 0;
            }
            return;
        }
        for number in (1..keep).rev() {
            let _ = fs::rename(self.target.rotated(number), self.target.rotated(number + 1));
        }
        let _ = fs::rename(self.target.current(), self.target.rotated(1));
        if let Ok(file) = File::options().create(true).append(true).open(self.target.current()) {
            self.file = file;
            self.size = 0;
        }
    }

    fn close(mut self) {
        if let Some(note) = self.forwarder.take().and_then(|forwarder| forwarder.finish(DRAIN_WITHIN)) {
            self.keep("stderr", note.as_bytes(), jiff::Timestamp::now());
        }
        self.flush();
        let _ = File::create(self.target.dir.join(CLOSED));
        if let Some(live) = self.live {
            live.close();
        }
    }
}
