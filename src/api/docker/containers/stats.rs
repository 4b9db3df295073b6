//! `docker stats` and `docker top`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::{Here, show};
use crate::api::docker::truthy;
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, Container, Usage};

const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
pub struct StatsQuery {
    stream: Option<String>,
    #[serde(rename = "one-shot")]
    one_shot: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct TopQuery {
    ps_args: Option<String>,
}

pub async fn stats<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<StatsQuery>,
) -> Result<Response, ApiError> {
    let goes_on = query.stream.as_deref().is_none_or(|stream| truthy(Some(stream)));
    let task = container.task.task;
    if show::state(&container) != "running" {
        let nothing = Usage::default();
        return Ok(Json(shown(&container, (backend.now(), &nothing), None)).into_response());
    }
    if !goes_on {
        let mut before = None;
        if !truthy(query.one_shot.as_deref()) {
            before = Some((backend.now(), backend.container_usage(task).await?));
            sleep(EVERY).await;
        }
        let usage = backend.container_usage(task).await?;
        return Ok(Json(shown(&container, (backend.now(), &usage), before.as_ref())).into_response());
    }
    // The first at once, without a difference; then one a second until it ends or nobody reads.
    let lines = stream::unfold(None, move |before: Option<(Timestamp, Usage)>| {
        let (backend, container) = (Arc::clone(&backend), Arc::clone(&container));
        async move {
            if before.is_some() {
                sleep(EVERY).await;
            }
            let now = (backend.now(), backend.container_usage(task).await.ok()?);
            let line = format!("{}\n", shown(&container, (now.0, &now.1), before.as_ref()));
            Some((Ok::<_, std::convert::Infallible>(line), Some(now)))
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

pub async fn top<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    Query(query): Query<TopQuery>,
) -> Result<Json<Value>, ApiError> {
    if show::state(&container) != "running" {
        return Err(ApiError::Conflict(format!("container {} is not running", container.id)));
    }
    let args = query.ps_args.filter(|args| !args.trim().is_empty()).unwrap_or_else(|| "-ef".to_owned());
    let args = args.split_whitespace().map(str::to_owned).collect();
    let (titles, rows) = backend.container_top(container.task.task, args).await?;
    journal.container(&container, "top", &[], backend.now());
    Ok(Json(json!({"Titles": titles, "Processes": rows})))
}

fn shown(container: &Container, (at, usage): (Timestamp, &Usage), before: Option<&(Timestamp, Usage)>) -> Value {
    let networks: Map<String, Value> = usage
        .interfaces
        .iter()
        .map(|interface| {
            let ([rx_bytes, rx_packets, rx_errors, rx_dropped], [tx_bytes, tx_packets, tx_errors, tx_dropped]) =
                (interface.received, interface.sent);
            let shown = json!({
                "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
                "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
            });
            (interface.name.clone(), shown)
        })
        .collect();
    let blocks = [("read", usage.read_bytes), ("write", usage.written_bytes)];
    let blocks = blocks.map(|(op, value)| json!({"major": 0, "minor": 0, "op": op, "value": value}));
    let before_at = before.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |(at, _)| at.to_string());
    json!({
        "id": container.id,
        "name": format!("/{}", container.task.name),
        "read": at.to_string(),
        "preread": before_at,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {"current": usage.processes, "limit": usage.processes_limit},
        "cpu_stats": cpu(usage),
        "precpu_stats": before.map_or_else(|| cpu(&Usage::default()), |(_, usage)| cpu(usage)),
        "memory_stats": {"usage": usage.memory_bytes, "limit": usage.memory_limit_bytes, "stats": {}},
        "blkio_stats": {"io_service_bytes_recursive": blocks},
        "networks": networks,
    })
}

fn cpu(usage: &Usage) -> Value {
    json!({
        "cpu_usage": {
            "total_usage": usage.cpu_total_ns,
            "usage_in_usermode": usage.cpu_user_ns,
            "usage_in_kernelmode": usage.cpu_system_ns,
        },
        "system_cpu_usage": usage.host_cpu_ns,
        "online_cpus": usage.cpus,
        "throttling_data": {
            "periods": usage.throttled_periods,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_ns,
        },
    })
}
