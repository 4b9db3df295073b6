//! When a job runs: a cron expression in a time zone, and what is to become of runs that are late or overlap.
//!
//! A *schedule point* is a moment at which a run is due. Which points there are is worked out by the leader alone, which
//! writes the next one into the log: no log holder asks for the time or for a time zone's rules when it applies an entry.
//! The rules are those that were built in, whatever the host has.
//!
//! Daylight saving, as in Vixie's cron: a time of day that a day does not have is due at the first moment after the gap,
//! and one that a day has twice is due the first time only; an expression with a `*` or a step in its hours or minutes goes
//! on by the clock on the wall, through both of the hours that have one name.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::quantity::{format_duration, parse_duration};
use super::stack::nearest;
use super::{Labels, UnixMs};

/// The label by which Docker's clients say when a job runs; more labels begin with it and a dot.
pub const SCHEDULE_LABEL: &str = "flok.schedule";
/// Runs that can be kept as history.
pub const MAX_HISTORY: u32 = 100;
/// A leader looks at what is due, and is rarely there in the very millisecond.
pub const MIN_WINDOW: Duration = Duration::from_secs(1);
pub const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);
const DEFAULT_HISTORY: u32 = 5;
const DEFAULT_WINDOW: Duration = Duration::from_secs(3600);
const UTC: &str = "UTC";
const MAX_TEXT: usize = 256;
/// Points that are counted one by one; more are that many.
const MAX_COUNTED: u64 = 1_000;
const FIELDS: [&str; 5] = ["time-zone", "window", "concurrency", "history", "suspend"];
const FORMS: &str = "write minute, hour, day, month and weekday (\"30 3 * * mon-fri\"; with seconds before them, if need be), \
                     or @hourly, @daily, @weekly, @monthly, @yearly, or \"@every 10m\"";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// As written: see [`Schedule::rule`].
    pub cron: String,
    /// An IANA name.
    pub time_zone: String,
    /// A run that could not begin on time begins as late as this; after that its point has been missed.
    pub window: Duration,
    pub concurrency: Concurrency,
    /// So many runs that have ended are kept, and their tasks and logs.
    pub history: u32,
    /// Nothing becomes due.
    pub suspend: bool,
}

/// What a run does whose point comes while an earlier run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Concurrency {
    /// It runs beside it.
    Allow,
    /// It waits for its end within the window, and is skipped after that.
    #[default]
    Forbid,
    /// It takes its place.
    Replace,
}

impl Concurrency {
    pub const WORDS: [&str; 3] = ["allow", "forbid", "replace"];

    pub fn as_str(self) -> &'static str {
        match self {
            Concurrency::Allow => "allow",
            Concurrency::Forbid => "forbid",
            Concurrency::Replace => "replace",
        }
    }

    pub fn parse(word: &str) -> Result<Concurrency, String> {
        match word.to_lowercase().as_str() {
            "allow" => Ok(Concurrency::Allow),
            "forbid" => Ok(Concurrency::Forbid),
            "replace" => Ok(Concurrency::Replace),
            _ => Err(format!("{word:?} is none of allow, forbid, replace")),
        }
    }
}

impl Schedule {
    /// By `cron`, in UTC, and with the defaults for the rest.
    pub fn new(cron: &str) -> Schedule {
        Schedule {
            cron: cron.trim().to_owned(),
            time_zone: UTC.to_owned(),
            window: DEFAULT_WINDOW,
            concurrency: Concurrency::default(),
            history: DEFAULT_HISTORY,
            suspend: false,
        }
    }

