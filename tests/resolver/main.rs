//! The resolver as a process, in real namespaces: `cargo nextest run --test resolver --run-ignored all`, as root.

mod client;
mod host;
mod life;
mod outside;
