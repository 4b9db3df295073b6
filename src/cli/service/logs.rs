//! `flok service logs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use bollard::BollardRequest;
use bollard::container::LogOutput;
use bollard::models::{Service, Task};
use bollard::query_parameters::{ListNodesOptions, LogsOptions};
use clap::Args;
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};

use super::fetch;
use super::pieces::{Heads, Pieces, Source};
use crate::api::client::{Client, ClientError};
use crate::cli::container::find;
use crate::cli::node::display_name;
use crate::cli::output::now;
use crate::cli::tasks;
use crate::spec::quantity::parse_duration;

/// For the last words of a service that was removed.
const REST_WITHIN: Duration = Duration::from_secs(10);
/// Characters of a task's id.
const SHORT_ID: usize = 12;
/// How soon a task that was started meanwhile is followed, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Show the logs of a service's tasks, or of one task
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service logs web
  flok service logs -f --tail 20 web
  flok service logs --since 10m web
  flok service logs web.1")]
pub struct Logs {
    /// Go on with new lines
    #[arg(long, short)]
    follow: bool,
    /// Lines from the end of each task's log, or "all"
    #[arg(long, short = 'n', default_value = "all", value_name = "LINES", value_parser = tail)]
    tail: String,
    /// Only lines since a time (2026-01-31T12:00:00Z) or for a duration (10m)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<i32>,
    /// Print when each line was written
    #[arg(long, short)]
    timestamps: bool,
    /// Print with each line the ids of node, service and task, and what the log options "labels" and "env" choose
    #[arg(long)]
    details: bool,
    /// Print lines without the task they come from
    #[arg(long)]
    raw: bool,
    /// Print the ids of tasks in full
    #[arg(long)]
    no_trunc: bool,
    /// Print tasks by their slots alone, without their ids
    #[arg(long)]
    no_task_ids: bool,
    /// Print the ids of services and nodes in place of their names
    #[arg(long)]
    no_resolve: bool,
    /// Name or id of a service, name (web.1) or id of a task; on a worker a task of that node
    #[arg(value_name = "SERVICE|TASK")]
    name: String,
}

fn tail(text: &str) -> Result<String, String> {
    match text {
        "all" => Ok(text.into()),
        text if text.parse::<u32>().is_ok() => Ok(text.into()),
        _ => Err("write a number of lines, or all".into()),
    }
}

/// Unix seconds.
fn since(text: &str) -> Result<i32, String> {
    let at = match (parse_duration(text), text.parse::<jiff::Timestamp>()) {
        (Ok(ago), _) => now().as_second() - i64::try_from(ago.as_secs()).unwrap_or(i64::MAX),
        (_, Ok(at)) => at.as_second(),
        _ => text.parse::<i64>().map_err(|_| "write a duration (10m) or a time (2026-01-31T12:00:00Z)".to_string())?,
    };
    i32::try_from(at.max(0)).map_err(|_| "that time is too far away".into())
}

