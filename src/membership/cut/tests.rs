use std::sync::Arc;

use super::*;
use crate::gossip::NodeRecord;
use crate::state::fixture::{Fixture, a_node, node};

/// Five managers, of which node 1 runs the detector and node 5 is the accused.
struct Bench {
    fixture: Fixture,
    detector: CutDetector,
    table: Table,
    now: MonoMs,
    sequence: u64,
}

const ACCUSED: NodeId = NodeId(5);

impl Bench {
    fn new() -> Bench {
        Bench::of(5)
    }

    fn of(size: u128) -> Bench {
        let mut detector = CutDetector::new(node(1));
        detector.set_leading(Some(MonoMs(0)));
        let fixture = Fixture::nodes(size);
        Bench { fixture, detector, table: Table::default(), now: MonoMs(10_000), sequence: 0 }
    }

    fn alarm(&self, subject: NodeId) -> Unreachable {
        let silent_for = Duration::from_secs(1);
        let membership_version = self.fixture.state.swarm().unwrap().membership_version;
        Unreachable { subject, incarnation: Incarnation(1), membership_version, silent_for, refused: false }
    }

    fn report(&mut self, observer: u128, alarms: Vec<Unreachable>) {
        self.sequence += 1;
        let observer = node(observer);
        let report = AlarmReport { observer, incarnation: Incarnation(1), sequence: self.sequence, alarms };
        self.detector.handle_report(observer, report, self.now);
    }

    fn accuse(&mut self, observers: impl IntoIterator<Item = u128>) {
        for observer in observers {
            self.report(observer, vec![self.alarm(ACCUSED)]);
        }
    }

    fn record(&mut self, number: u128, incarnation: u64, unreachable: Vec<Unreachable>) {
        self.sequence += 1;
        let record = NodeRecord {
            unreachable,
            ..NodeRecord::new(
                node(number),
                RecordVersion { incarnation: Incarnation(incarnation), sequence: self.sequence },
                a_node(number).description,
            )
        };
        self.table.merge(Arc::new(record), self.now);
    }

    fn after(&mut self, wait: Duration) {
        self.now = self.now + wait;
    }

    fn cut(&mut self) -> Vec<NodeId> {
        self.detector.update(&self.fixture.state, &self.table, self.now);
        self.detector.cut().map(|condemned| condemned.node).collect()
    }

    fn is_suspect(&self) -> bool {
        self.detector.suspects().contains(&ACCUSED)
    }
}

#[test]
fn two_of_four_make_a_suspect_and_three_a_cut() {
    let mut bench = Bench::new();
    bench.accuse([2]);
    assert!(bench.cut().is_empty() && !bench.is_suspect());
    bench.accuse([3]);
    assert!(bench.cut().is_empty() && bench.is_suspect());
    bench.accuse([4]);
    assert_eq!(bench.cut(), [ACCUSED]);
    let condemned = bench.detector.cut().next().unwrap();
    assert_eq!((condemned.incarnation, condemned.accusers.len()), (Incarnation(1), 3));
}

#[test]
fn a_withdrawn_alarm_counts_no_more() {
    let mut bench = Bench::new();
    bench.accuse([2, 3, 4]);
    bench.report(3, Vec::new());
    assert!(bench.cut().is_empty());
    bench.report(2, Vec::new());
    bench.report(4, Vec::new());
    bench.cut();
    assert!(bench.detector.is_calm());
}

#[test]
fn a_report_that_is_not_renewed_counts_no_more() {
    let mut bench = Bench::new();
    bench.accuse([2, 3, 4]);
    bench.after(REPORT_LIFE + Duration::from_millis(1));
    assert!(bench.cut().is_empty());
}

#[test]
fn nobody_reports_in_the_name_of_another_and_an_older_report_changes_nothing() {
    let mut bench = Bench::new();
    bench.accuse([2, 3]);
    let alarms = vec![bench.alarm(ACCUSED)];
    let borrowed = AlarmReport { observer: node(4), incarnation: Incarnation(1), sequence: 9, alarms };
    bench.detector.handle_report(node(2), borrowed, bench.now);
    assert!(bench.cut().is_empty());
    bench.accuse([4]);
    let emptied = AlarmReport { observer: node(4), incarnation: Incarnation(1), sequence: 1, alarms: Vec::new() };
    bench.detector.handle_report(node(4), emptied, bench.now);
    assert_eq!(bench.cut(), [ACCUSED]);
}

#[test]
fn alarms_about_an_earlier_life_are_void() {
    let mut bench = Bench::new();
    bench.accuse([2, 3, 4]);
    bench.record(5, 2, Vec::new());
    assert!(bench.cut().is_empty() && !bench.is_suspect());
}

#[test]
fn an_alarm_from_a_later_membership_waits_until_this_manager_has_it() {
    let mut bench = Bench::of(4);
    bench.fixture.command(crate::state::Command::AdmitNode { node: Box::new(a_node(5)) });
    let later = bench.fixture.state.clone();
    bench.accuse([2, 3, 4]);
    bench.fixture = Fixture::nodes(4);
    assert!(bench.cut().is_empty());
    bench.fixture.state = later;
    assert_eq!(bench.cut(), [ACCUSED]);
}

