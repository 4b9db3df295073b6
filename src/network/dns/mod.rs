//! Names: each task that is on a network of the swarm finds a resolver at 127.0.0.11, on port 53 of UDP and TCP, in its
//! own network namespace.
//!
//! A process of its own on each node ([`run`]) serves all of the node's tasks, so that look-ups go on while the daemon
//! restarts. [`Resolver`] is the daemon's hold on it. What a name means is a pure function (`zone`); a name that means
//! nothing here is passed to the servers of the host, from the host, or to the task's own, from the task's namespace.

mod control;
mod daemon;
mod forward;
mod handover;
mod index;
mod listener;
mod process;
mod redirect;
mod resolv_conf;
mod wire;
mod zone;

use std::net::Ipv4Addr;

pub use control::ServedTask;
pub use daemon::{Resolver, ResolverConfig};
pub use process::run;
pub use zone::Client;

/// Where tasks find their resolver.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The hidden first argument that makes flok's binary a resolver; the second is its directory.
pub const RESOLVER_ARGUMENT: &str = "__resolver";