impl Logs {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut options = LogsOptions {
            follow: self.follow,
            stdout: true,
            stderr: true,
            since: self.since.unwrap_or(0),
            timestamps: self.timestamps,
            tail: self.tail.clone(),
            ..LogsOptions::default()
        };
        let patient = client.patient(Duration::from_secs(60));
        let docker = if self.details { patient.with_request_modifier(with_details) } else { patient };
        let mut lines = SelectAll::new();
        let mut pieces = Pieces::default();
        let mut known = BTreeSet::new();
        loop {
            let found = match self.sources(client).await {
                // The service that is followed was removed: what its tasks said last is still told.
                Err(error) if !known.is_empty() && is_not_found(&error) => {
                    let rest = tokio::time::timeout(REST_WITHIN, self.copy(client, &mut lines, &mut pieces)).await;
                    return rest.unwrap_or(Ok(()));
                }
                found => found?,
            };
            let goes_on = self.follow && found.of_service;
            // One stream for each task, so that each line's origin is known.
            for origin in found.sources.into_iter().filter(|origin| known.insert(origin.task.clone())) {
                let log = match &origin.container {
                    None => docker.task_logs(&origin.task, Some(options.clone())).boxed(),
                    Some(container) => docker.logs(container, Some(options.clone())).boxed(),
                };
                let ends = stream::once(std::future::ready(None));
                lines.push(log.map(Some).chain(ends).map(move |piece| (origin.clone(), piece)).boxed());
            }
            // What the service starts from now on is told from its first line.
            options.tail = "all".into();
            if !goes_on {
                return self.copy(client, &mut lines, &mut pieces).await;
            }
            let copied = async {
                let copied = self.copy(client, &mut lines, &mut pieces).await;
                if copied.is_ok() {
                    // All have ended; others may come.
                    std::future::pending::<()>().await;
                }
                copied
            };
            if let Ok(broken) = tokio::time::timeout(LOOK_EVERY, copied).await {
                return broken;
            }
        }
    }

    /// The tasks that have written, or may have.
    async fn sources(&self, client: &Client) -> anyhow::Result<Sources> {
        let (service, tasks, of_service) = match fetch(client, &self.name).await {
            Ok(service) => (tasks::service_name(&service), tasks_of(client, &service).await?, true),
            Err(error) => {
                if let Some((service, task)) = self.task(client).await? {
                    (tasks::service_name(&service), vec![task], false)
                } else if let Some(own) = self.on_this_worker(client).await {
                    return Ok(own);
                } else {
                    return Err(error);
                }
            }
        };
        let nodes = if self.no_resolve { BTreeMap::new() } else { nodes(client).await? };
        let started = tasks.into_iter().filter(|task| task.node_id.is_some() && has_started(task));
        let started: Vec<Task> = started.collect();
        Ok(Sources { sources: self.prefixed(&service, started, &nodes), of_service })
    }

    /// One that goes by the name: its id, or `web.1`, of which the newest task is meant that began.
    async fn task(&self, client: &Client) -> anyhow::Result<Option<(Service, Task)>> {
        if let Ok(task) = client.docker().inspect_task(&self.name).await {
            let service = fetch(client, task.service_id.as_deref().unwrap_or_default()).await?;
            return Ok(Some((service, task)));
        }
        let Some((name, slot)) = self.name.rsplit_once('.') else { return Ok(None) };
        let Ok(service) = fetch(client, name).await else { return Ok(None) };
        let newest = newest_in(slot, tasks_of(client, &service).await?);
        Ok(newest.map(|task| (service, task)))
    }

    /// A worker knows no services, but the containers it has itself.
    async fn on_this_worker(&self, client: &Client) -> Option<Sources> {
        let swarm = client.docker().info().await.ok()?.swarm?;
        if swarm.control_available == Some(true) {
            return None;
        }
        let container = find(client, &self.name).await.ok()?;
        let prefix = if self.raw { String::new() } else { format!("{}    | ", self.name) };
        let origin = Origin { prefix, task: self.name.clone(), container: Some(container) };
        Some(Sources { sources: vec![origin], of_service: false })
    }

    /// Prefixes `web.1.<task>@host    | `, all of one width.
    fn prefixed(&self, service: &str, tasks: Vec<Task>, nodes: &BTreeMap<String, String>) -> Vec<Origin> {
        let name = |task: &Task| self.task_name(service, task, nodes);
        let width = tasks.iter().map(|task| name(task).chars().count()).max().unwrap_or(0);
        let source = |task: Task| {
            let prefix = if self.raw { String::new() } else { format!("{:width$}    | ", name(&task)) };
            Origin { prefix, task: task.id.unwrap_or_default(), container: None }
        };
        tasks.into_iter().map(source).collect()
    }

    fn task_name(&self, service: &str, task: &Task, nodes: &BTreeMap<String, String>) -> String {
        let node = task.node_id.as_deref().unwrap_or_default();
        let service = if self.no_resolve { task.service_id.as_deref().unwrap_or_default() } else { service };
        let slot = task.slot.map_or_else(|| node.to_string(), |slot| slot.to_string());
        let shown = if self.no_trunc { usize::MAX } else { SHORT_ID };
        let id: String = task.id.as_deref().unwrap_or_default().chars().take(shown).collect();
        let id = if self.no_task_ids { String::new() } else { format!(".{id}") };
        format!("{service}.{slot}{id}@{}", nodes.get(node).map_or(node, String::as_str))
    }

    /// Loses nothing where it is given up: it waits for pieces alone.
    async fn copy(
        &self,
        client: &Client,
        lines: &mut SelectAll<BoxStream<'_, Piece>>,
        pieces: &mut Pieces,
    ) -> anyhow::Result<()> {
        let heads = Heads { timestamps: self.timestamps, details: self.details };
        while let Some((origin, piece)) = lines.next().await {
            let (bytes, is_stderr) = match piece {
                Some(Ok(LogOutput::StdErr { message })) => (message, true),
                Some(Ok(
                    LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message },
                )) => (message, false),
                Some(Err(error)) => return Err(client.explain(error)).context("the logs broke off"),
                None => {
                    for (is_stderr, text) in pieces.end(&origin.task) {
                        write(is_stderr, &text)?;
                    }
                    continue;
                }
            };
            let source = Source { task: origin.task, is_stderr };
            if let Some(text) = pieces.add(&source, &origin.prefix, &bytes, heads) {
                write(is_stderr, &text)?;
            }
        }
        Ok(())
    }
}

