//! Signals to a container and its end. The swarm goes on as its service says: a task that is stopped here is replaced by
//! another under the service's restart policy.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{Here, show};
use crate::api::{ApiError, Backend, TerminalSize, WaitFor};
use crate::spec::DEFAULT_STOP_GRACE;

/// For a process to end after SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Deserialize)]
pub struct Signal {
    signal: Option<String>,
    t: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub struct Condition {
    condition: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Size {
    h: u32,
    w: u32,
}

impl From<Size> for TerminalSize {
    fn from(size: Size) -> TerminalSize {
        TerminalSize { width: size.w, height: size.h }
    }
}

pub async fn kill<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<Signal>,
) -> Result<StatusCode, ApiError> {
    if show::state(&container) != "running" {
        return Err(ApiError::Conflict(format!(
            "cannot kill container: {}: container {} is not running",
            container.task.name, container.id
        )));
    }
    let signal = query.signal.filter(|signal| !signal.is_empty()).unwrap_or_else(|| "KILL".to_owned());
    let kills = matches!(signal.trim_start_matches("SIG"), "KILL" | "9");
    backend.container_signal(container.task.task, Some(signal)).await?;
    if kills {
        let _ = timeout(KILLED_WITHIN, backend.container_wait(container.task.task, WaitFor::NotRunning)).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub async fn stop<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<Signal>,
) -> Result<StatusCode, ApiError> {
    if show::state(&container) != "running" {
        return Ok(StatusCode::NOT_MODIFIED);
    }
    let task = container.task.task;
    backend.container_signal(task, query.signal.filter(|signal| !signal.is_empty())).await?;
    let ended = || backend.container_wait(task, WaitFor::NotRunning);
    // Negative: as long as it takes.
    let grace = match query.t {
        Some(seconds) => u64::try_from(seconds).map_or(MAX_GRACE, Duration::from_secs).min(MAX_GRACE),
        None => container.task.spec.container.stop_grace.unwrap_or(DEFAULT_STOP_GRACE),
    };
    if timeout(grace, ended()).await.is_err() {
        backend.container_signal(task, Some("KILL".to_owned())).await?;
        let killed = timeout(KILLED_WITHIN, ended()).await;
        killed
            .map_err(|_| ApiError::Internal(format!("container {} does not end, not even by SIGKILL", container.id)))?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Stops it: the swarm starts the slot's next task, which is a container of its own.
pub async fn restart<B: Backend>(
    state: State<Arc<B>>,
    here: Here,
    query: Query<Signal>,
) -> Result<StatusCode, ApiError> {
    stop(state, here, query).await.map(|_| StatusCode::NO_CONTENT)
}

/// The head of the answer goes out at once: clients wait for it before they start what is waited for.
pub async fn wait<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<Condition>,
) -> Result<Response, ApiError> {
    let until = match query.condition.as_deref() {
        None | Some("" | "not-running") => WaitFor::NotRunning,
        Some("next-exit") => WaitFor::NextExit,
        Some("removed") => WaitFor::Removed,
        Some(other) => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let ended = async move {
        let code = backend.container_wait(container.task.task, until).await;
        Ok::<_, std::convert::Infallible>(format!("{}\n", json!({"StatusCode": code})))
    };
    let body = Body::from_stream(stream::once(ended));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub async fn resize<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(size): Query<Size>,
) -> Result<StatusCode, ApiError> {
    backend.container_resize(container.task.task, size.into()).await.map(|()| StatusCode::OK)
}
