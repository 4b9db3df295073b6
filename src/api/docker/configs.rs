//! `/configs`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bollard::models as docker;
use serde::Deserialize;
use serde_json::json;

use super::{Docker, ListQuery, UpdateQuery, answer};
use crate::api::convert::{config_spec_from_docker, config_to_docker};
use crate::api::filters::Filters;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, lookup};
use crate::spec::{ConfigId, Version};
use crate::state::{Command, Config};

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &["id", "name", "names", "label"])?;
    let read = backend.read().await?;
    let wanted = |config: &&Arc<Config>| {
        filters.id("id", &config.id.to_string())
            && filters.name_prefix(&config.spec.name)
            && filters.any("names", |name| name == config.spec.name)
            && filters.labels("label", &config.spec.labels)
    };
    let shown: Vec<docker::Config> =
        read.state.configs().filter(wanted).map(|config| config_to_docker(config)).collect();
    Ok(answer(&read, shown))
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let config = lookup::config(&read.state, &wanted)?;
    Ok(answer(&read, config_to_docker(&config)))
}

/// A config as a client sends it, with what secrets alone have in Docker.
#[derive(Debug, Deserialize)]
pub struct ConfigBody {
    #[serde(flatten)]
    spec: docker::ConfigSpec,
    #[serde(rename = "Driver")]
    driver: Option<docker::Driver>,
}

impl ConfigBody {
    fn refuse_driver(&self) -> Result<(), ApiError> {
        let Some(driver) = self.driver.as_ref().filter(|driver| !driver.name.is_empty()) else { return Ok(()) };
        Err(ApiError::invalid(format!(
            "config {}: a config has no driver, and {:?} would not be heeded: leave it out, and give the data",
            self.spec.name.as_deref().unwrap_or_default(),
            driver.name
        )))
    }
}

pub async fn create<B: Backend>(
    State(backend): State<Arc<B>>,
    Docker(body): Docker<ConfigBody>,
) -> Result<Response, ApiError> {
    body.refuse_driver()?;
    let spec = config_spec_from_docker(body.spec)?;
    // Before it is too large for the log.
    spec.validate().map_err(|invalid| ApiError::invalid(invalid.to_string()))?;
    let id = ConfigId(backend.new_id());
    backend.propose(Command::CreateConfig { id, spec }).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id.to_string() }))).into_response())
}

/// Only labels can be changed; what is left out stays as it is.
pub async fn update<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<UpdateQuery>,
    Docker(body): Docker<ConfigBody>,
) -> Result<StatusCode, ApiError> {
    body.refuse_driver()?;
    let read = backend.read().await?;
    let config = lookup::config(&read.state, &wanted)?;
    let mut spec = config_spec_from_docker(body.spec)?;
    if spec.data.is_empty() {
        spec.data = config.spec.data.clone();
    }
    spec.templating = spec.templating.or_else(|| config.spec.templating.clone());
    backend.propose(Command::UpdateConfig { id: config.id, version: Version(query.version), spec }).await?;
    Ok(StatusCode::OK)
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<StatusCode, ApiError> {
    let read = backend.read().await?;
    let config = lookup::config(&read.state, &wanted)?;
    backend.propose(Command::RemoveConfig { id: config.id }).await?;
    Ok(StatusCode::NO_CONTENT)
}
