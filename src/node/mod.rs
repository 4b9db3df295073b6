//! The composition root.

pub mod config;
pub mod watcher;
pub mod worker;
