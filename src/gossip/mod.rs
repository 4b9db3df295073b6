//! Observed state: each node writes one record, about itself alone; managers hold the table of all of them.
//!
//! Records travel whole (a patch that is lost corrupts, a record that is lost is sent again): pushed when they change
//! ([`Publisher`]), repaired by digest exchange ([`Exchange`], paced by [`Repair`]). This room decides what is newer
//! and what to send; the transport carries, and signs and verifies through [`Open`].

pub mod exchange;
pub mod holder;
pub mod publisher;
pub mod record;
pub mod repair;
pub mod surroundings;
pub mod table;

pub use exchange::{Digest, Exchange, Open, RecordError, RepairAnswer, RepairRequest, SignedRecord, Statement};
pub use holder::{Echo, Refused};
pub use publisher::{EchoVerdict, Publisher};
pub use record::*;
pub use repair::Repair;
pub use surroundings::Surroundings;
pub use table::{Held, Table};
