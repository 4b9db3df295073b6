//! `/flok/v1`: what Docker has no word for.

pub mod containers;
pub mod data;
pub mod doctor;
pub mod explain;
pub mod images;
pub mod plan;
pub mod runs;
pub mod stack;
mod stack_data;
pub mod status;
pub mod support;