    /// Sets a field by its name in a stack file, or with hyphens, as in labels and flags.
    pub fn set(&mut self, field: &str, text: &str) -> Result<(), String> {
        let text = text.trim();
        match field.replace('-', "_").as_str() {
            "time_zone" => text.clone_into(&mut self.time_zone),
            "window" => self.window = parse_duration(text).map_err(|why| why.to_string())?,
            "concurrency" => self.concurrency = Concurrency::parse(text)?,
            "history" => {
                let count = text.parse().ok().filter(|count| *count <= MAX_HISTORY);
                self.history = count.ok_or_else(|| format!("{text:?} is no number from 0 to {MAX_HISTORY}"))?;
            }
            "suspend" => self.suspend = text.parse().map_err(|_| format!("{text:?} is neither true nor false"))?,
            _ => return Err(format!("{field:?} is none of {}", FIELDS.join(", "))),
        }
        Ok(())
    }

    /// What `labels` say. An error names the label.
    pub fn read_labels(labels: &Labels) -> Result<Option<Schedule>, String> {
        let named = |label: &str, text: &str, why: String| format!("label {label}={text}: {why}");
        let prefix = format!("{SCHEDULE_LABEL}.");
        let mut fields = labels.iter().filter_map(|(label, text)| Some((label, label.strip_prefix(&prefix)?, text)));
        let Some(cron) = labels.get(SCHEDULE_LABEL) else {
            return match fields.next() {
                Some((label, _, text)) => {
                    Err(named(label, text, format!("it needs a label {SCHEDULE_LABEL} beside it")))
                }
                None => Ok(None),
            };
        };
        if cron.trim().is_empty() {
            return Ok(None);
        }
        let mut schedule = Schedule::new(cron);
        for (label, field, text) in fields {
            schedule.set(field, text).map_err(|why| named(label, text, why))?;
        }
        schedule.rule().map_err(|why| named(SCHEDULE_LABEL, cron, why))?;
        Ok(Some(schedule))
    }

    /// The labels that say the same.
    pub fn labels(&self) -> Labels {
        let fields = [
            ("time-zone", self.time_zone.clone()),
            ("window", format_duration(self.window)),
            ("concurrency", self.concurrency.as_str().to_owned()),
            ("history", self.history.to_string()),
            ("suspend", self.suspend.to_string()),
        ];
        let fields = fields.into_iter().map(|(field, text)| (format!("{SCHEDULE_LABEL}.{field}"), text));
        std::iter::once((SCHEDULE_LABEL.to_owned(), self.cron.clone())).chain(fields).collect()
    }

    /// The same points are due as by `other`.
    pub fn is_due_as(&self, other: &Schedule) -> bool {
        (&self.cron, &self.time_zone, self.suspend) == (&other.cron, &other.time_zone, other.suspend)
    }

    /// What every log holder can say of it, whatever time zones its build knows.
    pub fn check_bounds(&self) -> Result<(), String> {
        let is_text = |text: &str| !text.is_empty() && text.len() <= MAX_TEXT;
        if !is_text(&self.cron) || !is_text(&self.time_zone) {
            return Err(format!("its expression and its time zone have 1 to {MAX_TEXT} bytes each"));
        }
        if !(MIN_WINDOW..=MAX_WINDOW).contains(&self.window) {
            return Err("its window is not from 1s to a year".to_owned());
        }
        if self.history > MAX_HISTORY {
            return Err(format!("its history is longer than {MAX_HISTORY} runs"));
        }
        Ok(())
    }

    /// The points it stands for. An error says what cannot be read, or that no point ever comes.
    pub fn rule(&self) -> Result<Rule, String> {
        self.check_bounds()?;
        let zone = time_zone(&self.time_zone)?;
        let rule = match self.cron.strip_prefix("@every") {
            Some(period) => Rule::Every(every(period)?),
            None => Rule::Cron(Box::new(cron(&self.cron)?), zone),
        };
        // Leap days are eight years apart at most.
        rule.next_after(UnixMs(0)).ok_or_else(|| format!("{:?} never comes: there is no such day", self.cron))?;
        Ok(rule)
    }
}

fn every(period: &str) -> Result<u64, String> {
    let period = parse_duration(period).map_err(|why| format!("{why}, in \"@every {}\"", period.trim()))?;
    let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    let whole = period.subsec_nanos() == 0 && millis >= 1_000 && period <= MAX_WINDOW;
    if whole { Ok(millis) } else { Err("@every takes whole seconds, from 1s to a year".to_owned()) }
}

