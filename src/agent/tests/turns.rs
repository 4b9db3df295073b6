//! How many tasks a node makes ready to run at once, and whose turn it is.

use std::collections::BTreeSet;

use super::*;

const ROOM: usize = 4;

/// A node, the tasks of several services, and which are under way.
struct Node {
    machine: Machine,
    assignments: BTreeMap<TaskId, Arc<Assignment>>,
    under_way: Vec<Action>,
    now: MonoMs,
}

impl Node {
    fn new() -> Node {
        let machine = Machine::new(Vec::new(), ROOM, MonoMs(0));
        Node { machine, assignments: BTreeMap::new(), under_way: Vec::new(), now: MonoMs(0) }
    }

    /// The tasks `of` a service, by number from `service * 1000` on.
    fn assign(&mut self, service: u128, count: u128, desired: DesiredState) {
        for number in service * 1000..service * 1000 + count {
            let task = TaskId(number);
            let one = Assignment { task, service: ServiceId(service), desired, ..assignment() };
            self.assignments.insert(task, Arc::new(one));
        }
        self.machine.handle_assignments(&self.assignments, self.now);
        self.act();
    }

    fn act(&mut self) {
        self.under_way.extend(self.machine.poll_actions());
    }

    /// What is under way of a service.
    fn of(&self, service: u128) -> usize {
        self.under_way.iter().filter(|action| action.task().0 / 1000 == service).count()
    }

    /// The executor does the first thing that it was given of those that `what` chooses.
    fn work(&mut self, what: impl Fn(&Action) -> bool) -> Action {
        let at = self.under_way.iter().position(what).expect("there is something to do");
        let action = self.under_way.remove(at);
        let kind = match &action {
            Action::Prepare { .. } => {
                EventKind::Prepared { container_id: "c".into(), host_ports: Vec::new(), check: None }
            }
            Action::Start { .. } => EventKind::Started { pid: 1 },
            Action::Release { .. } => EventKind::Released,
            Action::Persist { .. } => EventKind::Persisted,
            Action::Stop { .. } | Action::Kill { .. } => EventKind::Signalled,
            other => panic!("{other:?}"),
        };
        self.machine.handle_event(Event { task: action.task(), kind }, self.now);
        self.act();
        action
    }

    fn pass(&mut self, until_ms: u64) {
        self.now = MonoMs(until_ms);
        self.machine.handle_tick(self.now);
        self.act();
    }

    fn message(&self, task: u128) -> String {
        self.machine.reports(self.now)[&TaskId(task)].message.clone()
    }

    fn running(&self) -> usize {
        self.machine.running().count()
    }
}

#[test]
fn few_tasks_are_under_way_at_once_and_all_run_in_the_end() {
    let mut node = Node::new();
    node.assign(1, 100, DesiredState::Running);
    while node.running() < 100 {
        assert!(node.under_way.len() <= ROOM, "{:?}", node.under_way);
        node.work(|_| true);
    }
    assert_eq!(node.under_way, []);
}

#[test]
fn what_waits_says_so_and_begins_nothing() {
    let mut node = Node::new();
    node.assign(1, 6, DesiredState::Running);
    assert_eq!(node.message(1000), "");
    assert_eq!(node.message(1005), "waits for its turn: a node starts a few tasks at a time");
    assert_eq!(node.machine.reports(node.now)[&TaskId(1005)].state, TaskState::Accepted);
    node.work(|_| true);
    node.work(|action| matches!(action, Action::Start { .. }));
    assert_eq!(node.message(1004), "", "its turn has come");
}

#[test]
fn a_task_that_is_prepared_is_started_before_others_of_its_service_are_prepared() {
    let mut node = Node::new();
    node.assign(1, 100, DesiredState::Running);
    let prepared = node.work(|_| true).task();
    assert!(node.under_way.contains(&Action::Start { task: prepared, again: false }), "{:?}", node.under_way);
}

#[test]
fn a_small_service_is_not_behind_a_large_one() {
    let mut node = Node::new();
    node.assign(1, 900, DesiredState::Running);
    node.assign(2, 2, DesiredState::Running);
    assert_eq!((node.of(1), node.of(2)), (ROOM, 1), "one at once, beyond what there is room for");
    let mut done = 0;
    while node.of(2) > 0 {
        node.work(|_| true);
        done += 1;
    }
    assert!(done < 20, "{done} steps");
}

