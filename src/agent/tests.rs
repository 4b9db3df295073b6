mod expand;
mod health;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::spec::*;

const TASK: TaskId = TaskId(1);

/// A machine, its newest assignments, and a clock.
struct Case {
    machine: Machine,
    assignments: BTreeMap<TaskId, Arc<Assignment>>,
    now: MonoMs,
}

impl Case {
    fn new() -> Case {
        Case::with(Vec::new())
    }

    fn with(found: Vec<Found>) -> Case {
        Case { machine: Machine::new(found, 2, MonoMs(0)), assignments: BTreeMap::new(), now: MonoMs(0) }
    }

    fn assign(&mut self, change: impl FnOnce(&mut Assignment)) -> Vec<Action> {
        let mut assignment = self.assignments.get(&TASK).map_or_else(assignment, |known| Assignment::clone(known));
        change(&mut assignment);
        self.assignments.insert(TASK, Arc::new(assignment));
        self.tell()
    }

    fn tell(&mut self) -> Vec<Action> {
        self.machine.handle_assignments(&self.assignments, self.now);
        self.machine.poll_actions()
    }

    fn desire(&mut self, desired: DesiredState) -> Vec<Action> {
        self.assign(|assignment| assignment.desired = desired)
    }

    fn forget(&mut self) -> Vec<Action> {
        self.assignments.clear();
        self.tell()
    }

    fn event(&mut self, kind: EventKind) -> Vec<Action> {
        self.machine.handle_event(Event { task: TASK, kind }, self.now);
        self.machine.poll_actions()
    }

    fn prepared(&mut self) -> Vec<Action> {
        self.event(EventKind::Prepared { container_id: "c1".into(), host_ports: Vec::new(), check: None })
    }

    fn exited(&mut self, code: i32) -> Vec<Action> {
        self.event(EventKind::Exited(Exit { code, out_of_memory: false }))
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.machine.handle_tick(self.now);
        self.machine.poll_actions()
    }

    /// From nothing to a running process.
    fn run(&mut self) {
        assert_eq!(self.assign(|_| {}), [Action::Prepare { task: TASK }]);
        assert_eq!(self.prepared(), [Action::Start { task: TASK, again: false }]);
        assert_eq!(self.event(EventKind::Started { pid: 7 }), []);
    }

    /// The executor's answers after a process's end.
    fn wind_up(&mut self) -> Outcome {
        let actions = self.event(EventKind::Released);
        let [Action::Persist { outcome, .. }] = actions.as_slice() else { panic!("{actions:?}") };
        assert!(!self.report().state.is_final(), "told before it was durable");
        let outcome = outcome.clone();
        assert_eq!(self.event(EventKind::Persisted), []);
        outcome
    }

    fn report(&self) -> TaskReport {
        self.machine.reports(self.now).remove(&TASK).expect("the task is known")
    }
}

fn assignment() -> Assignment {
    Assignment {
        task: TASK,
        service: ServiceId(1),
        service_name: "web".into(),
        service_labels: Labels::new(),
        slot: Slot::Replica(1),
        name: "web.1".into(),
        desired: DesiredState::Running,
        spec: TaskSpec {
            container: ContainerSpec { stop_grace: Some(Duration::from_secs(3)), ..Default::default() },
            resources: Resources::default(),
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            networks: Vec::new(),
            log_driver: None,
            force_update: 0,
            host_ports: Vec::new(),
            volume_policy: VolumePolicy::default(),
            ingress: false,
        },
        spec_version: Version(1),
        start_delay: Duration::ZERO,
        attachments: Vec::new(),
        resources: Vec::new(),
        outcome_recorded: false,
    }
}

fn running() -> Found {
    let state = FoundState::Running { pid: 7, age: Duration::from_secs(60) };
    Found { task: TASK, container_id: "c1".into(), host_ports: Vec::new(), state, health: None }
}

fn second() -> Duration {
    Duration::from_secs(1)
}

#[test]
fn a_task_goes_from_assignment_to_running() {
    let mut case = Case::new();
    case.run();
    case.pass(second());
    let report = case.report();
    assert_eq!(report.state, TaskState::Running);
    assert_eq!((report.pid, report.container_id.as_deref(), report.ran_for), (Some(7), Some("c1"), Some(second())));
}

