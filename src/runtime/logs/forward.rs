//! Passes lines on to a collector: a queue of bounded size, and a thread that empties it. Whoever puts lines in never waits;
//! what finds no room is dropped, counted, and told in the log that is kept on the node and to the collector itself once
//! it is there again. Driven by the log writer.

#![expect(clippy::disallowed_methods, reason = "attempts and what is told of them are paced by the clock")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::socket::{MsgFlags, recv};

use super::Forward;
use super::syslog::{Line, framed, journal_entry, syslog_message};
use super::tls::TlsWire;
use crate::spec::logging::{Collector, SyslogAddress};

const JOURNAL: &str = "/run/systemd/journal/socket";
const LOCAL_SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Between attempts to reach a collector: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// For lines that still wait when the container has ended.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// Drops are told no more often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// What a line costs beside its text.
const LINE_BYTES: u64 = 64;

pub struct Forwarder {
    queue: Arc<Queue>,
    /// Where lines go, for people.
    name: String,
    told: Option<Instant>,
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most_bytes: u64,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    bytes: u64,
    /// Dropped and not told yet: in the node's log, and to the collector.
    untold_here: u64,
    untold_there: u64,
    /// Why the last attempt failed.
    error: String,
    /// No more lines come; those that wait are given up then.
    until: Option<Instant>,
    is_done: bool,
}

impl State {
    fn drop_lines(&mut self, count: u64) {
        self.untold_here += count;
        self.untold_there += count;
    }

    fn take_first(&mut self) {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= cost(&line);
        }
    }
}

