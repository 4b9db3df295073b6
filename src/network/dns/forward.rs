//! Look-ups of the outside: passed to the servers of the host, or to the task's own, as the bytes they came as, and the
//! answer passed back.
//!
//! Servers are asked in their order; one that is late is not waited for alone, one that was late lately comes last. All
//! of it ends before the usual client's own patience of five seconds does.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::resolv_conf::HostServers;
use super::wire::{self, Code, MAX_MESSAGE, Query};
use crate::network::namespace;

/// Look-ups of the outside under way, of all tasks of the node; more are refused.
const MAX_IN_FLIGHT: usize = 4096;
/// Questions sent for one look-up, whatever the number of servers.
const MAX_ATTEMPTS: usize = 3;
/// How long a server is waited for before the next is asked as well.
const PATIENCE: Duration = Duration::from_millis(1400);
const GIVE_UP_AFTER: Duration = Duration::from_millis(4300);
/// How long a server that did not answer in time comes last.
const HOLD_BACK: Duration = Duration::from_secs(30);
/// Servers remembered as late.
const MAX_LATE: usize = 256;

/// How a client asked, and so how the servers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Datagrams,
    Stream,
}

pub struct Forwarder {
    host: Mutex<HostServers>,
    late: Mutex<BTreeMap<SocketAddr, Instant>>,
    in_flight: Semaphore,
    rng: Mutex<StdRng>,
}

/// Where a question is asked from.
#[derive(Clone, Copy)]
pub enum From<'a> {
    /// The host, and its servers.
    Host,
    /// The task's namespace at the path, and these servers.
    Task(&'a Path, &'a [IpAddr]),
}

impl Forwarder {
    pub fn new(resolv_conf: &Path, rng: StdRng) -> Forwarder {
        Forwarder {
            host: Mutex::new(HostServers::new(resolv_conf)),
            late: Mutex::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            rng: Mutex::new(rng),
        }
    }

    /// The answer to `message`, which is `query` as it came; `None` where there is none to be had.
    pub async fn ask(&self, query: &Query<'_>, message: &[u8], from: From<'_>, over: Over) -> Option<Vec<u8>> {
        let _slot = self.in_flight.try_acquire().ok()?;
        let servers = self.in_order(match from {
            From::Host => self.host.lock().expect("nothing panics while it is held").servers(Instant::now()),
            From::Task(_, servers) => servers.iter().map(|server| SocketAddr::new(*server, 53)).collect(),
        });
        let give_up = sleep(GIVE_UP_AFTER);
        let mut give_up = pin!(give_up);
        let mut next = servers.iter().cycle().take(if servers.is_empty() { 0 } else { MAX_ATTEMPTS });
        let mut asked = FuturesUnordered::new();
        let mut second_best = None;
        loop {
            let last = next.next();
            match last {
                Some(server) => asked.push(self.ask_one(query, message, *server, from, over)),
                None if asked.is_empty() => break,
                None => {}
            }
            let patience = sleep(PATIENCE);
            tokio::select! {
                Some((server, answer)) = asked.next() => match answer {
                    Ok(answer) if is_refusal(&answer) => second_best = Some(answer),
                    Ok(answer) => return Some(answer),
                    Err(error) => {
                        tracing::debug!(%server, %error, "a name server does not answer");
                        self.hold_back(server);
                    }
                },
                () = patience, if last.is_some() => last.into_iter().for_each(|server| self.hold_back(*server)),
                () = &mut give_up => break,
            }
        }
        second_best
    }

    async fn ask_one(
        &self,
        query: &Query<'_>,
        message: &[u8],
        server: SocketAddr,
        from: From<'_>,
        over: Over,
    ) -> (SocketAddr, io::Result<Vec<u8>>) {
        // A new port and a new number for each question: what a forger has to guess.
        let id = self.rng.lock().expect("nothing panics while it is held").random();
        let mut message = message.to_vec();
        wire::set_id(&mut message, id);
        let answer = async {
            let mut answer = match over {
                Over::Datagrams => by_datagram(query, &message, id, server, from).await?,
                Over::Stream => by_stream(query, &message, id, server, from).await?,
            };
            // The server's limit may be lower than what the client can take; where it is not, the client asks again.
            if over == Over::Datagrams && wire::is_truncated(&answer) && query.datagram_limit() > answer.len() {
                let whole = timeout(PATIENCE, by_stream(query, &message, id, server, from)).await;
                if let Ok(Ok(whole)) = whole
                    && whole.len() <= query.datagram_limit()
                {
                    answer = whole;
                }
            }
            wire::set_id(&mut answer, query.id);
            Ok(answer)
        };
        (server, answer.await)
    }

    /// Those that were late lately come last.
    fn in_order(&self, mut servers: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let now = Instant::now();
        let mut late = self.late.lock().expect("nothing panics while it is held");
        late.retain(|_, until| *until > now);
        servers.sort_by_key(|server| late.contains_key(server));
        servers
    }

    fn hold_back(&self, server: SocketAddr) {
        let mut late = self.late.lock().expect("nothing panics while it is held");
        if late.len() < MAX_LATE {
            late.insert(server, Instant::now() + HOLD_BACK);
        }
    }
}

/// Another server may know better.
fn is_refusal(answer: &[u8]) -> bool {
    !matches!(wire::code_of(answer), code if code == Code::Ok as u8 || code == Code::NoSuchName as u8)
}

async fn by_datagram(
    query: &Query<'_>,
    message: &[u8],
    id: u16,
    server: SocketAddr,
    from: From<'_>,
) -> io::Result<Vec<u8>> {
    let open = move || -> io::Result<std::net::UdpSocket> {
        let socket = std::net::UdpSocket::bind((unspecified(server), 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = UdpSocket::from_std(open_from(from, open).await?)?;
    socket.send(message).await?;
    let mut answer = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut answer).await?;
        if query.is_answered_by(&answer[..length], id) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_stream(
    query: &Query<'_>,
    message: &[u8],
    id: u16,
    server: SocketAddr,
    from: From<'_>,
) -> io::Result<Vec<u8>> {
    let open = move || -> io::Result<socket2::Socket> {
        let domain = socket2::Domain::for_address(server);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = TcpSocket::from_std_stream(open_from(from, open).await?.into());
    let mut stream = socket.connect(server).await?;
    write_message(&mut stream, message).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    if query.is_answered_by(&answer, id) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
    }
}

/// One message with its length before it (RFC 1035 4.2.2), in one segment.
pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

async fn open_from<T: Send + 'static>(
    from: From<'_>,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match from {
        From::Host => open(),
        From::Task(path, _) => {
            let path = path.to_owned();
            let opened = tokio::task::spawn_blocking(move || namespace::within(&path, open)).await;
            opened.unwrap_or_else(|_| Err(io::Error::other("the thread that opens sockets panicked")))
        }
    }
}

fn unspecified(server: SocketAddr) -> IpAddr {
    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
