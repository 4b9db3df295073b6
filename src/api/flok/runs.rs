//! Runs of services with a schedule.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;

use crate::api::convert::date;
use crate::api::docker::answer;
use crate::api::model::runs::{Begun, ServiceRuns, ShownRun, ShownSchedule};
use crate::api::{ApiError, Backend, lookup};
use crate::spec::Schedule;
use crate::spec::quantity::format_duration;
use crate::spec::schedule::shown;
use crate::state::{Command, CronStatus, Refusal, Run, Service};

pub async fn list<B: Backend>(State(backend): State<Arc<B>>, Path(wanted): Path<String>) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &wanted)?;
    let runs = runs_of(&service).ok_or_else(|| {
        let name = &service.spec.name;
        ApiError::from(Refusal::Precondition(format!(
            "service {name} has no schedule, and so no runs: give it one with `flok service update --schedule \"@daily\" {name}`"
        )))
    })?;
    Ok(answer(&read, runs))
}

/// Begins one at once.
pub async fn run<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Json<Begun>, ApiError> {
    let read = backend.read().await?;
    let id = lookup::service(&read.state, &wanted)?.id;
    backend.propose(Command::RunService { id }).await?;
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &id.to_string())?;
    Ok(Json(Begun { run: service.job.map_or(0, |job| job.iteration) }))
}

fn runs_of(service: &Service) -> Option<ServiceRuns> {
    let (schedule, cron) = (service.spec.schedule.as_ref()?, service.cron.as_ref()?);
    let mut runs: Vec<&Run> = cron.ended.iter().chain(&cron.open).collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.iteration));
    Some(ServiceRuns {
        service: service.spec.name.clone(),
        schedule: ShownSchedule {
            cron: schedule.cron.clone(),
            time_zone: schedule.time_zone.clone(),
            window: format_duration(schedule.window),
            concurrency: schedule.concurrency.as_str().to_owned(),
            history: schedule.history,
            suspend: schedule.suspend,
        },
        next: cron.next.filter(|_| !schedule.suspend).map(date),
        missed: cron.missed,
        skipped: cron.skipped,
        runs: runs.into_iter().map(shown_run).collect(),
    })
}

fn shown_run(run: &Run) -> ShownRun {
    ShownRun {
        run: run.iteration,
        scheduled: run.point.map(date),
        began: date(run.began),
        ended: run.ended.map(date),
        state: run.outcome.as_str().to_owned(),
        completed: run.completed,
    }
}

/// What is to be said of the schedule of the service called `name`, where one asks why nothing runs.
pub fn note(name: &str, schedule: &Schedule, cron: &CronStatus) -> String {
    let going = cron.open.last().map_or_else(String::new, |run| format!("run {} goes on; ", run.iteration));
    let next = match cron.next {
        _ if schedule.suspend => format!(
            "it is suspended, so that nothing becomes due; `flok service update --schedule-suspend=false {name}` goes on"
        ),
        Some(next) => format!("the next run is due at {}", shown(next, &schedule.time_zone)),
        None => "the leader has not said when the next run is due".to_owned(),
    };
    let passed = match (cron.missed, cron.skipped) {
        (0, 0) => String::new(),
        (missed, skipped) => format!("; {missed} were missed, {skipped} skipped"),
    };
    format!("schedule {:?}: {going}{next}{passed}", schedule.cron)
}
