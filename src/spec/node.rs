//! What an operator asks of a node, and what a node says it is.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{FeatureLevel, GenericResource, Labels};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Given by the operator; `None`: the hostname serves.
    pub name: Option<String>,
    pub labels: Labels,
    pub role: Role,
    pub availability: Availability,
}

/// Managers hold or reach the log and take commands; workers only run tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    Worker,
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Availability {
    #[default]
    Active,
    /// Keeps its tasks, gets no new ones.
    Pause,
    /// Its tasks move elsewhere.
    Drain,
}

/// In Docker's words: `linux`, `x86_64` or `amd64`; compared after [`Platform::normalized`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

impl Platform {
    /// The OCI (Go) names: `x86_64` becomes `amd64`, `aarch64` `arm64`.
    pub fn normalized(&self) -> Platform {
        let architecture = match self.architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_string(),
            "aarch64" => "arm64".to_string(),
            "armv7l" | "armhf" => "arm".to_string(),
            "i386" | "i686" => "386".to_string(),
            other => other.to_string(),
        };
        Platform { os: self.os.to_ascii_lowercase(), architecture }
    }
}

/// What a node is. Told when it joins, kept in the log, renewed when the node's own record differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    pub hostname: String,
    pub platform: Platform,
    /// What the operator lets the swarm use, after the system's own share.
    pub resources: NodeResources,
    pub engine_version: String,
    /// Labels given in the daemon's configuration (`engine.labels.x` in constraints).
    pub engine_labels: Labels,
    /// The address others reach it by, for every protocol.
    pub addr: IpAddr,
    /// TCP port of the libp2p transport.
    pub transport_port: u16,
    /// UDP port of the failure detector's probes.
    pub probe_port: u16,
    /// The highest level its build knows.
    pub feature_level: FeatureLevel,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeResources {
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    pub generic: Vec<GenericResource>,
}
