//! What this node tells of itself in a support bundle: versions, settings, what it knows of members and networks, the
//! kernel's side of the network, the ends of logs. Each part is had by itself, within a bound; where one cannot be, that is
//! said in its place. Nothing of the data of secrets, of keys or of specs is read here.

use std::fmt::Debug;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::host::Host;
use super::logging;
use super::swarm::{Shared, doctor};
use crate::program::Program;
use crate::spec::{Finding, SupportFile};
use crate::state::codec;

/// Of one program's answer, and of the end of one log.
const MAX_OUTPUT: usize = 2 << 20;
const MAX_LOG_BYTES: u64 = 256 << 10;
/// For each program.
const PROGRAM_WITHIN: Duration = Duration::from_secs(3);
const READ_WITHIN: Duration = Duration::from_secs(8);
/// Of what another node sent.
const MAX_UNPACKED: u64 = 48 << 20;

/// What others know best how to show.
const PROGRAMS: [(&str, &str); 12] = [
    ("network/nft.txt", "nft list table inet flok"),
    ("network/nft-tables.txt", "nft list tables"),
    ("network/links.txt", "ip -details -statistics link show"),
    ("network/addresses.txt", "ip addr show"),
    ("network/routes4.txt", "ip -4 route show table all"),
    ("network/routes6.txt", "ip -6 route show table all"),
    ("network/rules4.txt", "ip -4 rule show"),
    ("network/rules6.txt", "ip -6 rule show"),
    ("network/neighbours.txt", "ip neigh show"),
    ("network/forwarding.txt", "bridge fdb show dev flok0"),
    ("network/sockets.txt", "ss -lntup"),
    ("host/disks.txt", "df -k"),
];

/// What the kernel says in files of its own.
const KERNEL: [(&str, &str); 8] = [
    ("network/conntrack-count.txt", "/proc/sys/net/netfilter/nf_conntrack_count"),
    ("network/conntrack-max.txt", "/proc/sys/net/netfilter/nf_conntrack_max"),
    ("network/conntrack-stat.txt", "/proc/thread-self/net/stat/nf_conntrack"),
    ("network/counters.txt", "/proc/thread-self/net/snmp"),
    ("host/load.txt", "/proc/loadavg"),
    ("host/memory.txt", "/proc/meminfo"),
    ("host/cpu-pressure.txt", "/proc/pressure/cpu"),
    ("host/memory-pressure.txt", "/proc/pressure/memory"),
];

/// All of it. `shared` is what the node has of its swarm, where it is in one.
pub async fn collect(host: &Host, shared: Option<&Arc<Shared>>) -> Vec<SupportFile> {
    let root = host.dir.root();
    let logs = ["containerd/containerd.log", "resolver/resolver.log"].map(|log| (log, root.join(log)));
    let of_host = spawn_blocking(move || {
        let programs = PROGRAMS.iter().map(|(path, line)| file(path, run(line)));
        let kernel = KERNEL.iter().map(|(path, from)| file(path, end_of(Path::new(from))));
        let logs = logs.iter().map(|(path, from)| file(path, end_of(from)));
        programs.chain(kernel).chain(logs).collect::<Vec<_>>()
    });
    let (of_host, report) = tokio::join!(timeout(READ_WITHIN, of_host), examined(shared));
    let mut files = vec![
        debug("version.txt", &(env!("CARGO_PKG_VERSION"), &host.facts)),
        debug("settings.txt", &host.config),
        json("conditions.json", &*host.task_networks().conditions().borrow()),
        debug("tasks.txt", &host.reports().borrow().tasks),
        debug("network/known.txt", &*host.networks.borrow()),
        file("network/doctor.txt", report),
        file("daemon.log", Ok(logging::recent())),
    ];
    files.extend(shared.map(|shared| debug("members.txt", &shared.view().members)));
    files.extend(shared.map(|shared| debug("records.txt", &*shared.observed.table())));
    match of_host {
        Ok(Ok(more)) => files.extend(more),
        _ => files.push(file("host", Err(format!("it was not read within {READ_WITHIN:?}")))),
    }
    files
}

async fn examined(shared: Option<&Arc<Shared>>) -> Result<String, String> {
    let shared = shared.ok_or("this node is in no swarm")?;
    match timeout(READ_WITHIN, doctor::examine(shared)).await {
        Ok(examined) => examined.map(|findings| report(&findings)).map_err(|error| error.to_string()),
        Err(_) => Err(format!("it took longer than {READ_WITHIN:?}")),
    }
}

/// For another node: compressed, and at most so many bytes. The largest files go first where they are more.
pub fn pack(mut files: Vec<SupportFile>, most: usize) -> Vec<u8> {
    loop {
        let packed = compressed(&codec::encode(&files));
        let largest = files.iter_mut().max_by_key(|file| file.text.as_ref().map_or(0, String::len));
        match largest {
            Some(file) if packed.len() > most && file.text.is_ok() => {
                file.text = Err("it is too large to be sent: ask for it on its node".to_owned());
            }
            _ => return packed,
        }
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("a Vec takes all that is written")
}

/// The error is what is wrong with the answer.
pub fn unpack(packed: &[u8]) -> Result<Vec<SupportFile>, String> {
    let mut bytes = Vec::new();
    let whole = ZlibDecoder::new(packed).take(MAX_UNPACKED).read_to_end(&mut bytes);
    whole.map_err(|error| error.to_string())?;
    codec::decode(&bytes).map_err(|error| error.to_string())
}

fn file(path: &str, text: Result<String, String>) -> SupportFile {
    SupportFile { path: format!("node/{path}"), text }
}

fn debug(path: &str, value: &impl Debug) -> SupportFile {
    file(path, Ok(format!("{value:#?}\n")))
}

fn json(path: &str, value: &impl Serialize) -> SupportFile {
    file(path, serde_json::to_string_pretty(value).map_err(|error| error.to_string()))
}

fn report(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        format!("{} {}: {}\n", if finding.ok { "ok    " } else { "broken" }, finding.what, finding.detail)
    };
    findings.iter().map(line).collect()
}

fn run(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Program::new(program, PROGRAM_WITHIN).args(words).at_most(MAX_OUTPUT).run();
    output.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.to_string())
}

/// The end of a file that may be long.
fn end_of(path: &Path) -> Result<String, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(MAX_LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_to_another_node_is_bounded_and_the_rest_arrives() {
        // Incompressible, as far as text can be.
        let noise = |seed: u64| -> String {
            let mut state = seed;
            let next = |state: &mut u64| {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'!' + u8::try_from(*state >> 58).unwrap())
            };
            (0..100_000).map(|_| next(&mut state)).collect()
        };
        let file = |path: &str, text: String| SupportFile { path: path.into(), text: Ok(text) };
        let files = vec![file("small", "kept".into()), file("large", noise(1) + &noise(2)), file("medium", noise(3))];
        let packed = pack(files.clone(), 100_000);
        assert!(packed.len() <= 100_000, "{}", packed.len());
        let arrived = unpack(&packed).unwrap();
        assert_eq!((&arrived[0], &arrived[2]), (&files[0], &files[2]));
        assert!(arrived[1].text.as_ref().unwrap_err().contains("too large"));
        assert_eq!(unpack(&pack(files.clone(), 1 << 20)).unwrap(), files);
        assert!(unpack(b"rubbish").is_err());
    }
}