/// A running task with an address, whose spec may say how long it drains.
fn on_a_network(drain: Option<Duration>) -> Case {
    let mut case = Case::new();
    case.run();
    case.assign(|assignment| {
        let addresses = vec!["10.5.0.2".parse().unwrap()];
        assignment.attachments = vec![Attachment { network: NetworkId(1), addresses, aliases: Vec::new() }];
        assignment.spec.container.drain = drain;
    });
    case
}

#[test]
fn a_task_on_a_network_drains_before_the_stop_signal() {
    let mut case = on_a_network(None);
    assert_eq!(case.desire(DesiredState::Shutdown), []);
    assert_eq!(case.machine.next_deadline(), Some(case.now + DEFAULT_DRAIN));
    assert_eq!((case.report().pid, case.report().message.as_str()), (Some(7), "draining"));
    assert_eq!(case.tell(), [], "the same wish again does not begin anew");
    assert_eq!(case.pass(DEFAULT_DRAIN - Duration::from_millis(1)), []);
    assert_eq!(case.pass(Duration::from_millis(1)), [Action::Stop { task: TASK }]);
    assert_eq!(case.pass(Duration::from_secs(3)), [Action::Kill { task: TASK }], "the grace begins with the signal");
}

#[test]
fn the_spec_says_how_long_a_task_drains() {
    let mut long = on_a_network(Some(second() * 5));
    long.desire(DesiredState::Shutdown);
    assert_eq!(long.pass(second() * 4), []);
    assert_eq!(long.pass(second()), [Action::Stop { task: TASK }]);
    let mut none = on_a_network(Some(Duration::ZERO));
    assert_eq!(none.desire(DesiredState::Shutdown), [Action::Stop { task: TASK }]);
}

#[test]
fn a_process_that_ends_while_it_drains_was_asked_to() {
    let mut case = on_a_network(None);
    case.desire(DesiredState::Shutdown);
    assert_eq!(case.exited(0), [Action::Release { task: TASK }]);
    assert_eq!(case.wind_up().state, TaskState::Shutdown);
}

#[test]
fn the_same_assignments_again_do_nothing() {
    let mut case = Case::new();
    case.run();
    assert_eq!(case.tell(), []);
    assert_eq!(case.pass(second() * 100), []);
}

#[test]
fn an_outcome_is_told_only_when_it_is_durable() {
    let mut case = Case::new();
    case.run();
    assert_eq!(case.exited(3), [Action::Release { task: TASK }]);
    assert!(!case.report().state.is_final());
    let outcome = case.wind_up();
    assert_eq!((outcome.state, outcome.exit_code), (TaskState::Failed, Some(3)));
    assert_eq!(case.report().state, TaskState::Failed);
    assert_eq!(case.report().message, "task: non-zero exit (3)");
}

#[test]
fn an_outcome_that_cannot_be_saved_is_tried_again_and_not_told() {
    let mut case = Case::new();
    case.run();
    case.exited(0);
    case.event(EventKind::Released);
    assert_eq!(case.event(EventKind::PersistFailed("no space left".into())), []);
    assert!(!case.report().state.is_final());
    assert!(case.report().message.contains("no space left"));
    let again = case.pass(second());
    assert!(matches!(again.as_slice(), [Action::Persist { outcome, .. }] if outcome.state == TaskState::Complete));
}

#[test]
fn a_recorded_outcome_is_kept_until_the_assignment_goes() {
    let mut case = Case::new();
    case.run();
    case.exited(0);
    case.wind_up();
    assert_eq!(
        case.assign(|assignment| {
            assignment.outcome_recorded = true;
            assignment.desired = DesiredState::Shutdown;
        }),
        []
    );
    assert_eq!(case.report().state, TaskState::Complete);
    assert_eq!(case.forget(), [Action::Remove { task: TASK }]);
    assert_eq!(case.event(EventKind::Removed), []);
    assert!(case.machine.reports(case.now).is_empty());
}

#[test]
fn the_start_delay_counts_while_the_image_is_pulled() {
    let mut case = Case::new();
    case.assign(|assignment| assignment.start_delay = second() * 5);
    case.pass(second() * 3);
    assert_eq!(case.prepared(), []);
    assert_eq!((case.report().state, case.report().message.as_str()), (TaskState::Ready, "starting in 2s"));
    assert_eq!(case.machine.next_deadline(), Some(MonoMs(5000)));
    assert_eq!(case.pass(second() * 2), [Action::Start { task: TASK, again: false }]);
}

