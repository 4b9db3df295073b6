//! `/nodes`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bollard::models as docker;
use serde::Deserialize;

use super::{Docker, ListQuery, UpdateQuery, answer, truthy};
use crate::api::convert::{node_spec_from_docker, node_to_docker};
use crate::api::filters::Filters;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, lookup};
use crate::spec::{Role, Version};
use crate::state::Command;

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let known = ["id", "name", "label", "node.label", "role", "membership"];
    let filters = Filters::parse(query.filters.as_deref(), &known)?;
    filters.one_of("role", &["worker", "manager"])?;
    filters.one_of("membership", &["accepted", "pending"])?;
    let read = backend.read().await?;
    let shown: Vec<docker::Node> = read
        .state
        .nodes()
        .filter(|node| {
            let role = if node.spec.role == Role::Manager { "manager" } else { "worker" };
            filters.id("id", &node.id.to_string())
                && filters.name_prefix(node.name())
                && filters.any("role", |wanted| wanted == role)
                && filters.any("membership", |wanted| wanted == "accepted")
                && filters.labels("label", &node.description.engine_labels)
                && filters.labels("node.label", &node.spec.labels)
        })
        .map(|node| node_to_docker(node, &read))
        .collect();
    Ok(answer(&read, shown))
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let node = lookup::node(&read.state, &wanted)?;
    Ok(answer(&read, node_to_docker(&node, &read)))
}

pub async fn update<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<UpdateQuery>,
    Docker(body): Docker<docker::NodeSpec>,
) -> Result<StatusCode, ApiError> {
    let read = backend.read().await?;
    let node = lookup::node(&read.state, &wanted)?;
    let spec = node_spec_from_docker(body)?;
    backend.propose(Command::UpdateNode { id: node.id, version: Version(query.version), spec }).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Deserialize)]
pub struct RemoveQuery {
    force: Option<String>,
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    let read = backend.read().await?;
    let node = lookup::node(&read.state, &wanted)?;
    backend.propose(Command::RemoveNode { id: node.id, force: truthy(query.force.as_deref()) }).await?;
    Ok(StatusCode::OK)
}
