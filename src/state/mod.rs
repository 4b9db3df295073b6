//! Desired state: what the swarm's log adds up to.
//!
//! [`State`] is a set of persistent maps, so a clone costs nothing: readers hold one, the leader's tick drafts on another,
//! a snapshot encodes a third. It changes only through [`State::apply`], which every log holder runs on the same entries
//! in the same order and which therefore uses nothing but its arguments.

mod addresses;
mod apply;
pub mod codec;
pub mod command;
pub mod cron;
mod data;
mod draft;
#[cfg(test)]
pub mod fixture;
pub mod object;
mod query;
mod session;
pub mod snapshot;
mod store;
pub mod watch;

pub use addresses::{AddressHolder, AddressUser, Addresses};
pub use apply::BeyondBuild;
pub use command::*;
pub use cron::*;
pub use data::{Data, DataHistory, DataRecord, KEPT_DATA_VERSIONS, MAX_DATA_VERSIONS, MAX_OLDER_DATA_BYTES, OlderData};
pub use draft::Draft;
pub use object::*;
pub use session::{MAX_ANSWERS, MAX_SESSIONS};
pub use snapshot::{Fingerprint, SnapshotError};
pub use store::State;

#[cfg(test)]
mod tests;
