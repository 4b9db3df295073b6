//! The log writer: a process of its own for each container, started by containerd's shim with stdout on descriptor 3 and
//! stderr on 4, which waits until 5 is closed. Small and synchronous; it ends when both streams do.
//!
//! It never blocks the container for long: what cannot be written (a full disk, a collector that is away) is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::forward::{DRAIN_WITHIN, Forwarder};
use super::syslog::Line;
use super::{CLOSED, LogTarget};

/// Longest line that is kept whole, as in Docker; a longer one becomes several entries.
const MAX_LINE_BYTES: usize = 16 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// Runs as the log writer with the target from [`LogTarget::uri`]; returns the process's exit code.
pub fn run(target: &str) -> i32 {
    let Ok(target) = serde_json::from_str::<LogTarget>(target) else {
        eprintln!("flok's log writer is started by containerd, not by hand");
        return 2;
    };
    // SAFETY: the handler is the kernel's own. The shim sends SIGTERM when the container is deleted, and waits for what
    // is still in the pipes; their end is the sign to leave.
    let _ = unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) };
    // SAFETY: the shim's contract: these three descriptors are open and ours.
    let (stdout, stderr, ready) = unsafe { (File::from_raw_fd(3), File::from_raw_fd(4), File::from_raw_fd(5)) };
    let mut log = match Log::open(target) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("flok's log writer: {error}");
            return 1;
        }
    };
    drop(ready);
    copy(stdout, stderr, &mut log);
    log.close();
    0
}

fn copy(stdout: File, stderr: File, log: &mut Log) {
    let mut streams = [Some(Source::new("stdout", stdout)), Some(Source::new("stderr", stderr))];
    while streams.iter().any(Option::is_some) {
        let open: Vec<&Source> = streams.iter().flatten().collect();
        let mut fds: Vec<PollFd<'_>> =
            open.iter().map(|source| PollFd::new(source.file.as_fd(), PollFlags::POLLIN)).collect();
        if matches!(poll(&mut fds, PollTimeout::NONE), Err(error) if error != nix::errno::Errno::EINTR) {
            return;
        }
        let mut readable = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<bool>>().into_iter();
        drop(fds);
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
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => 0,
        };
        if count == 0 {
            if !self.line.is_empty() {
                log.entry(self.name, &std::mem::take(&mut self.line));
            }
            log.flush();
            return false;
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
}

impl Log {
    fn open(target: LogTarget) -> io::Result<Log> {
        let file = File::options().create(true).append(true).open(target.current())?;
        let _ = fs::remove_file(target.dir.join(CLOSED));
        let size = file.metadata()?.len();
        let context = target.context()?;
        let attributes = context.attributes;
        let forwarder = context.forward.map(|forward| Forwarder::start(forward, attributes.clone())).transpose()?;
        Ok(Log { target, file, size, pending: Vec::new(), kept: context.kept, attributes, forwarder })
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
    }
}
