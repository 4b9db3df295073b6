//! Settings under `/proc/sys/net` that the data plane needs, of the network namespace that the calling thread is in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::network::NetworkError;
use crate::network::names::OVERLAY;

pub fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}

/// Writes only what differs, so that a read-only `/proc/sys` with the right values will do.
pub fn set(key: &str, value: &'static str) -> Result<(), NetworkError> {
    let path = path(key);
    if read(&path).is_some_and(|now| now == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| NetworkError::Sysctl { path, value, source })
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether this kernel speaks IPv6, and is let.
pub fn has_ipv6() -> bool {
    read(&path("ipv6/conf/all/disable_ipv6")).is_some_and(|disabled| disabled == "0")
}

/// The host forwards for its tasks.
pub fn prepare_host(ipv6: bool) -> Result<(), NetworkError> {
    set("ipv4/ip_forward", "1")?;
    loosen_reverse_path()?;
    if ipv6 && read(&path("ipv6/conf/all/forwarding")).is_some_and(|now| now != "1") {
        keep_router_advertisements();
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Of the overlay's device.
pub fn prepare_overlay() -> Result<(), NetworkError> {
    prepare_interface(OVERLAY)
}

/// Packets arrive from clients that are elsewhere, and for the node's own loopback. The kernel would look up the way
/// back for the source of each, as soon as there are rules of routing; who may send what is told in nftables.
pub fn prepare_interface(name: &str) -> Result<(), NetworkError> {
    ["rp_filter", "route_localnet", "accept_local"]
        .into_iter()
        .zip(["0", "1", "1"])
        .try_for_each(|(key, value)| set(&format!("ipv4/conf/{name}/{key}"), value))
}

/// The greater of an interface's value and the one of `all` counts, so `all` has to be 0 for ours to be free. Each other
/// interface, and each to come, keeps what it had.
fn loosen_reverse_path() -> Result<(), NetworkError> {
    let all = path("ipv4/conf/all/rp_filter");
    let strictness = |path: &Path| read(path).and_then(|value| value.parse::<u8>().ok()).unwrap_or(0);
    let general = strictness(&all);
    if general == 0 {
        return Ok(());
    }
    for interface in interfaces("ipv4/conf") {
        let own = interface.join("rp_filter");
        if strictness(&own) < general {
            // One that has just gone needs no value.
            let _ = fs::write(own, general.to_string());
        }
    }
    tracing::info!("net.ipv4.conf.all.rp_filter is now 0; each interface keeps the filter that it had");
    set("ipv4/conf/all/rp_filter", "0")
}

/// A host that forwards takes no more advertisements, and with them loses its default route, unless told otherwise.
fn keep_router_advertisements() {
    for interface in interfaces("ipv6/conf") {
        let own = interface.join("accept_ra");
        if read(&own).is_some_and(|value| value == "1") {
            let _ = fs::write(own, "2");
        }
    }
}

/// All but `all`, with `default`.
fn interfaces(below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(path(below)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| !path.ends_with("all")).collect()
}
