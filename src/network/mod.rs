//! Networks of this node's tasks.
//!
//! Pure layer 3: each task has a network namespace, one veth pair and a /32; the host routes to it. What nftables has to
//! hold is a pure function of the tasks present ([`plan`]); the rest of the room carries it out. Overlay networks add
//! addresses to the same veth and maps to the same table.
//!
//! What was made is written down under the room's directory before it is made, so that after a crash everything can be
//! adopted or removed: nothing is left over, nothing is missing.

pub mod dns;
mod error;
mod firewall;
mod link;
mod namespace;
pub mod plan;
mod pool;
mod ports;
mod records;
mod tasks;

pub use error::NetworkError;
pub use pool::Subnet;
pub use tasks::{NetworkConfig, TaskNetwork, TaskNetworks};
