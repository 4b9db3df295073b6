//! `flok service logs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use bollard::BollardRequest;
use bollard::container::LogOutput;
use bollard::models::Task;
use bollard::query_parameters::{ListNodesOptions, LogsOptions};
use clap::Args;
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};

use super::fetch;
use super::pieces::{Heads, Pieces, Source};
use crate::api::client::Client;
use crate::cli::node::display_name;
use crate::cli::output::now;
use crate::cli::tasks;
use crate::spec::quantity::parse_duration;

/// How soon a task that was started meanwhile is followed, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Show the logs of a service's tasks, or of one task
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service logs web
  flok service logs -f --tail 20 web
  flok service logs --since 10m web")]
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
    /// Name or id of a service, or id of a task
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
            let found = self.sources(client).await?;
            let goes_on = self.follow && found.of_service;
            // One stream for each task, so that each line's origin is known.
            for origin in found.sources.into_iter().filter(|origin| known.insert(origin.task.clone())) {
                let log = docker.task_logs(&origin.task, Some(options.clone()));
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
            Ok(service) => {
                let filters = [("service".to_string(), vec![service.id.clone().unwrap_or_default()])].into();
                (tasks::service_name(&service), tasks::fetch(client, filters).await?, true)
            }
            Err(error) => match client.docker().inspect_task(&self.name).await {
                Ok(task) => {
                    let service = fetch(client, task.service_id.as_deref().unwrap_or_default()).await?;
                    (tasks::service_name(&service), vec![task], false)
                }
                Err(_) => return Err(error),
            },
        };
        let nodes =
            client.docker().list_nodes(None::<ListNodesOptions>).await.map_err(|error| client.explain(error))?;
        let nodes: BTreeMap<String, String> =
            nodes.iter().map(|node| (node.id.clone().unwrap_or_default(), display_name(node))).collect();
        let started = tasks.into_iter().filter(|task| task.node_id.is_some() && has_started(task));
        let started: Vec<Task> = started.collect();
        Ok(Sources { sources: prefixed(&service, started, &nodes, self.raw), of_service })
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

/// Prefixes `web.1.<task>@host    | `, all of one width.
fn prefixed(service: &str, tasks: Vec<Task>, nodes: &BTreeMap<String, String>, raw: bool) -> Vec<Origin> {
    let name = |task: &Task| {
        let node = task.node_id.as_deref().unwrap_or_default();
        let slot = task.slot.map_or_else(|| node.to_string(), |slot| slot.to_string());
        let id: String = task.id.as_deref().unwrap_or_default().chars().take(12).collect();
        format!("{service}.{slot}.{id}@{}", nodes.get(node).map_or(node, String::as_str))
    };
    let width = tasks.iter().map(|task| name(task).chars().count()).max().unwrap_or(0);
    let source = |task: Task| {
        let prefix = if raw { String::new() } else { format!("{:width$}    | ", name(&task)) };
        Origin { prefix, task: task.id.unwrap_or_default() }
    };
    tasks.into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            serde_json::from_value(serde_json::json!({"ID": id, "NodeID": "n", "Slot": slot})).unwrap()
        };
        let nodes = [("n".to_string(), "host".to_string())].into();
        let tasks = vec![task("abcdefghijklmnop", 1), task("x", 10)];
        let origins = prefixed("web", tasks.clone(), &nodes, false);
        assert_eq!(origins[0].prefix, "web.1.abcdefghijkl@host    | ");
        assert_eq!(origins[0].task, "abcdefghijklmnop");
        assert_eq!(origins[1].prefix, "web.10.x@host              | ");
        assert_eq!(prefixed("web", tasks, &nodes, true)[1].prefix, "");
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
