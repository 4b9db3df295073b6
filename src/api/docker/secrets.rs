//! `/secrets`. What a secret holds is never told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bollard::models as docker;
use serde_json::json;

use super::{Docker, ListQuery, UpdateQuery, answer};
use crate::api::convert::{secret_spec_from_docker, secret_to_docker};
use crate::api::filters::Filters;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, lookup};
use crate::spec::{SecretId, Version};
use crate::state::{Command, Secret};

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &["id", "name", "names", "label"])?;
    let read = backend.read().await?;
    let wanted = |secret: &&Arc<Secret>| {
        filters.id("id", &secret.id.to_string())
            && filters.name_prefix(&secret.spec.name)
            && filters.any("names", |name| name == secret.spec.name)
            && filters.labels("label", &secret.spec.labels)
    };
    let shown: Vec<docker::Secret> =
        read.state.secrets().filter(wanted).map(|secret| secret_to_docker(secret)).collect();
    Ok(answer(&read, shown))
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let secret = lookup::secret(&read.state, &wanted)?;
    Ok(answer(&read, secret_to_docker(&secret)))
}

pub async fn create<B: Backend>(
    State(backend): State<Arc<B>>,
    Docker(body): Docker<docker::SecretSpec>,
) -> Result<Response, ApiError> {
    let spec = secret_spec_from_docker(body)?;
    // Before it is too large for the log.
    spec.validate().map_err(|invalid| ApiError::invalid(invalid.to_string()))?;
    let id = SecretId(backend.new_id());
    backend.propose(Command::CreateSecret { id, spec }).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id.to_string() }))).into_response())
}

/// Only labels can be changed; what is left out stays as it is.
pub async fn update<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<UpdateQuery>,
    Docker(body): Docker<docker::SecretSpec>,
) -> Result<StatusCode, ApiError> {
    let read = backend.read().await?;
    let secret = lookup::secret(&read.state, &wanted)?;
    let mut spec = secret_spec_from_docker(body)?;
    if spec.data.0.is_empty() {
        spec.data = secret.spec.data.clone();
    }
    spec.templating = spec.templating.or_else(|| secret.spec.templating.clone());
    backend.propose(Command::UpdateSecret { id: secret.id, version: Version(query.version), spec }).await?;
    Ok(StatusCode::OK)
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<StatusCode, ApiError> {
    let read = backend.read().await?;
    let secret = lookup::secret(&read.state, &wanted)?;
    backend.propose(Command::RemoveSecret { id: secret.id }).await?;
    Ok(StatusCode::NO_CONTENT)
}
