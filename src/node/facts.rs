//! What this machine is, as the daemon finds it at its start.

use anyhow::Context;

use super::config::Config;
use crate::agent::NodeNames;
use crate::runtime::oci::CgroupVersion;
use crate::runtime::{Runtime, host};
use crate::spec::{NodeId, Platform};

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct Facts {
    pub hostname: String,
    pub platform: Platform,
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    pub kernel_version: String,
    pub operating_system: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    pub containerd_version: String,
}

impl Facts {
    pub async fn find(config: &Config, runtime: &Runtime) -> anyhow::Result<Facts> {
        let name = nix::sys::utsname::uname().context("ask for the host's name")?;
        let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        Ok(Facts {
            hostname: config.hostname.clone().unwrap_or_else(|| text(name.nodename())),
            platform: host::platform(),
            nano_cpus: host::nano_cpus(),
            memory_bytes: host::memory_bytes(),
            kernel_version: text(name.release()),
            operating_system: operating_system(),
            cgroup_version: match runtime.cgroup_version() {
                CgroupVersion::V1 => 1,
                CgroupVersion::V2 => 2,
            },
            containerd_version: runtime.containerd_version().await?,
        })
    }

    /// This node, as templates have it.
    pub fn names(&self, id: NodeId) -> NodeNames {
        NodeNames { id, hostname: self.hostname.clone(), platform: self.platform.clone() }
    }
}

/// The distribution's own name for itself.
fn operating_system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}
