//! Runs by a schedule, in virtual time.

use super::*;

/// Runs for three seconds, and completes.
const SHORT: &str = "short";

fn scheduled(sim: &mut Sim, image: &'static str, adjust: impl FnOnce(&mut Schedule)) -> ServiceId {
    let mut schedule = Schedule::new("@every 10s");
    schedule.window = SECOND * 5;
    adjust(&mut schedule);
    sim.swarm.service("backup", 0, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
        spec.task.container.image = image.into();
        spec.task.restart.max_attempts = Some(1);
        spec.schedule = Some(schedule);
    })
}

impl Sim {
    fn cron(&self, service: ServiceId) -> CronStatus {
        self.of(service).cron.clone().expect("it has a schedule")
    }

    /// To the next point of "@every 10s", by half seconds.
    fn reach_next_point(&mut self) {
        let next = (self.swarm.now.0 / 10_000 + 1) * 10_000;
        while self.swarm.now.0 < next {
            self.step(Duration::from_millis(500.min(next - self.swarm.now.0)));
        }
    }

    /// Nobody leads, and nodes do nothing new.
    fn leaderless(&mut self, by: Duration) {
        self.swarm.later(by);
        self.mono = self.mono + by;
    }

    /// The runs that ended, as (iteration, how).
    fn ended_runs(&self, service: ServiceId) -> Vec<(u64, RunOutcome)> {
        self.cron(service).ended.iter().map(|run| (run.iteration, run.outcome)).collect()
    }
}

#[test]
fn a_job_with_a_schedule_runs_at_its_points_and_at_no_other_time() {
    let mut sim = Sim::nodes(2);
    let backup = scheduled(&mut sim, COMPLETES, |_| {});
    sim.steps(5);
    assert_eq!(sim.swarm.state.tasks_of_service(backup).count(), 0, "it is not due yet");
    for run in 1..=3 {
        sim.reach_next_point();
        let point = sim.swarm.now;
        sim.steps(10);
        let cron = sim.cron(backup);
        let last = cron.ended.last().expect("a run has ended");
        assert_eq!((last.iteration, last.point, last.outcome), (run, Some(point), RunOutcome::Completed));
        assert_eq!(cron.next, Some(point + SECOND * 10));
        assert_eq!(sim.of(backup).job.map(|job| (job.iteration, job.completed)), Some((run, 1)));
    }
    assert_eq!((sim.cron(backup).missed, sim.cron(backup).skipped), (0, 0));
}

#[test]
fn a_run_that_is_given_up_has_failed_and_the_next_one_comes() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, CRASHES, |schedule| schedule.history = 2);
    for _ in 0..4 {
        sim.reach_next_point();
    }
    use RunOutcome::Failed;
    assert_eq!(sim.ended_runs(backup), [(2, Failed), (3, Failed)]);
    let iterations: BTreeSet<_> = sim.ended(backup).iter().map(|task| task.job_iteration).collect();
    assert!(!iterations.contains(&Some(1)), "its tasks went with the history: {iterations:?}");
    assert!(iterations.contains(&Some(2)), "{iterations:?}");
}

#[test]
fn a_point_without_a_leader_begins_late_within_the_window_and_is_missed_after_it() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, COMPLETES, |_| {});
    sim.reach_next_point();
    sim.steps(10);
    let first = sim.cron(backup).ended[0].point.unwrap();
    // Four seconds late: it begins. Of the two before it, nothing.
    sim.leaderless(SECOND * 33);
    sim.steps(10);
    let cron = sim.cron(backup);
    assert_eq!(cron.ended.last().unwrap().point, Some(first + SECOND * 30));
    assert_eq!((cron.ended.len(), cron.missed), (2, 2));
    // Eight seconds late is too late.
    sim.leaderless(SECOND * 13);
    sim.steps(10);
    let cron = sim.cron(backup);
    assert_eq!((cron.ended.len(), cron.missed, cron.next), (2, 3, Some(first + SECOND * 50)));
}

#[test]
fn a_leader_that_does_not_know_of_a_run_and_a_clock_that_is_set_back_begin_none_again() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, COMPLETES, |_| {});
    sim.reach_next_point();
    let point = sim.cron(backup).handled;
    let again = Change::BeginRun { service: backup, point, next: Some(point + SECOND * 10) };
    let mut stale = sim.swarm.state.clone();
    assert!(stale.apply_change(&again, sim.swarm.now).is_err());
    sim.swarm.now = UnixMs(point.0 - 7_000);
    // A schedule that is changed then has the same points, and this one is behind it.
    sim.swarm.update(backup, |spec| spec.schedule = Some(Schedule::new("*/5 * * * * *")));
    sim.steps(90);
    let cron = sim.cron(backup);
    assert_eq!(cron.ended.iter().filter(|run| run.point == Some(point)).count(), 1, "{cron:?}");
    assert_eq!(cron.next, Some(point + SECOND * 5));
}

#[test]
fn a_run_that_may_not_overlap_waits_for_the_one_before_or_is_skipped() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, SHORT, |schedule| schedule.cron = "*/2 * * * * *".into());
    for _ in 0..60 {
        sim.step(Duration::from_millis(500));
        assert!(sim.cron(backup).open.len() <= 1);
        let iterations: BTreeSet<_> = sim.live(backup).iter().map(|task| task.job_iteration).collect();
        assert!(iterations.len() <= 1, "{iterations:?}");
    }
    let cron = sim.cron(backup);
    assert!(cron.skipped > 2 && cron.ended.len() > 2 && cron.missed == 0, "{cron:?}");
}

