//! The API as clients meet it who mean no good, or know no better: on a socket of its own, over a swarm in memory whose loops
//! run after each change. What is random runs in a short form; `PROPTEST_CASES=100000 cargo nextest run --test api` is the
//! long one.

#![recursion_limit = "512"]

mod backend;
mod bodies;
mod client;
mod connections;
mod mutation;
mod requests;
mod stack_files;
