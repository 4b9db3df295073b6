//! Networks of this node's tasks, and their way to the tasks of other nodes.
//!
//! Pure layer 3: each task has a network namespace, one veth pair, and a /32 (and a /128) for each network it is on; the
//! host routes to it. One VXLAN device carries all networks between nodes. What the kernel has to hold is a pure function
//! of what this node knows ([`plan`]); the rest of the room keeps the kernel so ([`keeper`]): whatever differs is
//! changed, and nothing else.
//!
//! What was made for a task is written down under the room's directory before it is made, so that after a crash
//! everything can be adopted or removed: nothing is left over, nothing is missing.

mod bell;
mod conditions;
mod dial;
pub mod dns;
mod doctor;
mod error;
mod firewall;
mod forgetting;
mod holders;
mod inbox;
mod keeper;
mod kernel;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod lab_tests;
mod names;
mod namespace;
mod parts;
mod plan;
mod plane;
mod pool;
mod ports;
mod preview;
mod probe;
mod proxy;
mod records;
mod relay;
mod skeleton;
mod state;
mod surroundings;
mod tasks;
mod turns;
mod wiring;

pub use error::NetworkError;
pub use plane::SwarmView;
pub use pool::Subnet;
pub use preview::{Preview, preview};
pub use skeleton::Overlay;
pub use state::{Balancer, Interface, KernelState, Key, MAIN_TABLE, Mac, Route, Set, Target, Value};
pub use surroundings::others_routes;
pub use tasks::{NetworkConfig, TaskNetwork, TaskNetworks};
