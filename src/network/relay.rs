//! Datagrams to the node's own `[::1]`, for published ports: each client's go on from a socket of their own to 127.0.0.1,
//! where address translation leads them to a task, and the answers come back by it. Bounded in flows and in what waits.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::Type;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::ports::bind_loopback;

/// Clients of one port at once; what further ones send is lost, as datagrams may be.
const FLOWS: usize = 128;
/// Of one client, until they are sent on.
const WAITING: usize = 32;
/// A client that neither sends nor is answered for so long has gone.
const IDLE: Duration = Duration::from_secs(60);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
const LONGEST: usize = 65_535;

pub fn listen(port: u16) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bind_loopback(Type::DGRAM, port)?.into())
}

/// Until it is dropped, and the flows with it.
pub async fn serve(socket: UdpSocket, port: u16) {
    let socket = Arc::new(socket);
    let mut flows: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut datagram = vec![0; LONGEST];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut datagram).await else {
            sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        if flows.get(&client).is_none_or(mpsc::Sender::is_closed) {
            flows.retain(|_, flow| !flow.is_closed());
            if flows.len() >= FLOWS {
                continue;
            }
            let (flow, waiting) = mpsc::channel(WAITING);
            tokio::spawn(hand_on(Arc::clone(&socket), client, port, waiting));
            flows.insert(client, flow);
        }
        if let Some(flow) = flows.get(&client) {
            // One that does not keep up loses some.
            let _ = flow.try_send(datagram[..length].to_vec());
        }
    }
}

/// One client's, both ways.
async fn hand_on(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    port: u16,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    server.connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut answer = vec![0; LONGEST];
    let both_ways = async |waiting: &mut mpsc::Receiver<Vec<u8>>, answer: &mut [u8]| {
        tokio::select! {
            datagram = waiting.recv() => match datagram {
                Some(datagram) => server.send(&datagram).await,
                None => Err(io::ErrorKind::BrokenPipe.into()),
            },
            length = server.recv(answer) => socket.send_to(&answer[..length?], client).await,
        }
    };
    loop {
        // An error is a refusal: the next datagram of this client begins anew.
        timeout(IDLE, both_ways(&mut waiting, &mut answer)).await??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(client: &UdpSocket, to: SocketAddr, text: &[u8]) -> Vec<u8> {
        client.send_to(text, to).await.unwrap();
        let mut answer = [0; 64];
        let (length, from) = client.recv_from(&mut answer).await.unwrap();
        assert_eq!(from, to);
        answer[..length].to_vec()
    }

    #[tokio::test]
    async fn each_clients_datagrams_come_from_a_port_of_their_own_and_answers_find_back() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let Ok(socket) = listen(port) else { return };
        let to = socket.local_addr().unwrap();
        tokio::spawn(serve(socket, port));
        tokio::spawn(async move {
            let mut datagram = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut datagram).await {
                let mut answer = datagram[..length].to_vec();
                answer.extend(from.port().to_be_bytes());
                server.send_to(&answer, from).await.unwrap();
            }
        });
        let (one, two) = (UdpSocket::bind("[::1]:0").await.unwrap(), UdpSocket::bind("[::1]:0").await.unwrap());
        let first = answered(&one, to, b"one").await;
        assert!(first.starts_with(b"one"));
        let second = answered(&two, to, b"one").await;
        assert_ne!(first, second, "a port of its own");
        assert_eq!(answered(&one, to, b"one").await, first, "and the same each time");
    }
}