#[test]
fn records_are_the_repair_path_of_reports() {
    let mut bench = Bench::new();
    bench.accuse([2, 3]);
    let alarms = vec![bench.alarm(ACCUSED)];
    bench.record(4, 1, alarms);
    assert_eq!(bench.cut(), [ACCUSED]);
}

#[test]
fn a_new_leader_takes_its_word_from_reports_and_from_records_of_its_own_time() {
    let mut bench = Bench::new();
    let alarms = vec![bench.alarm(ACCUSED)];
    (2..=4).for_each(|observer| bench.record(observer, 1, alarms.clone()));
    bench.after(Duration::from_secs(1));
    bench.detector.set_leading(Some(bench.now));
    assert!(bench.cut().is_empty() && bench.is_suspect());
    bench.accuse([2, 3, 4]);
    assert_eq!(bench.cut(), [ACCUSED]);
}

#[test]
fn suspect_observers_count_against_whom_they_watch() {
    let mut bench = Bench::new();
    // Nodes 4 and 5 went together: each is accused by 2 and 3 alone.
    let alarms = vec![bench.alarm(node(4)), bench.alarm(node(5))];
    bench.report(2, alarms.clone());
    bench.report(3, alarms);
    assert_eq!(bench.cut(), [node(4), node(5)]);
    assert_eq!(bench.detector.cut().next().unwrap().implicit, [node(5)]);
}

#[test]
fn suspects_alone_condemn_nobody() {
    let mut bench = Bench::new();
    // 2, 3 and 4 are themselves accused by two each; only they accuse 5.
    let (two, three, four) = (bench.alarm(node(2)), bench.alarm(node(3)), bench.alarm(node(4)));
    let accused = bench.alarm(ACCUSED);
    bench.report(2, vec![accused.clone(), three.clone(), four.clone()]);
    bench.report(3, vec![accused.clone(), two.clone(), four]);
    bench.report(4, vec![accused, two, three]);
    assert!(!bench.cut().contains(&ACCUSED));
}

#[test]
fn a_cut_waits_a_little_for_those_who_are_nearly_condemned() {
    let mut bench = Bench::of(12);
    let (first, second) = (node(5), node(6));
    bench.cut();
    let observers = |bench: &Bench, subject| bench.detector.rings().observers_of(subject).to_vec();
    let mut alarms: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    let sound = |id: &NodeId| ![first, second].contains(id);
    observers(&bench, first).into_iter().filter(sound).take(3).for_each(|o| alarms.entry(o).or_default().push(first));
    observers(&bench, second).into_iter().filter(sound).take(2).for_each(|o| alarms.entry(o).or_default().push(second));
    let speak = |bench: &mut Bench| {
        for (observer, subjects) in &alarms {
            let alarms = subjects.iter().map(|subject| bench.alarm(*subject)).collect();
            bench.report(observer.0, alarms);
        }
    };
    speak(&mut bench);
    assert!(bench.cut().is_empty(), "node 6 may be part of it");
    bench.after(SETTLE);
    assert_eq!(bench.cut(), [first]);
}

#[test]
fn where_only_two_can_tell_both_must_and_for_twice_as_long() {
    let mut bench = Bench::of(3);
    let accused = node(3);
    let alarm = |bench: &Bench, secs| Unreachable { silent_for: Duration::from_secs(secs), ..bench.alarm(accused) };
    let (short, long) = (alarm(&bench, 1), alarm(&bench, 2));
    bench.report(1, vec![long.clone()]);
    bench.report(2, vec![short]);
    assert!(bench.cut().is_empty() && bench.detector.suspects().contains(&accused));
    bench.report(2, vec![long]);
    assert_eq!(bench.cut(), [accused]);
}

#[test]
fn a_refusal_suspects_at_once_and_condemns_after_the_grace() {
    let mut bench = Bench::new();
    let refused = |bench: &Bench, ms| {
        vec![Unreachable { refused: true, silent_for: Duration::from_millis(ms), ..bench.alarm(ACCUSED) }]
    };
    let early = refused(&bench, 200);
    bench.report(2, early.clone());
    assert!(bench.cut().is_empty() && bench.is_suspect());
    bench.report(3, early.clone());
    bench.report(4, early);
    assert!(bench.cut().is_empty());
    let late = refused(&bench, 5000);
    (2..=4).for_each(|observer| bench.report(observer, late.clone()));
    assert_eq!(bench.cut(), [ACCUSED]);
}

#[test]
fn a_manager_never_suspects_itself() {
    let mut bench = Bench::new();
    let alarms = vec![bench.alarm(node(1))];
    (2..=5).for_each(|observer| bench.report(observer, alarms.clone()));
    assert!(bench.cut().is_empty() && bench.detector.suspects().is_empty());
}
