//! What the daemon needs of its host, looked for before anything is started: programs, namespaces, nftables with NAT,
//! overlayfs on the data directory. All that is missing is said at once.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::config::Config;
use crate::gossip::Surroundings;
use crate::network;
use crate::program::Program;
use crate::spec::Subnet;

/// For a program that only looks.
const WITHIN: Duration = Duration::from_secs(10);
/// The table is checked and never made.
const NAT: &str = "add table inet flok-check\n\
    add chain inet flok-check c { type nat hook postrouting priority srcnat ; }\n\
    add rule inet flok-check c masquerade\n";

/// Fails with everything that is missing, and what to do about it. Leaves nothing behind.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let mut lacks = Vec::new();
    let mut programs = vec![("nft", "nftables"), ("runc", "runc")];
    if config.containerd.is_none() {
        programs.push(("containerd", "containerd"));
    }
    let missing = programs.into_iter().filter(|(program, _)| find(program).is_none());
    lacks.extend(
        missing.map(|(program, package)| format!("the program {program} is not on the PATH: install {package}")),
    );
    if find("nft").is_some() {
        lacks.extend(nat().err());
    }
    lacks.extend(namespaces().err());
    lacks.extend(local_subnet(&config.local_subnet.block(), network::others_routes()).err());
    lacks.extend(overlay(&config.data_dir).err());
    if lacks.is_empty() {
        return Ok(());
    }
    bail!("this host lacks what flok needs:\n  - {}", lacks.join("\n  - "))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn nat() -> Result<(), String> {
    let checked = Program::new("nft", WITHIN).args(["--check", "--file", "-"]).input(NAT).run();
    let say = |why| format!("nftables with NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ): {why}");
    checked.map(drop).map_err(|error| say(error.to_string()))
}

/// Tasks would take the addresses from whoever has them now.
fn local_subnet(subnet: &Subnet, routes: io::Result<BTreeSet<Subnet>>) -> Result<(), String> {
    let routes = routes.map_err(|error| format!("the right to read the host's routes: {error}"))?;
    // A default route, or half of one, leads to nothing of its own.
    let around = Surroundings::new(routes.into_iter().collect(), None);
    match around.connected.iter().find(|held| held.overlaps(subnet)) {
        None => Ok(()),
        Some(held) => Err(format!(
            "a block of addresses for its tasks: {subnet} overlaps with {held}, which this host has a route to; choose one \
             that nothing here uses with --local-subnet, FLOK_LOCAL_SUBNET or local-subnet in the configuration file"
        )),
    }
}

fn namespaces() -> Result<(), String> {
    let flags =
        CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    on_thread(move || {
        unshare(flags).map_err(|error| {
            format!(
                "namespaces (CONFIG_NET_NS, CONFIG_IPC_NS, CONFIG_UTS_NS) and the right to make them (CAP_SYS_ADMIN; in a \
                 container, --privileged): {}",
                error.desc()
            )
        })
    })
}

/// Mounts one below the data directory, where containerd will: overlayfs itself, network filesystems and FAT cannot carry it.
fn overlay(data_dir: &Path) -> Result<(), String> {
    let dir = data_dir.join("tmp").join("overlay-check");
    let made = on_thread({
        let dir = dir.clone();
        move || mount_overlay(&dir)
    });
    // Nothing there is fine.
    let _ = std::fs::remove_dir_all(&dir);
    made.map_err(|why| {
        format!(
            "overlayfs (CONFIG_OVERLAY_FS) on the filesystem of {}: {why}; put the data directory on ext4, xfs or btrfs",
            data_dir.display()
        )
    })
}

fn mount_overlay(dir: &Path) -> Result<(), String> {
    for part in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir_all(dir.join(part)).map_err(|error| error.to_string())?;
    }
    // In a mount namespace of its own, so that nobody sees it and it cannot stay.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| error.desc().to_owned())?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|error| error.desc().to_owned())?;
    let merged = dir.join("merged");
    let [lower, upper, work] = ["lower", "upper", "work"].map(|part| dir.join(part).display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let mounted = mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    mounted.map_err(|error| match error {
        nix::Error::ENODEV => "the kernel has no overlayfs".to_owned(),
        other => other.desc().to_owned(),
    })?;
    umount2(&merged, MntFlags::MNT_DETACH).map_err(|error| error.desc().to_owned())
}

/// What a thread unshares ends with it.
fn on_thread(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    let thread =
        std::thread::Builder::new().name("flok-preflight".into()).spawn(work).map_err(|error| error.to_string())?;
    thread.join().unwrap_or_else(|_| Err("the check itself failed".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_the_host_has_a_route_to_is_refused_by_name() {
        let subnet = "198.19.0.0/17".parse().unwrap();
        let check =
            |routes: &[&str]| local_subnet(&subnet, Ok(routes.iter().map(|text| text.parse().unwrap()).collect()));
        assert_eq!(check(&["0.0.0.0/0", "192.168.0.0/16", "198.18.0.0/16", "198.19.249.0/24"]), Ok(()));
        let said = check(&["198.19.7.0/24"]).unwrap_err();
        assert!(
            said.contains("198.19.0.0/17 overlaps with 198.19.7.0/24") && said.contains("--local-subnet"),
            "{said}"
        );
    }
}
