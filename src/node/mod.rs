//! The composition root.

pub mod watcher;
pub mod worker;
