//! One node's watch over its subjects: replies, refusals and ticks in, alarms out.
//!
//! Driven by the probe thread: at each tick it drains its sockets, hands over what came, and then lets [`Observer::handle_tick`]
//! judge. Silence is *counted*: a tick adds at most one and a half intervals, however long this thread slept, so a node
//! that was stopped accuses nobody when it wakes (Lifeguard's local health, in its simplest form). A node whose own
//! loop lags doubts itself before others: its thresholds stretch until the loop is punctual again.
//!
//! A suspicion has a number, which the next probes carry and the subject quotes. Only such a reply clears it: one that
//! was under way when the suspicion arose says nothing of the present.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::watch::WatchList;
use crate::gossip::Unreachable;
use crate::spec::{Incarnation, MonoMs, NodeId, Version};

/// Between two probes of a subject, and between two ticks.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Counted silence after which a subject is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1000);
/// For a member that has not answered yet since it was admitted.
pub const STARTING_PATIENCE: Duration = Duration::from_secs(10);
/// Counted time without progress of a subject's main runtime, though its probe thread answers.
pub const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Refusals in a row that make an alarm.
pub const REFUSALS: u32 = 2;
/// A refusal counts for this long: after a burst, kernels send no more than one a second to the same host (Linux's
/// `icmp_ratelimit`).
pub const REFUSAL_LIFE: Duration = Duration::from_millis(2500);
/// A standing report is sent again this often, and an emptied one `EMPTY_REPEATS` times: messages get lost.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(300);
const EMPTY_REPEATS: u32 = 3;
/// The most that a node doubts itself, in halves of a threshold.
const MAX_DOUBT: u32 = 4;
/// Punctual ticks that take one doubt away.
const TRUST_TICKS: u32 = 10;

/// A subject's answer to one of our probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub incarnation: Incarnation,
    /// Its main runtime's progress counter.
    pub progress: u64,
    /// The suspicion that the probe carried; 0 if none.
    pub quotes: u64,
}

/// Everything an observer holds against its subjects now. Sent whole to the managers; the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmReport {
    pub observer: NodeId,
    /// The observer's own; with `sequence` it tells which report is newer.
    pub incarnation: Incarnation,
    pub sequence: u64,
    pub alarms: Vec<Unreachable>,
}

/// The observer's machine. See the module for who drives it.
#[derive(Debug)]
pub struct Observer {
    me: NodeId,
    incarnation: Incarnation,
    membership_version: Version,
    subjects: BTreeMap<NodeId, Subject>,
    last_tick: Option<MonoMs>,
    doubt: u32,
    punctual_ticks: u32,
    suspicions: u64,
    report: Reporting,
}

#[derive(Debug, Default)]
struct Reporting {
    sequence: u64,
    /// Subjects and kinds of the alarms last sent.
    sent: Vec<(NodeId, Incarnation, bool)>,
    sent_at: Option<MonoMs>,
    empty_repeats: u32,
}

#[derive(Debug)]
struct Subject {
    incarnation: Incarnation,
    starting: bool,
    /// Counted since its last reply.
    silence: Duration,
    progress: u64,
    /// Counted since its progress last moved.
    stalled: Duration,
    refusals: u32,
    /// Counted since its last refusal.
    since_refusal: Duration,
    /// The number of the standing suspicion.
    suspicion: Option<u64>,
}

impl Observer {
    pub fn new(me: NodeId, incarnation: Incarnation) -> Observer {
        Observer {
            me,
            incarnation,
            membership_version: Version(0),
            subjects: BTreeMap::new(),
            last_tick: None,
            doubt: 0,
            punctual_ticks: 0,
            suspicions: 0,
            report: Reporting::default(),
        }
    }

