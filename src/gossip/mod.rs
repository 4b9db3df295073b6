//! Observed state: each node writes one record, about itself alone; managers hold the table of all of them.
//!
//! Records travel whole (a patch that is lost corrupts, a record that is lost is sent again): pushed when they change,
//! repaired by digest exchange. This room decides what is newer and what to send; the transport signs, verifies and carries.

pub mod record;
pub mod table;

pub use record::*;
pub use table::{Held, Table};
