//! The one place where the daemon reads its clocks and draws randomness for the core.

#![expect(clippy::disallowed_methods, reason = "this is where `now` and `rng` come from")]

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::spec::{MonoMs, Now, UnixMs};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What [`mono`] counts from.
pub fn epoch() -> Instant {
    *START
}

pub fn instant() -> Instant {
    Instant::now()
}

/// Milliseconds since the daemon started.
pub fn mono() -> MonoMs {
    MonoMs(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
}

pub fn unix() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub fn now() -> Now {
    Now { mono: mono(), unix: unix() }
}

/// A generator of its own, seeded by the system.
pub fn rng() -> StdRng {
    StdRng::from_rng(&mut rand::rng())
}
