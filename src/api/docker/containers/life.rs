//! Signals to a container and its end. The swarm goes on as its service says: a task that is stopped here is replaced by
//! another under the service's restart policy.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Here, show};
use crate::api::docker::ListQuery;
use crate::api::filters::Filters;
use crate::api::journal::Journal;
use crate::api::query::Query;
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

#[derive(Debug, Clone, Copy, Deserialize)]
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
    Extension(journal): Extension<Journal>,
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
    backend.container_signal(container.task.task, Some(signal.clone())).await?;
    journal.container(&container, "kill", &[("signal", number(&signal))], backend.now());
    if kills {
        let _ = timeout(KILLED_WITHIN, backend.container_wait(container.task.task, WaitFor::NotRunning)).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub async fn stop<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    Query(query): Query<Signal>,
) -> Result<StatusCode, ApiError> {
    if show::state(&container) != "running" {
        return Ok(StatusCode::NOT_MODIFIED);
    }
    let task = container.task.task;
    let signal = query.signal.filter(|signal| !signal.is_empty());
    backend.container_signal(task, signal.clone()).await?;
    let sent = signal.or_else(|| container.task.spec.container.stop_signal.clone());
    let sent = number(sent.as_deref().unwrap_or("TERM"));
    journal.container(&container, "kill", &[("signal", sent)], backend.now());
    let ended = || backend.container_wait(task, WaitFor::NotRunning);
    // Negative: as long as it takes.
    let grace = match query.t {
        Some(seconds) => u64::try_from(seconds).map_or(MAX_GRACE, Duration::from_secs).min(MAX_GRACE),
        None => container.task.spec.container.stop_grace.unwrap_or(DEFAULT_STOP_GRACE),
    };
    if timeout(grace, ended()).await.is_err() {
        backend.container_signal(task, Some("KILL".to_owned())).await?;
        journal.container(&container, "kill", &[("signal", number("KILL"))], backend.now());
        let killed = timeout(KILLED_WITHIN, ended()).await;
        killed
            .map_err(|_| ApiError::Internal(format!("container {} does not end, not even by SIGKILL", container.id)))?;
    }
    journal.container(&container, "stop", &[], backend.now());
    Ok(StatusCode::NO_CONTENT)
}

/// As Docker's events have it, whichever way it was written.
fn number(signal: &str) -> String {
    let name = signal.trim_start_matches("SIG").to_ascii_uppercase();
    let known = format!("SIG{name}").parse::<nix::sys::signal::Signal>();
    known.map_or_else(|_| name, |known| (known as i32).to_string())
}

/// Stops it where it runs: the swarm starts the slot's next task, which is a container of its own.
pub async fn restart<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    query: Query<Signal>,
) -> Result<StatusCode, ApiError> {
    if show::state(&container) != "running" {
        return Err(ApiError::Conflict(format!(
            "container {} has ended and does not start again: the swarm starts the next task of its slot",
            container.id
        )));
    }
    let here = Here(Arc::clone(&container));
    stop(State(Arc::clone(&backend)), Extension(journal.clone()), here, query).await?;
    journal.container(&container, "restart", &[], backend.now());
    Ok(StatusCode::NO_CONTENT)
}

const PRUNE_FILTERS: [&str; 3] = ["label", "label!", "until"];

/// Takes nothing away: what has ended is the history that the swarm keeps of a slot, and removes by itself.
pub async fn prune(Query(query): Query<ListQuery>) -> Result<Json<Value>, ApiError> {
    Filters::parse(query.filters.as_deref(), &PRUNE_FILTERS)?;
    Ok(Json(json!({"ContainersDeleted": [], "SpaceReclaimed": 0})))
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
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    Query(size): Query<Size>,
) -> Result<StatusCode, ApiError> {
    if show::state(&container) != "running" {
        return Err(ApiError::Conflict(format!("container {} is not running", container.id)));
    }
    backend.container_resize(container.task.task, size.into()).await?;
    let size = [("height", size.h.to_string()), ("width", size.w.to_string())];
    journal.container(&container, "resize", &size, backend.now());
    Ok(StatusCode::OK)
}