#[test]
fn a_run_that_replaces_the_one_before_starts_when_that_has_stopped() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, "forever", |schedule| schedule.concurrency = Concurrency::Replace);
    sim.reach_next_point();
    sim.steps(3);
    let first = sim.running(backup);
    sim.silent.insert(node(1));
    sim.reach_next_point();
    assert_eq!(sim.live(backup).len(), 0, "its node has not said that it stopped");
    sim.silent.clear();
    sim.steps(6);
    let second = sim.running(backup);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!((first[0].job_iteration, second[0].job_iteration), (Some(1), Some(2)));
    assert_eq!(sim.ended_runs(backup), [(1, RunOutcome::Replaced)]);
}

#[test]
fn runs_that_may_overlap_go_on_beside_one_another_up_to_a_bound() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, "forever", |schedule| schedule.concurrency = Concurrency::Allow);
    for _ in 0..3 {
        sim.reach_next_point();
    }
    sim.steps(3);
    assert_eq!(sim.running(backup).len(), 3, "all of them in the same slot");
    for _ in 0..MAX_OPEN_RUNS {
        sim.reach_next_point();
    }
    assert_eq!(sim.cron(backup).open.len(), MAX_OPEN_RUNS);
    assert!(sim.cron(backup).skipped > 0);
    let by_hand = sim.swarm.try_command(Command::RunService { id: backup }).unwrap_err().to_string();
    assert!(by_hand.contains("which is as many as there may be"), "{by_hand}");
}

#[test]
fn a_suspended_schedule_misses_nothing_and_goes_on_where_it_is_resumed() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, COMPLETES, |schedule| schedule.suspend = true);
    for _ in 0..3 {
        sim.reach_next_point();
    }
    assert_eq!(sim.cron(backup).next, None);
    sim.swarm.command(Command::RunService { id: backup });
    sim.steps(5);
    assert_eq!(sim.ended_runs(backup), [(1, RunOutcome::Completed)], "by hand it runs");
    sim.swarm.update(backup, |spec| spec.schedule.as_mut().unwrap().suspend = false);
    sim.reach_next_point();
    sim.steps(5);
    assert_eq!((sim.ended_runs(backup).len(), sim.cron(backup).missed), (2, 0));
}

#[test]
fn a_run_keeps_the_spec_it_began_with() {
    let mut sim = Sim::nodes(1);
    let backup = scheduled(&mut sim, SHORT, |_| {});
    sim.reach_next_point();
    sim.steps(2);
    sim.swarm.update(backup, image(CRASHES));
    sim.swarm.update(backup, |spec| spec.task.force_update += 1);
    sim.verdict(node(1));
    sim.swarm.command(Command::AdmitNode { node: Box::new(a_node(2)) });
    sim.steps(45);
    assert_eq!(sim.ended_runs(backup), [(1, RunOutcome::Completed)]);
    sim.reach_next_point();
    sim.steps(60);
    assert_eq!(sim.ended_runs(backup)[1], (2, RunOutcome::Failed), "the next one has the new spec");
}

#[test]
fn a_global_job_runs_once_on_each_node_and_not_on_one_that_comes_between_two_runs() {
    let mut sim = Sim::nodes(2);
    let backup = scheduled(&mut sim, COMPLETES, |_| {});
    sim.swarm.command(Command::RemoveService { id: backup });
    let each = sim.swarm.service("each", 0, |spec| {
        spec.mode = ServiceMode::GlobalJob;
        spec.task.container.image = COMPLETES.into();
        spec.schedule = Some(Schedule::new("@every 10s"));
    });
    sim.reach_next_point();
    sim.steps(5);
    assert_eq!((sim.ended_runs(each), sim.ended(each).len()), (vec![(1, RunOutcome::Completed)], 2));
    sim.swarm.command(Command::AdmitNode { node: Box::new(a_node(3)) });
    sim.steps(5);
    assert_eq!(sim.ended(each).len(), 2);
    sim.reach_next_point();
    sim.steps(5);
    assert_eq!((sim.ended_runs(each).len(), sim.ended(each).len()), (2, 5));
}

#[test]
fn only_jobs_have_a_schedule_and_one_can_come_and_go() {
    let mut sim = Sim::nodes(1);
    let mut spec = crate::state::fixture::service_spec("web", 1);
    spec.schedule = Some(Schedule::new("@daily"));
    let create = Command::CreateService { id: ServiceId(99), spec: Box::new(spec), credentials: None };
    let why = sim.swarm.try_command(create).unwrap_err().to_string();
    assert!(why.contains("service web has a schedule, and is no job"), "{why}");

    let job = sim.swarm.service("job", 0, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
        spec.task.container.image = SHORT.into();
    });
    sim.steps(3);
    assert!(sim.swarm.try_command(Command::RunService { id: job }).unwrap_err().to_string().contains("no schedule"));
    sim.swarm.update(job, |spec| spec.schedule = Some(Schedule::new("@daily")));
    sim.steps(40);
    assert_eq!(sim.ended_runs(job), [(0, RunOutcome::Completed)], "what went on is a run of it");
    sim.swarm.update(job, |spec| spec.schedule = None);
    sim.steps(10);
    assert_eq!((sim.of(job).cron.clone(), sim.live(job).len()), (None, 0));
}
