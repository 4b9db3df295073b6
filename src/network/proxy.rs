//! The node's own `[::1]`, for published ports: no address translation leads away from it, so each of its connections is
//! handed on to 127.0.0.1, where translation does, and each of its datagrams too ([`relay`]). Nothing else goes through
//! user space.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use socket2::{SockRef, Type};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ports::bind_loopback;
use super::relay;
use crate::spec::Protocol;

const BACKLOG: i32 = 128;
/// Connections of TCP at once, of all ports together; each has two sockets. Further ones are reset.
const CONNECTIONS: usize = 1024;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
/// First and longest wait, about, before a port that could not be listened on is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Listens on the ports that are told, until nobody tells any more.
pub async fn run(mut ports: watch::Receiver<BTreeSet<(Protocol, u16)>>) {
    let places = Arc::new(Places::new(CONNECTIONS));
    let mut listening: BTreeMap<(Protocol, u16), JoinHandle<()>> = BTreeMap::new();
    let mut failing: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    let mut wait = RETRY_FIRST;
    loop {
        let wanted = ports.borrow_and_update().clone();
        listening.retain(|port, serving| {
            let keep = wanted.contains(port) && !serving.is_finished();
            if !keep {
                serving.abort();
            }
            keep
        });
        failing.retain(|port| wanted.contains(port));
        for (protocol, port) in wanted {
            let Entry::Vacant(place) = listening.entry((protocol, port)) else { continue };
            let serving = match protocol {
                Protocol::Tcp => listen(port).map(|listener| tokio::spawn(serve(listener, port, Arc::clone(&places)))),
                Protocol::Udp => relay::listen(port).map(|socket| tokio::spawn(relay::serve(socket, port))),
                // Nobody here could speak it.
                Protocol::Sctp => continue,
            };
            match serving {
                Ok(serving) => {
                    place.insert(serving);
                    failing.remove(&(protocol, port));
                }
                Err(error) if failing.insert((protocol, port)) => {
                    tracing::info!(port, ?protocol, %error, "a published port does not answer on [::1]; tried again");
                }
                Err(_) => {}
            }
        }
        let changed = match failing.is_empty() {
            true => ports.changed().await,
            false => {
                let about = spread(wait);
                wait = (wait * 2).min(RETRY_MAX);
                let Ok(changed) = timeout(about, ports.changed()).await else { continue };
                changed
            }
        };
        wait = RETRY_FIRST;
        if changed.is_err() {
            listening.into_values().for_each(|serving| serving.abort());
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell draws: no two ports need the same moment")]
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..1.5))
}

/// So many connections there may be at once.
struct Places {
    free: Arc<Semaphore>,
    most: usize,
    /// Since it was told that there are too many.
    refused: AtomicU64,
}

impl Places {
    fn new(most: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(most)), most, refused: AtomicU64::new(0) }
    }

    /// Told once, and how many there were once half of the places are free again.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.free).try_acquire_owned().ok();
        if place.is_none() && self.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                most = self.most,
                "too many connections to published ports by [::1]: further ones are refused"
            );
        }
        if self.free.available_permits() > self.most / 2 {
            let refused = self.refused.swap(0, Ordering::Relaxed);
            if refused > 0 {
                tracing::info!(refused, "connections to published ports by [::1] are taken again");
            }
        }
        place
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = bind_loopback(Type::STREAM, port)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn serve(listener: TcpListener, port: u16, places: Arc<Places>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => match places.take() {
                Some(place) => drop(tokio::spawn(hand_on(client, port, place))),
                // A reset tells at once.
                None => drop(SockRef::from(&client).set_linger(Some(Duration::ZERO))),
            },
            // Too many open files, say: others may be closed meanwhile.
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
        }
    }
}

async fn hand_on(mut client: TcpStream, port: u16, _place: OwnedSemaphorePermit) {
    let connected = timeout(CONNECT_WITHIN, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await;
    if let Ok(Ok(mut server)) = connected {
        // Either end may go when it likes.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server on a port of 127.0.0.1 that greets.
    async fn server() -> u16 {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = server.accept().await {
                tokio::spawn(async move {
                    let _ = client.write_all(b"hello").await;
                    let _ = client.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        port
    }

    async fn greeted(port: u16) -> std::io::Result<TcpStream> {
        let mut client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await?;
        client.read_exact(&mut [0; 5]).await?;
        Ok(client)
    }

    #[tokio::test]
    async fn more_connections_than_there_are_places_are_reset_until_one_is_free() {
        let port = server().await;
        let Ok(listener) = listen(port) else { return };
        tokio::spawn(serve(listener, port, Arc::new(Places::new(2))));
        let one = greeted(port).await.unwrap();
        let _two = greeted(port).await.unwrap();
        assert_eq!(greeted(port).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        drop(one);
        timeout(Duration::from_secs(20), async { while greeted(port).await.is_err() {} }).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_listened_on_once_it_is_free_though_nothing_changes() {
        let port = server().await;
        let Ok(theirs) = listen(port) else { return };
        let (_tell, told) = watch::channel(BTreeSet::from([(Protocol::Tcp, port)]));
        let running = tokio::spawn(run(told));
        tokio::task::yield_now().await;
        drop(theirs);
        timeout(Duration::from_secs(20), async {
            while greeted(port).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
        assert!(!running.is_finished());
    }
}
