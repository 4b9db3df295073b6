//! JSON of `/flok/v1`: what flok's own CLI sends and gets where Docker has no word for it.

pub mod data;
pub mod doctor;
pub mod explain;
pub mod image;
pub mod plan;
pub mod runs;
pub mod stack;
pub mod status;
