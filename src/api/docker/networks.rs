//! `/networks`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bollard::models as docker;
use serde::Deserialize;
use serde_json::json;

use super::images::until;
use super::{Docker, ListQuery, answer, answer_of, truthy};
use crate::api::convert::{
    endpoints, endpoints_of_node, network_services, network_spec_from_docker, network_to_docker,
    node_network_to_docker, peers,
};
use crate::api::filters::Filters;
use crate::api::query::Query;
use crate::api::surroundings::refuse_unfit;
use crate::api::{ApiError, Backend, Membership, Read, WriteError, lookup};
use crate::spec::{Labels, NetworkId, NodeNetwork, Role};
use crate::state::{Command, Network, Refusal};

const FILTERS: [&str; 7] = ["id", "name", "label", "driver", "scope", "type", "dangling"];

/// The swarm's part; `None` on a node that cannot know it, which has its own networks all the same.
async fn of_swarm<B: Backend>(backend: &B) -> Result<Option<Read>, ApiError> {
    match backend.local().membership {
        Membership::Active { role: Role::Worker, .. } | Membership::Inactive | Membership::Locked => Ok(None),
        Membership::Active { role: Role::Manager, .. } | Membership::Pending => Ok(Some(backend.read().await?)),
    }
}

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    filters.one_of("type", &["builtin", "custom"])?;
    let dangling = filters.flag("dangling")?;
    let read = of_swarm(&*backend).await?;
    let is_used = |id| read.as_ref().is_some_and(|read| read.state.network_user(id).is_some());
    let wanted = |network: &&Arc<Network>| {
        filters.id("id", &network.id.to_string())
            && filters.name(&network.spec.name)
            && filters.labels("label", &network.spec.labels)
            && filters.any("driver", |driver| driver == "overlay")
            && filters.any("scope", |scope| scope == "swarm")
            && filters.any("type", |kind| kind == "custom")
            && dangling.is_none_or(|wanted| wanted != is_used(network.id))
    };
    let of_nodes = |network: &NodeNetwork| {
        filters.id("id", network.name())
            && filters.name(network.name())
            && filters.labels("label", &Labels::new())
            && filters.any("driver", |driver| driver == network.driver())
            && filters.any("scope", |scope| scope == "local")
            && filters.any("type", |kind| kind == "builtin")
            && filters.any("dangling", |wanted| !truthy(Some(wanted)))
    };
    let of_swarm = read.iter().flat_map(|read| read.state.networks().filter(wanted));
    let of_swarm = of_swarm.map(|network| network_to_docker(network));
    let of_nodes = NodeNetwork::ALL.into_iter().filter(of_nodes).map(node_network_to_docker);
    let shown: Vec<docker::NetworkInspect> = of_swarm.chain(of_nodes).collect();
    Ok(answer_of(read.as_ref(), shown))
}

#[derive(Debug, Deserialize)]
pub struct InspectQuery {
    verbose: Option<String>,
    scope: Option<String>,
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Query(query): Query<InspectQuery>,
) -> Result<Response, ApiError> {
    let read = of_swarm(&*backend).await?;
    // A service names one as it names those of the swarm, so its scope is no matter.
    if let Some(network) = NodeNetwork::named(&wanted) {
        let mut shown = node_network_to_docker(network);
        shown.containers = Some(endpoints_of_node(network, &backend.connected()));
        return Ok(answer_of(read.as_ref(), shown));
    }
    let read = read.ok_or_else(|| ApiError::not_found("network", &wanted))?;
    let network = lookup::network(&read.state, &wanted)?;
    if query.scope.is_some_and(|scope| !matches!(scope.as_str(), "" | "swarm")) {
        return Err(ApiError::not_found("network", &wanted));
    }
    let mut shown = network_to_docker(&network);
    shown.containers = Some(endpoints(network.id, &backend.connected()));
    shown.peers = Some(peers(&network, &read.state));
    if truthy(query.verbose.as_deref()) {
        shown.services = Some(network_services(&network, &read));
    }
    Ok(answer(&read, shown))
}

pub async fn create<B: Backend>(
    State(backend): State<Arc<B>>,
    Docker(body): Docker<docker::NetworkCreateRequest>,
) -> Result<Response, ApiError> {
    let spec = network_spec_from_docker(body)?;
    refuse_unfit(&spec, &backend.read().await?)?;
    let id = NetworkId(backend.new_id());
    let unmet = spec.unmet().into_iter().map(|fault| format!("{}; tasks on it wait until it is changed", fault.why));
    let warning = unmet.collect::<Vec<_>>().join("; ");
    backend.propose(Command::CreateNetwork { id, spec }).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id.to_string(), "Warning": warning }))).into_response())
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<StatusCode, ApiError> {
    if NodeNetwork::named(&wanted).is_some() {
        return Err(ApiError::Forbidden(format!("{wanted} is a pre-defined network and cannot be removed")));
    }
    let read = backend.read().await?;
    let network = lookup::network(&read.state, &wanted)?;
    backend.propose(Command::RemoveNetwork { id: network.id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes what nobody uses, but for the ingress network, which waits for its first service.
pub async fn prune<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<docker::NetworkPruneResponse>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &["label", "label!", "until"])?;
    let until = until(&filters, backend.now())?;
    let Some(read) = of_swarm(&*backend).await? else {
        return Ok(Json(docker::NetworkPruneResponse { networks_deleted: Some(Vec::new()) }));
    };
    let unused = |network: &&Arc<Network>| {
        !network.spec.ingress
            && filters.wants_labels(&network.spec.labels)
            && until.is_none_or(|until| network.meta.created_at < until)
            && read.state.network_user(network.id).is_none()
    };
    let mut deleted = Vec::new();
    for network in read.state.networks().filter(unused) {
        match backend.propose(Command::RemoveNetwork { id: network.id }).await {
            Ok(_) => deleted.push(network.spec.name.clone()),
            // Used or removed by somebody else meanwhile.
            Err(WriteError::Refused(Refusal::Precondition(_) | Refusal::NotFound(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(docker::NetworkPruneResponse { networks_deleted: Some(deleted) }))
}
