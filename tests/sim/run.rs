//! One run: a swarm comes together, lives through its faults, is healed, and must then become what is wanted.

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::check::Counts;
use crate::context::Ms;
use crate::semantics::Ends;
use crate::world::{Event, SECOND, World};

/// For a swarm without faults to come together.
const FORMING: Ms = 60 * SECOND;
/// For everything to be as wanted after the last fault: more than the longest wait that the core knows (a minute of
/// back-off, the pause of a mass failure, voters replaced), several of them one after another.
const SETTLING: Ms = 240 * SECOND;
/// What has settled stays so.
const QUIET: Ms = 15 * SECOND;
/// Log entries in that time: the end of a hold-down, and what follows from it.
const QUIET_ENTRIES: u64 = 60;

#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that was sent and applied.
    pub hash: String,
    pub counts: Counts,
    pub ends: Ends,
    pub settled_after: Ms,
}

/// Says which seed it was when a run ends in a panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "\nseed {} failed; replay it with\n  FLOK_SIM_SEED={} FLOK_SIM_VERBOSE=1 cargo test --test sim one_seed -- --nocapture",
                self.0, self.0
            );
        }
    }
}

pub fn run(seed: u64) -> Outcome {
    let guard = Seed(seed);
    let mut draw = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let size = match draw.random_range(0..10) {
        0 => 1,
        1..4 => 3,
        4 => 4,
        5..8 => 5,
        _ => draw.random_range(6..=9),
    };
    let chaos = draw.random_range(15..70) * SECOND;
    let mut world = World::new(seed, size, std::env::var_os("FLOK_SIM_VERBOSE").is_some());
    form(&mut world, size);
    world.schedule(0, Event::Fault);
    world.schedule(0, Event::Work);
    world.run(chaos, |_| false);
    world.check.note(|| "---- healed".into());
    world.heal();
    world.workload.over = true;
    let settled_after = settle(&mut world);
    // Schedules alone would go on for ever.
    world.workload.suspends = true;
    settle(&mut world);
    let entries = world.check.counts.entries;
    world.run(QUIET, |_| false);
    let entries = world.check.counts.entries - entries;
    assert!(entries <= QUIET_ENTRIES, "{entries} entries in a quiet swarm");
    world.check.check_plans();
    for at in world.log_holders() {
        let node = world.hosts[at].node;
        let daemon = world.hosts[at].daemon.as_ref().expect("it holds the log");
        world.check.compare_closely(node, &daemon.log.as_ref().expect("it holds the log").replica);
    }
    drop(guard);
    Outcome {
        hash: world.check.trace_hash(),
        counts: world.check.counts.clone(),
        ends: world.check.semantics.ends.clone(),
        settled_after,
    }
}

/// The first host makes a swarm, the others join.
fn form(world: &mut World, size: usize) {
    world.begin();
    world.workload.over = true;
    world.workload.to_admit = (1..size).rev().collect();
    let via = |world: &mut World| {
        if let Some(host) = world.workload.to_admit.pop() {
            world.admit(0, host);
        }
    };
    let formed = |world: &World| world.members().len() == size && world.unsettled().is_none();
    for _ in 0..FORMING / SECOND {
        via(world);
        if world.run(SECOND, formed) {
            break;
        }
    }
    assert!(formed(world), "the swarm did not come together: {:?}", world.unsettled());
    world.workload.over = false;
}

fn settle(world: &mut World) -> Ms {
    let begun = world.now;
    while world.now < begun + SETTLING {
        world.tidy_up();
        world.run(2 * SECOND, |world| world.unsettled().is_none());
        if world.unsettled().is_none() {
            return world.now - begun;
        }
    }
    world.dump();
    panic!("not settled {} s after the last fault: {}", SETTLING / SECOND, world.unsettled().expect("it is unsettled"));
}
