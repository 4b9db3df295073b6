//! `/swarm`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bollard::models as docker;
use serde::Deserialize;
use serde_json::json;

use super::{Body, answer, truthy};
use crate::api::convert::{swarm_spec_from_docker, swarm_to_docker};
use crate::api::query::Query;
use crate::api::{ApiError, Backend, InitSwarm, JoinSwarm, Read};
use crate::spec::{Availability, Role, SwarmSpec, UnlockKey, Version};
use crate::state::{Command, Swarm};

/// Docker's clients send more than the models hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub struct InitBody {
    listen_addr: Option<String>,
    advertise_addr: Option<String>,
    force_new_cluster: bool,
    auto_lock_managers: bool,
    availability: Option<String>,
    default_addr_pool: Option<Vec<String>>,
    subnet_size: Option<u32>,
    data_path_port: Option<u32>,
    spec: Option<docker::SwarmSpec>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinBody {
    listen_addr: Option<String>,
    advertise_addr: Option<String>,
    remote_addrs: Option<Vec<String>>,
    join_token: Option<String>,
    availability: Option<String>,
}

pub async fn init<B: Backend>(
    State(backend): State<Arc<B>>,
    Body(body): Body<Option<InitBody>>,
) -> Result<Json<String>, ApiError> {
    let body = body.unwrap_or_default();
    let mut spec = swarm_spec_from_docker(body.spec.unwrap_or_default(), &SwarmSpec::default())?;
    spec.autolock |= body.auto_lock_managers;
    if let Some(pools) = body.default_addr_pool.filter(|pools| !pools.is_empty()) {
        spec.address_pools = pools;
    }
    if let Some(size) = body.subnet_size.filter(|size| *size != 0) {
        spec.subnet_size = u8::try_from(size)
            .ok()
            .filter(|size| (8..=29).contains(size))
            .ok_or_else(|| ApiError::invalid(format!("SubnetSize: {size} is not between 8 and 29")))?;
    }
    if let Some(port) = body.data_path_port.filter(|port| *port != 0) {
        spec.data_path_port =
            u16::try_from(port).map_err(|_| ApiError::invalid(format!("DataPathPort: {port} is no port")))?;
    }
    spec.validate().map_err(|invalid| ApiError::invalid(invalid.to_string()))?;
    let request = InitSwarm {
        advertise_addr: given(body.advertise_addr),
        listen_addr: given(body.listen_addr),
        force_new_cluster: body.force_new_cluster,
        availability: availability(body.availability.as_deref())?,
        spec,
    };
    Ok(Json(backend.swarm_init(request).await?.to_string()))
}

pub async fn join<B: Backend>(
    State(backend): State<Arc<B>>,
    Body(body): Body<JoinBody>,
) -> Result<StatusCode, ApiError> {
    let remote_addrs = body.remote_addrs.unwrap_or_default();
    if remote_addrs.is_empty() {
        return Err(ApiError::invalid("at least 1 RemoteAddr is required to join"));
    }
    let token = given(body.join_token).ok_or_else(|| {
        ApiError::invalid("a join token is required: `flok swarm join-token worker|manager` on a manager prints it")
    })?;
    let request = JoinSwarm {
        advertise_addr: given(body.advertise_addr),
        listen_addr: given(body.listen_addr),
        remote_addrs,
        token,
        availability: availability(body.availability.as_deref())?,
    };
    backend.swarm_join(request).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Deserialize)]
pub struct LeaveQuery {
    force: Option<String>,
}

pub async fn leave<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<LeaveQuery>,
) -> Result<StatusCode, ApiError> {
    backend.swarm_leave(truthy(query.force.as_deref())).await?;
    Ok(StatusCode::OK)
}

pub async fn inspect<B: Backend>(State(backend): State<Arc<B>>) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let token = |role| backend.join_token(&read.state, role).unwrap_or_default();
    let shown = swarm_to_docker(swarm_of(&read)?, token(Role::Worker), token(Role::Manager));
    Ok(answer(&read, shown))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateQuery {
    version: u64,
    rotate_worker_token: Option<String>,
    rotate_manager_token: Option<String>,
    rotate_manager_unlock_key: Option<String>,
}

pub async fn update<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<UpdateQuery>,
    Body(body): Body<docker::SwarmSpec>,
) -> Result<StatusCode, ApiError> {
    let read = backend.read().await?;
    let swarm = swarm_of(&read)?;
    let spec = swarm_spec_from_docker(body, &swarm.spec)?;
    let mut commands = Vec::new();
    let mut version = Some(Version(query.version));
    for (rotate, role) in [(query.rotate_worker_token, Role::Worker), (query.rotate_manager_token, Role::Manager)] {
        if truthy(rotate.as_deref()) {
            commands.push(Command::RotateToken { version: version.take(), role, secret: backend.new_token_secret() });
        }
    }
    let new_lock = spec.autolock && !swarm.spec.autolock || truthy(query.rotate_manager_unlock_key.as_deref());
    let unlock_key = new_lock.then(|| backend.new_unlock_key().bytes().clone());
    if spec != swarm.spec || unlock_key.is_some() || commands.is_empty() {
        commands.insert(0, Command::UpdateSwarm { version: Version(query.version), spec, unlock_key });
        if let Some(Command::RotateToken { version, .. }) = commands.get_mut(1) {
            *version = None;
        }
    }
    backend.propose(Command::Transaction(commands)).await?;
    Ok(StatusCode::OK)
}

/// Empty where nothing is locked, as Docker's is.
pub async fn unlock_key<B: Backend>(State(backend): State<Arc<B>>) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let key = swarm_of(&read)?.unlock_key.as_ref().and_then(UnlockKey::from_state);
    let key = key.map(|key| key.to_string()).unwrap_or_default();
    Ok(answer(&read, json!({ "UnlockKey": key })))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnlockBody {
    unlock_key: String,
}

pub async fn unlock<B: Backend>(
    State(backend): State<Arc<B>>,
    Body(body): Body<UnlockBody>,
) -> Result<StatusCode, ApiError> {
    let key = body.unlock_key.parse::<UnlockKey>().map_err(|error| ApiError::invalid(error.to_string()))?;
    backend.swarm_unlock(key).await?;
    Ok(StatusCode::OK)
}

fn swarm_of(read: &Read) -> Result<&Swarm, ApiError> {
    let missing = || ApiError::Unavailable("this node has not caught up with the swarm yet: try again".into());
    read.state.swarm().map(|swarm| &**swarm).ok_or_else(missing)
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn availability(text: Option<&str>) -> Result<Availability, ApiError> {
    match text.unwrap_or_default() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(ApiError::invalid(format!("Availability {other:?}: active, pause or drain is wanted"))),
    }
}
