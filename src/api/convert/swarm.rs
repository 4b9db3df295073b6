//! The swarm as a whole.

use std::time::Duration;

use bollard::models as docker;

use super::{date, duration, labels_in, labels_out, nanos, signed, unsigned, version};
use crate::api::ApiError;
use crate::spec::SwarmSpec;
use crate::state::Swarm;

/// `base` gives what Docker's spec has no word for, or the client left out.
pub fn swarm_spec_from_docker(spec: docker::SwarmSpec, base: &SwarmSpec) -> Result<SwarmSpec, ApiError> {
    let expiry = spec.ca_config.and_then(|ca| ca.node_cert_expiry).filter(|expiry| *expiry != 0);
    let history = spec.orchestration.and_then(|orchestration| orchestration.task_history_retention_limit);
    Ok(SwarmSpec {
        labels: spec.labels.map_or_else(|| base.labels.clone(), |labels| labels_in(Some(labels))),
        task_history: match history {
            Some(limit) => unsigned("Orchestration.TaskHistoryRetentionLimit", Some(limit))?,
            None => base.task_history,
        },
        cert_expiry: match expiry {
            Some(expiry) => at_least_an_hour(duration("CAConfig.NodeCertExpiry", expiry)?)?,
            None => base.cert_expiry,
        },
        autolock: match spec.encryption_config.and_then(|encryption| encryption.auto_lock_managers) {
            Some(true) if !base.autolock => {
                return Err(ApiError::NotImplemented("autolock is not supported yet: leave --autolock out".into()));
            }
            Some(on) => on,
            None => base.autolock,
        },
        address_pools: base.address_pools.clone(),
        subnet_size: base.subnet_size,
        data_path_port: base.data_path_port,
    })
}

fn at_least_an_hour(expiry: Duration) -> Result<Duration, ApiError> {
    if expiry < Duration::from_secs(3600) {
        return Err(ApiError::invalid("CAConfig.NodeCertExpiry: at least one hour is wanted"));
    }
    Ok(expiry)
}

pub fn swarm_to_cluster(swarm: &Swarm) -> docker::ClusterInfo {
    docker::ClusterInfo {
        id: Some(swarm.id.to_string()),
        version: version(swarm.meta.version),
        created_at: Some(date(swarm.meta.created_at)),
        updated_at: Some(date(swarm.meta.updated_at)),
        spec: Some(spec_out(&swarm.spec)),
        tls_info: None,
        root_rotation_in_progress: Some(false),
        data_path_port: Some(u32::from(swarm.spec.data_path_port)),
        default_addr_pool: Some(swarm.spec.address_pools.clone()),
        subnet_size: Some(u32::from(swarm.spec.subnet_size)),
    }
}

/// With the join tokens, as `GET /swarm` shows it to those who may command the swarm.
pub fn swarm_to_docker(swarm: &Swarm, worker: String, manager: String) -> docker::Swarm {
    let cluster = swarm_to_cluster(swarm);
    docker::Swarm {
        id: cluster.id,
        version: cluster.version,
        created_at: cluster.created_at,
        updated_at: cluster.updated_at,
        spec: cluster.spec,
        tls_info: cluster.tls_info,
        root_rotation_in_progress: cluster.root_rotation_in_progress,
        data_path_port: cluster.data_path_port,
        default_addr_pool: cluster.default_addr_pool,
        subnet_size: cluster.subnet_size,
        join_tokens: Some(docker::JoinTokens { worker: Some(worker), manager: Some(manager) }),
    }
}

fn spec_out(spec: &SwarmSpec) -> docker::SwarmSpec {
    docker::SwarmSpec {
        name: Some("default".into()),
        labels: labels_out(&spec.labels),
        orchestration: Some(docker::SwarmSpecOrchestration { task_history_retention_limit: signed(spec.task_history) }),
        ca_config: Some(docker::SwarmSpecCaConfig {
            node_cert_expiry: Some(nanos(spec.cert_expiry)),
            ..Default::default()
        }),
        encryption_config: Some(docker::SwarmSpecEncryptionConfig { auto_lock_managers: Some(spec.autolock) }),
        ..Default::default()
    }
}
