//! Health checks: when they run, and what becomes of a task by them.

use super::*;

fn check() -> Check {
    Check {
        command: vec!["true".into()],
        interval: second() * 10,
        timeout: second() * 3,
        start_period: Duration::ZERO,
        start_interval: second(),
        retries: 2,
    }
}

impl Case {
    /// From nothing to a process whose container has a check.
    fn run_checked(&mut self, check: Check) {
        self.assign(|_| {});
        self.event(EventKind::Prepared { container_id: "c1".into(), host_ports: Vec::new(), check: Some(check) });
        self.event(EventKind::Started { pid: 7 });
    }

    /// Time passes until a probe is due, and it ends so.
    fn probe(&mut self, after: Duration, exit_code: i32) -> Vec<Action> {
        let probes = self.pass(after);
        let [Action::Probe { number, .. }] = probes.as_slice() else { panic!("no probe: {probes:?}") };
        let number = *number;
        self.probed(number, exit_code)
    }

    fn probed(&mut self, number: u32, exit_code: i32) -> Vec<Action> {
        let output = if exit_code == 0 { String::new() } else { "connection\n refused".into() };
        self.event(EventKind::Probed { number, result: ProbeResult { exit_code, output } })
    }

    fn health(&self) -> (TaskState, Health) {
        let report = self.report();
        (report.state, report.health)
    }
}

fn noted(health: Health, after: Duration) -> Action {
    Action::NoteHealth { task: TASK, noted: NotedHealth { health, after } }
}

#[test]
fn a_task_is_starting_until_its_first_success_and_runs_from_then_on() {
    let mut case = Case::new();
    case.run_checked(check());
    assert_eq!(case.health(), (TaskState::Starting, Health::Starting));
    assert_eq!(case.pass(second() * 9), []);
    let probe = Action::Probe { task: TASK, number: 1, command: vec!["true".into()], timeout: second() * 3 };
    assert_eq!(case.pass(second()), [probe]);
    assert_eq!(case.pass(second() * 60), [], "one at a time");
    assert_eq!(case.report().ran_for, None);
    assert_eq!(case.probed(1, 0), [noted(Health::Healthy, second() * 70)]);
    assert_eq!(case.health(), (TaskState::Running, Health::Healthy));
    case.pass(second());
    assert_eq!(case.report().ran_for, Some(second()));
    assert_eq!(case.pass(second() * 8), [], "the interval counts from the last one's end");
    assert_eq!(case.probe(second(), 0), []);
}

#[test]
fn one_failure_is_told_and_a_success_forgives_it() {
    let mut case = Case::new();
    case.run_checked(check());
    case.probe(second() * 10, 0);
    case.probe(second() * 10, 1);
    assert_eq!(case.report().message, "health check failed: exit code 1: connection refused");
    case.probe(second() * 10, 0);
    assert_eq!(case.report().message, "");
    case.probe(second() * 10, 1);
    assert_eq!(case.health(), (TaskState::Running, Health::Healthy));
}

#[test]
fn failures_in_a_row_stop_it_and_it_has_failed() {
    let mut case = Case::new();
    case.run_checked(check());
    case.probe(second() * 10, 0);
    case.probe(second() * 10, 1);
    let actions = case.probe(second() * 10, 1);
    assert_eq!(actions, [noted(Health::Unhealthy, second() * 10), Action::Stop { task: TASK }]);
    assert_eq!(case.health(), (TaskState::Running, Health::Unhealthy));
    case.exited(143);
    let outcome = case.wind_up();
    assert_eq!(outcome.state, TaskState::Failed);
    let message = "task: non-zero exit (143): unhealthy container: exit code 1: connection refused";
    assert_eq!((outcome.message.as_str(), outcome.ran_for), (message, Some(second() * 20)));
}

