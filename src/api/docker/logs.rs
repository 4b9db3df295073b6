//! Logs of services and tasks.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;

use super::truthy;
use crate::api::{ApiError, Backend, LogLine, LogOptions, Read, lookup};
use crate::spec::{ServiceId, TaskId, UnixMs};

#[derive(Debug, Deserialize)]
pub struct LogsQuery {
    stdout: Option<String>,
    stderr: Option<String>,
    follow: Option<String>,
    tail: Option<String>,
    since: Option<String>,
    until: Option<String>,
    timestamps: Option<String>,
    details: Option<String>,
}

pub async fn of_service<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &wanted)?;
    let tasks = read.state.tasks_of_service(service.id).map(|task| task.id).collect();
    stream(&*backend, &read, service.id, tasks, query).await
}

pub async fn of_task<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let task = lookup::task(&read.state, &wanted)?;
    stream(&*backend, &read, task.service, vec![task.id], query).await
}

async fn stream<B: Backend>(
    backend: &B,
    read: &Read,
    service: ServiceId,
    tasks: Vec<TaskId>,
    query: LogsQuery,
) -> Result<Response, ApiError> {
    let tty = tasks.iter().any(|task| {
        let spec = read.state.task(*task).and_then(|task| read.state.task_spec(task.service, task.spec_version));
        spec.is_some_and(|spec| spec.container.tty)
    });
    let options = options(&query)?;
    let (timestamps, details) = (truthy(query.timestamps.as_deref()), truthy(query.details.as_deref()));
    let lines = backend.logs(tasks, options).await?;
    let frames = lines.map(move |line| {
        let text = render(&line, service, timestamps, details);
        Ok::<_, std::convert::Infallible>(if tty { text } else { frame(line.stderr, &text) })
    });
    let content_type =
        if tty { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" };
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from_stream(frames)).into_response())
}

fn options(query: &LogsQuery) -> Result<LogOptions, ApiError> {
    let (stdout, stderr) = (truthy(query.stdout.as_deref()), truthy(query.stderr.as_deref()));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let tail = match query.tail.as_deref() {
        None | Some("" | "all") => None,
        Some(text) => {
            Some(text.parse().map_err(|_| ApiError::invalid(format!("tail: {text:?} is no number, nor \"all\"")))?)
        }
    };
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
fn time(field: &str, text: Option<&str>) -> Result<Option<UnixMs>, ApiError> {
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

fn render(line: &LogLine, service: ServiceId, timestamps: bool, details: bool) -> Bytes {
    let mut text = BytesMut::with_capacity(line.line.len() + 160);
    if timestamps {
        text.put_slice(line.time.as_bytes());
        text.put_u8(b' ');
    }
    if details {
        let (node, task) = (line.node, line.task);
        let details = format!(
            "com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} "
        );
        text.put_slice(details.as_bytes());
    }
    text.put_slice(&line.line);
    text.freeze()
}

/// Docker's stream framing: which stream, three zeros, the length as a big-endian u32.
fn frame(stderr: bool, text: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + text.len());
    frame.put_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0]);
    frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    frame.put_slice(text);
    frame.freeze()
}
