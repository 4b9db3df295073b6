//! Puts the calling thread before ordinary work, as far as the system allows it.

/// What was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// `SCHED_RR`: runs as soon as it has something to do, whatever else runs.
    RoundRobin,
    /// A nice value of -10: helps a little.
    Nice,
    Ordinary,
}

/// Raises the calling thread; threads and processes that it might start are not raised with it.
pub(super) fn raise() -> Priority {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: `lowest` is a valid sched_param for the length of the call; pid 0 names the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const lowest) } == 0 {
        return Priority::RoundRobin;
    }
    // SAFETY: takes numbers only; on Linux, PRIO_PROCESS with 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) } == 0 {
        return Priority::Nice;
    }
    Priority::Ordinary
}
