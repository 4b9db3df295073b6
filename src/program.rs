//! Runs a program of the host to its end: for so long and no longer, with nothing of the terminal's, and an answer of bounded
//! size. Whoever runs one comes here; what lives on beside the daemon (containerd, the resolver) is started by its owner.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock")]

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Of a program's output, unless its caller allows for more.
const MAX_OUTPUT: usize = 64 << 10;
/// Of what it says when it fails; the rest is read and dropped.
const MAX_SAID: usize = 4 << 10;
/// Lines of that in an error.
const LINES_TOLD: usize = 3;
/// Between two looks whether it has ended: the first, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

/// Nothing of the program is left when one of these is told, but for what it started in another process group.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("cannot run {program}: is it installed and on the PATH?")]
    Start { program: String, source: io::Error },
    #[error("{program} had not ended after {within:?}, and was killed")]
    TimedOut { program: String, within: Duration },
    #[error("{program} gave more than {most} bytes, and was killed")]
    TooMuch { program: String, most: usize },
    #[error("{program} failed ({status}){}", told(said))]
    Failed { program: String, status: ExitStatus, said: String },
    #[error("cannot speak with {program}")]
    Pipe { program: String, source: io::Error },
}

impl ProgramError {
    /// What the program said on its error output, where it failed by itself.
    pub fn said(&self) -> Option<&str> {
        match self {
            ProgramError::Failed { said, .. } => Some(said),
            _ => None,
        }
    }
}

/// One run of a program.
#[derive(Debug)]
pub struct Program {
    name: OsString,
    args: Vec<OsString>,
    input: Vec<u8>,
    within: Duration,
    most: usize,
}

impl Program {
    /// Looked for on the PATH; killed, with its process group, where it takes longer than `within`.
    pub fn new(name: impl AsRef<OsStr>, within: Duration) -> Program {
        Program { name: name.as_ref().to_owned(), args: Vec::new(), input: Vec::new(), within, most: MAX_OUTPUT }
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What it reads; nothing otherwise.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Program {
        self.input = bytes.into();
        self
    }

    /// Killed where it writes more bytes than so many.
    pub fn at_most(mut self, bytes: usize) -> Program {
        self.most = bytes;
        self
    }

    /// What it wrote. Blocks until it has ended; the calling thread is the one that starts it.
    pub fn run(self) -> Result<Vec<u8>, ProgramError> {
        let program = self.name.to_string_lossy().into_owned();
        let until = Instant::now() + self.within;
        let mut command = Command::new(&self.name);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        without_own_settings(&mut command);
        let started = command.spawn();
        let mut child = started.map_err(|source| ProgramError::Start { program: program.clone(), source })?;
        let ended = self.attend(&mut child, until);
        if ended.is_err() {
            end(&mut child);
        }
        let told = ended.map_err(|trouble| trouble.told(&program, self.within, self.most))?;
        if told.status.success() {
            return Ok(told.output);
        }
        let said = String::from_utf8_lossy(&told.said).trim().to_owned();
        Err(ProgramError::Failed { program, status: told.status, said })
    }

    fn attend(&self, child: &mut Child, until: Instant) -> Result<Ended, Trouble> {
        let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = self.input.clone();
        // One that ends without reading it all says by its exit what it thinks of it.
        beside(move || drop(stdin.take().map(|mut stdin| stdin.write_all(&input))))?;
        let output = read(stdout, self.most + 1, false)?;
        let said = read(stderr, MAX_SAID, true)?;
        let mut wait = LOOKS.0;
        let mut written = None;
        loop {
            if written.is_none() {
                written = output.try_recv().ok().transpose().map_err(Trouble::Pipe)?;
                if written.as_ref().is_some_and(|output| output.len() > self.most) {
                    return Err(Trouble::TooMuch);
                }
            }
            if let Some(status) = child.try_wait().map_err(Trouble::Pipe)? {
                let output = match written {
                    Some(output) => output,
                    None => rest(&output, until)?,
                };
                if output.len() > self.most {
                    return Err(Trouble::TooMuch);
                }
                return Ok(Ended { status, output, said: rest(&said, until)? });
            }
            if Instant::now() >= until {
                return Err(Trouble::TimedOut);
            }
            thread::sleep(wait);
            wait = (wait * 2).min(LOOKS.1);
        }
    }
}

struct Ended {
    status: ExitStatus,
    output: Vec<u8>,
    said: Vec<u8>,
}

enum Trouble {
    TimedOut,
    TooMuch,
    Pipe(io::Error),
}

impl Trouble {
    fn told(self, program: &str, within: Duration, most: usize) -> ProgramError {
        let program = program.to_owned();
        match self {
            Trouble::TimedOut => ProgramError::TimedOut { program, within },
            Trouble::TooMuch => ProgramError::TooMuch { program, most },
            Trouble::Pipe(source) => ProgramError::Pipe { program, source },
        }
    }
}

/// Up to `most` bytes of a pipe, on a thread of its own; what comes behind them is read too where it is to be dropped.
fn read(
    pipe: Option<impl Read + Send + 'static>,
    most: usize,
    drop_rest: bool,
) -> Result<Receiver<io::Result<Vec<u8>>>, Trouble> {
    let (tell, told) = mpsc::channel();
    let mut pipe = pipe.expect("the pipe was asked for");
    beside(move || {
        let mut bytes = Vec::new();
        let mut whole = pipe.by_ref().take(most as u64).read_to_end(&mut bytes);
        if whole.is_ok() && drop_rest {
            whole = io::copy(&mut pipe, &mut io::sink()).map(|_| 0);
        }
        // Nobody waits for what came too late.
        let _ = tell.send(whole.map(|_| bytes));
    })?;
    Ok(told)
}

fn beside(work: impl FnOnce() + Send + 'static) -> Result<(), Trouble> {
    thread::Builder::new().name("flok-program".into()).spawn(work).map(drop).map_err(Trouble::Pipe)
}

/// What a program that has ended wrote; another one that it started may hold the pipe open.
fn rest(pipe: &Receiver<io::Result<Vec<u8>>>, until: Instant) -> Result<Vec<u8>, Trouble> {
    match pipe.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(read) => read.map_err(Trouble::Pipe),
        Err(_) => Err(Trouble::TimedOut),
    }
}

