//! The node's own `[::1]`, for published ports: no address translation leads away from it, so each of its connections is
//! handed on to 127.0.0.1, where translation does, and each of its datagrams too ([`relay`]). Nothing else goes through
//! user space.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::Type;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ports::bind_loopback;
use super::relay;
use crate::spec::Protocol;

const BACKLOG: i32 = 128;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Listens on the ports that are told, until nobody tells any more.
pub async fn run(mut ports: watch::Receiver<BTreeSet<(Protocol, u16)>>) {
    let mut listening: BTreeMap<(Protocol, u16), JoinHandle<()>> = BTreeMap::new();
    loop {
        let wanted = ports.borrow_and_update().clone();
        listening.retain(|port, serving| {
            let keep = wanted.contains(port) && !serving.is_finished();
            if !keep {
                serving.abort();
            }
            keep
        });
        for (protocol, port) in wanted {
            let Entry::Vacant(place) = listening.entry((protocol, port)) else { continue };
            let serving = match protocol {
                Protocol::Tcp => listen(port).map(|listener| tokio::spawn(serve(listener, port))),
                Protocol::Udp => relay::listen(port).map(|socket| tokio::spawn(relay::serve(socket, port))),
                // Nobody here could speak it.
                Protocol::Sctp => continue,
            };
            match serving {
                Ok(serving) => drop(place.insert(serving)),
                Err(error) => tracing::info!(port, ?protocol, %error, "a published port does not answer on [::1]"),
            }
        }
        if ports.changed().await.is_err() {
            listening.into_values().for_each(|serving| serving.abort());
            return;
        }
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = bind_loopback(Type::STREAM, port)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn serve(listener: TcpListener, port: u16) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(hand_on(client, port))),
            // Too many open files, say: others may be closed meanwhile.
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
        }
    }
}

async fn hand_on(mut client: TcpStream, port: u16) {
    let connected = timeout(CONNECT_WITHIN, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await;
    if let Ok(Ok(mut server)) = connected {
        // Either end may go when it likes.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
