//! Who has a port: the process behind a socket that is in the way, as the kernel tells it under `/proc`. Blocks, for a
//! bounded number of looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;

use crate::spec::Protocol;

/// Processes and open files looked at; whoever is beyond them is not named.
const MAX_PROCESSES: usize = 32_768;
const MAX_FILES: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Process {
        pid: u32,
        name: String,
    },
    /// A socket of no process: a tunnel's, or a network filesystem's.
    Kernel,
    /// There is none any more, or it is out of sight.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, .. } if *pid == std::process::id() => write!(f, "a task of this node"),
            Holder::Process { pid, name } => write!(f, "{name} (pid {pid})"),
            Holder::Kernel => write!(f, "the kernel itself (another VXLAN device?)"),
            Holder::Unknown => write!(f, "another process"),
        }
    }
}

/// In the network namespace of the thread that asks.
pub fn of(ports: &BTreeSet<(Protocol, u16)>) -> BTreeMap<(Protocol, u16), Holder> {
    let mut inodes: BTreeMap<(Protocol, u16), u64> = BTreeMap::new();
    for (file, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        for (port, inode) in sockets(&table, protocol) {
            if ports.contains(&(protocol, port)) {
                inodes.entry((protocol, port)).or_insert(inode);
            }
        }
    }
    let wanted = inodes.values().copied().filter(|inode| *inode != 0).collect();
    let owners = owners(&wanted);
    let holder = |port: &(Protocol, u16)| match inodes.get(port) {
        Some(0) => Holder::Kernel,
        Some(inode) => owners.get(inode).cloned().unwrap_or(Holder::Unknown),
        None => Holder::Unknown,
    };
    ports.iter().map(|port| (*port, holder(port))).collect()
}

/// Port and inode of the sockets of a table that keep others from binding: of TCP those that listen.
fn sockets(table: &str, protocol: Protocol) -> impl Iterator<Item = (u16, u64)> {
    const LISTENS: &str = "0A";
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let port = fields.nth(1)?.rsplit_once(':')?.1;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        let bound = protocol != Protocol::Tcp || state == LISTENS;
        bound.then_some((u16::from_str_radix(port, 16).ok()?, inode))
    })
}

fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Holder> {
    let mut found = BTreeMap::new();
    let mut left = MAX_FILES;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(MAX_PROCESSES) {
        if found.len() == inodes.len() || left == 0 {
            break;
        }
        // One that ends meanwhile has nothing any more.
        for file in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().take(left) {
            left -= 1;
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
            let Some(inode) = inode.and_then(|inode| inode.parse().ok()).filter(|inode| inodes.contains(inode)) else {
                continue;
            };
            found.entry(inode).or_insert_with(|| Holder::Process { pid, name: name_of(pid) });
        }
    }
    found
}

/// A process chooses its name itself.
fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let plain: String = name.trim().chars().filter(|c| c.is_ascii_graphic()).take(32).collect();
    if plain.is_empty() { "a process".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17184 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C350 01 00000000:00000000 00:00000000 00000000     0        0 17185 1 0000000000000000 100 0 0 10 0
";
    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  100: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0
";

    #[test]
    fn sockets_are_read_from_the_kernels_tables() {
        assert_eq!(sockets(TCP6, Protocol::Tcp).collect::<Vec<_>>(), [(22, 17184)], "a connection is in nobody's way");
        assert_eq!(sockets(UDP, Protocol::Udp).collect::<Vec<_>>(), [(4789, 0)]);
        assert_eq!(sockets("header\nrubbish\n1: 2 3\n", Protocol::Udp).count(), 0);
    }

    #[test]
    fn the_process_behind_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = (Protocol::Tcp, listener.local_addr().unwrap().port());
        let free = (Protocol::Sctp, 9);
        let found = of(&[port, free].into());
        assert!(
            matches!(&found[&port], Holder::Process { pid, name } if *pid == std::process::id() && !name.is_empty())
        );
        assert_eq!(found[&free], Holder::Unknown);
    }
}
