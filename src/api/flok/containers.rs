//! Containers for flok's own commands: found by a service's name too, and their ports from anywhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::docker::containers::{Here, find};
use crate::api::docker::hijack::Hijack;
use crate::api::query::Query;
use crate::api::{ApiError, Backend};

#[derive(Debug, Deserialize)]
pub struct ForwardQuery {
    port: u16,
}

/// The container that a name means; of a service's tasks one that runs, this node's first.
pub async fn find<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({"Id": find::by_service_too(&*backend, &name).await?})))
}

/// A connection to a port of the container, as if from inside it.
pub async fn forward<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<ForwardQuery>,
    hijack: Hijack,
) -> Result<Response, ApiError> {
    let stream = backend.container_dial(container.task.task, query.port).await?;
    hijack.join(stream).ok_or_else(|| ApiError::invalid("a forwarded port needs a request with `Upgrade: tcp`"))
}
