//! The runtime: what runs on this node, in containerd.
//!
//! Containerd is a private one that this room starts and watches, or one whose socket it is given; either way containers
//! and their logs outlive the daemon, and the next daemon adopts them by their labels. Nothing here decides what runs:
//! `node::worker` carries the agent's actions here.

mod client;
mod error;
pub mod images;
mod supervisor;

pub use error::{Result, RuntimeError};
