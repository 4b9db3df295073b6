//! Secrets and configs: data a user hands to tasks as files.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ConfigId, ContainerSpec, DataVersion, Labels, SecretId};

/// Most bytes a secret's or config's data may have, as in Docker Swarm (500 KiB) and twice that for configs.
pub const MAX_SECRET_BYTES: usize = 500 * 1024;
pub const MAX_CONFIG_BYTES: usize = 1000 * 1024;

/// Bytes that must never be shown: `Debug` prints their count alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// A secret or a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DataId {
    Secret(SecretId),
    Config(ConfigId),
}

impl DataId {
    pub fn kind(self) -> &'static str {
        match self {
            DataId::Secret(_) => "secret",
            DataId::Config(_) => "config",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretSpec {
    pub name: String,
    pub labels: Labels,
    pub data: SecretBytes,
    /// Name of a templating driver, for example `golang`.
    pub templating: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigSpec {
    pub name: String,
    pub labels: Labels,
    pub data: Vec<u8>,
    pub templating: Option<String>,
}

/// What a container refers to, and which data of it.
impl ContainerSpec {
    /// Each reference; one that appears under two paths twice.
    pub fn data_used(&self) -> impl Iterator<Item = (DataId, DataVersion)> {
        let secrets = self.secrets.iter().map(|one| (DataId::Secret(one.id), one.data_version));
        let configs = self.configs.iter().map(|one| (DataId::Config(one.id), one.data_version));
        secrets.chain(configs)
    }

    pub fn uses_data(&self, id: DataId) -> bool {
        self.data_used().any(|(used, _)| used == id)
    }

    pub fn set_data_versions(&mut self, version: impl Fn(DataId) -> DataVersion) {
        for one in &mut self.secrets {
            one.data_version = version(DataId::Secret(one.id));
        }
        for one in &mut self.configs {
            one.data_version = version(DataId::Config(one.id));
        }
    }

    /// The same data as in `other`, where that refers to the same; of the rest none is chosen.
    pub fn keep_data_versions(&mut self, other: &ContainerSpec) {
        self.set_data_versions(|id| {
            let kept = other.data_used().find(|(used, _)| *used == id);
            kept.map(|(_, version)| version).unwrap_or_default()
        });
    }
}
