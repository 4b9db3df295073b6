//! What a container prints: kept (`logs`), or from now on (`attach`).

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;

use super::{Here, show};
use crate::api::docker::hijack::{Hijack, Streams};
use crate::api::docker::logs::{LogsQuery, lenient_tail, of_container, options};
use crate::api::docker::truthy;
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, Container, LogLine, LogOptions};

#[derive(Debug, Deserialize)]
pub struct AttachQuery {
    logs: Option<String>,
    stream: Option<String>,
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
}

pub async fn logs<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    if container.task.spec.log_driver.as_ref().is_some_and(|driver| !driver.is_readable()) {
        return Err(ApiError::NotImplemented("configured logging driver does not support reading".into()));
    }
    let mut options = options(&query, lenient_tail(&query))?;
    // What has ended writes no more.
    options.follow &= show::finished(&container).is_none();
    let output = lines(&*backend, &container, options, move |line| of_container(line, &query));
    let raw = container.task.spec.container.tty;
    Ok(Hijack::none().carry(Streams { input: None, output, raw }))
}

/// What is printed from now on, and the input of a container that was made with one. A client that goes ends neither.
pub async fn attach<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    Query(query): Query<AttachQuery>,
    hijack: Hijack,
) -> Result<Response, ApiError> {
    let (from_start, goes_on) = (truthy(query.logs.as_deref()), truthy(query.stream.as_deref()));
    if goes_on && show::state(&container) == "exited" {
        return Err(ApiError::Conflict("You cannot attach to a stopped container, start it first".into()));
    }
    journal.container(&container, "attach", &[], backend.now());
    let (task, raw) = (container.task.task, container.task.spec.container.tty);
    let wants_input = goes_on && container.task.spec.container.stdin_open && truthy(query.stdin.as_deref());
    let input = if wants_input { Some(backend.container_input(task)?) } else { None };
    let (stdout, stderr) = (truthy(query.stdout.as_deref()), truthy(query.stderr.as_deref()));
    if goes_on
        && !from_start
        && let Ok(live) = backend.container_live(task).await
    {
        // A terminal has one stream for both.
        let wanted =
            move |(is_stderr, _): &(bool, Bytes)| std::future::ready(if *is_stderr && !raw { stderr } else { stdout });
        return Ok(hijack.carry(Streams { input, output: live.filter(wanted).boxed(), raw }));
    }
    let options =
        LogOptions { stdout, stderr, follow: goes_on, tail: (!from_start).then_some(0), since: None, until: None };
    let output = lines(&*backend, &container, options, |line| line.line.clone());
    Ok(hijack.carry(Streams { input, output, raw }))
}

fn lines<B: Backend>(
    backend: &B,
    container: &Container,
    options: LogOptions,
    render: impl Fn(&LogLine) -> Bytes + Send + 'static,
) -> BoxStream<'static, (bool, Bytes)> {
    let lines = backend.container_log(container.task.task, options);
    lines.map(move |line| (line.stderr, render(&line))).boxed()
}
