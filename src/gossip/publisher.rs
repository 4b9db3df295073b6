//! A node's own record: what it says of itself, and when it says it again.
//!
//! The record is always published whole. A change of a task, an alarm or an image goes out after a short pause that
//! gathers what changes together; load goes out when it moved enough to matter to the scheduler; and everything again
//! each refresh period. All gaps stretch with the size of the swarm, since every manager verifies every message.

use std::collections::BTreeMap;
use std::time::Duration;

use super::holder::{Echo, Refused};
use super::record::*;
use super::surroundings::Surroundings;
use crate::spec::*;

/// Gathers changes that come together.
pub const DEBOUNCE: Duration = Duration::from_millis(30);
/// Between two records, whatever changes; up to [`MAX_GAP`] in a large swarm.
pub const MIN_GAP: Duration = Duration::from_millis(100);
pub const MAX_GAP: Duration = Duration::from_millis(500);
/// Between two records for the sake of load alone.
pub const LOAD_GAP: Duration = Duration::from_secs(1);
pub const MAX_LOAD_GAP: Duration = Duration::from_secs(20);
/// Between two records when nothing changes.
pub const REFRESH: Duration = Duration::from_secs(5);
pub const MAX_REFRESH: Duration = Duration::from_secs(60);
/// Periods are as above in a swarm of up to this size, and stretch in proportion beyond.
pub const UNSTRETCHED_NODES: usize = 50;
/// Load moved materially: by this share of the machine, or by this many points of pressure.
const MATERIAL_SHARE: f64 = 0.10;
const MATERIAL_PRESSURE: f32 = 10.0;

/// What the echo of its own record asks of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EchoVerdict {
    Fine,
    /// The swarm knows a newer self, of before this disk was restored: persist this incarnation, then take it.
    TakeIncarnation(Incarnation),
    /// Another live node holds this key: stop, and say so.
    Refused(Refused),
}

#[derive(Debug)]
pub struct Publisher {
    instance: u64,
    record: NodeRecord,
    /// Until when `ran_for` of the record's running tasks is counted.
    counted: MonoMs,
    swarm_size: usize,
    last: Option<Published>,
    /// Since when a change waits to go out.
    changed: Option<MonoMs>,
}

#[derive(Debug, Clone, Copy)]
struct Published {
    at: MonoMs,
    load: Load,
}

impl Publisher {
    /// `instance` is drawn anew at each start of the daemon; `incarnation` was persisted before this call.
    pub fn new(node: NodeId, instance: u64, incarnation: Incarnation, description: NodeDescription) -> Publisher {
        let record = NodeRecord::new(node, RecordVersion { incarnation, sequence: 0 }, description);
        Publisher { instance, record, counted: MonoMs(0), swarm_size: 1, last: None, changed: None }
    }

    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// The record as it stands, published or not.
    pub fn record(&self) -> &NodeRecord {
        &self.record
    }

    pub fn set_swarm_size(&mut self, nodes: usize) {
        self.swarm_size = nodes;
    }

    pub fn set_description(&mut self, description: NodeDescription, now: MonoMs) {
        let changed = self.record.description != description;
        self.record.description = description;
        self.note(changed, now);
    }

    pub fn set_tasks(&mut self, tasks: BTreeMap<TaskId, TaskReport>, now: MonoMs) {
        let changed = !same_reports(&self.record.tasks, &tasks);
        self.record.tasks = tasks;
        self.counted = now;
        self.note(changed, now);
    }

    /// Newest used first; what exceeds the bound is left out.
    pub fn set_images(&mut self, mut images: Vec<String>, now: MonoMs) {
        images.truncate(MAX_RECORD_IMAGES);
        let changed = self.record.images != images;
        self.record.images = images;
        self.note(changed, now);
    }

    pub fn set_volumes(&mut self, volumes: Vec<String>, now: MonoMs) {
        let changed = self.record.volumes != volumes;
        self.record.volumes = volumes;
        self.note(changed, now);
    }

