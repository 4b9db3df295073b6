//! The OCI runtime specification of a task's container, as Docker would write it. Pure: whoever calls has looked at the
//! host (paths, ids, device numbers, cgroup version) and passes what it saw; nothing here touches the machine.
//!
//! [`build`] puts the whole together; [`process`], [`mounts`] and [`resources`] are its parts, [`seccomp`] is Docker's
//! default profile. The specs for cgroup v1 and v2 differ in the cgroup namespace and in swap and memory protection;
//! runc itself turns the same numbers into either version's files.

mod devices;
mod mounts;
mod process;
mod resources;
pub mod seccomp;
mod spec;
#[cfg(test)]
mod tests;

pub use devices::{DeviceNode, parse_permissions};
pub use mounts::{EtcFiles, MountSource, ResolvedMount, init_path};
pub use process::{DEFAULT_CAPABILITIES, ResolvedUser, all_capabilities, capabilities, held_by};
pub use resources::{Cgroup, CgroupVersion};
pub use spec::{ContainerInputs, Netns, build};

/// What a container spec asks for that cannot be given. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("no command: neither the image nor the service says what to run; give the service a command")]
    NoCommand,
    #[error("invalid capability {0:?}: use a name of capabilities(7), such as NET_ADMIN, or ALL")]
    UnknownCapability(String),
    #[error("invalid ulimit {0:?}: use a limit of getrlimit(2) in lower case, such as nofile")]
    UnknownUlimit(String),
    #[error("ulimit {name}: the soft limit {soft} is above the hard limit {hard}")]
    UlimitOrder { name: String, soft: i64, hard: i64 },
    #[error("security option {0:?} is not supported: use no-new-privileges, seccomp=unconfined or apparmor=unconfined")]
    UnsupportedSecurityOption(String),
    #[error("{kind} mode {value:?} is not supported: use private or host")]
    UnsupportedNamespace { kind: &'static str, value: String },
    #[error("mount target {0:?} must be an absolute path other than /")]
    InvalidTarget(String),
    #[error("mount propagation {0:?} is unknown: use private, rprivate, shared, rshared, slave or rslave")]
    UnknownPropagation(String),
    #[error("working directory {0:?} must be an absolute path")]
    InvalidDirectory(String),
    #[error("device permissions {0:?} must be some of the letters r, w and m")]
    InvalidDevicePermissions(String),
    #[error("memory limit of {0} bytes is below the 6 MiB that a container needs to start")]
    MemoryLimitTooSmall(u64),
    #[error(
        "the service asks for an init process and this node has none: install docker-init or tini, or leave init out"
    )]
    NoInit,
}
