//! The host's own name servers, read again when they change.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// As many as the C library asks.
const MAX_SERVERS: usize = 3;
/// A change is noticed this late at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DNS_PORT: u16 = 53;

#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    looked: Option<Instant>,
    /// Inode, length and time of the file that was read.
    stamp: Option<(u64, u64, i64, i64)>,
    servers: Vec<SocketAddr>,
}

impl HostServers {
    pub fn new(path: &Path) -> HostServers {
        HostServers { path: path.to_owned(), looked: None, stamp: None, servers: Vec::new() }
    }

    pub fn servers(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY) {
            self.looked = Some(now);
            self.look();
        }
        self.servers.clone()
    }

    /// A file that is gone for a moment, while it is replaced, takes no servers away.
    fn look(&mut self) {
        let Ok(found) = fs::metadata(&self.path) else { return };
        let stamp = Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()));
        if self.stamp != stamp
            && let Ok(text) = fs::read_to_string(&self.path)
        {
            self.stamp = stamp;
            self.servers = servers(&text);
        }
    }
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    named.filter_map(|rest| server(rest.split_whitespace().next()?)).take(MAX_SERVERS).collect()
}

/// An address, a link-local one with its interface behind a `%`.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = interface.parse().ok().or_else(|| nix::net::if_::if_nametoindex(interface).ok())?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_in_their_order_and_at_most_three() {
        let text = "# a comment\nsearch lan\nnameserver 192.0.2.1\n  nameserver\tfe80::1%1 \nnameserver nowhere\n\
                    options edns0\nnameserver 127.0.0.53 # local\nnameserver 192.0.2.4\n";
        let read: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.0.2.1:53", "[fe80::1%1]:53", "127.0.0.53:53"]);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let mut host = HostServers::new(&path);
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::from(std::time::Instant::now());
        assert_eq!(host.servers(now).len(), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(host.servers(now + LOOK_EVERY).len(), 1);
        fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        assert_eq!(host.servers(now + LOOK_EVERY).len(), 1);
        assert_eq!(host.servers(now + LOOK_EVERY * 2).len(), 2);
    }
}
