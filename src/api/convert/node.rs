//! Nodes.

use bollard::models as docker;

use super::service::generic_out;
use super::swarm::tls_info;
use super::{date, labels_in, labels_out, list_out, signed, version};
use crate::api::view::conditions;
use crate::api::{ApiError, Read};
use crate::spec::*;
use crate::state::{Node, NodeHealth, RaftStanding};

pub fn node_spec_from_docker(spec: docker::NodeSpec) -> Result<NodeSpec, ApiError> {
    use docker::{NodeSpecAvailabilityEnum as Available, NodeSpecRoleEnum as NodeRole};
    Ok(NodeSpec {
        name: spec.name.filter(|name| !name.is_empty()),
        labels: labels_in(spec.labels),
        role: match spec.role {
            Some(NodeRole::WORKER) => Role::Worker,
            Some(NodeRole::MANAGER) => Role::Manager,
            _ => return Err(ApiError::invalid("Role: worker or manager is wanted")),
        },
        availability: match spec.availability {
            Some(Available::ACTIVE) => Availability::Active,
            Some(Available::PAUSE) => Availability::Pause,
            Some(Available::DRAIN) => Availability::Drain,
            _ => return Err(ApiError::invalid("Availability: active, pause or drain is wanted")),
        },
    })
}

/// A node as `GET /nodes` shows it.
pub fn node_to_docker(node: &Node, read: &Read) -> docker::Node {
    let description = &node.description;
    let heard = read.observed.get(node.id).is_some();
    let (state, message) = match node.health {
        NodeHealth::Unknown => (docker::NodeState::UNKNOWN, "admitted, not heard yet".to_owned()),
        NodeHealth::Up if heard || read.stale.is_some() => (docker::NodeState::READY, String::new()),
        NodeHealth::Up => (docker::NodeState::READY, "not heard by this manager yet".to_owned()),
        NodeHealth::Down { since, .. } => (docker::NodeState::DOWN, format!("not reachable since {}", date(since))),
        NodeHealth::HeldDown { until } => {
            (docker::NodeState::READY, format!("back after an outage; gets no new tasks until {}", date(until)))
        }
        NodeHealth::Left { since } => (docker::NodeState::DOWN, format!("left at {}", date(since))),
    };
    let told = conditions(node.id, read).iter().map(|condition| condition.detail.as_str());
    let message = Some(message.as_str()).filter(|message| !message.is_empty()).into_iter().chain(told);
    let message = message.collect::<Vec<_>>().join("; ");
    let down = matches!(node.health, NodeHealth::Down { .. } | NodeHealth::Left { .. });
    let is_missed = read.stale.as_ref().is_some_and(|stale| stale.missing.iter().any(|name| name == node.name()));
    docker::Node {
        id: Some(node.id.to_string()),
        version: version(node.meta.version),
        created_at: Some(date(node.meta.created_at)),
        updated_at: Some(date(node.meta.updated_at)),
        spec: Some(docker::NodeSpec {
            name: node.spec.name.clone(),
            labels: labels_out(&node.spec.labels),
            role: Some(match node.spec.role {
                Role::Worker => docker::NodeSpecRoleEnum::WORKER,
                Role::Manager => docker::NodeSpecRoleEnum::MANAGER,
            }),
            availability: Some(match node.spec.availability {
                Availability::Active => docker::NodeSpecAvailabilityEnum::ACTIVE,
                Availability::Pause => docker::NodeSpecAvailabilityEnum::PAUSE,
                Availability::Drain => docker::NodeSpecAvailabilityEnum::DRAIN,
            }),
        }),
        description: Some(description_out(description, read.state.swarm().map(|swarm| tls_info(swarm)))),
        status: Some(docker::NodeStatus {
            state: Some(state),
            message: (!message.is_empty()).then_some(message),
            addr: Some(description.addr.to_string()),
        }),
        manager_status: node.is_manager().then(|| docker::ManagerStatus {
            leader: (read.leader == Some(node.id)).then_some(true),
            reachability: Some(match (down || is_missed, node.raft.map(|raft| raft.standing)) {
                (true, _) => docker::Reachability::UNREACHABLE,
                (false, Some(RaftStanding::Voter | RaftStanding::Standby)) => docker::Reachability::REACHABLE,
                (false, None) => docker::Reachability::UNKNOWN,
            }),
            addr: Some(node.transport_addr().to_string()),
        }),
    }
}

/// What every node has of the kinds that plugins can be.
fn plugins() -> Vec<docker::EngineDescriptionPlugins> {
    let kinds: [(&str, &[&str]); 3] = [
        ("Log", &["json-file", "local", "journald", "syslog", "none"]),
        ("Network", &["bridge", "host", "null", "overlay"]),
        ("Volume", &["local"]),
    ];
    let plugin = |kind: &str, name: &str| docker::EngineDescriptionPlugins {
        typ: Some(kind.to_owned()),
        name: Some(name.to_owned()),
    };
    kinds.iter().flat_map(|(kind, names)| names.iter().map(move |name| plugin(kind, name))).collect()
}

fn description_out(description: &NodeDescription, tls_info: Option<docker::TlsInfo>) -> docker::NodeDescription {
    let resources = &description.resources;
    docker::NodeDescription {
        hostname: Some(description.hostname.clone()),
        platform: Some(platform_out(&description.platform)),
        resources: Some(docker::ResourceObject {
            nano_cpus: signed(resources.nano_cpus),
            memory_bytes: signed(resources.memory_bytes),
            generic_resources: list_out(&resources.generic.iter().map(generic_out).collect::<Vec<_>>()),
        }),
        engine: Some(docker::EngineDescription {
            engine_version: Some(description.engine_version.clone()),
            labels: labels_out(&description.engine_labels),
            plugins: Some(plugins()),
        }),
        tls_info,
    }
}

pub fn platform_out(platform: &Platform) -> docker::Platform {
    docker::Platform { architecture: Some(platform.architecture.clone()), os: Some(platform.os.clone()) }
}
