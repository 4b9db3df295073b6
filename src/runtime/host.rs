//! What this host is and has: platform, CPUs, memory, cgroups, devices, load. Everything is read from `/proc`, `/sys` and
//! `/dev`; the parsing is pure.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Result, RuntimeError};
use super::oci::{Cgroup, CgroupVersion, DeviceNode, parse_permissions};
use crate::gossip::Load;
use crate::spec::{ContainerSpec, MonoMs, Platform};

/// In the kernel's words, as `uname -m` has them and Docker shows them.
pub fn platform() -> Platform {
    Platform { os: "linux".to_owned(), architecture: std::env::consts::ARCH.to_owned() }
}

pub fn nano_cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64) * 1_000_000_000
}

/// All of the host's memory; 0 where it cannot be read.
pub fn memory_bytes() -> u64 {
    meminfo(&read("/proc/meminfo"), "MemTotal").unwrap_or(0)
}

/// How cgroups are laid out below `mount`. A hybrid host counts as version 1: its controllers are there.
pub fn cgroup(mount: &Path) -> Cgroup {
    if mount.join("cgroup.controllers").exists() {
        // Version 2 limits swap wherever the kernel has it at all.
        return Cgroup { version: CgroupVersion::V2, swap_limit: true };
    }
    Cgroup { version: CgroupVersion::V1, swap_limit: mount.join("memory/memory.memsw.limit_in_bytes").exists() }
}

/// A static init to put into containers that ask for one.
pub fn init_binary() -> Option<PathBuf> {
    let places = [
        "/usr/libexec/docker/docker-init",
        "/usr/bin/docker-init",
        "/usr/bin/tini-static",
        "/usr/sbin/tini-static",
        "/usr/bin/tini",
        "/sbin/tini",
    ];
    places.iter().map(PathBuf::from).find(|path| is_static(path))
}

/// Whether a program needs nothing of its host: one that names an interpreter (`PT_INTERP`) would look for it, and for libraries, in
/// the container's image.
fn is_static(program: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(program).and_then(|file| file.take(PROGRAM_HEAD_BYTES).read_to_end(&mut head));
    read.is_ok() && names_interpreter(&head) == Some(false)
}

/// The program's headers stand right behind its own.
const PROGRAM_HEAD_BYTES: u64 = 16 << 10;

/// Of a 64-bit little-endian ELF file's beginning (System V ABI, "Program Header"). `None`: it is no such file.
fn names_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?)));
    let headers = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(54)?, half(56)?);
    let mut interpreted = false;
    for index in 0..count {
        let at = headers.checked_add(index * size)?;
        interpreted |= u32::from_le_bytes(elf.get(at..at.checked_add(4)?)?.try_into().ok()?) == PT_INTERP;
    }
    Some(interpreted)
}

/// `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub fn signal_number(name: &str) -> Option<i32> {
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let more = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<i32>().ok()? };
        return Some(34 + more).filter(|number| *number <= 64);
    }
    format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// How long a process has existed.
pub fn process_age(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything.
    let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 = read("/proc/uptime").split_whitespace().next()?.parse().ok()?;
    let ticks_a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_secs_f64((uptime - started / ticks_a_second as f64).max(0.0)))
}

/// What this process may pass on of the kernel's capabilities, a bit for each by its number; all where it cannot be read.
pub fn bounding_capabilities() -> u64 {
    let status = read("/proc/self/status");
    let written = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    written.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// The devices a container shall have: those it names, and for a privileged one all of the host's beside them.
pub fn devices(container: &ContainerSpec) -> Result<Vec<DeviceNode>> {
    let mut devices = Vec::new();
    for mapping in &container.devices {
        let permissions = parse_permissions(&mapping.permissions)?;
        let path = Path::new(&mapping.host_path);
        let device = device(path, Path::new(&mapping.container_path), &permissions);
        devices.push(device.ok_or_else(|| RuntimeError::Mount {
            target: mapping.container_path.clone(),
            reason: format!("{} is no device on this node", mapping.host_path),
        })?);
    }
    if container.privileged {
        let mut hosts = Vec::new();
        walk(Path::new("/dev"), &mut hosts);
        hosts.retain(|host| devices.iter().all(|own| own.path != host.path));
        devices.append(&mut hosts);
    }
    Ok(devices)
}

pub(super) fn device(host: &Path, container: &Path, permissions: &str) -> Option<DeviceNode> {
    let metadata = fs::metadata(host).ok()?;
    let kind = metadata.file_type();
    let number = metadata.rdev();
    (kind.is_char_device() || kind.is_block_device()).then(|| DeviceNode {
        path: container.to_owned(),
        block: kind.is_block_device(),
        major: nix::sys::stat::major(number) as u32,
        minor: nix::sys::stat::minor(number) as u32,
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        permissions: permissions.to_owned(),
    })
}

/// Devices below a directory, without what each container has of its own.
fn walk(dir: &Path, found: &mut Vec<DeviceNode>) {
    const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_symlink() || OWN.iter().any(|own| name == *own) {
            continue;
        }
        if kind.is_dir() {
            walk(&path, found);
        } else if let Some(device) = device(&path, &path, "rwm") {
            found.push(device);
        }
    }
}

/// Over how long CPU use is averaged, as the kernel averages pressure (`avg10`): a node that starts a container is not
/// a busy one.
const CPU_AVERAGED_OVER: Duration = Duration::from_secs(10);

/// Samples the host's load.
#[derive(Debug, Default)]
pub struct LoadSampler {
    cpu: CpuUse,
}

