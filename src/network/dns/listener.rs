//! One task's door: datagrams and connections at the resolver's address in the task's namespace.
//!
//! Nothing that a task sends can hold up another's: each has its own loops, a bound on look-ups of the outside, and a
//! bound on connections. What goes beyond is refused, not queued.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::{ChaCha8Rng, StdRng};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control::ServedTask;
use super::forward::{Forwarder, From, Over, write_message};
use super::wire::{self, Code, MAX_MESSAGE, MAX_QUERY, Query, Record, Unread};
use super::zone::{Answer, Client, Zone};
use super::{ADDRESS, redirect};
use crate::network::namespace;

/// Look-ups of the outside that one task may have under way.
const MAX_OUTSIDE: usize = 256;
/// Connections that one task may hold open.
const MAX_CONNECTIONS: usize = 32;
/// A connection without a question ends after this long.
const IDLE: Duration = Duration::from_secs(10);
/// For the rest of a message whose start has come, and for an answer to be taken.
const MESSAGE_WITHIN: Duration = Duration::from_secs(5);
/// Datagrams taken before others get their turn.
const BATCH: usize = 64;
/// Tries for a port that is free for both protocols.
const PORT_TRIES: usize = 16;

/// What all doors have in common.
pub struct Core {
    pub zone: RwLock<Zone>,
    pub forwarder: Forwarder,
    /// Everything under way, so that a resolver that was replaced can finish it.
    pub work: TaskTracker,
}

/// The two sockets in a task's namespace, of the same port.
#[derive(Debug)]
pub struct Sockets {
    pub udp: StdUdpSocket,
    pub tcp: StdTcpListener,
}

/// Dropped, it takes no more questions; those it has taken are answered.
pub struct Listener {
    pub task: ServedTask,
    door: Arc<Door>,
    stop: CancellationToken,
}

struct Door {
    udp: UdpSocket,
    tcp: TcpListener,
    client: Client,
    netns: PathBuf,
    outside: Semaphore,
    connections: Arc<Semaphore>,
}

/// What is to be done with a message.
enum Next {
    Ignore,
    /// The answer is in the buffer.
    Reply,
    Forward,
}

impl Sockets {
    /// Opened in the namespace at `netns`, with port 53 leading there. Blocks for about a millisecond.
    pub fn open(netns: &Path) -> io::Result<Sockets> {
        namespace::within(netns, || {
            let sockets = Sockets::bind()?;
            redirect::install(sockets.udp.local_addr()?.port())?;
            Ok(sockets)
        })
    }

