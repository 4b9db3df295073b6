//! To be written.

pub mod watcher;
