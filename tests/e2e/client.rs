//! What speaks to tasks: requests and datagrams from inside a task's network namespace or from beside the hosts.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

/// Bound of one connection of a test's client.
pub const WITHIN: Duration = Duration::from_secs(5);

pub use super::dns::{A, AAAA, look_up};

/// Runs `inside` on a thread of its own in the network namespace at `path`.
pub fn within<T: Send + 'static>(path: &Path, inside: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let namespace = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        inside()
    })
}

/// The host that a task is on.
pub fn home(swarm: &Swarm, task: &Task) -> usize {
    (0..swarm.hosts.len()).find(|index| swarm.node_id(0, *index) == task.node).unwrap()
}

/// A task's network namespace.
pub fn netns_of(swarm: &Swarm, task: &Task) -> PathBuf {
    let host = &swarm.hosts[home(swarm, task)];
    host.seen_from_outside(&host.data_dir().join(format!("network/{}.netns", task.id)))
}

/// Runs `inside` in a task's network namespace.
pub fn in_task<T: Send + 'static>(swarm: &Swarm, task: &Task, inside: impl FnOnce() -> T + Send + 'static) -> T {
    within(&netns_of(swarm, task), inside).join().unwrap()
}

/// A GET on a connection of its own; the body.
pub fn get(to: SocketAddr, path: &str) -> std::io::Result<String> {
    get_within(WITHIN, to, path)
}

fn get_within(limit: Duration, to: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(std::io::Error::other(head.to_owned())) }
}

/// A line of whoami's answer.
pub fn said(answer: &str, key: &str) -> String {
    let line = answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {key} in {answer}")).to_owned()
}

/// A request on a connection that stays open; the body. One that fails with [`ErrorKind::UnexpectedEof`] had no answer at
/// all.
pub fn request(stream: &mut TcpStream, path: &str) -> std::io::Result<String> {
    let unanswered = |error: std::io::Error| match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ErrorKind::UnexpectedEof.into(),
        _ => error,
    };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).map_err(unanswered)?;
    // It comes in pieces; its length stands in its head.
    let mut answer = String::new();
    loop {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).map_err(|error| match answer.is_empty() {
            true => unanswered(error),
            false => error,
        })?;
        answer += &String::from_utf8_lossy(&piece[..length]);
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let stated = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
            if stated.is_some_and(|stated| body.len() >= stated) {
                return Ok(body.to_owned());
            }
        }
        match (length, answer.is_empty()) {
            (0, true) => return Err(ErrorKind::UnexpectedEof.into()),
            (0, false) => return Err(ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

/// A connection for [`request`].
pub fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    Ok(stream)
}

/// How a client of [`Load`] makes its requests.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// Each on a connection of its own, which is given up after so long.
    Anew(Duration),
    /// On one connection, until its server ends it. What was sent on it as it ended, and had no answer at all, is sent
    /// again on the next one, as HTTP has it (RFC 9112, 9.3.1).
    Kept,
}

/// A request without an answer.
#[derive(Debug, Clone)]
pub struct Failure {
    pub began: Instant,
    /// Who was asked, and what came of it.
    #[expect(dead_code, reason = "a test that fails prints it")]
    pub what: String,
}

/// Requests, one after another, until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Failure>>>,
}

impl Load {
    /// From the namespace at `from`, one client for each target, each request on a connection of its own.
    pub fn start(from: &Path, targets: &[SocketAddr]) -> Load {
        Load::by(Manner::Anew(WITHIN), from, targets)
    }

    pub fn by(manner: Manner, from: &Path, targets: &[SocketAddr]) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |target: &SocketAddr| {
            let (stop, answered, target) = (Arc::clone(&stop), Arc::clone(&answered), *target);
            within(from, move || {
                let (mut failed, mut open) = (Vec::new(), None);
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = match manner {
                        Manner::Anew(limit) => get_within(limit, target, "/"),
                        Manner::Kept => get_on(&mut open, target),
                    };
                    match answer {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.push(Failure { began, what: format!("{target}: {error}") }),
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                failed
            })
        };
        let threads = targets.iter().map(client).collect();
        Load { stop, answered, threads }
    }

    /// Waits until so many more requests were answered.
    pub fn goes_on(&self, more: u64) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        eventually("requests to be answered", PATIENCE, || match self.answered.load(Ordering::Relaxed) {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        });
    }

    /// Ends it: how many were answered, and what went wrong.
    pub fn end(self) -> (u64, Vec<Failure>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.answered.load(Ordering::Relaxed), failed)
    }
}

fn get_on(open: &mut Option<TcpStream>, target: SocketAddr) -> std::io::Result<String> {
    if let Some(stream) = open {
        match request(stream, "/") {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => *open = None,
            other => return other.inspect_err(|_| *open = None),
        }
    }
    request(open.insert(connect(target)?), "/").inspect_err(|_| *open = None)
}

/// A port of a host, as the others reach it.
pub fn at(swarm: &Swarm, host: usize, port: u16) -> SocketAddr {
    SocketAddr::new(swarm.hosts[host].addr().parse().unwrap(), port)
}

pub fn from_beside<T: Send + 'static>(swarm: &Swarm, inside: impl FnOnce() -> T + Send + 'static) -> T {
    within(&swarm.switch_netns(), inside).join().unwrap()
}

/// A datagram from `socket`, and what comes back to it.
pub fn ask(socket: &UdpSocket, to: SocketAddr) -> std::io::Result<String> {
    socket.set_read_timeout(Some(WITHIN))?;
    socket.send_to(b"who?", to)?;
    let mut answer = [0; 2048];
    let (length, from) = socket.recv_from(&mut answer)?;
    assert_eq!(from, to, "the answer comes from where the question went");
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Waits until `look` succeeds, which tells of the world outside.
pub fn works<T>(what: &str, mut look: impl FnMut() -> std::io::Result<T>) -> T {
    eventually(what, PATIENCE, || look().map_err(|error| error.to_string()))
}
