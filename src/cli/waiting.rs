//! Waits until services have converged, and says meanwhile what each of them waits for: a bar for each service on a
//! terminal, a line for each change elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IsTerminal;
use std::time::Duration;

use bollard::models::{Service, ServiceUpdateStatusStateEnum as UpdateState, Task, TaskState};
use bollard::query_parameters::ListServicesOptions;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::service::{is_scheduled, next_runs};
use super::tasks;
use crate::api::client::Client;
use crate::spec::{UpdateConfig, quantity};

const POLL_EVERY: Duration = Duration::from_millis(200);
/// Polls that may fail one after another before the wait is given up: a leader may just have changed.
const MAX_FAILED_POLLS: u32 = 25;
/// For so many polls a service must look converged, however it came to that.
const STEADY_POLLS: u32 = 5;

/// How long a command waits.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Waiting")]
pub struct WaitArgs {
    /// Return at once, without waiting for the tasks to run
    #[arg(long, short)]
    detach: bool,
    /// Give up waiting after this time; what was asked for stays in force
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = patience)]
    timeout: Duration,
    /// How long all tasks must stay up before they are said to run; unless it is given, as long as an update of the
    /// service is watched (--update-monitor, 5s)
    #[arg(long, value_name = "DURATION", env = "FLOK_STABLE_FOR", value_parser = quantity::parse_duration)]
    stable_for: Option<Duration>,
    /// Print no progress
    #[arg(long, short)]
    quiet: bool,
}

fn patience(text: &str) -> Result<Duration, String> {
    let patience = quantity::parse_duration(text).map_err(|error| error.to_string())?;
    if patience.is_zero() { Err("to wait for nothing, say --detach".into()) } else { Ok(patience) }
}

impl WaitArgs {
    pub fn is_detached(&self) -> bool {
        self.detach
    }
}

/// One service's way to what is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Progress {
    running: u64,
    wanted: u64,
    /// What the tasks that do not run wait for, with counts; empty where there is nothing to say.
    waits: String,
    failed: Option<String>,
    /// An update or a rollback is under way: its leader watches the new tasks, and says how it ended.
    is_updating: bool,
    /// How long tasks that came up are to be watched: nothing where none of them goes on, as in a job that is done.
    monitor: Duration,
    /// Why the service goes back to its earlier spec, or that it did.
    went_back: Option<String>,
    /// Of a service with a schedule, when it runs next.
    next_run: Option<String>,
}

impl Progress {
    fn is_done(&self) -> bool {
        self.running >= self.wanted && self.waits.is_empty()
    }

    /// Beside the bar.
    fn message(&self) -> String {
        match &self.next_run {
            Some(next) => format!("next run {next}"),
            None if self.is_done() && self.wanted > 0 => "all run; are they stable?".into(),
            None => self.waits.clone(),
        }
    }
}

/// How long each service has looked converged.
#[derive(Default)]
struct Watch {
    steady_polls: BTreeMap<String, u32>,
    /// Those whose update was seen under way: their tasks were watched by whoever leads it.
    were_updating: BTreeSet<String>,
    /// Those that were not going back when they were first seen.
    went_forward: BTreeSet<String>,
    /// Those that did so later, and why.
    went_back: BTreeMap<String, String>,
}

impl Watch {
    fn look(&mut self, progress: &BTreeMap<String, Progress>) {
        for (name, now) in progress {
            let steady = self.steady_polls.entry(name.clone()).or_default();
            *steady = if now.is_done() { *steady + 1 } else { 0 };
            if now.is_updating {
                self.were_updating.insert(name.clone());
            }
            match &now.went_back {
                None => {
                    self.went_forward.insert(name.clone());
                }
                Some(why) if self.went_forward.contains(name) => {
                    self.went_back.entry(name.clone()).or_insert_with(|| why.clone());
                }
                Some(_) => {}
            }
        }
    }

    /// Of a wait that is over: what was to be updated, and went back instead, is a failure.
    fn verdict(&self) -> anyhow::Result<()> {
        let back: Vec<String> = self.went_back.iter().map(|(name, why)| format!("service {name}: {why}")).collect();
        anyhow::ensure!(back.is_empty(), "{}; it runs as before", back.join(", "));
        Ok(())
    }

    fn is_stable(&self, name: &str, now: &Progress, stable_for: Option<Duration>) -> bool {
        let needs = match stable_for {
            None if now.is_updating => return false,
            None if self.were_updating.contains(name) => Duration::ZERO,
            None => now.monitor,
            Some(_) if now.monitor.is_zero() => Duration::ZERO,
            Some(stable_for) => stable_for,
        };
        let polls = needs.as_millis().div_ceil(POLL_EVERY.as_millis()).max(u128::from(STEADY_POLLS));
        now.is_done() && self.steady_polls.get(name).is_some_and(|steady| u128::from(*steady) >= polls)
    }
}

