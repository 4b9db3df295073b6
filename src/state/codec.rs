//! The one place where bincode is used.
