//! The state's behaviour, room by room of `apply`; what holds for any sequence of entries; and the bytes it is kept as.

mod addresses;
mod data;
mod data_versions;
mod golden;
mod log;
mod nodes;
mod random;
mod sample;
mod services;
mod snapshots;
mod swarm;
mod tasks;

use super::Applied;

/// What a user reads of a refusal.
fn words(answer: Applied) -> String {
    answer.expect_err("it is refused").to_string()
}
