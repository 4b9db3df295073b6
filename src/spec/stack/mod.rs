//! Stack files.
pub mod problem;
pub mod yaml;
