//! Limits: what the container's cgroup allows it. runc writes the same numbers into v1's or v2's files.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::{ContainerInputs, SpecError, devices};
use crate::spec::Resources;

/// How the host's cgroups are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy a controller; a hybrid host counts as this, since its controllers are here.
    V1,
    /// One hierarchy for all.
    V2,
}

/// What the caller found of the host's cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cgroup {
    pub version: CgroupVersion,
    /// Whether swap can be limited (on v1, `memory.memsw.limit_in_bytes` exists).
    pub swap_limit: bool,
}

/// Length of the CPU quota's period.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel takes no smaller quota.
const MIN_CPU_QUOTA_US: u64 = 1_000;
/// The kernel's weight of one whole CPU, and the least it takes.
const SHARES_PER_CPU: u64 = 1_024;
const MIN_SHARES: u64 = 2;
/// Docker's least memory limit: below it runc cannot even start.
const MIN_MEMORY_BYTES: u64 = 6 * 1024 * 1024;

pub(super) fn resources(inputs: &ContainerInputs<'_>) -> Result<LinuxResources, SpecError> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(Some(devices::rules(inputs.devices, inputs.container.privileged)?))
        .set_cpu(cpu(inputs.resources))
        .set_memory(memory(inputs.resources, inputs.cgroup)?)
        .set_pids(pids(inputs.resources.limits.pids));
    Ok(resources)
}

/// A limit becomes a quota. A reservation becomes a weight, so that under contention each has at least its share.
fn cpu(resources: &Resources) -> Option<LinuxCpu> {
    let (limit, reserved) = (resources.limits.nano_cpus, resources.reservations.nano_cpus);
    if limit == 0 && reserved == 0 {
        return None;
    }
    let mut cpu = LinuxCpu::default();
    if limit > 0 {
        let quota = scaled(limit, CPU_PERIOD_US).max(MIN_CPU_QUOTA_US);
        cpu.set_period(Some(CPU_PERIOD_US)).set_quota(Some(i64::try_from(quota).unwrap_or(i64::MAX)));
    }
    if reserved > 0 {
        cpu.set_shares(Some(scaled(reserved, SHARES_PER_CPU).max(MIN_SHARES)));
    }
    Some(cpu)
}

/// `nano_cpus` billionths of `unit`.
fn scaled(nano_cpus: u64, unit: u64) -> u64 {
    u64::try_from(u128::from(nano_cpus) * u128::from(unit) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// As Docker: with a memory limit goes as much swap again. A reservation protects memory on v2 (`memory.low`); v1's soft
/// limit is deprecated by the kernel and left alone.
fn memory(resources: &Resources, cgroup: Cgroup) -> Result<Option<LinuxMemory>, SpecError> {
    let (limit, reserved) = (resources.limits.memory_bytes, resources.reservations.memory_bytes);
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut memory = LinuxMemory::default();
    if limit > 0 {
        if limit < MIN_MEMORY_BYTES {
            return Err(SpecError::MemoryLimitTooSmall(limit));
        }
        memory.set_limit(Some(bytes(limit)));
        if cgroup.swap_limit {
            memory.set_swap(Some(bytes(limit.saturating_mul(2))));
        }
    }
    if reserved > 0 && cgroup.version == CgroupVersion::V2 {
        memory.set_reservation(Some(bytes(if limit > 0 { reserved.min(limit) } else { reserved })));
    }
    Ok(Some(memory).filter(|memory| *memory != LinuxMemory::default()))
}

fn pids(limit: u64) -> Option<LinuxPids> {
    (limit > 0).then(|| {
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        pids
    })
}
