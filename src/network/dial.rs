//! Connections to a task's ports from within its own network namespace, for clients that are on no network of its.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::namespace;
use super::tasks::TaskNetworks;
use crate::spec::TaskId;

const WITHIN: Duration = Duration::from_secs(3);

impl TaskNetworks {
    /// As a process in the task would reach it: at loopback, else at the task's own addresses.
    pub async fn dial(&self, task: TaskId, port: u16) -> io::Result<tokio::net::TcpStream> {
        let network = self.get(task).ok_or_else(|| io::Error::other("the task has no network on this node"))?;
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let tried: Vec<IpAddr> = loopback.into_iter().chain(network.addresses).collect();
        let dial = move || namespace::within(&network.namespace, move || first(&tried, port));
        let stream = tokio::task::spawn_blocking(dial).await.map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}

fn first(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (at, address) in addresses.iter().enumerate() {
        match TcpStream::connect_timeout(&SocketAddr::new(*address, port), WITHIN) {
            Ok(stream) => return Ok(stream),
            // What loopback says is what a user wants to know.
            Err(error) if at == 0 => failed = error,
            Err(_) => {}
        }
    }
    Err(failed)
}
