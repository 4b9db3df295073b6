//! `flok service runs` and `flok service run`.

use bollard::models::{Service, ServiceSpec};
use clap::Args;
use jiff::Timestamp;

use super::fetch;
use crate::api::client::Client;
use crate::api::model::runs::{Begun, ServiceRuns, ShownRun};
use crate::cli::output::{FormatArg, Table, print};
use crate::spec::{SCHEDULE_LABEL, UnixMs, quantity, schedule};

/// Show the runs of a service with a schedule: those that go on, and the last that ended
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service runs backup
  flok service runs --format json backup | jq '.runs[] | select(.state == \"failed\")'")]
pub struct Runs {
    #[command(flatten)]
    format: FormatArg,
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
}

impl Runs {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        // By its id, which is of URL characters.
        let id = fetch(client, &self.service).await?.id.unwrap_or_default();
        let runs: ServiceRuns = client.get(&format!("/services/{id}/runs")).await?;
        print(&self.format.format.show(&runs, || render(&runs))?)
    }
}

/// Begin a run of a service with a schedule now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service run backup

It is a run like those that the schedule begins, by the same rule for runs that overlap, and does not put off the next one.")]
pub struct Run {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
}

impl Run {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let id = fetch(client, &self.service).await?.id.unwrap_or_default();
        let begun: Begun = client.post(&format!("/services/{id}/run"), &()).await?;
        print(&format!("run {} of {} has begun\n", begun.run, self.service))
    }
}

pub fn is_scheduled(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(has_schedule)
}

/// It is a label of the service or of its containers.
pub fn has_schedule(spec: &ServiceSpec) -> bool {
    let container = spec.task_template.as_ref().and_then(|task| task.container_spec.as_ref()?.labels.as_ref());
    let given = |labels: &std::collections::HashMap<String, String>| {
        labels.get(SCHEDULE_LABEL).is_some_and(|cron| !cron.trim().is_empty())
    };
    spec.labels.as_ref().is_some_and(given) || container.is_some_and(given)
}

/// When it runs next, in the schedule's time zone.
pub fn next(of: &ServiceRuns) -> String {
    match &of.next {
        _ if of.schedule.suspend => "suspended".to_owned(),
        Some(next) => local(next, &of.schedule.time_zone),
        None => "not known yet".to_owned(),
    }
}

/// One line: when it runs, and when next.
pub fn summary(of: &ServiceRuns) -> String {
    let schedule = &of.schedule;
    let next = if schedule.suspend { next(of) } else { format!("next {}", next(of)) };
    format!(
        "{:?} in {}, {next}; runs that overlap: {}; window {}",
        schedule.cron, schedule.time_zone, schedule.concurrency, schedule.window
    )
}

fn render(of: &ServiceRuns) -> String {
    let mut table = Table::new(&[
        ("Run", "RUN"),
        ("Scheduled", "SCHEDULED"),
        ("Began", "BEGAN"),
        ("Took", "TOOK"),
        ("State", "STATE"),
        ("Completed", "COMPLETED"),
    ]);
    for run in &of.runs {
        table.row([
            run.run.to_string(),
            run.scheduled.as_ref().map_or_else(|| "by hand".to_owned(), |at| local(at, &of.schedule.time_zone)),
            local(&run.began, &of.schedule.time_zone),
            took(run),
            run.state.clone(),
            run.completed.to_string(),
        ]);
    }
    let passed = format!("{} missed, {} skipped", of.missed, of.skipped);
    format!("Service {}: {}; {passed}\n\n{}", of.service, summary(of), table.text())
}

fn unix(at: &str) -> Option<UnixMs> {
    let at: Timestamp = at.parse().ok()?;
    Some(UnixMs(u64::try_from(at.as_millisecond()).ok()?))
}

fn local(at: &str, zone: &str) -> String {
    unix(at).map_or_else(|| at.to_owned(), |at| schedule::shown(at, zone))
}

fn took(run: &ShownRun) -> String {
    let ended = run.ended.as_ref().and_then(|at| unix(at));
    match (unix(&run.began), ended) {
        (Some(began), Some(ended)) => quantity::format_duration(ended - began),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::runs::ShownSchedule;

    #[test]
    fn runs_are_shown_in_their_schedules_time_zone() {
        let run = |run, scheduled: Option<&str>, ended: Option<&str>, state: &str| ShownRun {
            run,
            scheduled: scheduled.map(Into::into),
            began: "2026-07-02T01:30:00.004Z".into(),
            ended: ended.map(Into::into),
            state: state.into(),
            completed: 1,
        };
        let runs = ServiceRuns {
            service: "backup".into(),
            schedule: ShownSchedule {
                cron: "30 3 * * *".into(),
                time_zone: "Europe/Berlin".into(),
                window: "1h0m0s".into(),
                concurrency: "forbid".into(),
                history: 5,
                suspend: false,
            },
            next: Some("2026-07-03T01:30:00Z".into()),
            missed: 1,
            skipped: 0,
            runs: vec![
                run(8, None, None, "running"),
                run(7, Some("2026-07-02T01:30:00Z"), Some("2026-07-02T01:31:10.004Z"), "completed"),
            ],
        };
        let expected = "\
Service backup: \"30 3 * * *\" in Europe/Berlin, next 2026-07-03 03:30:00 CEST; runs that overlap: forbid; window 1h0m0s; 1 missed, 0 skipped

RUN   SCHEDULED                  BEGAN                      TOOK    STATE       COMPLETED
8     by hand                    2026-07-02 03:30:00 CEST   -       running     1
7     2026-07-02 03:30:00 CEST   2026-07-02 03:30:00 CEST   1m10s   completed   1
";
        assert_eq!(render(&runs), expected);
    }
}
