//! Reads the tables of others, by the programs that know how to. Blocks, for a bounded time.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Family, Foreign, nft, save};
use crate::network::names::TABLE;
use crate::program::Program;

/// For each program.
const WITHIN: Duration = Duration::from_secs(3);
/// A larger table is not judged.
const MAX_OUTPUT: usize = 4 << 20;
const MAX_TABLES: usize = 32;

/// The interface that has an address.
pub fn uplink(address: IpAddr) -> Option<String> {
    let of_interface = nix::ifaddrs::getifaddrs().ok()?.find(|found| {
        let at = found.address.as_ref();
        let four = at.and_then(|at| at.as_sockaddr_in()).map(|at| IpAddr::from(at.ip()));
        let six = at.and_then(|at| at.as_sockaddr_in6()).map(|at| IpAddr::from(at.ip()));
        four.or(six) == Some(address)
    });
    of_interface.map(|found| found.interface_name)
}

/// All of them, as far as they can be read: what cannot is not judged.
pub fn look() -> Vec<Foreign> {
    let listed = run("nft", &["--json", "list", "tables"]).unwrap_or_default();
    let tables = tables(&listed).unwrap_or_default();
    let mut found: Vec<Foreign> = tables.into_iter().filter_map(|(family, name)| of_nftables(family, name)).collect();
    found.extend(legacy("ip_tables_names", Family::Ip));
    found.extend(legacy("ip6_tables_names", Family::Ip6));
    found
}

fn tables(listed: &[u8]) -> Option<Vec<(Family, String)>> {
    let whole: Value = serde_json::from_slice(listed).ok()?;
    let tables = whole["nftables"].as_array()?.iter().filter_map(|object| {
        let table = object.get("table")?;
        let (family, name) = (table["family"].as_str()?, table["name"].as_str()?);
        let known = match family {
            "inet" => Family::Inet,
            "ip" => Family::Ip,
            "ip6" => Family::Ip6,
            _ => return None,
        };
        (format!("{family} {name}") != TABLE).then(|| (known, name.to_owned()))
    });
    Some(tables.take(MAX_TABLES).collect())
}

fn of_nftables(family: Family, name: String) -> Option<Foreign> {
    // A name that reads like an option is none that anybody gives.
    if name.starts_with('-') {
        return None;
    }
    let json = run("nft", &["--json", "--terse", "list", "table", family.name(), &name])?;
    let of_iptables = name == "filter" && json.windows(5).any(|part| part == b"\"xt\":");
    let saved = of_iptables.then(|| saved(&save_programs(family, "nft"))).flatten();
    let table = saved.or_else(|| nft::parse(&json))?;
    Some(Foreign { family, name, legacy: false, table })
}

/// Only where the kernel has such a table: who asks otherwise has it made.
fn legacy(names: &str, family: Family) -> Option<Foreign> {
    let names = fs::read_to_string(format!("/proc/thread-self/net/{names}")).ok()?;
    let table = names.lines().any(|name| name == "filter").then(|| saved(&save_programs(family, "legacy")))??;
    Some(Foreign { family, name: "filter".to_owned(), legacy: true, table })
}

/// A host has either of the two, or only one without saying which.
fn save_programs(family: Family, variant: &str) -> [String; 2] {
    let program = if family == Family::Ip6 { "ip6tables" } else { "iptables" };
    [format!("{program}-{variant}-save"), format!("{program}-save")]
}

fn saved(programs: &[String]) -> Option<super::rules::Table> {
    let output = programs.iter().find_map(|program| run(program, &["-t", "filter"]))?;
    save::parse(&String::from_utf8_lossy(&output))
}

fn run(program: &str, args: &[&str]) -> Option<Vec<u8>> {
    match Program::new(program, WITHIN).args(args).at_most(MAX_OUTPUT).run() {
        Ok(output) => Some(output),
        Err(error) => {
            tracing::debug!(%error, "a firewall's rules cannot be read, and are not judged");
            None
        }
    }
}
