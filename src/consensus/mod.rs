//! The replicated log: raft on redb, and what the rest of the daemon asks of it.
//!
//! From the inside out: [`machine`] is raft, pure. [`replica`] adds the state that the log drives, still pure; the simulator
//! runs it as it is. [`store`] keeps the log on disk, sealed. The driver brings them together on tokio, and [`Consensus`]
//! is the handle on it: propose, read, change the membership. How messages reach other nodes is the [`Courier`]'s
//! business.

mod courier;
mod disk;
mod driver;
mod error;
mod handle;
mod log;
pub mod machine;
pub mod replica;
mod seal;
mod start;
mod status;
pub mod store;
mod tracing_drain;
mod transfer;
pub mod wire;

pub use courier::{Courier, Lane, MAX_MESSAGE_BYTES, NoAnswer};
pub use error::{MessageError, ProposeError, ReadError, Refused, StoreError};
pub use handle::{Consensus, MAX_ENTRY_BYTES, PROPOSE_DEADLINE};
pub use machine::{Follower, RaftRole, TICK};
pub use replica::Fatal;
pub use seal::{Sealer, SealingKey};
pub use start::{Config, FIRST_RAFT_ID, force_new_cluster, new_swarm};
pub use status::Status;
pub use store::{First, LogIdentity, LogStore};
pub use transfer::MAX_SNAPSHOT_BYTES;

#[cfg(test)]
mod tests;