    fn bind() -> io::Result<Sockets> {
        let mut last = None;
        for _ in 0..PORT_TRIES {
            let udp = StdUdpSocket::bind((ADDRESS, 0))?;
            match StdTcpListener::bind(udp.local_addr()?) {
                Ok(tcp) => {
                    udp.set_nonblocking(true)?;
                    tcp.set_nonblocking(true)?;
                    return Ok(Sockets { udp, tcp });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there was at least one try"))
    }
}

impl Listener {
    pub fn start(core: &Arc<Core>, task: ServedTask, sockets: Sockets, mut rng: ChaCha8Rng) -> io::Result<Listener> {
        let door = Arc::new(Door {
            udp: UdpSocket::from_std(sockets.udp)?,
            tcp: TcpListener::from_std(sockets.tcp)?,
            client: task.client.clone(),
            netns: task.netns.clone(),
            outside: Semaphore::new(MAX_OUTSIDE),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        });
        let stop = CancellationToken::new();
        let datagrams = datagrams(Arc::clone(core), Arc::clone(&door), ChaCha8Rng::from_rng(&mut rng));
        core.work.spawn(stop.clone().run_until_cancelled_owned(datagrams));
        core.work.spawn(stop.clone().run_until_cancelled_owned(connections(Arc::clone(core), Arc::clone(&door), rng)));
        Ok(Listener { task, door, stop })
    }

    /// For whoever takes over: the same sockets, with what waits in them.
    pub fn copies(&self) -> io::Result<Sockets> {
        let udp = StdUdpSocket::from(self.door.udp.as_fd().try_clone_to_owned()?);
        let tcp = StdTcpListener::from(self.door.tcp.as_fd().try_clone_to_owned()?);
        Ok(Sockets { udp, tcp })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn datagrams(core: Arc<Core>, door: Arc<Door>, mut rng: ChaCha8Rng) {
    let mut buffer = vec![0; MAX_QUERY];
    let mut out = Vec::with_capacity(wire::MAX_DATAGRAM);
    loop {
        if let Err(error) = door.udp.readable().await {
            tracing::error!(%error, "a task's socket cannot be waited for");
            return;
        }
        for _ in 0..BATCH {
            let (length, from) = match door.udp.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier answer ran into.
                Err(_) => continue,
            };
            match core.look(&door.client, &buffer[..length], Over::Datagrams, &mut out, &mut rng) {
                Next::Ignore => {}
                // A client that takes no more has gone, or asks again.
                Next::Reply => drop(door.udp.try_send_to(&out, from)),
                Next::Forward => {
                    let (core, door) = (Arc::clone(&core), Arc::clone(&door));
                    let message = buffer[..length].to_vec();
                    core.work.clone().spawn(async move { pass_on(&core, &door, &message, from).await });
                }
            }
        }
    }
}

async fn pass_on(core: &Core, door: &Door, message: &[u8], to: SocketAddr) {
    if let Some(answer) = core.outside(door, message, Over::Datagrams).await {
        let _ = door.udp.send_to(&answer, to).await;
    }
}

async fn connections(core: Arc<Core>, door: Arc<Door>, mut rng: ChaCha8Rng) {
    loop {
        let stream = match door.tcp.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, most likely: others have to close theirs first.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Beyond the bound it is closed at once.
        if let Ok(slot) = Arc::clone(&door.connections).try_acquire_owned() {
            let rng = ChaCha8Rng::from_rng(&mut rng);
            let (core, door) = (Arc::clone(&core), Arc::clone(&door));
            core.work.clone().spawn(async move {
                let _slot = slot;
                // A connection that fails is its client's loss alone.
                let _ = converse(&core, &door, stream, rng).await;
            });
        }
    }
}

/// Questions of one connection, one after another.
async fn converse(core: &Core, door: &Door, mut stream: TcpStream, mut rng: ChaCha8Rng) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = Vec::new();
    let mut message = Vec::new();
    loop {
        let length = usize::from(timeout(IDLE, stream.read_u16()).await??);
        if length > MAX_QUERY {
            return Ok(());
        }
        message.resize(length, 0);
        timeout(MESSAGE_WITHIN, stream.read_exact(&mut message)).await??;
        match core.look(&door.client, &message, Over::Stream, &mut out, &mut rng) {
            Next::Ignore => return Ok(()),
            Next::Reply => timeout(MESSAGE_WITHIN, write_message(&mut stream, &out)).await??,
            Next::Forward => {
                let Some(answer) = core.outside(door, &message, Over::Stream).await else { return Ok(()) };
                timeout(MESSAGE_WITHIN, write_message(&mut stream, &answer)).await??;
            }
        }
    }
}

impl Core {
    pub fn new(resolv_conf: &Path, rng: StdRng) -> Core {
        Core { zone: RwLock::default(), forwarder: Forwarder::new(resolv_conf, rng), work: TaskTracker::new() }
    }

    /// Answers what the zone has an answer to.
    fn look(&self, client: &Client, message: &[u8], over: Over, out: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> Next {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unread::Ignored) => return Next::Ignore,
            Err(Unread::Refused { id, code }) => {
                out.clear();
                out.extend_from_slice(&wire::refusal(id, code));
                return Next::Reply;
            }
        };
        let limit = limit(&query, over);
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let answer = match &query.name {
            Some(name) if query.internet => zone.answer(client, name, query.kind, rng),
            _ => Answer::Elsewhere,
        };
        match answer {
            Answer::Addresses { addresses, ttl } => {
                let records: Vec<Record<'_>> = addresses.into_iter().map(Record::Address).collect();
                query.answer(Code::Ok, ttl, &records, limit, out);
            }
            Answer::Name { name, ttl } => query.answer(Code::Ok, ttl, &[Record::Pointer(&name)], limit, out),
            Answer::NoData => query.answer(Code::Ok, 0, &[], limit, out),
            Answer::NoSuchName => query.answer(Code::NoSuchName, 0, &[], limit, out),
            // The task's own servers are asked from where the task is, and reach what it reaches.
            Answer::Elsewhere if client.servers.is_empty() && !zone.has_way_out(client) => {
                query.answer(Code::NoSuchName, 0, &[], limit, out);
            }
            Answer::Elsewhere => return Next::Forward,
        }
        Next::Reply
    }

    /// Answers from outside; a failure where there is none. `None`: there is no question.
    async fn outside(&self, door: &Door, message: &[u8], over: Over) -> Option<Vec<u8>> {
        let query = Query::read(message).ok()?;
        let from = match door.client.servers.as_slice() {
            [] => From::Host,
            servers => From::Task(&door.netns, servers),
        };
        let answer = match door.outside.try_acquire() {
            Ok(_slot) => self.forwarder.ask(&query, message, from, over).await,
            Err(_) => None,
        };
        let mut out = Vec::new();
        match answer {
            Some(answer) if answer.len() <= limit(&query, over) => return Some(answer),
            Some(answer) => wire::cut(&query, &answer, &mut out),
            None => query.answer(Code::ServerFailure, 0, &[], limit(&query, over), &mut out),
        }
        Some(out)
    }
}

fn limit(query: &Query<'_>, over: Over) -> usize {
    match over {
        Over::Datagrams => query.datagram_limit(),
        Over::Stream => MAX_MESSAGE,
    }
}
