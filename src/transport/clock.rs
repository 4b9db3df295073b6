//! The wall clock, read for certificates and for the comparison of clocks at a join.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::spec::UnixMs;

#[expect(clippy::disallowed_methods, reason = "transport is part of the shell: certificates expire by the wall clock")]
pub(super) fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