fn write(to_stderr: bool, text: &[u8]) -> std::io::Result<()> {
    if to_stderr {
        return std::io::stderr().write_all(text);
    }
    std::io::stdout().write_all(text)?;
    std::io::stdout().flush()
}

/// Of a line or a whole one, and where it comes from; `None` is the end of that log.
type Piece = (Origin, Option<Result<LogOutput, bollard::errors::Error>>);

#[derive(Debug, Clone)]
struct Origin {
    /// Stands before each line.
    prefix: String,
    /// Id.
    task: String,
    /// Its id, where the node that is asked can tell of its containers alone.
    container: Option<String>,
}

struct Sources {
    sources: Vec<Origin>,
    /// There may be more of them later.
    of_service: bool,
}

/// A task that is still on its way has no log to follow yet.
fn has_started(task: &Task) -> bool {
    use bollard::models::TaskState as State;
    let state = task.status.as_ref().and_then(|status| status.state);
    !matches!(
        state,
        None | Some(
            State::NEW
                | State::PENDING
                | State::ASSIGNED
                | State::ACCEPTED
                | State::PREPARING
                | State::READY
                | State::STARTING
        )
    )
}

/// Logs with their details, which bollard's options do not know.
fn with_details(mut request: BollardRequest) -> BollardRequest {
    let separator = if request.uri().query().is_some() { '&' } else { '?' };
    let uri = format!("{}{separator}details=true", request.uri());
    *request.uri_mut() = uri.parse().expect("a URI with one more word in its query is a URI");
    request
}

async fn tasks_of(client: &Client, service: &Service) -> anyhow::Result<Vec<Task>> {
    let filters = [("service".to_string(), vec![service.id.clone().unwrap_or_default()])].into();
    tasks::fetch(client, filters).await
}

/// `slot` is a number, or of a global service its node's id.
fn newest_in(slot: &str, tasks: Vec<Task>) -> Option<Task> {
    let is_there = |task: &Task| match task.slot {
        Some(own) => own.to_string() == slot,
        None => task.node_id.as_deref() == Some(slot),
    };
    let began = tasks.into_iter().filter(|task| is_there(task) && task.node_id.is_some() && has_started(task));
    began.max_by_key(|task| task.created_at.clone())
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_not_found)
}

