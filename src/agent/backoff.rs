//! Restarts in place: whether the restart policy allows one more, and after which delay.

use std::time::Duration;

use crate::spec::{MonoMs, RestartCondition, RestartPolicy};

/// Longest wait between restarts in place where the policy names no delay.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// A task that ran this long was not failing: its back-off starts anew.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Restarts remembered: a policy that allows more attempts in its window allows any number.
const MAX_COUNTED: usize = 64;

/// Restarts made in place, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    made: Vec<MonoMs>,
    /// Quick failures in a row.
    failures: u32,
}

impl Restarts {
    /// The wait before the next restart, counted and noted as made; `None` where the policy allows no more.
    pub fn next(&mut self, policy: &RestartPolicy, code: i32, ran_for: Duration, now: MonoMs) -> Option<Duration> {
        let wanted = match policy.condition {
            RestartCondition::None => false,
            RestartCondition::OnFailure => code != 0,
            RestartCondition::Any => true,
        };
        if !wanted || self.exhausted(policy, now) {
            return None;
        }
        self.failures = if ran_for >= STABLE_AFTER { 0 } else { self.failures.saturating_add(1) };
        self.made.push(now);
        if self.made.len() > MAX_COUNTED {
            self.made.remove(0);
        }
        Some(policy.delay.unwrap_or_else(|| default_delay(self.failures)))
    }

    fn exhausted(&self, policy: &RestartPolicy, now: MonoMs) -> bool {
        let Some(max) = policy.max_attempts.filter(|max| *max > 0) else {
            return false;
        };
        let window = policy.window.filter(|window| !window.is_zero());
        let counted = self.made.iter().filter(|at| window.is_none_or(|window| now - **at <= window)).count();
        counted as u64 >= max
    }
}

/// At once the first time, then 1, 2, 4 ... seconds.
fn default_delay(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 2).min(6)).min(MAX_DELAY),
    }
}