fn cost(line: &Line) -> u64 {
    line.text.len() as u64 + LINE_BYTES
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// The first line, which stays until it is sent; `None`: there will be none.
    fn first(&self) -> Option<(Line, u64)> {
        let waiting = |state: &mut State| state.lines.is_empty() && state.until.is_none();
        let state = self.changed.wait_while(self.state(), waiting).expect("nothing panics while it is held");
        state.lines.front().cloned().map(|line| (line, state.untold_there))
    }

    fn sent(&self, told: u64) {
        let mut state = self.state();
        state.take_first();
        state.untold_there -= told;
    }

    /// Waits before the next attempt; false where there is to be none.
    fn pause(&self, error: &io::Error, pause: Duration) -> bool {
        let mut state = self.state();
        state.error = error.to_string();
        let closes = state.until.is_some();
        let pause = if closes { PAUSES.0 } else { pause };
        let open = |state: &mut State| closes == state.until.is_some();
        let waited = self.changed.wait_timeout_while(state, pause, open).expect("nothing panics while it is held");
        waited.0.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Forwarder {
    pub fn start(forward: Forward, attributes: BTreeMap<String, String>) -> io::Result<Forwarder> {
        let name = name_of(&forward.collector);
        let queue =
            Arc::new(Queue { state: Mutex::default(), changed: Condvar::new(), most_bytes: forward.buffer_bytes });
        let courier = Courier { queue: Arc::clone(&queue), forward, attributes, wire: None };
        thread::Builder::new().name("forward".into()).spawn(move || courier.run())?;
        Ok(Forwarder { queue, name, told: None })
    }

    /// Never waits.
    pub fn push(&self, line: Line) {
        let mut state = self.queue.state();
        if state.bytes + cost(&line) > self.queue.most_bytes {
            state.drop_lines(1);
            return;
        }
        state.bytes += cost(&line);
        state.lines.push_back(line);
        self.queue.changed.notify_all();
    }

    /// What there is to tell of drops, now and then.
    pub fn note(&mut self) -> Option<String> {
        let now = Instant::now();
        if self.told.is_some_and(|told| now - told < TELL_EVERY) {
            return None;
        }
        let note = self.take_note()?;
        self.told = Some(now);
        Some(note)
    }

    fn take_note(&self) -> Option<String> {
        let mut state = self.queue.state();
        let dropped = std::mem::take(&mut state.untold_here);
        let why = if state.error.is_empty() { "too many at once" } else { &state.error };
        (dropped > 0).then(|| format!("flok: {dropped} lines did not reach {}: {why}\n", self.name))
    }

    /// Waits so long for what is left to be sent, and tells what was not.
    pub fn finish(self, within: Duration) -> Option<String> {
        let until = Instant::now() + within;
        let mut state = self.queue.state();
        state.until = Some(until);
        self.queue.changed.notify_all();
        let left = self.queue.changed.wait_timeout_while(state, within, |state| !state.is_done);
        let mut state = left.expect("nothing panics while it is held").0;
        // Those that the thread may still send count as lost: nobody will see whether it does.
        let left = state.lines.len() as u64;
        state.drop_lines(left);
        drop(state);
        self.take_note()
    }
}

fn name_of(collector: &Collector) -> String {
    match collector {
        Collector::Journald => "the journal".into(),
        Collector::Syslog { address, .. } => match address {
            SyslogAddress::Local => "syslog".into(),
            SyslogAddress::Udp(address) => format!("syslog at udp://{address}"),
            SyslogAddress::Tcp(address) => format!("syslog at tcp://{address}"),
            SyslogAddress::Tls(tls) => format!("syslog at tcp+tls://{}", tls.address),
            SyslogAddress::Unix(path) => format!("syslog at unix://{path}"),
            SyslogAddress::Unixgram(path) => format!("syslog at unixgram://{path}"),
        },
    }
}

/// The thread that sends.
struct Courier {
    queue: Arc<Queue>,
    forward: Forward,
    attributes: BTreeMap<String, String>,
    wire: Option<Wire>,
}

impl Courier {
    fn run(mut self) {
        let mut pause = PAUSES.0;
        while let Some((line, lost)) = self.queue.first() {
            match self.deliver(&line, lost) {
                Ok(()) => {
                    self.queue.sent(lost);
                    pause = PAUSES.0;
                }
                // It will never be taken.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    let mut state = self.queue.state();
                    state.error = error.to_string();
                    state.take_first();
                    state.drop_lines(1);
                }
                Err(error) => {
                    self.wire = None;
                    if !self.queue.pause(&error, pause) {
                        break;
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
        self.queue.state().is_done = true;
        self.queue.changed.notify_all();
    }

    /// A line, and before it how many are missing.
    fn deliver(&mut self, line: &Line, lost: u64) -> io::Result<()> {
        if lost > 0 {
            let text = format!("flok: {lost} lines before this one were dropped").into_bytes();
            self.send(&Line { stderr: true, time: Timestamp::now(), text, partial: false })?;
        }
        self.send(line)
    }

    fn send(&mut self, line: &Line) -> io::Result<()> {
        let message = match &self.forward.collector {
            Collector::Journald => journal_entry(line, &self.forward, &self.attributes),
            Collector::Syslog { facility, format, address } => {
                let message = syslog_message(line, &self.forward, *facility, *format, std::process::id());
                if matches!(address, SyslogAddress::Tls(_)) { framed(message, *format) } else { message }
            }
        };
        let wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::open(&self.forward.collector)?,
        };
        self.wire.insert(wire).send(&message)
    }
}

enum Wire {
    Tcp(TcpStream),
    Tls(Box<TlsWire>),
    Unix(UnixStream),
    Udp(UdpSocket),
    Unixgram(UnixDatagram),
}

impl Wire {
    fn open(collector: &Collector) -> io::Result<Wire> {
        let address = match collector {
            Collector::Journald => return unixgram(JOURNAL),
            Collector::Syslog { address, .. } => address,
        };
        match address {
            SyslogAddress::Local => {
                let open = |path: &&str| unixgram(path).or_else(|_| unix(path)).ok();
                let missing =
                    || io::Error::new(io::ErrorKind::NotFound, "this host has no syslog socket such as /dev/log");
                LOCAL_SOCKETS.iter().find_map(open).ok_or_else(missing)
            }
            SyslogAddress::Unix(path) => unix(path),
            SyslogAddress::Unixgram(path) => unixgram(path),
            SyslogAddress::Tcp(address) => tcp(address).map(Wire::Tcp),
            SyslogAddress::Tls(tls) => {
                let socket = tcp(&tls.address)?;
                socket.set_read_timeout(Some(CONNECT_WITHIN))?;
                TlsWire::open(tls, socket).map(|wire| Wire::Tls(Box::new(wire)))
            }
            SyslogAddress::Udp(address) => udp(address),
        }
    }

    /// A message whole, or an error and the connection is of no more use.
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => still_there(stream).and_then(|()| stream.write_all(message)),
            Wire::Tls(wire) => wire.send(message),
            Wire::Unix(stream) => still_there(stream).and_then(|()| stream.write_all(message)),
            Wire::Udp(socket) => socket.send(message).map(drop),
            Wire::Unixgram(socket) => socket.send(message).map(drop),
        }
    }
}

/// What is written to a collector that has hung up seems to arrive.
fn still_there(stream: &impl AsFd) -> io::Result<()> {
    has_words(stream).map(drop)
}

/// Whether there is something of the collector's to read. It may have hung up, which is an error.
pub(super) fn has_words(stream: &impl AsFd) -> io::Result<bool> {
    let looked = recv(stream.as_fd().as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    match looked {
        Ok(0) => Err(hung_up()),
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn hung_up() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "it has hung up")
}

fn unix(path: &str) -> io::Result<Wire> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(WRITE_WITHIN))?;
    Ok(Wire::Unix(stream))
}

fn unixgram(path: &str) -> io::Result<Wire> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(WRITE_WITHIN))?;
    Ok(Wire::Unixgram(socket))
}

