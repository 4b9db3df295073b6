//! Takes raft-rs's slog records to `tracing`, one level lower: what raft finds worth a note, an operator seldom does.

use slog::{Drain, Level, Never, OwnedKVList, Record};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "flok::raft", "{}", record.msg()),
            Level::Warning => tracing::info!(target: "flok::raft", "{}", record.msg()),
            Level::Info => tracing::debug!(target: "flok::raft", "{}", record.msg()),
            Level::Debug | Level::Trace => tracing::trace!(target: "flok::raft", "{}", record.msg()),
        }
        Ok(())
    }
}

/// raft-rs aborts by `slog`'s panic with the message, so nothing is lost by a drain without state.
pub fn logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}