    /// This node had to take a higher incarnation.
    pub fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = self.incarnation.max(incarnation);
    }

    /// Replaces whom to watch. What was counted of those that stay is kept. A list older than the one held is ignored.
    pub fn handle_watch_list(&mut self, list: &WatchList) {
        if list.membership_version < self.membership_version {
            return;
        }
        self.membership_version = list.membership_version;
        self.subjects.retain(|id, _| list.watched.contains_key(id));
        for (id, watched) in &list.watched {
            let subject = self.subjects.entry(*id).or_insert_with(|| Subject::new(watched.starting));
            subject.learn_incarnation(watched.incarnation);
        }
    }

    pub fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        let Some(subject) = self.subjects.get_mut(&from) else { return };
        let born_again = subject.learn_incarnation(reply.incarnation);
        if !born_again && subject.suspicion.is_some_and(|suspicion| suspicion != reply.quotes) {
            return;
        }
        subject.starting = false;
        subject.silence = Duration::ZERO;
        subject.refusals = 0;
        if born_again || reply.progress != subject.progress {
            subject.progress = reply.progress;
            subject.stalled = Duration::ZERO;
        }
        if subject.stalled < STALLED_AFTER {
            subject.suspicion = None;
        }
    }

    /// The subject's host answered that nobody listens: the process is gone, the host is not.
    pub fn handle_refused(&mut self, from: NodeId) {
        let Some(subject) = self.subjects.get_mut(&from) else { return };
        subject.refusals = subject.refusals.saturating_add(1);
        subject.since_refusal = Duration::ZERO;
    }

    /// Judges. Call it every [`PROBE_INTERVAL`], after everything that has arrived was handed over.
    pub fn handle_tick(&mut self, now: MonoMs) {
        let elapsed = self.last_tick.map_or(Duration::ZERO, |last| now - last);
        self.last_tick = Some(now);
        let most = PROBE_INTERVAL * 3 / 2;
        self.weigh_own_lag(elapsed > most);
        let counted = elapsed.min(most);
        let stretch = 2 + self.doubt;
        for subject in self.subjects.values_mut() {
            subject.silence += counted;
            subject.stalled += counted;
            subject.since_refusal += counted;
            if subject.suspicion.is_none() && subject.is_suspicious(stretch) {
                self.suspicions += 1;
                subject.suspicion = Some(self.suspicions);
            }
        }
    }

    fn weigh_own_lag(&mut self, late: bool) {
        if late {
            self.doubt = (self.doubt + 1).min(MAX_DOUBT);
            self.punctual_ticks = 0;
            return;
        }
        self.punctual_ticks += 1;
        if self.punctual_ticks >= TRUST_TICKS {
            self.doubt = self.doubt.saturating_sub(1);
            self.punctual_ticks = 0;
        }
    }

    /// What the next probe to `subject` carries, so that it can refute; 0 if it is not suspected.
    pub fn suspicion_of(&self, subject: NodeId) -> u64 {
        self.subjects.get(&subject).and_then(|subject| subject.suspicion).unwrap_or(0)
    }

    /// All that stands now; it rides in this node's record too.
    pub fn alarms(&self) -> Vec<Unreachable> {
        let suspected = self.subjects.iter().filter(|(_, subject)| subject.suspicion.is_some());
        let alarm = |(id, subject): (&NodeId, &Subject)| Unreachable {
            subject: *id,
            incarnation: subject.incarnation,
            membership_version: self.membership_version,
            silent_for: subject.silence.max(subject.stalled_for()),
            refused: subject.refuses(),
        };
        suspected.map(alarm).collect()
    }

    /// A report for the managers: when an alarm was raised, cleared or changed its kind, and again while any stands.
    pub fn poll_report(&mut self, now: MonoMs) -> Option<AlarmReport> {
        let alarms = self.alarms();
        let kinds: Vec<_> = alarms.iter().map(|alarm| (alarm.subject, alarm.incarnation, alarm.refused)).collect();
        let report = &mut self.report;
        if kinds != report.sent {
            report.empty_repeats = EMPTY_REPEATS;
            report.sent = kinds;
        } else {
            let due = report.sent_at.is_some_and(|sent| now - sent >= REPORT_INTERVAL);
            if !due || (alarms.is_empty() && report.empty_repeats == 0) {
                return None;
            }
            report.empty_repeats -= u32::from(alarms.is_empty());
        }
        report.sent_at = Some(now);
        report.sequence += 1;
        Some(AlarmReport { observer: self.me, incarnation: self.incarnation, sequence: report.sequence, alarms })
    }
}