    /// The observer's standing alarms.
    pub fn set_unreachable(&mut self, alarms: Vec<Unreachable>, now: MonoMs) {
        let kind = |alarm: &Unreachable| (alarm.subject, alarm.incarnation, alarm.refused);
        let changed = !self.record.unreachable.iter().map(kind).eq(alarms.iter().map(kind));
        self.record.unreachable = alarms;
        self.note(changed, now);
    }

    /// What exceeds the bound is left out.
    pub fn set_conditions(&mut self, mut conditions: Vec<Condition>, now: MonoMs) {
        conditions.truncate(MAX_CONDITIONS);
        let changed = self.record.conditions != conditions;
        self.record.conditions = conditions;
        self.note(changed, now);
    }

    pub fn set_surroundings(&mut self, surroundings: Surroundings, now: MonoMs) {
        let changed = self.record.surroundings != surroundings;
        self.record.surroundings = surroundings;
        self.note(changed, now);
    }

    pub fn set_init(&mut self, has_init: bool, now: MonoMs) {
        let changed = self.record.has_init != has_init;
        self.record.has_init = has_init;
        self.note(changed, now);
    }

    pub fn set_load(&mut self, load: Load) {
        self.record.load = load;
    }

    /// Goodbye: the next record goes out at once.
    pub fn set_leaving(&mut self, now: MonoMs) {
        self.record.leaving = true;
        self.republish(now);
    }

    /// Has the record go out again soon though nothing changed: after a reconnection, or when the swarm thinks this node
    /// down.
    pub fn republish(&mut self, now: MonoMs) {
        self.note(true, now);
    }

    /// After [`EchoVerdict::TakeIncarnation`], once it is on the disk.
    pub fn set_incarnation(&mut self, incarnation: Incarnation, now: MonoMs) {
        if incarnation > self.record.version.incarnation {
            self.record.version = RecordVersion { incarnation, sequence: 0 };
            self.republish(now);
        }
    }

    /// Compares what a manager holds of this node with what this node knows of itself.
    pub fn handle_echo(&self, echo: &Echo) -> EchoVerdict {
        if let Some(refused) = echo.refused.iter().find(|refused| refused.instance == self.instance) {
            return EchoVerdict::Refused(refused.clone());
        }
        if echo.instance != self.instance && echo.version.incarnation >= self.record.version.incarnation {
            return EchoVerdict::TakeIncarnation(Incarnation(echo.version.incarnation.0 + 1));
        }
        EchoVerdict::Fine
    }

    /// The record to publish, if one is due.
    pub fn poll_publish(&mut self, now: MonoMs) -> Option<NodeRecord> {
        if self.next_deadline() > now {
            return None;
        }
        self.record.version.sequence += 1;
        self.count_on(now);
        self.last = Some(Published { at: now, load: self.record.load });
        self.changed = None;
        Some(self.record.clone())
    }

    /// Whoever reads a record counts from its arrival: one that said how long a task ran when that was last told would
    /// set the task back.
    fn count_on(&mut self, now: MonoMs) {
        let since = now - self.counted;
        let running = self.record.tasks.values_mut().filter(|report| report.state == TaskState::Running);
        running.for_each(|report| report.ran_for = report.ran_for.map(|ran| ran + since));
        self.counted = now;
    }

    /// When to poll next. New inputs may bring it nearer.
    pub fn next_deadline(&self) -> MonoMs {
        let Some(last) = self.last else { return MonoMs(0) };
        let mut due = last.at + self.stretched(REFRESH, MAX_REFRESH);
        if let Some(since) = self.changed {
            let gap = if self.record.leaving { Duration::ZERO } else { self.stretched(MIN_GAP, MAX_GAP) };
            due = due.min((since + DEBOUNCE).max(last.at + gap));
        }
        if self.load_moved(&last.load) {
            due = due.min(last.at + self.stretched(LOAD_GAP, MAX_LOAD_GAP));
        }
        due
    }

