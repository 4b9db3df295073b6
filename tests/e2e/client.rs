//! What speaks to tasks: requests, look-ups and datagrams from inside a task's network namespace or from beside the hosts.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

/// Bound of one connection of a test's client.
pub const WITHIN: Duration = Duration::from_secs(5);

pub const A: u16 = 1;
pub const AAAA: u16 = 28;

/// Runs `inside` on a thread of its own in the network namespace at `path`.
pub fn within<T: Send + 'static>(path: &Path, inside: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let namespace = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        inside()
    })
}

/// Runs `inside` in a task's network namespace.
pub fn in_task<T: Send + 'static>(swarm: &Swarm, task: &Task, inside: impl FnOnce() -> T + Send + 'static) -> T {
    let at = (0..swarm.hosts.len()).find(|index| swarm.node_id(0, *index) == task.node).unwrap();
    let path =
        swarm.hosts[at].seen_from_outside(&swarm.hosts[at].data_dir().join(format!("network/{}.netns", task.id)));
    within(&path, inside).join().unwrap()
}

/// A GET on a connection of its own; the body.
pub fn get(to: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
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

/// Asks the resolver of the namespace that the thread is in: the addresses of a name, and the response code.
pub fn look_up(name: &str, kind: u16) -> std::io::Result<(u8, Vec<IpAddr>)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(WITHIN))?;
    socket.connect("127.0.0.11:53")?;
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend(1u16.to_be_bytes());
    socket.send(&query)?;
    let mut answer = [0; 1232];
    let length = socket.recv(&mut answer)?;
    Ok(addresses(&answer[..length], query.len()))
}

/// The address records of an answer whose question ends at `at`.
fn addresses(answer: &[u8], mut at: usize) -> (u8, Vec<IpAddr>) {
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let mut found = Vec::new();
    for _ in 0..count {
        // A pointer, or labels up to the root.
        while answer[at] != 0 && answer[at] < 0xc0 {
            at += 1 + usize::from(answer[at]);
        }
        at += if answer[at] == 0 { 1 } else { 2 };
        let length = usize::from(u16::from_be_bytes([answer[at + 8], answer[at + 9]]));
        let data = &answer[at + 10..at + 10 + length];
        if let Ok(v4) = <[u8; 4]>::try_from(data) {
            found.push(IpAddr::from(v4));
        } else if let Ok(v6) = <[u8; 16]>::try_from(data) {
            found.push(IpAddr::from(v6));
        }
        at += 10 + length;
    }
    (answer[3] & 0xf, found)
}

/// Requests, one after another on connections of their own, until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// From the namespace at `from`, one client for each target.
    pub fn start(from: &Path, targets: &[SocketAddr]) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |target: &SocketAddr| {
            let (stop, answered, target) = (Arc::clone(&stop), Arc::clone(&answered), *target);
            within(from, move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(target, "/") {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.push(format!("{target}: {error}")),
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
    pub fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.answered.load(Ordering::Relaxed), failed)
    }
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
