//! Health checks: what is run in a task's container how often, and what its results say of the task. Docker's semantics.
//!
//! - A task is `starting` until the first success. Failures within the start period count for nothing until then.
//! - `retries` failures in a row, and it is unhealthy, for good: the swarm replaces it.
//! - The next probe comes an interval after the last one's end, so one task never has two. While the start period lasts and
//!   nothing has succeeded, the start interval takes the interval's place.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{Health, Healthcheck, MonoMs};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Results that are kept, as in Docker.
const KEPT: usize = 5;
/// Of a probe's output, as in Docker.
pub const MAX_PROBE_OUTPUT_BYTES: usize = 4096;
/// The exit code of a probe that could not be run, or took too long.
pub const PROBE_NOT_RUN: i32 = -1;

/// A check as it is carried out: the service's words, the image's for what it leaves out, Docker's for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

impl Check {
    /// `None`: there is none, or it was turned off. `shell`: the image's, empty for the usual one.
    pub fn of(own: Option<&Healthcheck>, image: Option<&Healthcheck>, shell: &[String]) -> Option<Check> {
        let (own, image) = (own.cloned().unwrap_or_default(), image.cloned().unwrap_or_default());
        let test = if own.test.is_empty() { image.test } else { own.test };
        let command = match test.split_first()? {
            (kind, words) if kind == "CMD" => words.to_vec(),
            (kind, words) if kind == "CMD-SHELL" && shell.is_empty() => {
                DEFAULT_SHELL.iter().map(|word| (*word).to_owned()).chain(words.iter().cloned()).collect()
            }
            (kind, words) if kind == "CMD-SHELL" => [shell, words].concat(),
            _ => return None,
        };
        let given = |own: Option<Duration>, image: Option<Duration>| {
            own.filter(|time| !time.is_zero()).or(image.filter(|time| !time.is_zero()))
        };
        let retries = own.retries.filter(|n| *n > 0).or(image.retries.filter(|n| *n > 0));
        (!command.is_empty()).then(|| Check {
            command,
            interval: given(own.interval, image.interval).unwrap_or(DEFAULT_INTERVAL),
            timeout: given(own.timeout, image.timeout).unwrap_or(DEFAULT_TIMEOUT),
            start_period: given(own.start_period, image.start_period).unwrap_or_default(),
            start_interval: given(own.start_interval, image.start_interval).unwrap_or(DEFAULT_START_INTERVAL),
            retries: retries.unwrap_or(DEFAULT_RETRIES),
        })
    }
}

/// What the container of a task that was found says of its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundHealth {
    pub check: Check,
    pub noted: Option<NotedHealth>,
}

/// What a daemon leaves to the next one, so that a task that was healthy goes on serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedHealth {
    pub health: Health,
    /// The process's age when it became healthy for the first time.
    pub after: Duration,
}

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    pub exit_code: i32,
    /// At most [`MAX_PROBE_OUTPUT_BYTES`].
    pub output: String,
}

/// A probe that has ended, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub begun: MonoMs,
    pub ended: MonoMs,
    pub result: ProbeResult,
}

/// What is shown of a task's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthLog {
    pub health: Health,
    pub failing_streak: u32,
    /// The newest last.
    pub probes: Vec<Probe>,
}

/// The check of one process.
#[derive(Debug)]
pub(super) struct Prober {
    check: Check,
    health: Health,
    /// The process's age when it became healthy for the first time.
    healthy_after: Option<Duration>,
    /// Age of the process when this began to watch it.
    age: Duration,
    since: MonoMs,
    streak: u32,
    /// Its number, and when it began.
    under_way: Option<(u32, MonoMs)>,
    next: MonoMs,
    probes: VecDeque<Probe>,
}

impl Prober {
    /// `age`: how long the process has existed already; `noted`: what is known of its health from before.
    pub fn new(check: Check, noted: Option<NotedHealth>, age: Duration, now: MonoMs) -> Prober {
        let health = noted.map_or(Health::Starting, |noted| noted.health);
        let healthy_after = noted.map(|noted| noted.after);
        let (since, probes) = (now, VecDeque::new());
        let mut prober =
            Prober { check, health, healthy_after, age, since, streak: 0, under_way: None, next: now, probes };
        prober.next = now + prober.pause(now);
        prober
    }

    pub fn check(&self) -> &Check {
        &self.check
    }

    /// When the next probe is due; `None` while one is under way.
    pub fn due(&self) -> Option<MonoMs> {
        self.under_way.is_none().then_some(self.next)
    }

    pub fn begin(&mut self, number: u32, now: MonoMs) {
        self.under_way = Some((number, now));
    }

    /// Takes a result in; `Some` where the health changed by it. One of an earlier process says nothing of this one.
    pub fn ended(&mut self, number: u32, result: ProbeResult, now: MonoMs) -> Option<Health> {
        let (_, begun) = self.under_way.take_if(|under_way| under_way.0 == number)?;
        let before = self.health;
        if result.exit_code == 0 {
            self.streak = 0;
            self.health = Health::Healthy;
            self.healthy_after = self.healthy_after.or(Some(self.age_at(now)));
        } else if before != Health::Starting || self.age_at(begun) >= self.check.start_period {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= self.check.retries {
                self.health = Health::Unhealthy;
            }
        }
        self.probes.push_back(Probe { begun, ended: now, result });
        if self.probes.len() > KEPT {
            self.probes.pop_front();
        }
        self.next = now + self.pause(now);
        (self.health != before).then_some(self.health)
    }

    /// What the next daemon is to know; nothing of a process that never was healthy.
    pub fn noted(&self) -> Option<NotedHealth> {
        Some(NotedHealth { health: self.health, after: self.healthy_after? })
    }

    /// How old the process is.
    fn age_at(&self, at: MonoMs) -> Duration {
        self.age + (at - self.since)
    }

    /// What the last probe said, in one line, where it failed.
    pub fn complaint(&self) -> Option<String> {
        let Probe { result, .. } = self.probes.back().filter(|probe| probe.result.exit_code != 0)?;
        let said = result.output.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(match (result.exit_code, said.is_empty()) {
            (PROBE_NOT_RUN, _) => said,
            (code, true) => format!("exit code {code}"),
            (code, false) => format!("exit code {code}: {said}"),
        })
    }

    pub fn log(&self) -> HealthLog {
        let probes = self.probes.iter().cloned().collect();
        HealthLog { health: self.health, failing_streak: self.streak, probes }
    }

    fn pause(&self, now: MonoMs) -> Duration {
        let starting = self.health == Health::Starting && self.age_at(now) < self.check.start_period;
        if starting { self.check.start_interval } else { self.check.interval }
    }
}
