//! `flok info`, `flok version` and `flok events`.

mod events;
mod info;
mod version;

pub use events::Events;
pub use info::Info;
pub use version::Version;