#[test]
fn an_unhealthy_task_on_a_network_drains_first() {
    let mut case = Case::new();
    case.run_checked(check());
    case.assign(|assignment| {
        let addresses = vec!["10.5.0.2".parse().unwrap()];
        assignment.attachments = vec![Attachment { network: NetworkId(1), addresses, aliases: Vec::new() }];
    });
    case.probe(second() * 10, 0);
    case.probe(second() * 10, 1);
    assert_eq!(case.probe(second() * 10, 1), [noted(Health::Unhealthy, second() * 10)]);
    assert_eq!(case.report().health, Health::Unhealthy, "told at once, so that it gets no new connections");
    assert_eq!(case.pass(DEFAULT_DRAIN), [Action::Stop { task: TASK }]);
    assert_eq!(case.exited(143), [Action::Release { task: TASK }]);
    assert_eq!(case.wind_up().state, TaskState::Failed);
}

#[test]
fn one_that_never_was_healthy_is_stopped_at_once_and_has_not_run() {
    let mut case = Case::new();
    case.run_checked(check());
    case.assign(|assignment| assignment.spec.container.drain = Some(second() * 30));
    case.probe(second() * 10, 1);
    assert_eq!(case.probe(second() * 10, 1), [Action::Stop { task: TASK }]);
    case.exited(0);
    let outcome = case.wind_up();
    assert_eq!((outcome.state, outcome.ran_for), (TaskState::Failed, None));
    assert!(outcome.message.starts_with("task: unhealthy container"), "{}", outcome.message);
}

#[test]
fn failures_in_the_start_period_do_not_count_and_come_by_the_start_interval() {
    let mut case = Case::new();
    case.run_checked(Check { start_period: second() * 4, ..check() });
    for _ in 0..3 {
        assert_eq!(case.probe(second(), 1), []);
    }
    // At 4 s the period is over: this one counts, and the next comes by the interval.
    assert_eq!(case.probe(second(), 1), []);
    assert_eq!(case.health(), (TaskState::Starting, Health::Starting));
    assert_eq!(case.probe(second() * 10, 1), [Action::Stop { task: TASK }]);
}

#[test]
fn a_success_ends_the_start_period() {
    let mut case = Case::new();
    case.run_checked(Check { start_period: second() * 60, ..check() });
    case.probe(second(), 0);
    case.probe(second() * 10, 1);
    let actions = case.probe(second() * 10, 1);
    assert_eq!(actions.last(), Some(&Action::Stop { task: TASK }));
}

#[test]
fn a_task_that_is_stopped_is_probed_no_more_and_late_results_say_nothing() {
    let mut case = Case::new();
    case.run_checked(check());
    case.pass(second() * 10);
    assert_eq!(case.desire(DesiredState::Shutdown), [Action::Stop { task: TASK }]);
    assert_eq!(case.probed(1, 0), []);
    assert_eq!(case.report().health, Health::Starting);
    case.exited(0);
    assert_eq!(case.wind_up().state, TaskState::Shutdown);
}

#[test]
fn a_result_of_an_earlier_run_says_nothing_of_this_one() {
    let mut case = Case::new();
    case.run_checked(check());
    case.machine.handle_quorum(false);
    case.pass(second() * 10);
    case.exited(1);
    case.pass(second());
    case.event(EventKind::Started { pid: 8 });
    assert_eq!(case.probed(1, 0), []);
    assert_eq!(case.report().health, Health::Starting);
    case.probe(second() * 10, 0);
    assert_eq!(case.report().health, Health::Healthy);
}

#[test]
fn without_a_quorum_an_unhealthy_task_is_restarted_in_place() {
    let mut case = Case::new();
    case.run_checked(check());
    case.machine.handle_quorum(false);
    case.probe(second() * 10, 0);
    case.probe(second() * 10, 1);
    case.probe(second() * 10, 1);
    let mut actions = case.exited(0);
    actions.extend(case.pass(second() * 60));
    assert_eq!(actions, [Action::Start { task: TASK, again: true }]);
}

