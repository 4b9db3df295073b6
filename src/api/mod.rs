//! The HTTP interface: Docker's Engine API on a unix socket, and `/flok/v1` for what Docker has no word for.
//!
//! This room turns requests into reads of the state and [`Command`](crate::state::Command)s, and objects into Docker's
//! JSON. What it needs of the node it runs on it asks of a [`Backend`]; it makes no decision about the swarm itself.

mod backend;
mod calls;
pub mod client;
mod connection;
mod containers;
pub mod convert;
mod diff;
mod docker;
mod error;
mod filters;
mod flok;
mod journal;
mod lookup;
pub mod model;
mod query;
mod redact;
mod request_line;
mod router;
mod routes;
mod server;
mod store;
mod surroundings;
mod unread;
mod view;

pub use backend::*;
pub use calls::{send, serve_calls};
pub use containers::*;
pub use error::{ApiError, LOCKED, NOT_A_MANAGER, NOT_IN_A_SWARM};
pub use journal::Journal;
pub use router::{for_nodes, serve};
pub use store::*;
