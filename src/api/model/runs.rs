//! Runs of a service with a schedule: the answers of `GET /flok/v1/services/{name}/runs` and `POST
//! /flok/v1/services/{name}/run`.

use serde::{Deserialize, Serialize};

/// Times are of RFC 3339, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRuns {
    pub service: String,
    pub schedule: ShownSchedule,
    /// Of the next run; none while it is suspended.
    pub next: Option<String>,
    /// Points at which nobody led, or nothing could be begun, for longer than the window.
    pub missed: u64,
    /// Points that were passed over because an earlier run went on.
    pub skipped: u64,
    /// Newest first.
    pub runs: Vec<ShownRun>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownSchedule {
    pub cron: String,
    pub time_zone: String,
    /// As Go prints durations.
    pub window: String,
    pub concurrency: String,
    pub history: u32,
    pub suspend: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownRun {
    /// The job's iteration.
    pub run: u64,
    /// When it was due; none: it was begun by hand.
    pub scheduled: Option<String>,
    pub began: String,
    pub ended: Option<String>,
    /// `running`, `completed`, `failed` or `replaced`.
    pub state: String,
    /// Tasks that have completed.
    pub completed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    pub run: u64,
}
