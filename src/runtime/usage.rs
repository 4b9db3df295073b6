//! What the kernel counts beside the cgroups: the host's CPU time, and the traffic of a container's interfaces.

use std::fs;

/// Traffic of one interface: bytes, packets, errors, drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: [u64; 4],
    pub sent: [u64; 4],
}

/// CPU time of the host that has passed, idle or not, over all CPUs.
pub fn host_cpu_ns() -> u64 {
    let ticks_a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    let nanos_a_tick =
        ticks_a_second.and_then(|ticks| u64::try_from(ticks).ok()).map_or(10_000_000, |t| 1_000_000_000 / t);
    total_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default()).saturating_mul(nanos_a_tick)
}

/// The interfaces that a process sees, but for the loopback one.
pub fn interfaces(pid: u32) -> Vec<Interface> {
    parse(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

fn total_ticks(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    // Guests' time is in the user's already.
    line.split_whitespace().take(8).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let four = |at: usize| counts.get(at..at + 4)?.try_into().ok();
        Some(Interface { name: name.trim().to_owned(), received: four(0)?, sent: four(8)? })
    };
    text.lines().filter_map(line).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(total_ticks("cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 9 9\n"), 36);
        let text = "Inter-|   Receive  | Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        assert_eq!(parse(text), [Interface { name: "eth0".into(), received: [10, 2, 3, 4], sent: [50, 6, 7, 8] }]);
    }
}