    fn note(&mut self, changed: bool, now: MonoMs) {
        if changed {
            self.changed.get_or_insert(now);
        }
    }

    fn load_moved(&self, before: &Load) -> bool {
        let after = &self.record.load;
        let machine = &self.record.description.resources;
        let share =
            |before: u64, after: u64, whole: u64| before.abs_diff(after) as f64 >= MATERIAL_SHARE * whole as f64;
        let moved = |before: u64, after: u64, whole: u64| whole > 0 && share(before, after, whole);
        let pressed = |before: f32, after: f32| (before - after).abs() >= MATERIAL_PRESSURE;
        moved(before.used_nano_cpus, after.used_nano_cpus, machine.nano_cpus)
            || moved(before.used_memory_bytes, after.used_memory_bytes, machine.memory_bytes)
            || moved(before.disk_free_bytes, after.disk_free_bytes, after.disk_total_bytes)
            || pressed(before.cpu_pressure, after.cpu_pressure)
            || pressed(before.memory_pressure, after.memory_pressure)
            || pressed(before.io_pressure, after.io_pressure)
    }

    fn stretched(&self, period: Duration, most: Duration) -> Duration {
        let stretch = (self.swarm_size as f64 / UNSTRETCHED_NODES as f64).max(1.0);
        period.mul_f64(stretch).min(most)
    }
}

