//! `flok info` and `flok version`.

mod info;
mod version;

pub use info::Info;
pub use version::Version;