#[test]
fn a_task_that_is_only_to_be_ready_waits() {
    let mut case = Case::new();
    case.desire(DesiredState::Ready);
    assert_eq!(case.prepared(), []);
    assert_eq!(case.pass(second() * 100), []);
    assert_eq!(case.report().state, TaskState::Ready);
    assert_eq!(case.desire(DesiredState::Running), [Action::Start { task: TASK, again: false }]);
}

#[test]
fn a_task_stopped_while_it_is_prepared_never_starts() {
    let mut case = Case::new();
    case.assign(|_| {});
    assert_eq!(case.desire(DesiredState::Shutdown), [Action::Cancel { task: TASK }]);
    // Too late to be cancelled: what was made is given back all the same.
    assert_eq!(case.prepared(), [Action::Release { task: TASK }]);
    assert_eq!(case.wind_up().state, TaskState::Shutdown);
}

#[test]
fn a_task_stopped_while_it_starts_is_stopped_once_it_runs() {
    let mut case = Case::new();
    case.assign(|_| {});
    case.prepared();
    assert_eq!(case.desire(DesiredState::Shutdown), []);
    assert_eq!(case.event(EventKind::Started { pid: 7 }), [Action::Stop { task: TASK }]);
}

#[test]
fn what_cannot_be_prepared_is_rejected_and_what_cannot_be_started_fails() {
    let mut case = Case::new();
    case.assign(|_| {});
    assert_eq!(case.event(EventKind::PrepareFailed("no such image: x".into())), [Action::Release { task: TASK }]);
    assert_eq!(case.wind_up().state, TaskState::Rejected);

    let mut case = Case::new();
    case.assign(|_| {});
    case.prepared();
    assert_eq!(case.event(EventKind::StartFailed("no /bin/nope".into())), [Action::Release { task: TASK }]);
    let outcome = case.wind_up();
    assert_eq!((outcome.state, outcome.ran_for), (TaskState::Failed, None));
}

#[test]
fn an_exit_heard_before_the_start_is_not_lost() {
    let mut case = Case::new();
    case.assign(|_| {});
    case.prepared();
    assert_eq!(case.exited(0), []);
    assert_eq!(case.event(EventKind::Started { pid: 7 }), [Action::Release { task: TASK }]);
    assert_eq!(case.wind_up().state, TaskState::Complete);
}

#[test]
fn a_stop_has_a_grace_and_a_bound() {
    let mut case = Case::new();
    case.run();
    assert_eq!(case.desire(DesiredState::Shutdown), [Action::Stop { task: TASK }]);
    assert_eq!(case.pass(second() * 2), []);
    assert_eq!(case.pass(second()), [Action::Kill { task: TASK }]);
    assert_eq!(case.report().state, TaskState::Running);
    assert_eq!(case.pass(KILL_BOUND), [Action::Release { task: TASK }]);
    let outcome = case.wind_up();
    assert_eq!(outcome.state, TaskState::Failed);
    assert!(outcome.message.contains("SIGKILL"));
}

#[test]
fn a_stopped_task_is_shut_down_whatever_its_code() {
    let mut case = Case::new();
    case.run();
    case.desire(DesiredState::Shutdown);
    case.exited(143);
    let outcome = case.wind_up();
    assert_eq!((outcome.state, outcome.exit_code), (TaskState::Shutdown, Some(143)));
}

#[test]
fn a_task_that_is_assigned_no_more_is_stopped_and_removed() {
    let mut case = Case::new();
    case.run();
    assert_eq!(case.forget(), [Action::Stop { task: TASK }]);
    assert_eq!(case.machine.next_deadline(), Some(MonoMs(3000)), "its own grace still counts");
    case.exited(0);
    case.event(EventKind::Released);
    assert_eq!(case.event(EventKind::Persisted), [Action::Remove { task: TASK }]);
}

#[test]
fn a_removal_that_fails_is_tried_again() {
    let mut case = Case::with(vec![Found { state: FoundState::Prepared, ..running() }]);
    assert_eq!(case.forget(), [Action::Remove { task: TASK }]);
    assert_eq!(case.event(EventKind::RemoveFailed("busy".into())), []);
    assert_eq!(case.pass(second()), [Action::Remove { task: TASK }]);
    case.event(EventKind::RemoveFailed("busy".into()));
    assert_eq!(case.pass(Duration::from_millis(900)), [], "it backs off");
}

