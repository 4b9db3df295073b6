//! What each node must know, and how it is told: a [`View`] cut from the state for one node, and the [`Update`]s that
//! carry a node from an older view to a newer one.
//!
//! Any manager can serve any node, because a view is a function of the state alone and its generation is the index of
//! the last log entry in it: two managers at the same index build the same view, and a node that changes over to a
//! manager that lags behind refuses what is older than what it has. Nothing here sends; the streams are the node's.

mod members;
mod networks;
mod swarm_networks;
mod update;
mod view;

pub use members::{Member, Members};
pub use networks::{
    Endpoint, NetworkChange, NetworkView, Networks, NetworksUpdate, ServiceView, UnknownNetwork, differing,
};
pub use swarm_networks::{NetworkBuilder, SwarmNetworks};
pub use update::{Update, UpdateError, diff};
pub use view::{Dispatcher, Generation, View, view};

#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod tests;
