//! The replicated log: raft on redb, and what the rest of the daemon asks of it.

mod courier;
mod error;
mod log;
pub mod machine;
pub mod replica;
mod seal;
pub mod store;
mod tracing_drain;
pub mod wire;

pub use courier::{Courier, Lane, MAX_MESSAGE_BYTES, NoAnswer};
pub use error::{MessageError, ProposeError, ReadError, Refused, StoreError};
pub use seal::LogKey;