#[test]
fn what_runs_is_adopted_and_left_alone_until_the_swarm_speaks() {
    let mut case = Case::with(vec![running()]);
    assert_eq!(case.machine.poll_actions(), []);
    assert_eq!(case.pass(second() * 100), []);
    assert_eq!(case.report().ran_for, Some(second() * 160));
    assert_eq!(case.assign(|_| {}), []);
    assert_eq!(case.report().state, TaskState::Running);

    let mut case = Case::with(vec![running()]);
    assert_eq!(case.forget(), [Action::Stop { task: TASK }], "the swarm spoke, and not of it");
}

#[test]
fn an_end_while_no_daemon_watched_is_an_outcome() {
    let exit = FoundState::Exited(Exit { code: 2, out_of_memory: false });
    for (state, message) in [(exit, "non-zero exit (2)"), (FoundState::Lost, "was gone when the node came back")] {
        let mut case = Case::with(vec![Found { state, ..running() }]);
        assert_eq!(case.machine.poll_actions(), [Action::Release { task: TASK }]);
        let outcome = case.wind_up();
        assert_eq!(outcome.state, TaskState::Failed);
        assert!(outcome.message.contains(message));
        assert_eq!(case.assign(|_| {}), [], "it is not started again");
    }
}

#[test]
fn a_saved_outcome_is_told_again_after_a_restart() {
    let outcome = Outcome {
        state: TaskState::Complete,
        message: "finished".into(),
        exit_code: Some(0),
        container_id: Some("c1".into()),
        ran_for: Some(second()),
    };
    let mut case = Case::with(vec![Found { state: FoundState::Ended(outcome), ..running() }]);
    assert_eq!(case.assign(|_| {}), []);
    let report = case.report();
    assert_eq!((report.state, report.exit_code, report.ran_for), (TaskState::Complete, Some(0), Some(second())));
}

#[test]
fn a_preparation_cut_short_is_taken_up_again() {
    let mut case = Case::with(vec![Found { state: FoundState::Prepared, ..running() }]);
    assert_eq!(case.assign(|_| {}), [Action::Prepare { task: TASK }]);
}

#[test]
fn a_task_that_is_over_before_it_is_heard_of_is_only_reported() {
    let mut case = Case::new();
    assert_eq!(case.desire(DesiredState::Shutdown), [Action::Release { task: TASK }]);
    assert_eq!(case.wind_up().state, TaskState::Shutdown);

    let mut case = Case::new();
    assert_eq!(case.assign(|assignment| assignment.outcome_recorded = true), []);
    assert!(case.machine.reports(case.now).is_empty());
}

#[test]
fn without_a_quorum_a_failed_task_restarts_in_place_and_backs_off() {
    let mut case = Case::new();
    case.run();
    case.machine.handle_quorum(false);
    assert_eq!(case.exited(1), [Action::Start { task: TASK, again: true }], "the first time at once");
    case.event(EventKind::Started { pid: 8 });
    assert_eq!(case.exited(1), []);
    assert_eq!(case.pass(Duration::from_millis(999)), []);
    assert_eq!(case.report().state, TaskState::Running, "a task only moves forward");
    assert_eq!(case.pass(Duration::from_millis(1)), [Action::Start { task: TASK, again: true }]);
    case.event(EventKind::Started { pid: 9 });
    assert_eq!(case.report().restarts_in_place, 2);

    case.machine.handle_quorum(true);
    assert_eq!(case.exited(1), [Action::Release { task: TASK }], "the swarm replaces it");
}

#[test]
fn restarts_in_place_keep_to_the_restart_policy() {
    let policy = |condition, max_attempts| RestartPolicy { condition, max_attempts, ..Default::default() };
    for (policy, code, allowed) in [
        (policy(RestartCondition::None, None), 1, 0),
        (policy(RestartCondition::OnFailure, None), 0, 0),
        (policy(RestartCondition::OnFailure, Some(2)), 1, 2),
        (policy(RestartCondition::Any, Some(1)), 0, 1),
    ] {
        let mut case = Case::new();
        case.assign(|assignment| assignment.spec.restart = policy.clone());
        case.prepared();
        case.machine.handle_quorum(false);
        for _ in 0..allowed {
            case.event(EventKind::Started { pid: 7 });
            let mut actions = case.exited(code);
            actions.extend(case.pass(second() * 60));
            assert_eq!(actions, [Action::Start { task: TASK, again: true }], "{policy:?}");
        }
        case.event(EventKind::Started { pid: 7 });
        assert_eq!(case.exited(code), [Action::Release { task: TASK }], "{policy:?}");
    }
}