impl Subject {
    fn new(starting: bool) -> Subject {
        Subject {
            incarnation: Incarnation(0),
            starting,
            silence: Duration::ZERO,
            progress: 0,
            stalled: Duration::ZERO,
            refusals: 0,
            since_refusal: Duration::ZERO,
            suspicion: None,
        }
    }

    /// Says whether it is a later life than the one known; what was held against the earlier one is then void.
    fn learn_incarnation(&mut self, incarnation: Incarnation) -> bool {
        let later = incarnation > self.incarnation;
        if later {
            *self = Subject { incarnation, progress: self.progress, ..Subject::new(self.starting) };
        }
        later
    }

    /// Thresholds are stretched by `halves` halves.
    fn is_suspicious(&self, halves: u32) -> bool {
        if self.starting {
            return self.silence >= STARTING_PATIENCE;
        }
        self.refuses() || self.silence >= SUSPECT_AFTER * halves / 2 || self.stalled >= STALLED_AFTER * halves / 2
    }

    /// Refused in a row and lately: once a host stops even refusing, it is silent like any other.
    fn refuses(&self) -> bool {
        self.refusals >= REFUSALS && self.since_refusal < REFUSAL_LIFE
    }

    fn stalled_for(&self) -> Duration {
        if self.stalled >= STALLED_AFTER { self.stalled } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Watched;

    const SUBJECT: NodeId = NodeId(2);
    const ALIVE: Reply = Reply { incarnation: Incarnation(1), progress: 0, quotes: 0 };

    struct Bench {
        observer: Observer,
        now: MonoMs,
        progress: u64,
    }

    impl Bench {
        fn new() -> Bench {
            Bench::watching(false)
        }

        fn watching(starting: bool) -> Bench {
            let mut observer = Observer::new(NodeId(1), Incarnation(1));
            let addr = "127.0.0.1:1".parse().unwrap();
            let watched = Watched { addr, incarnation: Incarnation(1), starting };
            let list = WatchList { membership_version: Version(1), watched: [(SUBJECT, watched)].into() };
            observer.handle_watch_list(&list);
            observer.handle_tick(MonoMs(0));
            Bench { observer, now: MonoMs(0), progress: 0 }
        }

        fn tick_after(&mut self, ms: u64) {
            self.now = self.now + Duration::from_millis(ms);
            self.observer.handle_tick(self.now);
        }

        /// `ticks` intervals in which the subject answers every probe.
        fn answered(&mut self, ticks: u32) {
            for _ in 0..ticks {
                self.progress += 1;
                let quotes = self.observer.suspicion_of(SUBJECT);
                self.observer.handle_reply(SUBJECT, Reply { progress: self.progress, quotes, ..ALIVE });
                self.tick_after(100);
            }
        }

        fn silent(&mut self, ticks: u32) {
            (0..ticks).for_each(|_| self.tick_after(100));
        }

        fn refused(&mut self, ticks: u32) {
            for _ in 0..ticks {
                self.observer.handle_refused(SUBJECT);
                self.tick_after(100);
            }
        }

        fn suspects(&self) -> bool {
            self.observer.suspicion_of(SUBJECT) != 0
        }
    }

    #[test]
    fn a_second_of_silence_raises_an_alarm() {
        let mut bench = Bench::new();
        bench.answered(5);
        bench.silent(8);
        assert!(bench.observer.poll_report(bench.now).is_none(), "0.9 s after its last answer");
        bench.silent(1);
        let report = bench.observer.poll_report(bench.now).unwrap();
        assert_eq!((report.alarms[0].subject, report.alarms[0].refused), (SUBJECT, false));
    }

    #[test]
    fn an_observer_that_slept_accuses_nobody() {
        let mut bench = Bench::new();
        bench.answered(5);
        bench.tick_after(30_000);
        assert!(!bench.suspects());
        bench.answered(1);
        assert!(!bench.suspects());
    }

    #[test]
    fn an_observer_that_lags_doubts_itself_first() {
        let mut bench = Bench::new();
        (0..4).for_each(|_| bench.tick_after(400));
        bench.answered(1);
        bench.silent(15);
        assert!(!bench.suspects(), "three times the patience after four late ticks, less as it becomes punctual");
        bench.silent(10);
        assert!(bench.suspects());
    }

    #[test]
    fn only_a_reply_that_quotes_the_suspicion_clears_it() {
        let mut bench = Bench::new();
        bench.silent(10);
        assert!(bench.suspects());
        bench.observer.handle_reply(SUBJECT, ALIVE);
        assert!(bench.suspects(), "that reply was under way before");
        bench.answered(1);
        assert!(!bench.suspects());
    }

    #[test]
    fn a_later_life_clears_what_was_held_against_the_earlier() {
        let mut bench = Bench::new();
        bench.silent(10);
        bench.observer.handle_reply(SUBJECT, Reply { incarnation: Incarnation(2), ..ALIVE });
        assert!(!bench.suspects());
    }

    #[test]
    fn two_refusals_raise_a_refused_alarm_and_one_does_not() {
        let mut bench = Bench::new();
        bench.refused(1);
        assert!(!bench.suspects());
        bench.answered(1);
        bench.refused(1);
        assert!(!bench.suspects(), "it answered in between");
        bench.refused(1);
        assert!(bench.observer.alarms()[0].refused);
    }

    #[test]
    fn a_host_that_stops_refusing_is_silent() {
        let mut bench = Bench::new();
        bench.refused(3);
        bench.silent(23);
        assert!(bench.observer.alarms()[0].refused);
        bench.silent(1);
        assert!(!bench.observer.alarms()[0].refused);
    }

    #[test]
    fn a_hung_runtime_behind_a_live_echo_is_found_later() {
        let mut bench = Bench::new();
        let echo = |bench: &mut Bench, ticks| {
            for _ in 0..ticks {
                let quotes = bench.observer.suspicion_of(SUBJECT);
                bench.observer.handle_reply(SUBJECT, Reply { progress: 7, quotes, ..ALIVE });
                bench.tick_after(100);
            }
        };
        echo(&mut bench, 49);
        assert!(!bench.suspects());
        echo(&mut bench, 2);
        assert!(bench.suspects());
        echo(&mut bench, 5);
        assert!(bench.suspects(), "its echo alone does not clear it");
        bench.answered(1);
        assert!(!bench.suspects());
    }

    #[test]
    fn a_member_that_is_still_starting_is_given_time() {
        let mut bench = Bench::watching(true);
        bench.refused(20);
        assert!(!bench.suspects());
        bench.answered(1);
        bench.silent(10);
        assert!(bench.suspects(), "after its first answer it is judged like the others");
    }

    #[test]
    fn a_report_is_repeated_while_it_stands_and_a_few_times_when_emptied() {
        let mut bench = Bench::new();
        bench.silent(10);
        let mut standing = 0;
        for _ in 0..30 {
            standing += u32::from(bench.observer.poll_report(bench.now).is_some());
            bench.silent(1);
        }
        assert_eq!(standing, 10);
        let mut emptied = 0;
        for _ in 0..50 {
            bench.answered(1);
            emptied += u32::from(bench.observer.poll_report(bench.now).is_some_and(|r| r.alarms.is_empty()));
        }
        assert_eq!(emptied, 1 + EMPTY_REPEATS);
    }

    #[test]
    fn an_older_watch_list_is_ignored() {
        let mut bench = Bench::new();
        bench.observer.handle_watch_list(&WatchList::default());
        bench.silent(10);
        assert!(bench.suspects());
    }
}
