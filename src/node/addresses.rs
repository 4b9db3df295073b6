//! The addresses that people give for this node and for others, read; and this node's own, where none was given.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::api::ApiError;

/// Where swarms listen unless they are told otherwise, as in Docker Swarm.
const DEFAULT_PORT: u16 = 2377;

/// `IP`, `IP:PORT`, `[IPv6]:PORT`, or the name of an interface.
pub fn parse_addr(what: &str, text: &str, port: u16) -> Result<SocketAddr, ApiError> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(addr);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let (name, port) = match text.rsplit_once(':').map(|(name, port)| (name, port.parse::<u16>())) {
        Some((name, Ok(port))) => (name, port),
        _ => (text, port),
    };
    let addresses =
        nix::ifaddrs::getifaddrs().map_err(|error| ApiError::Internal(format!("list interfaces: {error}")))?;
    let of_interface = addresses
        .filter(|found| found.interface_name == name)
        .filter_map(|found| Some(IpAddr::from(found.address?.as_sockaddr_in()?.ip())));
    match of_interface.collect::<Vec<_>>().as_slice() {
        [] => Err(ApiError::invalid(format!("{what} {text:?} is neither an address nor an interface with one"))),
        [one] => Ok(SocketAddr::new(*one, port)),
        several => Err(ApiError::invalid(format!("interface {name} has several addresses ({several:?}): name one"))),
    }
}

/// The source address of packets towards `peer`, or towards anywhere.
pub fn own_address(peer: Option<&SocketAddr>) -> Result<IpAddr, ApiError> {
    let anywhere = SocketAddr::from(([192, 0, 2, 1], 9));
    let find = || -> std::io::Result<IpAddr> {
        // Connecting a datagram socket sends nothing; it asks the routing table.
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(peer.copied().unwrap_or(anywhere))?;
        Ok(socket.local_addr()?.ip())
    };
    find().map_err(|_| {
        ApiError::invalid("could not choose an IP address to advertise: specify one with --advertise-addr")
    })
}

pub async fn resolve(remotes: &[String]) -> Result<Vec<SocketAddr>, ApiError> {
    let mut found = Vec::new();
    for remote in remotes {
        if let Ok(addr) = parse_addr("remote address", remote, DEFAULT_PORT) {
            found.push(addr);
            continue;
        }
        let target = if remote.contains(':') { remote.clone() } else { format!("{remote}:{DEFAULT_PORT}") };
        match tokio::net::lookup_host(&target).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => return Err(ApiError::invalid(format!("{remote:?} cannot be resolved: {error}"))),
        }
    }
    Ok(found)
}