/// Its process group may outlive it, so that is killed in any case.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().map(Pid::from_raw);
    // Who has ended already is not there to be killed.
    let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    let _ = child.wait();
}

fn told(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES_TOLD).collect();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) }
}

/// The daemon's own settings are nobody else's: its supervisor's socket, its keys.
pub fn without_own_settings(command: &mut Command) {
    command.env_remove("NOTIFY_SOCKET");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FLOK_")) {
        command.env_remove(name);
    }
}

/// The program gets a session of its own, which keeps it from the signals of the daemon's terminal and process group.
pub fn in_own_session(command: &mut Command) {
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(io::Error::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any of these programs takes on a loaded machine.
    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, within: Duration) -> Program {
        Program::new("sh", within).args(["-c", script])
    }

    #[test]
    fn what_it_wrote_is_returned_and_it_reads_what_it_is_given() {
        let large = vec![b'x'; 50_000];
        assert_eq!(sh("cat", LONG).input(large.clone()).run().unwrap(), large);
        assert_eq!(sh("cat", LONG).run().unwrap(), b"", "nothing of the terminal's");
        assert!(sh("exit 0", LONG).input(vec![0; 1 << 20]).run().is_ok(), "one that reads nothing of it");
    }

    #[test]
    fn a_failure_names_program_exit_and_first_words() {
        let script = "echo; echo one >&2; echo two >&2; echo three >&2; echo four >&2; exit 7";
        let error = sh(script, LONG).run().unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 7): one; two; three");
        assert_eq!(error.said(), Some("one\ntwo\nthree\nfour"));
        let flood = sh("yes error | head -c 1000000 >&2; exit 1", LONG).run().unwrap_err();
        assert_eq!(flood.to_string(), "sh failed (exit status: 1): error; error; error");
    }

    #[test]
    fn one_that_does_not_end_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let error = sh(&script, Duration::from_secs(2)).run().unwrap_err();
        assert_eq!(error.to_string(), "sh had not ended after 2s, and was killed");
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let gone = |stat: Option<String>| stat.is_none_or(|stat| stat.contains(") Z ") || stat.contains(") X "));
        while !gone(state()) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_that_says_too_much_is_killed() {
        let error = sh("yes", LONG).run().unwrap_err();
        assert_eq!(error.to_string(), "sh gave more than 65536 bytes, and was killed");
        let error = sh("yes", LONG).at_most(1_000_000).run().unwrap_err();
        assert_eq!(error.to_string(), "sh gave more than 1000000 bytes, and was killed");
        assert_eq!(sh("head -c 1000000 /dev/zero", LONG).at_most(1_000_000).run().unwrap().len(), 1_000_000);
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let error = Program::new("no-such-program", LONG).run().unwrap_err();
        assert_eq!(error.to_string(), "cannot run no-such-program: is it installed and on the PATH?");
    }
}
