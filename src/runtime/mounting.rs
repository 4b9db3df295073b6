//! File systems that are mounted for volumes. The system call is made by a process of its own, which can be killed: a server
//! that does not answer holds up nobody else, and no option stands on a command line. Options are those of `mount -o`,
//! turned into flags as Docker's local driver does.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use super::error::{Result, RuntimeError};
use crate::program::{Program, ProgramError};
use crate::spec::VolumeMount;

/// The hidden first argument that makes flok's binary mount what it reads; the second is where.
pub const MOUNT_ARGUMENT: &str = "__mount";
/// For a server to answer; NFS itself would wait for minutes.
pub const MOUNT_WITHIN: Duration = Duration::from_secs(30);
/// Mounts that lie on one another at one place.
const MAX_STACKED: usize = 16;

const PROPAGATION: [(&str, MsFlags); 8] = [
    ("private", MsFlags::MS_PRIVATE),
    ("rprivate", MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
    ("shared", MsFlags::MS_SHARED),
    ("rshared", MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
    ("slave", MsFlags::MS_SLAVE),
    ("rslave", MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
    ("unbindable", MsFlags::MS_UNBINDABLE),
    ("runbindable", MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
];
const SET: [(&str, MsFlags); 14] = [
    ("bind", MsFlags::MS_BIND),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC)),
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("sync", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC),
    ("mand", MsFlags::MS_MANDLOCK),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
    ("strictatime", MsFlags::MS_STRICTATIME),
    ("remount", MsFlags::MS_REMOUNT),
];
const CLEAR: [(&str, MsFlags); 11] = [
    ("defaults", MsFlags::empty()),
    ("rw", MsFlags::MS_RDONLY),
    ("suid", MsFlags::MS_NOSUID),
    ("dev", MsFlags::MS_NODEV),
    ("exec", MsFlags::MS_NOEXEC),
    ("async", MsFlags::MS_SYNCHRONOUS),
    ("nomand", MsFlags::MS_MANDLOCK),
    ("atime", MsFlags::MS_NOATIME),
    ("diratime", MsFlags::MS_NODIRATIME),
    ("norelatime", MsFlags::MS_RELATIME),
    ("nostrictatime", MsFlags::MS_STRICTATIME),
];

/// What the process is told on its standard input.
#[derive(Serialize, Deserialize)]
struct Order {
    kind: String,
    device: String,
    options: String,
}

/// Mounts for the volume `name` at `target`, within [`MOUNT_WITHIN`]. `program`: flok's own binary.
pub async fn mount_volume(program: &Path, name: &str, wanted: &VolumeMount, target: &Path) -> Result<()> {
    let VolumeMount { kind, device, options } = wanted.clone();
    let failed = {
        let (volume, kind, device) = (name.to_owned(), kind.clone(), device.clone());
        move |reason: String| RuntimeError::VolumeMount { volume, kind, device, reason }
    };
    let order = serde_json::to_vec(&Order { kind, device, options }).expect("texts are JSON");
    let run = Program::new(program, MOUNT_WITHIN).args([OsStr::new(MOUNT_ARGUMENT), target.as_os_str()]).input(order);
    let ran = tokio::task::spawn_blocking(move || run.run()).await;
    match ran {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(ProgramError::TimedOut { within, .. })) => {
            Err(failed(format!("no answer within {} s: is the server there?", within.as_secs())))
        }
        Ok(Err(error)) => Err(failed(error.said().map_or_else(|| error.to_string(), str::to_owned))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Runs as the process that mounts; returns its exit code. What is wrong goes to standard error.
pub fn run(target: &Path) -> i32 {
    let mut text = Vec::new();
    let order = io::stdin().read_to_end(&mut text).ok().and_then(|_| serde_json::from_slice::<Order>(&text).ok());
    let Some(order) = order else {
        eprintln!("flok mounts volumes itself, not by hand");
        return 2;
    };
    match carry_out(&order, target) {
        Ok(()) => 0,
        Err(reason) => {
            eprintln!("{reason}");
            1
        }
    }
}

fn carry_out(order: &Order, target: &Path) -> Result<(), String> {
    let options = with_address(order, resolve)?;
    let (flags, propagation, data) = parse(&options);
    let device = Some(order.device.as_str());
    let data = Some(data.as_str()).filter(|data| !data.is_empty());
    let told = |error: Errno| explained(error, &order.kind);
    mount(device, target, Some(order.kind.as_str()), flags, data).map_err(told)?;
    let none = None::<&str>;
    let mut then = Ok(());
    if !propagation.is_empty() {
        then = mount(none, target, none, propagation, none);
    }
    // A bind takes its flags only when it is there.
    if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
        then = then.and_then(|()| mount(none, target, none, flags | MsFlags::MS_REMOUNT, data));
    }
    then.map_err(|error| {
        let _ = umount2(target, MntFlags::MNT_DETACH);
        told(error)
    })
}

/// Flags, how mounts below spread, and what is the file system's own to read.
fn parse(options: &str) -> (MsFlags, MsFlags, String) {
    let (mut flags, mut propagation, mut data) = (MsFlags::empty(), MsFlags::empty(), Vec::new());
    let find =
        |table: &[(&str, MsFlags)], word: &str| table.iter().find(|(name, _)| *name == word).map(|(_, flag)| *flag);
    for word in options.split(',').filter(|word| !word.is_empty()) {
        if let Some(flag) = find(&SET, word) {
            flags |= flag;
        } else if let Some(flag) = find(&CLEAR, word) {
            flags &= !flag;
        } else if let Some(flag) = find(&PROPAGATION, word) {
            propagation |= flag;
        } else {
            data.push(word);
        }
    }
    (flags, propagation, data.join(","))
}

/// The kernel takes addresses of servers, not their names: `addr=` is added, or its name replaced.
fn with_address(order: &Order, resolve: impl Fn(&str) -> Result<IpAddr, String>) -> Result<String, String> {
    let server = match order.kind.as_str() {
        "nfs" | "nfs4" => order.device.rsplit_once(":/").map(|(host, _)| host),
        "cifs" | "smb3" => order.device.strip_prefix("//").and_then(|rest| rest.split('/').next()),
        _ => return Ok(order.options.clone()),
    };
    let mut words: Vec<String> = order.options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let written = words.iter().position(|word| word.starts_with("addr=") || word.starts_with("ip="));
    match (written, server) {
        (Some(at), _) => {
            let (key, host) = words[at].split_once('=').expect("it was found by that");
            words[at] = format!("{key}={}", resolve(host)?);
        }
        (None, Some(host)) if !host.is_empty() => words.push(format!("addr={}", resolve(host)?)),
        (None, _) => {
            return Err("the device names no server: write SERVER:/PATH for nfs, //SERVER/SHARE for cifs".into());
        }
    }
    Ok(words.join(","))
}

fn resolve(host: &str) -> Result<IpAddr, String> {
    let host = host.trim_matches(['[', ']']);
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let found = (host, 0).to_socket_addrs().map_err(|error| format!("the server {host} is not found: {error}"))?;
    found.map(|address| address.ip()).next().ok_or_else(|| format!("the server {host} has no address"))
}

fn explained(error: Errno, kind: &str) -> String {
    match error {
        Errno::ENODEV => {
            format!("the kernel of this node has no file system {kind:?}: load its module (modprobe {kind})")
        }
        Errno::EINVAL => format!("the kernel does not take these options for {kind:?} (dmesg may say which)"),
        Errno::EPERM => "the daemon may not mount: it needs CAP_SYS_ADMIN".into(),
        other => other.desc().into(),
    }
}

/// Whether something is mounted at `path`, whose parent is a real path. Asks no file system, which might not answer.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(mount_points()?.iter().any(|point| point == path))
}

/// The first place below `dir` where something is mounted.
pub fn mounted_below(dir: &Path) -> io::Result<Option<PathBuf>> {
    Ok(mount_points()?.into_iter().find(|point| point.starts_with(dir)))
}

/// Success where nothing is mounted there. What still uses it keeps it until it ends.
pub fn unmount(path: &Path) -> io::Result<()> {
    for _ in 0..MAX_STACKED {
        if !is_mounted(path)? {
            return Ok(());
        }
        umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Err(io::Error::other("something is mounted there again and again"))
}

/// Removes a directory with all that is in it, and nothing that is mounted there. None there is success.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    let real = match dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        real => real?,
    };
    if let Some(point) = mounted_below(&real)? {
        return Err(io::Error::other(format!("something is mounted at {}: unmount it first", point.display())));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn mount_points() -> io::Result<Vec<PathBuf>> {
    Ok(points(&fs::read("/proc/thread-self/mountinfo")?))
}

/// Fifth field of each line, in which blanks and backslashes are written as octal numbers.
fn points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let field = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescaped);
    lines.filter_map(field).collect()
}

fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| more.get(..3)).flatten();
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[3..] } else { more };
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(kind: &str, device: &str, options: &str) -> Order {
        Order { kind: kind.into(), device: device.into(), options: options.into() }
    }

    #[test]
    fn options_become_flags_and_the_rest_is_the_file_systems() {
        let (flags, propagation, data) = parse("ro,noexec,size=1m,mode=700,rslave,defaults");
        assert_eq!(flags, MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC);
        assert_eq!((propagation, data.as_str()), (MsFlags::MS_SLAVE | MsFlags::MS_REC, "size=1m,mode=700"));
        assert_eq!(parse("ro,rw,nosuid,suid").0, MsFlags::empty(), "the later one goes");
        assert_eq!(parse("rbind").0, MsFlags::MS_BIND | MsFlags::MS_REC);
        assert_eq!(parse("").2, "");
    }

    #[test]
    fn the_kernel_is_told_the_servers_address() {
        let known = |host: &str| match host {
            "nas" => Ok("10.0.0.5".parse().unwrap()),
            other => other.trim_matches(['[', ']']).parse().map_err(|_| format!("the server {other} is not found")),
        };
        let given = |kind, device, options| with_address(&order(kind, device, options), known);
        assert_eq!(given("nfs", "nas:/x", "rw,vers=4").unwrap(), "rw,vers=4,addr=10.0.0.5");
        assert_eq!(given("nfs4", "[fd00::5]:/x", "").unwrap(), "addr=fd00::5");
        assert_eq!(given("nfs", ":/x", "addr=nas,ro").unwrap(), "addr=10.0.0.5,ro");
        assert_eq!(given("cifs", "//nas/share", "username=u").unwrap(), "username=u,addr=10.0.0.5");
        assert_eq!(given("tmpfs", "tmpfs", "size=1m").unwrap(), "size=1m");
        assert!(given("nfs", "/x", "").unwrap_err().contains("SERVER:/PATH"));
        assert_eq!(given("nfs", "nowhere:/x", "").unwrap_err(), "the server nowhere is not found");
    }

    #[test]
    fn mount_points_are_read_with_blanks_in_them() {
        let text = b"36 35 98:0 / /a\\040b rw - ext4 /dev/sda rw\n37 36 0:1 / /c rw - tmpfs tmpfs rw\n";
        assert_eq!(points(text), [PathBuf::from("/a b"), PathBuf::from("/c")]);
        assert!(is_mounted(Path::new("/proc")).unwrap() && !is_mounted(Path::new("/proc/self")).unwrap());
    }

    #[test]
    fn what_the_kernel_says_is_told_with_what_to_do() {
        assert_eq!(explained(Errno::ECONNREFUSED, "nfs"), "Connection refused");
        assert!(explained(Errno::ENODEV, "nfs").contains("modprobe nfs"));
    }
}
