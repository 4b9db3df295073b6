use std::sync::Arc;

use super::*;
use crate::gossip::{NodeRecord, RecordVersion};
use crate::spec::{Incarnation, NodeDescription};
use crate::state::fixture::{Fixture, a_node, node};

struct Bench {
    fixture: Fixture,
    table: Table,
    detector: CutDetector,
    verdicts: Verdicts,
    sequence: u64,
}

impl Bench {
    fn new() -> Bench {
        let mut detector = CutDetector::new(node(1));
        detector.set_leading(Some(MonoMs(0)));
        let (table, verdicts) = (Table::default(), Verdicts::default());
        Bench { fixture: Fixture::nodes(3), table, detector, verdicts, sequence: 0 }
    }

    fn mono(&self) -> MonoMs {
        MonoMs(self.fixture.now.0)
    }

    fn record(&mut self, number: u128, incarnation: u64, adjust: impl FnOnce(&mut NodeRecord)) {
        self.sequence += 1;
        let mut record = NodeRecord::new(
            node(number),
            RecordVersion { incarnation: Incarnation(incarnation), sequence: self.sequence },
            a_node(number).description,
        );
        adjust(&mut record);
        self.table.merge(Arc::new(record), self.mono());
    }

    /// One tick; the number of steps it brought.
    fn tick(&mut self) -> usize {
        let now = Now { mono: self.mono(), unix: self.fixture.now };
        self.detector.update(&self.fixture.state, &self.table, now.mono);
        let mut draft = self.fixture.draft();
        self.verdicts.plan(&mut draft, &self.table, &self.detector, now);
        let steps = draft.into_steps();
        let count = steps.len();
        self.fixture.plan(steps);
        count
    }

    fn health(&self, number: u128) -> NodeHealth {
        self.fixture.state.node(node(number)).unwrap().health
    }

    fn down(&mut self, number: u128) {
        let since = self.fixture.now;
        self.fixture.health(node(number), NodeHealth::Down { incarnation: Incarnation(1), since });
    }
}

#[test]
fn the_first_record_makes_a_member_up() {
    let mut bench = Bench::new();
    bench.fixture.health(node(2), NodeHealth::Unknown);
    assert_eq!(bench.tick(), 0);
    bench.record(2, 1, |_| {});
    assert_eq!((bench.tick(), bench.health(2)), (1, NodeHealth::Up));
    assert_eq!(bench.tick(), 0, "and a second tick has nothing to add");
}

#[test]
fn a_changed_description_is_kept_in_the_log() {
    let mut bench = Bench::new();
    let hostname = "renamed".to_string();
    bench.record(2, 1, |record| {
        record.description = NodeDescription { hostname: hostname.clone(), ..record.description.clone() };
    });
    assert_eq!(bench.tick(), 1);
    assert_eq!(bench.fixture.state.node(node(2)).unwrap().description.hostname, hostname);
    assert_eq!(bench.tick(), 0);
}

#[test]
fn a_node_that_restarts_after_a_verdict_is_held_down_and_then_up() {
    let mut bench = Bench::new();
    bench.record(2, 1, |_| {});
    bench.down(2);
    assert_eq!(bench.tick(), 0);
    bench.record(2, 2, |_| {});
    bench.tick();
    assert_eq!(bench.health(2), NodeHealth::HeldDown { until: bench.fixture.now + HOLD_DOWN });
    bench.fixture.later(HOLD_DOWN);
    bench.tick();
    assert_eq!(bench.health(2), NodeHealth::Up);
    assert_eq!(bench.fixture.state.node(node(2)).unwrap().flaps, 1);
}

#[test]
fn a_clock_that_was_set_back_makes_no_hold_down_longer() {
    let mut bench = Bench::new();
    bench.record(2, 1, |_| {});
    bench.down(2);
    bench.record(2, 2, |_| {});
    bench.tick();
    bench.fixture.now = UnixMs(bench.fixture.now.0 - 60_000);
    bench.tick();
    assert_eq!(bench.health(2), NodeHealth::Up);
}

#[test]
fn a_record_that_was_under_way_at_the_verdict_is_no_return() {
    let mut bench = Bench::new();
    bench.record(2, 1, |_| {});
    bench.down(2);
    bench.tick();
    bench.fixture.later(Duration::from_millis(300));
    bench.record(2, 1, |_| {});
    assert_eq!(bench.tick(), 0);
    bench.fixture.later(Duration::from_secs(1));
    bench.record(2, 1, |_| {});
    bench.tick();
    assert!(matches!(bench.health(2), NodeHealth::HeldDown { .. }));
}

#[test]
fn hold_downs_double_up_to_a_bound() {
    let holds: Vec<u64> = [1, 2, 3, 7, 8, 40].map(|flaps| hold_down(flaps).as_secs()).to_vec();
    assert_eq!(holds, [10, 20, 40, 600, 600, 600]);
}

#[test]
fn flaps_are_forgotten_after_a_long_healthy_time() {
    let mut bench = Bench::new();
    bench.fixture.change(Change::SetNodeHealth { node: node(2), health: NodeHealth::Up, flaps: 3 });
    bench.fixture.later(FLAPS_FORGOTTEN_AFTER - Duration::from_secs(1));
    assert_eq!(bench.tick(), 0);
    bench.fixture.later(Duration::from_secs(1));
    bench.tick();
    assert_eq!(bench.fixture.state.node(node(2)).unwrap().flaps, 0);
}

#[test]
fn a_node_that_left_and_was_admitted_again_is_judged_by_its_new_life() {
    let mut bench = Bench::new();
    bench.record(2, 1, |record| record.leaving = true);
    bench.tick();
    assert!(matches!(bench.health(2), NodeHealth::Left { .. }));
    bench.fixture.health(node(2), NodeHealth::Unknown);
    assert_eq!(bench.tick(), 0, "its old goodbye is still in the table");
    bench.record(2, 2, |_| {});
    bench.tick();
    assert_eq!(bench.health(2), NodeHealth::Up);
}

#[test]
fn nothing_heard_is_no_verdict() {
    let mut bench = Bench::new();
    bench.fixture.later(Duration::from_secs(3600));
    assert_eq!(bench.tick(), 0);
}