impl LoadSampler {
    pub fn sample(&mut self, data_dir: &Path, now: MonoMs) -> Load {
        let share = cpu_times(&read("/proc/stat")).map_or(0.0, |times| self.cpu.add(times, now));
        let memory = read("/proc/meminfo");
        let (total, available) = (meminfo(&memory, "MemTotal"), meminfo(&memory, "MemAvailable"));
        let disk = nix::sys::statvfs::statvfs(data_dir).ok();
        let blocks = |count: u64| disk.as_ref().map_or(0, |disk| count * disk.fragment_size());
        Load {
            used_nano_cpus: (share * nano_cpus() as f64) as u64,
            used_memory_bytes: total.unwrap_or(0).saturating_sub(available.unwrap_or(0)),
            cpu_pressure: pressure(&read("/proc/pressure/cpu")),
            memory_pressure: pressure(&read("/proc/pressure/memory")),
            io_pressure: pressure(&read("/proc/pressure/io")),
            disk_free_bytes: blocks(disk.as_ref().map_or(0, |disk| disk.blocks_available())),
            disk_total_bytes: blocks(disk.as_ref().map_or(0, |disk| disk.blocks())),
        }
    }
}

/// The share of all CPUs that was in use of late: an exponential average.
#[derive(Debug, Default)]
struct CpuUse {
    last: Option<(CpuTimes, MonoMs)>,
    average: Option<f64>,
}

impl CpuUse {
    fn add(&mut self, times: CpuTimes, now: MonoMs) -> f64 {
        if let Some((before, at)) = self.last.replace((times, now))
            && times.total > before.total
        {
            let share = times.busy.saturating_sub(before.busy) as f64 / (times.total - before.total) as f64;
            let weight = 1.0 - (-(now - at).div_duration_f64(CPU_AVERAGED_OVER)).exp();
            self.average = Some(self.average.map_or(share, |average| average + (share - average) * weight));
        }
        self.average.unwrap_or(0.0)
    }
}

/// Of all CPUs since the host was started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CpuTimes {
    busy: u64,
    total: u64,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// From the first line of `/proc/stat`.
fn cpu_times(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user time already.
    let total: u64 = ticks.iter().take(8).sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(CpuTimes { busy: total - idle, total })
}

fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// `some avg10`, in percent; 0 where the kernel keeps none.
fn pressure(text: &str) -> f32 {
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let avg10 = some.and_then(|line| line.split_whitespace().find_map(|field| field.strip_prefix("avg10=")));
    avg10.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privileged_container_has_its_own_devices_beside_the_hosts() {
        let own = |host: &str, container: &str| crate::spec::DeviceMapping {
            host_path: host.into(),
            container_path: container.into(),
            permissions: String::new(),
        };
        let devices = devices(&ContainerSpec {
            privileged: true,
            devices: vec![own("/dev/null", "/dev/spare"), own("/dev/zero", "/dev/null")],
            ..ContainerSpec::default()
        });
        let devices = devices.unwrap();
        let minor = |path: &str| {
            let of_path: Vec<_> = devices.iter().filter(|device| device.path == Path::new(path)).collect();
            assert_eq!(of_path.len(), 1, "{path}");
            of_path[0].minor
        };
        assert_eq!((minor("/dev/spare"), minor("/dev/null"), minor("/dev/full")), (3, 5, 7));
    }

    #[test]
    fn signals_are_read_by_name_and_number() {
        for (text, number) in [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("rtmin", 34)] {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNOPE", "SIGRTMIN+99"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }

    /// A header of 64 bytes, and a program header of each kind.
    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56 * kinds.len()];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = u8::try_from(kinds.len()).unwrap();
        for (index, kind) in kinds.iter().enumerate() {
            elf[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        elf
    }

    #[test]
    fn an_init_with_an_interpreter_is_none_for_a_container() {
        assert_eq!(names_interpreter(&elf(&[6, 1, 2])), Some(false));
        assert_eq!(names_interpreter(&elf(&[6, 3, 1])), Some(true));
        assert_eq!(names_interpreter(&elf(&[1, 1])[..100]), None, "cut short");
        let mut far = elf(&[1]);
        far[32..40].fill(0xff);
        assert_eq!(names_interpreter(&far), None);
        assert_eq!((names_interpreter(b"#!/bin/sh\n"), names_interpreter(b"")), (None, None));
        assert!(!is_static(Path::new("/nowhere/tini")));
    }

    #[test]
    fn cpu_time_is_split_into_busy_and_total() {
        assert_eq!(cpu_times("cpu  10 1 5 80 4 0 0 0 3 0\ncpu0 1 2 3\n"), Some(CpuTimes { busy: 16, total: 100 }));
        assert_eq!(cpu_times(""), None);
    }

    #[test]
    fn cpu_use_is_averaged_over_ten_seconds() {
        let mut cpu = CpuUse::default();
        let mut at = |busy, second: u64| cpu.add(CpuTimes { busy, total: 100 * second }, MonoMs(1000 * second));
        assert_eq!(at(0, 0), 0.0);
        assert_eq!(at(10, 1), 0.1);
        let spike = at(110, 2);
        assert!((0.15..0.25).contains(&spike), "{spike}");
        let busy = (3..=40).map(|second| at(110 + 100 * (second - 2), second)).last().expect("there are seconds");
        assert!(busy > 0.95, "{busy}");
    }

    #[test]
    fn memory_and_pressure_are_read() {
        assert_eq!(meminfo("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2048 * 1024));
        assert_eq!(pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.0\n"), 1.5);
        assert_eq!(pressure(""), 0.0);
    }

    #[test]
    fn a_host_with_controllers_in_one_hierarchy_is_version_2() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cgroup(dir.path()).version, CgroupVersion::V1);
        fs::write(dir.path().join("cgroup.controllers"), "cpu").unwrap();
        assert_eq!(cgroup(dir.path()).version, CgroupVersion::V2);
    }
}