#[test]
fn a_service_whose_preparation_hangs_holds_up_no_other() {
    let mut node = Node::new();
    node.assign(1, 10, DesiredState::Running);
    node.assign(2, 10, DesiredState::Running);
    let of_second = |action: &Action| action.task().0 / 1000 == 2;
    while node.of(2) > 0 {
        node.work(of_second);
    }
    assert_eq!((node.of(1), node.running()), (ROOM, 10));
    for service in 3..3 + 10 * ROOM as u128 {
        node.assign(service, 1, DesiredState::Running);
    }
    assert!(node.under_way.len() <= 4 * ROOM, "there is an end to that, too: {:?}", node.under_way);
}

#[test]
fn what_is_to_stop_waits_for_nobody() {
    let mut node = Node::new();
    node.assign(1, 10, DesiredState::Running);
    node.assign(1, 10, DesiredState::Shutdown);
    let cancelled = node.under_way.iter().filter(|action| matches!(action, Action::Cancel { .. })).count();
    let released = node.under_way.iter().filter(|action| matches!(action, Action::Release { .. })).count();
    assert_eq!((cancelled, released), (ROOM, 10 - ROOM));
}

/// A node whose first service has so many tasks that run and are told to stop.
fn stopping(count: u128) -> Node {
    let mut node = Node::new();
    node.assign(1, count, DesiredState::Running);
    while node.of(1) > 0 {
        node.work(|_| true);
    }
    node.assign(1, count, DesiredState::Shutdown);
    node
}

#[test]
fn few_signals_are_on_their_way_at_once_and_all_are_sent() {
    let mut node = stopping(100);
    let (mut sent, mut most) = (BTreeSet::new(), 0);
    while node.of(1) > 0 {
        most = most.max(node.of(1));
        sent.insert(node.work(|action| matches!(action, Action::Stop { .. })).task());
    }
    assert_eq!((sent.len(), most), (100, ROOM));
    assert_eq!(node.machine.next_deadline(), Some(MonoMs(3000)), "their graces pass side by side");
    node.pass(3000);
    assert_eq!(node.of(1), ROOM, "nor are they killed all at once");
    assert!(node.under_way.iter().all(is_kill), "{:?}", node.under_way);
}

#[test]
fn signals_and_starts_do_not_wait_for_one_another() {
    let mut node = stopping(100);
    node.assign(2, 100, DesiredState::Running);
    node.assign(3, 1, DesiredState::Running);
    assert_eq!((node.of(1), node.of(2), node.of(3)), (ROOM, ROOM, 1));
}

#[test]
fn a_grace_begins_when_the_signal_has_been_sent_and_a_call_that_hangs_holds_up_nobody() {
    let mut node = stopping(ROOM as u128 + 1);
    node.pass(2000);
    let slow = node.work(|_| true).task();
    let last = TaskId(1000 + ROOM as u128);
    assert!(node.under_way.contains(&Action::Stop { task: last }), "its turn has come: {:?}", node.under_way);
    node.pass(3000);
    let killed: Vec<TaskId> = node.under_way.iter().filter(|action| is_kill(action)).map(Action::task).collect();
    assert_eq!(killed.len(), ROOM - 1, "those whose signal is not out yet: {:?}", node.under_way);
    assert!(!killed.contains(&slow) && !killed.contains(&last));
    node.pass(5000);
    let killed = node.under_way.iter().filter(|action| is_kill(action)).count();
    assert_eq!(killed, ROOM, "the grace of both is over, and there is room for one: {:?}", node.under_way);
}

fn is_kill(action: &Action) -> bool {
    matches!(action, Action::Kill { .. })
}

#[test]
fn a_turn_that_comes_later_is_no_deadline() {
    let mut node = Node::new();
    node.assign(1, 8, DesiredState::Ready);
    while node.of(1) > 0 {
        node.work(|_| true);
    }
    node.assign(1, 8, DesiredState::Running);
    assert_eq!(node.of(1), ROOM);
    assert_eq!(node.machine.next_deadline(), None, "time alone moves none of them on");
    assert!(node.message(1007).starts_with("waits for its turn"), "{}", node.message(1007));
}