/// The names of nodes by their ids.
async fn nodes(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let nodes = client.docker().list_nodes(None::<ListNodesOptions>).await.map_err(|error| client.explain(error))?;
    Ok(nodes.iter().map(|node| (node.id.clone().unwrap_or_default(), display_name(node))).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        logs: Logs,
    }

    fn logs(flags: &str) -> Logs {
        Line::parse_from(format!("logs {flags} web").split_whitespace()).logs
    }

    #[test]
    fn times_read_as_durations_and_dates() {
        assert_eq!(since("1970-01-01T00:01:00Z"), Ok(60));
        assert_eq!(since("1700000000"), Ok(1_700_000_000));
        assert!(since("10m").is_ok_and(|at| at > 1_600_000_000));
        assert!(since("yesterday").is_err());
        assert!(tail("5").is_ok() && tail("all").is_ok() && tail("-1").is_err());
    }

    #[test]
    fn prefixes_name_task_and_node() {
        let task = |id: &str, slot: i64| -> Task {
            let task = serde_json::json!({"ID": id, "NodeID": "n", "ServiceID": "s", "Slot": slot});
            serde_json::from_value(task).unwrap()
        };
        let nodes = [("n".to_string(), "host".to_string())].into();
        let tasks = vec![task("abcdefghijklmnop", 1), task("x", 10)];
        let prefixed = |flags: &str| logs(flags).prefixed("web", tasks.clone(), &nodes);
        let origins = prefixed("");
        assert_eq!(origins[0].prefix, "web.1.abcdefghijkl@host    | ");
        assert_eq!(origins[0].task, "abcdefghijklmnop");
        assert_eq!(origins[1].prefix, "web.10.x@host              | ");
        assert_eq!(prefixed("--raw")[1].prefix, "");
        assert_eq!(prefixed("--no-trunc")[0].prefix, "web.1.abcdefghijklmnop@host    | ");
        assert_eq!(prefixed("--no-task-ids")[0].prefix, "web.1@host     | ");
        let unresolved = logs("--no-resolve").prefixed("web", tasks.clone(), &BTreeMap::new());
        assert_eq!(unresolved[0].prefix, "s.1.abcdefghijkl@n    | ");
    }

    #[test]
    fn a_slot_means_its_newest_task_that_began() {
        let task = |id: &str, slot: Option<i64>, created: &str, state: &str| -> Task {
            let value = serde_json::json!({"ID": id, "NodeID": "n", "Slot": slot, "CreatedAt": created,
                "Status": {"State": state}});
            serde_json::from_value(value).unwrap()
        };
        let tasks = vec![
            task("old", Some(1), "2026-01-01T00:00:00Z", "failed"),
            task("new", Some(1), "2026-01-01T00:00:05Z", "running"),
            task("next", Some(1), "2026-01-01T00:00:09Z", "pending"),
            task("other", Some(2), "2026-01-01T00:00:09Z", "running"),
            task("global", None, "2026-01-01T00:00:00Z", "running"),
        ];
        let newest = |slot| newest_in(slot, tasks.clone()).and_then(|task| task.id);
        assert_eq!(newest("1").as_deref(), Some("new"));
        assert_eq!(newest("n").as_deref(), Some("global"));
        assert_eq!(newest("3"), None);
    }

    #[test]
    fn details_are_asked_for_beside_what_is_asked_anyway() {
        let asked = |uri: &str| {
            let request = hyper::Request::builder().uri(uri).body(bollard::body_full(Default::default())).unwrap();
            with_details(request).uri().to_string()
        };
        assert_eq!(asked("http://flok/tasks/x/logs?tail=1"), "http://flok/tasks/x/logs?tail=1&details=true");
        assert_eq!(asked("http://flok/tasks/x/logs"), "http://flok/tasks/x/logs?details=true");
    }
}
