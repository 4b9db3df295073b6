//! flok as those meet it who mean no good, or know no better: its API on a socket of its own, over a swarm in memory whose
//! loops run after each change; and what reads stack files, short forms, and bytes of other machines.
//!
//! What is random are fuzz targets: they run in a short form as tests, and as long as one likes by `cargo bolero test`
//! (CONTRIBUTING.md). What they begin with is in `__fuzz__`.

#![recursion_limit = "512"]

mod backend;
mod bodies;
mod client;
mod connections;
mod memory;
mod mutation;
mod requests;
mod stack_files;
mod wire;
mod words;

#[global_allocator]
static COUNTED: memory::Counted = memory::Counted;