#[test]
fn a_healthy_task_stays_so_over_a_restart_of_the_daemon() {
    let health =
        FoundHealth { check: check(), noted: Some(NotedHealth { health: Health::Healthy, after: second() * 15 }) };
    let mut case = Case::with(vec![Found { health: Some(health), ..running() }]);
    assert_eq!(case.health(), (TaskState::Running, Health::Healthy));
    assert_eq!(case.report().ran_for, Some(second() * 45));
    case.probe(second() * 10, 1);
    let actions = case.probe(second() * 10, 1);
    assert_eq!(
        actions.last(),
        Some(&Action::NoteHealth {
            task: TASK,
            noted: NotedHealth { health: Health::Unhealthy, after: second() * 15 },
        })
    );
    assert_eq!(case.assign(|_| {}), [Action::Stop { task: TASK }], "nobody had said that it is wanted before");
}

#[test]
fn one_that_was_starting_goes_on_starting_over_a_restart_of_the_daemon() {
    let health = FoundHealth { check: Check { start_period: second() * 61, ..check() }, noted: None };
    let mut case = Case::with(vec![Found { health: Some(health), ..running() }]);
    assert_eq!(case.health(), (TaskState::Starting, Health::Starting));
    assert_eq!(case.report().ran_for, None);
    case.assign(|_| {});
    // Its process is 60 s old: one second of its start period is left.
    case.probe(second(), 1);
    case.probe(second() * 10, 0);
    assert_eq!(case.health(), (TaskState::Running, Health::Healthy));
}

#[test]
fn the_last_results_are_shown() {
    let mut case = Case::new();
    case.run_checked(Check { retries: 9, ..check() });
    for _ in 0..7 {
        case.probe(second() * 10, 1);
    }
    let log = case.machine.health(TASK).unwrap();
    assert_eq!((log.health, log.failing_streak, log.probes.len()), (Health::Starting, 7, 5));
    assert_eq!(log.probes[4].ended, case.now);
}

mod the_check_of_a_container {
    use super::*;

    fn written(test: &[&str]) -> Healthcheck {
        Healthcheck { test: test.iter().map(|word| (*word).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn is_the_services_with_the_images_for_what_it_leaves_out() {
        let image = Healthcheck { interval: Some(second() * 7), retries: Some(5), ..written(&["CMD", "a", "b"]) };
        let own = Healthcheck { timeout: Some(second()), retries: Some(1), ..Default::default() };
        let check = Check::of(Some(&own), Some(&image), &[]).unwrap();
        assert_eq!(check.command, ["a", "b"]);
        assert_eq!((check.interval, check.timeout, check.retries), (second() * 7, second(), 1));
        assert_eq!((check.start_period, check.start_interval), (Duration::ZERO, second() * 5));
        let check = Check::of(None, Some(&image), &[]).unwrap();
        assert_eq!((check.timeout, check.retries), (second() * 30, 5));
    }

    #[test]
    fn is_a_line_for_the_images_shell() {
        let own = written(&["CMD-SHELL", "curl x || exit 1"]);
        assert_eq!(Check::of(Some(&own), None, &[]).unwrap().command, ["/bin/sh", "-c", "curl x || exit 1"]);
        let shell = ["/bin/bash".to_owned(), "-ec".to_owned()];
        assert_eq!(Check::of(Some(&own), None, &shell).unwrap().command, ["/bin/bash", "-ec", "curl x || exit 1"]);
    }

    #[test]
    fn may_be_none_or_be_turned_off() {
        let image = written(&["CMD", "a"]);
        assert_eq!(Check::of(None, None, &[]), None);
        assert_eq!(Check::of(Some(&written(&["NONE"])), Some(&image), &[]), None);
        assert_eq!(Check::of(Some(&Healthcheck { retries: Some(1), ..Default::default() }), None, &[]), None);
    }
}