fn cron(text: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(text).map_err(|_| format!("{text:?} is no cron expression{}: {FORMS}", wrong_field(&parser, text)))
}

/// Which of its fields is wrong, if it is one of them.
fn wrong_field(parser: &CronParser, text: &str) -> String {
    const FIELDS: [(&str, &str); 6] = [
        ("second", "from 0 to 59"),
        ("minute", "from 0 to 59"),
        ("hour", "from 0 to 23"),
        ("day", "from 1 to 31"),
        ("month", "from 1 to 12, or jan to dec"),
        ("weekday", "from 0 to 7, or sun to sat"),
    ];
    let given: Vec<&str> = text.split_whitespace().collect();
    let Some(known) = FIELDS.len().checked_sub(given.len()).filter(|left_out| *left_out <= 1) else {
        return String::new();
    };
    let alone = |at: usize| (0..given.len()).map(|other| if other == at { given[at] } else { "*" }).collect::<Vec<_>>();
    let wrong = (0..given.len()).find(|at| parser.parse(&alone(*at).join(" ")).is_err());
    wrong.map_or_else(String::new, |at| {
        let (name, range) = FIELDS[known + at];
        format!(", as its {name} {:?} is none {range}", given[at])
    })
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    let known = TimeZoneDatabase::bundled();
    known.get(name).map_err(|_| {
        let names: Vec<String> = known.available().map(|name| name.as_str().to_owned()).collect();
        let near = nearest(name, names.iter().map(String::as_str));
        let near =
            near.map_or_else(|| "write for example Europe/Berlin".to_owned(), |near| format!("did you mean {near}?"));
        format!("there is no time zone {name:?}: {near}")
    })
}

/// The points of a schedule.
#[derive(Debug)]
pub enum Rule {
    /// The multiples of so many milliseconds since 1970.
    Every(u64),
    Cron(Box<Cron>, TimeZone),
}

impl Rule {
    /// The first point after `after`.
    pub fn next_after(&self, after: UnixMs) -> Option<UnixMs> {
        match self {
            Rule::Every(period) => Some(UnixMs((after.0 / period).checked_add(1)?.checked_mul(*period)?)),
            Rule::Cron(cron, zone) => {
                let second = Timestamp::from_second(i64::try_from(after.0 / 1_000).ok()?).ok()?;
                let next = cron.find_next_occurrence(&second.to_zoned(zone.clone()), false).ok()?;
                let next = UnixMs(u64::try_from(next.timestamp().as_millisecond()).ok()?);
                (next > after).then_some(next)
            }
        }
    }

    /// The last point from `due`, which is one, to `now`.
    pub fn last_until(&self, due: UnixMs, now: UnixMs) -> UnixMs {
        // No point lies between `late` and `now`.
        let (mut last, mut late) = (due, now);
        while late.0.saturating_sub(last.0) > 1_000 {
            let middle = UnixMs(last.0 + (late.0 - last.0) / 2);
            match self.next_after(middle) {
                Some(next) if next <= now => last = next,
                _ => late = middle,
            }
        }
        match self.next_after(last) {
            Some(next) if next <= now => next,
            _ => last,
        }
    }

    /// How many points there are from `due`, which is one, to before `end`; at most [`MAX_COUNTED`].
    pub fn count(&self, due: UnixMs, end: UnixMs) -> u64 {
        let points = std::iter::successors(Some(due), |point| self.next_after(*point));
        points.take_while(|point| *point < end).take(usize::try_from(MAX_COUNTED).unwrap_or(0)).count() as u64
    }
}

/// A moment as `zone` shows it, or in UTC where it is not known.
pub fn shown(at: UnixMs, zone: &str) -> String {
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap_or(TimeZone::UTC);
    let at = Timestamp::UNIX_EPOCH + SignedDuration::from_millis(i64::try_from(at.0).unwrap_or(0));
    at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

#[cfg(test)]
mod tests;
