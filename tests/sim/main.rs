//! The simulator: the core, the consensus machine and its store, N nodes in one thread, virtual time, one seed.
//! See docs/simulation.md.

mod check;
mod context;
mod converge;
mod daemon;
mod disk;
mod faults;
mod isolation;
mod leader;
mod log;
mod run;
mod semantics;
mod worker;
mod workload;
mod world;

use run::{Outcome, run};

/// Seeds in one test, of which there are [`PARTS`], so that they run beside one another.
const SEEDS: u64 = 25;
const PARTS: u64 = 8;
/// In the runs of these seeds jobs have schedules.
pub const SCHEDULED_FROM: u64 = 1_000_000;
const SCHEDULED: u64 = 16;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Every [`PARTS`]th seed from `part` on: `FLOK_SIM_SEEDS` of them in all parts together, from `FLOK_SIM_FROM`. One that
/// fails does not keep the others from being run.
fn seeds(part: u64) {
    if from_env("FLOK_SIM_SEED").is_some() {
        return;
    }
    let count = from_env("FLOK_SIM_SEEDS").unwrap_or(SEEDS * PARTS);
    let from = from_env("FLOK_SIM_FROM").unwrap_or(0);
    all_of((from..from + count).filter(|seed| seed % PARTS == part));
}

fn all_of(seeds: impl Iterator<Item = u64>) {
    let mut failed = Vec::new();
    for seed in seeds {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(Outcome { hash, counts, ends, settled_after }) => {
                println!("seed {seed}: {hash}, settled after {settled_after} ms, {counts:?}, {ends:?}");
            }
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

macro_rules! parts {
    ($($name:ident $part:literal)*) => { $(
        #[test]
        fn $name() {
            seeds($part);
        }
    )* };
}
parts!(part_0 0 part_1 1 part_2 2 part_3 3 part_4 4 part_5 5 part_6 6 part_7 7);

#[test]
fn jobs_with_schedules() {
    if from_env("FLOK_SIM_SEED").is_none() && from_env("FLOK_SIM_FROM").is_none() {
        all_of(SCHEDULED_FROM..SCHEDULED_FROM + SCHEDULED);
    }
}

#[test]
fn one_seed_as_asked() {
    if let Some(seed) = from_env("FLOK_SIM_SEED") {
        println!("{:?}", run(seed));
    }
}

/// Seeds that once found a bug, one a file: the number in the first line, then what it found.
#[test]
fn regressions_stay_fixed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/regressions");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let seed = text.lines().next().and_then(|line| line.trim().parse().ok());
        run(seed.unwrap_or_else(|| panic!("{} begins with a seed", file.display())));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 11] {
        assert_eq!(run(seed), run(seed));
    }
}
