//! Points in time. The core reads no clock: both kinds come in as arguments.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Wall-clock time in milliseconds since 1970, as the proposer of a log entry saw it. For people and for history;
/// never compared with another node's clock to decide whether that node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct UnixMs(pub u64);

/// Milliseconds on this node's monotonic clock, since an arbitrary start. Never leaves the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoMs(pub u64);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub mono: MonoMs,
    pub unix: UnixMs,
}

macro_rules! arithmetic {
    ($name:ident) => {
        impl Add<Duration> for $name {
            type Output = $name;
            fn add(self, by: Duration) -> $name {
                $name(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
            }
        }

        /// Zero where `earlier` is in truth later: a clock may step back.
        impl Sub for $name {
            type Output = Duration;
            fn sub(self, earlier: $name) -> Duration {
                Duration::from_millis(self.0.saturating_sub(earlier.0))
            }
        }
    };
}
arithmetic!(UnixMs);
arithmetic!(MonoMs);