#[test]
fn a_kill_for_memory_says_so() {
    let mut case = Case::new();
    case.run();
    case.event(EventKind::Exited(Exit { code: 137, out_of_memory: true }));
    assert!(case.wind_up().message.contains("memory"));
}

#[test]
fn messages_are_bounded() {
    let mut case = Case::new();
    case.assign(|_| {});
    case.event(EventKind::PrepareFailed("é".repeat(10_000)));
    let outcome = case.wind_up();
    assert!(outcome.message.chars().count() <= MAX_MESSAGE_CHARS + 3);
}

/// Whatever the order of inputs: reported states only move forward, a process is started at most once (but for restarts
/// in place), and no two actions that wait for an answer are under way for one task.
mod any_order {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Input {
        Desire(DesiredState),
        Recorded,
        Forget,
        /// Late, or of nothing.
        Signalled,
        Quorum(bool),
        Pass(u64),
        Answer(bool),
        Exit(i32),
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            prop_oneof![
                Just(DesiredState::Ready),
                Just(DesiredState::Running),
                Just(DesiredState::Shutdown),
                Just(DesiredState::Remove)
            ]
            .prop_map(Input::Desire),
            Just(Input::Recorded),
            Just(Input::Forget),
            Just(Input::Signalled),
            any::<bool>().prop_map(Input::Quorum),
            (0u64..40_000).prop_map(Input::Pass),
            any::<bool>().prop_map(Input::Answer),
            any::<bool>().prop_map(Input::Answer),
            any::<bool>().prop_map(Input::Answer),
            (0i32..3).prop_map(Input::Exit),
        ]
    }

    fn answer(action: &Action, good: bool) -> Option<EventKind> {
        Some(match (action, good) {
            (Action::Prepare { .. }, true) => {
                EventKind::Prepared { container_id: "c".into(), host_ports: Vec::new(), check: None }
            }
            (Action::Prepare { .. }, false) => EventKind::PrepareFailed("no".into()),
            (Action::Start { .. }, true) => EventKind::Started { pid: 1 },
            (Action::Start { .. }, false) => EventKind::StartFailed("no".into()),
            (Action::Release { .. }, _) => EventKind::Released,
            (Action::Persist { .. }, true) => EventKind::Persisted,
            (Action::Persist { .. }, false) => EventKind::PersistFailed("full".into()),
            (Action::Remove { .. }, true) => EventKind::Removed,
            (Action::Remove { .. }, false) => EventKind::RemoveFailed("busy".into()),
            _ => return None,
        })
    }

    proptest! {
        #[test]
        fn promises_hold(inputs in proptest::collection::vec(input(), 1..60)) {
            let mut case = Case::new();
            let mut under_way: Option<Action> = None;
            let mut starts = 0;
            let mut last = TaskState::New;
            for input in inputs {
                let actions = match input {
                    Input::Desire(desired) => case.desire(desired),
                    Input::Recorded if case.assignments.is_empty() => continue,
                    Input::Recorded => case.assign(|assignment| assignment.outcome_recorded = true),
                    Input::Forget => case.forget(),
                    Input::Signalled => case.event(EventKind::Signalled),
                    Input::Quorum(quorum) => {
                        case.machine.handle_quorum(quorum);
                        Vec::new()
                    }
                    Input::Pass(ms) => case.pass(Duration::from_millis(ms)),
                    Input::Exit(code) => case.exited(code),
                    Input::Answer(good) => match under_way.take().and_then(|action| answer(&action, good)) {
                        Some(event) => case.event(event),
                        None => continue,
                    },
                };
                for action in actions {
                    if answer(&action, true).is_some() {
                        prop_assert!(under_way.is_none(), "{action:?} while {under_way:?} is under way");
                        under_way = Some(action.clone());
                    }
                    if matches!(action, Action::Start { again: false, .. }) {
                        starts += 1;
                    }
                }
                prop_assert!(starts <= 1);
                match case.machine.reports(case.now).get(&TASK) {
                    Some(report) => {
                        prop_assert!(report.state >= last, "{:?} after {last:?}", report.state);
                        last = report.state;
                    }
                    // Removed altogether: the next assignment of the same id would be another life.
                    None if under_way.is_none() => return Ok(()),
                    None => {}
                }
            }
        }
    }
}
