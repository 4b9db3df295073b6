//! The composition root.

pub mod worker;
