//! What a user may set on the swarm as a whole.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Labels;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmSpec {
    pub labels: Labels,
    /// Finished tasks kept in each slot.
    pub task_history: u64,
    /// Life of a membership certificate.
    pub cert_expiry: Duration,
    /// Keep the key of the encrypted log off the disk.
    pub autolock: bool,
    /// Pools from which subnets are cut, in CIDR form, with [`Self::subnet_size`].
    pub address_pools: Vec<String>,
    pub subnet_size: u8,
    /// UDP port of the nodes' tunnels; fixed when the swarm is made.
    pub data_path_port: u16,
}

/// The port that the protocol of the tunnels has been given.
pub const DEFAULT_DATA_PATH_PORT: u16 = 4789;

impl Default for SwarmSpec {
    fn default() -> Self {
        SwarmSpec {
            labels: Labels::new(),
            task_history: 5,
            cert_expiry: Duration::from_secs(90 * 24 * 3600),
            autolock: false,
            address_pools: vec!["10.0.0.0/8".into()],
            subnet_size: 24,
            data_path_port: DEFAULT_DATA_PATH_PORT,
        }
    }
}
