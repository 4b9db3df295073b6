//! Logs of services and tasks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use serde::Deserialize;
use tokio::time::Interval;

use super::hijack::{content_type, frame};
use super::truthy;
use crate::api::client::escaped;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, LogLine, LogOptions, Read, lookup, view};
use crate::spec::{ServiceId, TaskId, TaskState, UnixMs};

/// How soon a task that was started meanwhile is followed, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
pub struct LogsQuery {
    stdout: Option<String>,
    stderr: Option<String>,
    follow: Option<String>,
    tail: Option<String>,
    since: Option<String>,
    until: Option<String>,
    pub timestamps: Option<String>,
    details: Option<String>,
}

pub async fn of_service<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &wanted)?;
    let tasks: Vec<TaskId> = read.state.tasks_of_service(service.id).map(|task| task.id).collect();
    let (options, tty) = (options(&query, tail(&query)?)?, is_tty(&read, &tasks));
    let lines = match options.follow {
        true => followed(backend, service.id, options),
        false => backend.logs(tasks, options).await?,
    };
    Ok(answer(lines, service.id, tty, &query))
}

pub async fn of_task<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let task = lookup::task(&read.state, &wanted)?;
    let (options, tty) = (options(&query, tail(&query)?)?, is_tty(&read, &[task.id]));
    let lines = backend.logs(vec![task.id], options).await?;
    Ok(answer(lines, task.service, tty, &query))
}

/// Lines of all of the service's tasks, those that start later among them, until the service is removed.
fn followed<B: Backend>(backend: Arc<B>, service: ServiceId, options: LogOptions) -> BoxStream<'static, LogLine> {
    let begin = Followed {
        backend,
        service,
        options,
        known: BTreeSet::new(),
        lines: SelectAll::new(),
        looks: tokio::time::interval(LOOK_EVERY),
    };
    stream::unfold(begin, |mut followed| async move {
        loop {
            tokio::select! {
                biased;
                _ = followed.looks.tick() => followed.look().await?,
                Some(line) = followed.lines.next() => return Some((line, followed)),
            }
        }
    })
    .boxed()
}

struct Followed<B> {
    backend: Arc<B>,
    service: ServiceId,
    options: LogOptions,
    known: BTreeSet<TaskId>,
    lines: SelectAll<BoxStream<'static, LogLine>>,
    looks: Interval,
}

impl<B: Backend> Followed<B> {
    /// Begins with the tasks that have started meanwhile; `None` once the service is gone. A task that is still on its way
    /// has no log yet. What cannot be read now is looked for again.
    async fn look(&mut self) -> Option<()> {
        let Ok(read) = self.backend.read().await else { return Some(()) };
        read.state.service(self.service)?;
        let tasks = read.state.tasks_of_service(self.service);
        let started = tasks.filter(|task| task.node.is_some() && view::status(task, &read).state >= TaskState::Running);
        let new: Vec<TaskId> = started.map(|task| task.id).filter(|task| !self.known.contains(task)).collect();
        if new.is_empty() {
            return Some(());
        }
        if let Ok(lines) = self.backend.logs(new.clone(), self.options.clone()).await {
            self.lines.push(lines);
            self.known.extend(new);
            // What starts from now on is told from its first line.
            self.options.tail = None;
        }
        Some(())
    }
}

fn is_tty(read: &Read, tasks: &[TaskId]) -> bool {
    tasks.iter().any(|task| {
        let spec = read.state.task(*task).and_then(|task| read.state.task_spec(task.service, task.spec_version));
        spec.is_some_and(|spec| spec.container.tty)
    })
}

fn answer(lines: BoxStream<'static, LogLine>, service: ServiceId, tty: bool, query: &LogsQuery) -> Response {
    let (timestamps, details) = (truthy(query.timestamps.as_deref()), truthy(query.details.as_deref()));
    let frames = lines.map(move |line| {
        let text = render(&line, service, timestamps, details);
        Ok::<_, std::convert::Infallible>(if tty { text } else { frame(line.stderr, &text) })
    });
    ([(header::CONTENT_TYPE, content_type(tty))], Body::from_stream(frames)).into_response()
}

/// Lines from the end; `None`: all.
fn tail(query: &LogsQuery) -> Result<Option<u64>, ApiError> {
    match query.tail.as_deref() {
        None | Some("" | "all") => Ok(None),
        Some(text) => match text.parse() {
            Ok(lines) => Ok(Some(lines)),
            Err(_) => Err(ApiError::invalid(format!("tail: {text:?} is no number, nor \"all\""))),
        },
    }
}

/// The same for a container, of which Docker prints all where it cannot read the number.
pub fn lenient_tail(query: &LogsQuery) -> Option<u64> {
    query.tail.as_deref()?.parse().ok()
}

pub fn options(query: &LogsQuery, tail: Option<u64>) -> Result<LogOptions, ApiError> {
    let (stdout, stderr) = (truthy(query.stdout.as_deref()), truthy(query.stderr.as_deref()));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    Ok(LogOptions {
        stdout,
        stderr,
        follow: truthy(query.follow.as_deref()),
        tail,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
    })
}

/// Seconds since 1970, with an optional fraction, or RFC 3339. Zero is no bound, as some clients send it.
pub fn time(field: &str, text: Option<&str>) -> Result<Option<UnixMs>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if let Ok(seconds) = text.parse::<f64>() {
        let at = UnixMs((seconds.max(0.0) * 1000.0) as u64);
        return Ok((at.0 > 0).then_some(at));
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(Some(UnixMs(u64::try_from(at.as_millisecond()).unwrap_or(0)))),
        Err(_) => Err(ApiError::invalid(format!("{field}: {text:?} is no time: Unix seconds or RFC 3339 is wanted"))),
    }
}

/// With the time before it, where it is asked for.
fn stamped(line: &LogLine, timestamps: bool) -> Bytes {
    if !timestamps {
        return line.line.clone();
    }
    [line.time.as_bytes(), b" ", &line.line].concat().into()
}

/// What stands before a line whose details are asked for, in the order of their names as Docker has them: `env=1,label=x `.
fn details(attributes: impl IntoIterator<Item = (String, String)>) -> String {
    let mut pairs: Vec<(String, String)> = attributes.into_iter().collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{} ", pairs.join(",")) }
}

fn with(details: &str, line: &LogLine, timestamps: bool) -> Bytes {
    stamped(&LogLine { line: [details.as_bytes(), &line.line].concat().into(), ..line.clone() }, timestamps)
}

/// A line of a container's log.
pub fn of_container(line: &LogLine, query: &LogsQuery) -> Bytes {
    let timestamps = truthy(query.timestamps.as_deref());
    match truthy(query.details.as_deref()) && !line.attributes.is_empty() {
        true => with(&details(line.attributes.clone()), line, timestamps),
        false => stamped(line, timestamps),
    }
}

fn render(line: &LogLine, service: ServiceId, timestamps: bool, wants_details: bool) -> Bytes {
    if !wants_details {
        return stamped(line, timestamps);
    }
    let of_swarm = [
        ("com.docker.swarm.node.id", line.node.to_string()),
        ("com.docker.swarm.service.id", service.to_string()),
        ("com.docker.swarm.task.id", line.task.to_string()),
    ];
    let of_swarm = of_swarm.map(|(key, value)| (key.to_owned(), value));
    with(&details(line.attributes.clone().into_iter().chain(of_swarm)), line, timestamps)
}