fn tcp(address: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => {
                stream.set_write_timeout(Some(WRITE_WITHIN))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn udp(address: &str) -> io::Result<Wire> {
    let found = address.to_socket_addrs()?.next();
    let address = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its name has no address"))?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(address)?;
    Ok(Wire::Udp(socket))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;
    use crate::spec::logging::SyslogFormat;

    fn forwarder(address: SyslogAddress, buffer_bytes: u64) -> Forwarder {
        let collector = Collector::Syslog { address, facility: 3, format: SyslogFormat::Rfc3164 };
        let forward = Forward {
            collector,
            tag: "web".into(),
            hostname: "n1".into(),
            buffer_bytes,
            container_id: "c".into(),
            container_name: "web.1".into(),
            image_name: "i".into(),
        };
        Forwarder::start(forward, BTreeMap::new()).unwrap()
    }

    fn line(text: &str) -> Line {
        Line { stderr: false, time: Timestamp::now(), text: text.into(), partial: false }
    }

    #[test]
    fn a_collector_that_is_away_holds_up_nobody_and_learns_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // Room for two lines.
        let forwarder = forwarder(SyslogAddress::Unix(path.display().to_string()), 2 * (LINE_BYTES + 3));
        for text in ["one", "two", "six", "ten"] {
            forwarder.push(line(text));
        }
        let collector = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut lines = BufReader::new(collector.accept().unwrap().0).lines().map(Result::unwrap);
        assert!(lines.next().unwrap().ends_with(": flok: 2 lines before this one were dropped"));
        assert!(lines.next().unwrap().ends_with(": one") && lines.next().unwrap().ends_with(": two"));
        let note = forwarder.finish(DRAIN_WITHIN).unwrap();
        assert!(note.starts_with("flok: 2 lines did not reach syslog at unix://"), "{note}");
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_collector_that_was_started_anew_gets_the_next_line() {
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut forwarder = forwarder(SyslogAddress::Tcp(collector.local_addr().unwrap().to_string()), 1 << 20);
        forwarder.push(line("one"));
        let mut first = BufReader::new(collector.accept().unwrap().0);
        let mut text = String::new();
        first.read_line(&mut text).unwrap();
        assert!(text.ends_with(": one\n"), "{text}");
        drop(first);
        forwarder.push(line("two"));
        let mut second = BufReader::new(collector.accept().unwrap().0);
        text.clear();
        second.read_line(&mut text).unwrap();
        assert!(text.ends_with(": two\n"), "{text}");
        assert_eq!(forwarder.note(), None);
        assert_eq!(forwarder.finish(DRAIN_WITHIN), None);
    }

    #[test]
    fn what_never_arrives_is_told_with_the_reason() {
        let forwarder = forwarder(SyslogAddress::Unixgram("/nowhere/at/all".into()), 1 << 20);
        forwarder.push(line("one"));
        let note = forwarder.finish(PAUSES.0).unwrap();
        assert!(
            note.starts_with("flok: 1 lines did not reach syslog at unixgram:///nowhere/at/all: No such file"),
            "{note}"
        );
    }
}
