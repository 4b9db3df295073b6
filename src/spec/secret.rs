//! Secrets and configs: data a user hands to tasks as files.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Labels;

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