/// Waits for the services called `names`.
pub async fn converged(client: &Client, names: &[String], args: &WaitArgs) -> anyhow::Result<()> {
    if args.detach || names.is_empty() {
        return Ok(());
    }
    let mut shown = Shown::new(names, args.quiet);
    match tokio::time::timeout(args.timeout, poll(client, names, args.stable_for, &mut shown)).await {
        Ok(done) => done,
        Err(_) => Err(anyhow::anyhow!(
            "not converged within {}: {}; what was asked for stays in force, `flok service ps` shows how it goes on",
            quantity::format_duration(args.timeout),
            shown.unfinished()
        )),
    }
}

async fn poll(
    client: &Client,
    names: &[String],
    stable_for: Option<Duration>,
    shown: &mut Shown,
) -> anyhow::Result<()> {
    let mut watch = Watch::default();
    let mut failed_polls = 0;
    loop {
        match progress(client, names).await {
            Ok(progress) => {
                failed_polls = 0;
                if let Some((name, why)) = progress.iter().find_map(|(n, p)| p.failed.as_ref().map(|why| (n, why))) {
                    anyhow::bail!("service {name}: {why}");
                }
                shown.update(&progress);
                watch.look(&progress);
                let is_stable =
                    |name: &String| progress.get(name).is_some_and(|now| watch.is_stable(name, now, stable_for));
                if names.iter().all(is_stable) {
                    shown.finish();
                    return watch.verdict();
                }
            }
            Err(error) => {
                failed_polls += 1;
                if failed_polls >= MAX_FAILED_POLLS {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn progress(client: &Client, names: &[String]) -> anyhow::Result<BTreeMap<String, Progress>> {
    let options = ListServicesOptions { filters: None, status: Some(true) };
    let services = client.docker().list_services(Some(options)).await.map_err(|error| client.explain(error))?;
    let services: Vec<Service> =
        services.into_iter().filter(|service| names.contains(&tasks::service_name(service))).collect();
    let ids: Vec<String> = services.iter().filter_map(|service| service.id.clone()).collect();
    let up_to_date = vec!["true".to_string()];
    let filters: HashMap<String, Vec<String>> =
        [("service".to_string(), ids), ("_up-to-date".to_string(), up_to_date)].into();
    let tasks = tasks::fetch(client, filters).await?;
    let runs = next_runs(client, &services).await?;
    let named = |service: &Service| {
        let next_run = service.id.as_ref().and_then(|id| runs.get(id)).cloned();
        (tasks::service_name(service), Progress { next_run, ..of_service(service, &tasks) })
    };
    Ok(services.iter().map(named).collect())
}

fn of_service(service: &Service, tasks: &[Task]) -> Progress {
    // Runs come when they are due.
    if is_scheduled(service) {
        return Progress::default();
    }
    let own: Vec<&Task> = tasks.iter().filter(|task| task.service_id == service.id).collect();
    let is_job = service.job_status.is_some();
    let state = |task: &Task| task.status.as_ref().and_then(|status| status.state);
    let live =
        |task: &&&Task| matches!(task.desired_state, Some(TaskState::RUNNING | TaskState::READY | TaskState::COMPLETE));
    let is_there = |task: &&&Task| match state(task) {
        Some(TaskState::COMPLETE) => is_job,
        Some(TaskState::RUNNING) => !is_job,
        _ => false,
    };
    let counted: Vec<&Task> = own.iter().filter(live).copied().collect();
    // What a job's task completed counts, though nothing is wanted of that task any more.
    let running = if is_job { &own } else { &counted }.iter().filter(is_there).count() as u64;
    let mode = service.spec.as_ref().and_then(|spec| spec.mode.as_ref());
    let replicas = mode.and_then(|mode| mode.replicated.as_ref()).and_then(|replicated| replicated.replicas);
    let completions = mode.and_then(|mode| mode.replicated_job.as_ref()).and_then(|job| job.total_completions);
    let desired = service.service_status.as_ref().and_then(|status| status.desired_tasks);
    // A task that ended by itself and is not to be restarted is not waited for.
    let wanted = replicas.or(completions).and_then(|wanted| u64::try_from(wanted).ok());
    let ended = own.iter().filter(|task| !is_there(task) && ended_for_good(task)).count() as u64;
    // What a global job has completed is not desired any more.
    let completed = if is_job { running } else { 0 };
    let wanted = wanted.unwrap_or_else(|| desired.map_or(counted.len() as u64, |desired| desired + completed));
    let wanted = wanted.saturating_sub(ended);
    let mut waits = waits(&counted, is_job);
    if running < wanted && waits.is_empty() {
        waits = held_update(service).unwrap_or_default();
    }
    let is_news = |failure: &String| !waits.contains(failure.as_str()) && (!waits.is_empty() || running < wanted);
    if let Some(failure) = last_failure(&own).filter(is_news) {
        waits = format!("{waits}; the last task that failed: {failure}").trim_start_matches("; ").to_string();
    }
    let monitor = if is_job || wanted == 0 { Duration::ZERO } else { monitor(service) };
    let is_updating = is_updating(service);
    let failed = failed(service).or_else(|| if is_updating { None } else { given_up(&own, is_global(service)) });
    Progress { running, wanted, waits, failed, is_updating, monitor, went_back: went_back(service), next_run: None }
}

/// How long an update of the service watches each new task.
fn monitor(service: &Service) -> Duration {
    let update = service.spec.as_ref().and_then(|spec| spec.update_config.as_ref());
    let given = update.and_then(|update| update.monitor).and_then(|nanos| u64::try_from(nanos).ok());
    given.filter(|nanos| *nanos > 0).map_or(UpdateConfig::DEFAULT_MONITOR, Duration::from_nanos)
}

fn went_back(service: &Service) -> Option<String> {
    let update = service.update_status.as_ref()?;
    let back = matches!(update.state, Some(UpdateState::ROLLBACK_STARTED | UpdateState::ROLLBACK_COMPLETED));
    back.then(|| update.message.clone().unwrap_or_default())
}

fn is_updating(service: &Service) -> bool {
    let state = service.update_status.as_ref().and_then(|update| update.state);
    matches!(state, Some(UpdateState::UPDATING | UpdateState::ROLLBACK_STARTED))
}

/// What an update waits for that has not begun to replace tasks.
fn held_update(service: &Service) -> Option<String> {
    let message = service.update_status.as_ref()?.message.as_ref()?;
    message.starts_with("update waits for ").then(|| message.clone())
}

/// Why the newest of the tasks that failed did.
fn last_failure(tasks: &[&Task]) -> Option<String> {
    let state = |task: &&&Task| task.status.as_ref().and_then(|status| status.state);
    let failed = |task: &&&Task| matches!(state(task), Some(TaskState::FAILED | TaskState::REJECTED));
    let ended = |task: &&&Task| task.desired_state == Some(TaskState::SHUTDOWN);
    let newest = tasks.iter().filter(ended).filter(failed).max_by_key(|task| task.created_at.clone())?;
    newest.status.as_ref()?.err.clone().filter(|error| !error.is_empty())
}

/// It ended, nothing replaces it, and that is as its restart policy says.
fn ended_for_good(task: &Task) -> bool {
    use bollard::models::TaskSpecRestartPolicyConditionEnum as Condition;
    let condition = task.spec.as_ref().and_then(|spec| spec.restart_policy.as_ref()?.condition);
    let state = task.status.as_ref().and_then(|status| status.state);
    state == Some(TaskState::COMPLETE) && matches!(condition, Some(Condition::NONE | Condition::ON_FAILURE))
}

/// Of a slot whose last task failed and has no successor, why it did: a failed task and its successor are one change, so none
/// comes any more.
fn given_up(tasks: &[&Task], is_global: bool) -> Option<String> {
    let mut last: BTreeMap<(Option<i64>, Option<&str>), &Task> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.desired_state != Some(TaskState::REMOVE)) {
        // One of a global service has its node for a slot; the slots of jobs begin with 0.
        let node = task.node_id.as_deref().filter(|_| is_global);
        let known = last.entry((task.slot, node)).or_insert(task);
        if known.created_at <= task.created_at {
            *known = task;
        }
    }
    let over = |task: &&&Task| {
        let state = task.status.as_ref().and_then(|status| status.state);
        let failed = matches!(state, Some(TaskState::FAILED | TaskState::REJECTED));
        failed && task.desired_state == Some(TaskState::SHUTDOWN)
    };
    let task = last.values().find(over)?;
    let why = task.status.as_ref().and_then(|status| status.err.clone()).unwrap_or_default();
    Some(format!("a task failed, and its restart policy allows no other try: {why}"))
}

fn is_global(service: &Service) -> bool {
    let mode = service.spec.as_ref().and_then(|spec| spec.mode.as_ref());
    mode.is_some_and(|mode| mode.global.is_some() || mode.global_job.is_some())
}

fn failed(service: &Service) -> Option<String> {
    let update = service.update_status.as_ref()?;
    let what = match update.state? {
        UpdateState::PAUSED => "update paused",
        UpdateState::ROLLBACK_PAUSED => "rollback paused",
        _ => return None,
    };
    // The daemon's messages say so themselves.
    let message = update.message.clone().unwrap_or_default();
    Some(if message.starts_with(what) { message } else { format!("{what}: {message}") })
}

/// What tasks that do not run yet wait for, most frequent first: `2 pulling 42%; 1 no suitable node (...)`.
fn waits(tasks: &[&Task], is_job: bool) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for task in tasks {
        let Some(status) = &task.status else { continue };
        let Some(state) = status.state else { continue };
        let is_there = state == TaskState::COMPLETE && is_job || state == TaskState::RUNNING && !is_job;
        let is_over = matches!(state, TaskState::SHUTDOWN | TaskState::ORPHANED | TaskState::COMPLETE);
        if is_there || is_over {
            continue;
        }
        let word = state.to_string();
        let detail = status.err.clone().filter(|text| !text.is_empty()).or_else(|| status.message.clone());
        let text = match detail.filter(|text| !text.is_empty() && *text != word) {
            Some(detail) => format!("{word}: {detail}"),
            None => word,
        };
        *counts.entry(text).or_default() += 1;
    }
    let mut counts: Vec<(usize, String)> = counts.into_iter().map(|(text, count)| (count, text)).collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let shown = counts.iter().take(3).map(|(count, text)| format!("{count} {text}"));
    shown.collect::<Vec<_>>().join("; ")
}

/// What the user sees.
struct Shown {
    last: BTreeMap<String, Progress>,
    names: BTreeSet<String>,
    /// On a terminal.
    bars: Option<BTreeMap<String, ProgressBar>>,
    quiet: bool,
}

impl Shown {
    fn new(names: &[String], quiet: bool) -> Shown {
        let on_terminal = std::io::stderr().is_terminal() && !quiet;
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let bars = on_terminal.then(|| {
            let all = MultiProgress::new();
            names.iter().map(|name| (name.clone(), bar(&all, name, width))).collect()
        });
        Shown { last: BTreeMap::new(), names: names.iter().cloned().collect(), bars, quiet }
    }

    fn update(&mut self, progress: &BTreeMap<String, Progress>) {
        for (name, now) in progress {
            if self.last.get(name) == Some(now) {
                continue;
            }
            match &self.bars {
                Some(bars) => {
                    if let Some(bar) = bars.get(name) {
                        bar.set_length(now.wanted);
                        bar.set_position(now.running.min(now.wanted));
                        bar.set_message(now.message());
                    }
                }
                None if !self.quiet => eprintln!("{}", line(name, now)),
                None => {}
            }
        }
        self.last.clone_from(progress);
    }

    fn finish(&self) {
        for (name, bar) in self.bars.iter().flatten() {
            match self.last.get(name) {
                Some(scheduled) if scheduled.next_run.is_some() => bar.finish(),
                _ => bar.finish_with_message("converged"),
            }
        }
    }

    /// The services that have not converged, and what they wait for.
    fn unfinished(&self) -> String {
        let of = |name: &String| match self.last.get(name) {
            None => Some(format!("{name}: not heard of")),
            Some(progress) if progress.is_done() => None,
            // The reason stands above, in the last line of that service.
            Some(progress) if self.bars.is_none() && !self.quiet => Some(counts(name, progress)),
            Some(progress) => Some(line(name, progress)),
        };
        let unfinished: Vec<String> = self.names.iter().filter_map(of).collect();
        if unfinished.is_empty() { "it was not steady".into() } else { unfinished.join(", ") }
    }
}

fn line(name: &str, progress: &Progress) -> String {
    let waits = if progress.waits.is_empty() { String::new() } else { format!(" ({})", progress.waits) };
    counts(name, progress) + &waits
}

fn counts(name: &str, progress: &Progress) -> String {
    if let Some(next) = &progress.next_run {
        return format!("{name}: next run {next}");
    }
    format!("{name}: {} of {} running", progress.running, progress.wanted)
}

fn bar(all: &MultiProgress, name: &str, width: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:20}] {pos}/{len} {wide_msg}");
    let style = style.expect("the template is well formed").progress_chars("=> ");
    let bar = all.add(ProgressBar::new(1).with_style(style));
    bar.set_prefix(format!("{name:width$}"));
    bar.tick();
    bar
}

#[cfg(test)]
mod tests;