/// Equal but for how long they have been running, which passes by itself.
fn same_reports(before: &BTreeMap<TaskId, TaskReport>, after: &BTreeMap<TaskId, TaskReport>) -> bool {
    let same = |(before, after): (&TaskReport, &TaskReport)| {
        let running = before.state == TaskState::Running && after.state == TaskState::Running;
        let ran_for = if running { after.ran_for } else { before.ran_for };
        TaskReport { ran_for, ..before.clone() } == *after
    };
    before.len() == after.len() && before.keys().eq(after.keys()) && before.values().zip(after.values()).all(same)
}

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::{description, report};
    use super::*;

    fn publisher() -> Publisher {
        Publisher::new(NodeId(1), 77, Incarnation(3), description("one"))
    }

    fn tasks(state: TaskState, ran_ms: u64) -> BTreeMap<TaskId, TaskReport> {
        let ran_for = Some(Duration::from_millis(ran_ms));
        [(TaskId(1), TaskReport { state, ran_for, ..report(TaskId(1)) })].into()
    }

    #[test]
    fn the_first_record_goes_out_at_once_and_sequences_grow() {
        let mut one = publisher();
        let first = one.poll_publish(MonoMs(5)).unwrap();
        assert_eq!(first.version, RecordVersion { incarnation: Incarnation(3), sequence: 1 });
        assert!(one.poll_publish(MonoMs(6)).is_none());
        assert_eq!(one.poll_publish(MonoMs(5) + REFRESH).unwrap().version.sequence, 2);
    }

    #[test]
    fn changes_that_come_together_go_out_together() {
        let mut one = publisher();
        one.poll_publish(MonoMs(0));
        one.set_tasks(tasks(TaskState::Starting, 0), MonoMs(1000));
        one.set_tasks(tasks(TaskState::Running, 0), MonoMs(1020));
        assert!(one.poll_publish(MonoMs(1029)).is_none());
        let record = one.poll_publish(MonoMs(1030)).unwrap();
        assert_eq!(record.tasks[&TaskId(1)].state, TaskState::Running);
        assert!(one.poll_publish(MonoMs(1031)).is_none());
    }

    #[test]
    fn each_record_says_how_long_its_tasks_have_run_by_then() {
        let mut one = publisher();
        let ran = |record: NodeRecord| record.tasks[&TaskId(1)].ran_for.unwrap();
        one.set_tasks(tasks(TaskState::Running, 400), MonoMs(1000));
        assert_eq!(ran(one.poll_publish(MonoMs(1100)).unwrap()), Duration::from_millis(500));
        one.republish(MonoMs(4000));
        assert_eq!(ran(one.poll_publish(MonoMs(4100)).unwrap()), Duration::from_millis(3500));
    }

    #[test]
    fn time_that_passes_in_a_running_task_is_no_change() {
        let mut one = publisher();
        one.set_tasks(tasks(TaskState::Running, 0), MonoMs(0));
        one.poll_publish(MonoMs(0));
        one.set_tasks(tasks(TaskState::Running, 900), MonoMs(1000));
        assert!(one.poll_publish(MonoMs(2000)).is_none());
    }

    #[test]
    fn load_goes_out_when_it_moved_materially() {
        let mut one = publisher();
        one.poll_publish(MonoMs(0));
        one.set_load(Load { used_nano_cpus: 100_000_000, ..Load::default() });
        assert!(one.poll_publish(MonoMs(2000)).is_none(), "a fortieth of four CPUs");
        one.set_load(Load { used_nano_cpus: 3_000_000_000, ..Load::default() });
        assert!(one.poll_publish(MonoMs(2000)).is_some());
    }

    #[test]
    fn conditions_go_out_when_they_come_and_when_they_go_and_are_bounded() {
        let mut one = publisher();
        one.poll_publish(MonoMs(0));
        let many = vec![Condition::new(Concern::Firewall, "drops"); MAX_CONDITIONS + 1];
        one.set_conditions(many.clone(), MonoMs(1000));
        assert_eq!(one.poll_publish(MonoMs(1030)).unwrap().conditions.len(), MAX_CONDITIONS);
        one.set_conditions(many, MonoMs(2000));
        assert!(one.poll_publish(MonoMs(2100)).is_none(), "nothing changed");
        one.set_conditions(Vec::new(), MonoMs(3000));
        assert!(one.poll_publish(MonoMs(3030)).unwrap().conditions.is_empty());
    }

    #[test]
    fn an_init_goes_out_when_it_is_installed() {
        let mut one = publisher();
        assert!(!one.poll_publish(MonoMs(0)).unwrap().has_init);
        one.set_init(true, MonoMs(1000));
        assert!(one.poll_publish(MonoMs(1030)).unwrap().has_init);
        one.set_init(true, MonoMs(2000));
        assert!(one.poll_publish(MonoMs(2100)).is_none(), "nothing changed");
    }

    #[test]
    fn a_large_swarm_is_told_less_often() {
        let mut one = publisher();
        one.poll_publish(MonoMs(0));
        one.set_swarm_size(500);
        assert_eq!(one.next_deadline(), MonoMs(0) + REFRESH * 10);
        one.set_swarm_size(100_000);
        assert_eq!(one.next_deadline(), MonoMs(0) + MAX_REFRESH);
    }

    #[test]
    fn a_restored_node_takes_a_higher_incarnation_than_its_newer_self() {
        let mut one = publisher();
        let version = RecordVersion { incarnation: Incarnation(9), sequence: 1 };
        let echo = Echo { version, instance: 5, refused: Vec::new() };
        assert_eq!(one.handle_echo(&echo), EchoVerdict::TakeIncarnation(Incarnation(10)));
        one.set_incarnation(Incarnation(10), MonoMs(0));
        assert_eq!(one.handle_echo(&echo), EchoVerdict::Fine);
        assert_eq!(one.poll_publish(MonoMs(100)).unwrap().version.incarnation, Incarnation(10));
    }

    #[test]
    fn the_echo_of_this_very_instance_is_fine() {
        let mut one = publisher();
        let version = one.poll_publish(MonoMs(0)).unwrap().version;
        assert_eq!(one.handle_echo(&Echo { version, instance: 77, refused: Vec::new() }), EchoVerdict::Fine);
    }
}
