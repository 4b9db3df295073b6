//! `/services`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bollard::models as docker;
use serde::Deserialize;
use serde_json::json;

use super::{Docker, answer, boolean, names};
use crate::api::convert::{ServiceShown, service_spec_from_docker};
use crate::api::filters::Filters;
use crate::api::query::Query;
use crate::api::view::counts;
use crate::api::{ApiError, Backend, Read, lookup};
use crate::spec::stack::{Feature, Features};
use crate::spec::*;
use crate::state::{Command, CredentialsUpdate, Service};

#[derive(Debug, Deserialize)]
pub struct ListQuery {
    filters: Option<String>,
    status: Option<String>,
}

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &["id", "name", "label", "mode", "runtime"])?;
    let read = backend.read().await?;
    let with_status = boolean("status", query.status.as_deref())?;
    let shown: Vec<ServiceShown> = read
        .state
        .services()
        .filter(|service| {
            filters.id("id", &service.id.to_string())
                && filters.name_prefix(&service.spec.name)
                && filters.labels("label", &service.spec.labels)
                && filters.any("mode", |wanted| wanted == mode_name(service.spec.mode))
                && filters.any("runtime", |wanted| wanted == "container")
        })
        .map(|service| show(service, &read, with_status))
        .collect();
    Ok(answer(&read, shown))
}

#[derive(Debug, Deserialize)]
pub struct InspectQuery {
    #[serde(rename = "insertDefaults")]
    insert_defaults: Option<String>,
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<InspectQuery>,
) -> Result<Response, ApiError> {
    let with_defaults = boolean("insertDefaults", query.insert_defaults.as_deref())?;
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &wanted)?;
    let shown = show(&service, &read, false);
    let shown = if with_defaults { shown.with_defaults() } else { shown };
    Ok(answer(&read, shown))
}

pub async fn create<B: Backend>(
    State(backend): State<Arc<B>>,
    headers: HeaderMap,
    Docker(body): Docker<docker::ServiceSpec>,
) -> Result<Response, ApiError> {
    let mut warnings = unheeded(&body);
    let mut spec = service_spec_from_docker(body)?;
    if spec.name.is_empty() {
        spec.name = names::made_up(backend.new_id());
    }
    refuse_unsupported(&spec)?;
    warnings.extend(waits_for(&spec));
    let id = ServiceId(backend.new_id());
    let command = Command::CreateService { id, spec: Box::new(spec), credentials: credentials(&headers) };
    backend.propose(command).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id.to_string(), "Warnings": warnings }))).into_response())
}

/// What its tasks will wait for.
fn waits_for(spec: &ServiceSpec) -> Vec<String> {
    spec.unmet().into_iter().map(|fault| format!("{}; its tasks wait until it is changed", fault.why)).collect()
}

/// What was said and means less than it says. Not of an update: a client sends back what it was shown.
fn unheeded(spec: &docker::ServiceSpec) -> Vec<String> {
    let mode = spec.mode.as_ref();
    let is_job = mode.is_some_and(|mode| mode.replicated_job.is_some() || mode.global_job.is_some());
    let restart = spec.task_template.as_ref().and_then(|task| task.restart_policy.as_ref());
    let any = restart.is_some_and(|restart| restart.condition == Some(docker::TaskSpecRestartPolicyConditionEnum::ANY));
    let warning = "restart condition any: a job's task that has completed is not run again: any means on-failure here";
    (is_job && any).then(|| warning.to_owned()).into_iter().collect()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateQuery {
    version: u64,
    rollback: Option<String>,
}

pub async fn update<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<UpdateQuery>,
    headers: HeaderMap,
    Docker(body): Docker<docker::ServiceSpec>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &wanted)?;
    let version = Version(query.version);
    let mut warnings = Vec::new();
    let command = match query.rollback.as_deref() {
        // The body is the spec in force, and does not count.
        Some("previous") => Command::RollbackService { id: service.id, version },
        Some(other) if !other.is_empty() => {
            return Err(ApiError::invalid(format!("unrecognized rollback option {other}")));
        }
        _ => {
            let mut spec = service_spec_from_docker(body)?;
            spec.keep_additions(&service.spec);
            refuse_unsupported(&spec)?;
            warnings = waits_for(&spec);
            let credentials = match credentials(&headers) {
                Some(auth) => CredentialsUpdate::Replace(auth),
                None => CredentialsUpdate::Keep,
            };
            Command::UpdateService { id: service.id, version, spec: Box::new(spec), credentials }
        }
    };
    backend.propose(command).await?;
    Ok(Json(json!({ "Warnings": warnings })))
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<StatusCode, ApiError> {
    let read = backend.read().await?;
    let service = lookup::service(&read.state, &wanted)?;
    backend.propose(Command::RemoveService { id: service.id }).await?;
    Ok(StatusCode::OK)
}

fn show(service: &Service, read: &Read, with_status: bool) -> ServiceShown {
    let shown = ServiceShown::new(service, &read.state);
    if !with_status {
        return shown;
    }
    let counts = counts(service, read);
    shown.with_status(docker::ServiceServiceStatus {
        running_tasks: Some(counts.running),
        desired_tasks: Some(counts.desired),
        completed_tasks: Some(counts.completed),
    })
}

pub fn mode_name(mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
        ServiceMode::ReplicatedJob { .. } => "replicated-job",
        ServiceMode::GlobalJob => "global-job",
    }
}

/// What the client sends with `--with-registry-auth`; the header for "none" counts as none.
fn credentials(headers: &HeaderMap) -> Option<SecretBytes> {
    let text = headers.get("X-Registry-Auth")?.as_bytes();
    let empty = text.is_empty() || matches!(text, b"e30" | b"e30=");
    (!empty).then(|| SecretBytes(text.to_vec()))
}

/// What a service may ask that this version cannot do yet: refused by name, never dropped.
pub fn refuse_unsupported(spec: &ServiceSpec) -> Result<(), ApiError> {
    let container = &spec.task.container;
    let lacks = |feature| !Features::supported().has(feature);
    let refused = [
        (lacks(Feature::Networks) && !spec.task.networks.is_empty(), "networks"),
        (lacks(Feature::IngressPorts) && spec.task.ingress, "ports in ingress mode (use mode=host)"),
        (container.mounts.iter().any(|mount| mount.kind == MountKind::Cluster), "cluster volumes"),
        (container.mounts.iter().any(|mount| mount.kind == MountKind::NamedPipe), "named pipes"),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, what)) => {
            Err(ApiError::NotImplemented(format!("service {}: {what} are not supported yet", spec.name)))
        }
    }
}
