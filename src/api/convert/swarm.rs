//! The swarm as a whole.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard::models as docker;

use super::{date, duration, labels_in, labels_out, nanos, signed, unsigned, version};
use crate::api::ApiError;
use crate::spec::SwarmSpec;
use crate::state::Swarm;

/// What Docker's spec says where nobody has asked for anything, and what flok shows: clients send back what they read.
const SNAPSHOT_INTERVAL: u64 = 10_000;
const ENTRIES_FOR_SLOW_FOLLOWERS: u64 = 500;
const ELECTION_TICK: i64 = 10;
const HEARTBEAT_TICK: i64 = 1;
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);

/// A setting that would change nothing is refused by its name, unless it is the one that is shown.
fn refuse_what_is_not_kept(spec: &docker::SwarmSpec) -> Result<(), ApiError> {
    let raft = spec.raft.clone().unwrap_or_default();
    let other = |given: Option<u64>, shown: u64| given.is_some_and(|given| given != 0 && given != shown);
    let other_tick = |given: Option<i64>, shown: i64| given.is_some_and(|given| given != 0 && given != shown);
    let ca = spec.ca_config.clone().unwrap_or_default();
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let heartbeat = spec.dispatcher.as_ref().and_then(|dispatcher| dispatcher.heartbeat_period);
    let own = "flok decides that by itself";
    let certificates = "flok's certificates are its own (Ed25519, no X.509)";
    let refused = [
        (
            spec.name.as_ref().is_some_and(|name| !matches!(name.as_str(), "" | "default")),
            "Name",
            "the swarm's name is \"default\"",
        ),
        (other(raft.snapshot_interval, SNAPSHOT_INTERVAL), "Raft.SnapshotInterval (--snapshot-interval)", own),
        (other(raft.keep_old_snapshots, 0), "Raft.KeepOldSnapshots (--max-snapshots)", "one snapshot is kept"),
        (
            other(raft.log_entries_for_slow_followers, ENTRIES_FOR_SLOW_FOLLOWERS),
            "Raft.LogEntriesForSlowFollowers",
            own,
        ),
        (other_tick(raft.election_tick, ELECTION_TICK), "Raft.ElectionTick", own),
        (other_tick(raft.heartbeat_tick, HEARTBEAT_TICK), "Raft.HeartbeatTick", own),
        (
            other_tick(heartbeat, nanos(HEARTBEAT_PERIOD)),
            "Dispatcher.HeartbeatPeriod (--dispatcher-heartbeat)",
            "nodes watch each other, and no dispatcher waits for heartbeats",
        ),
        (ca.external_cas.is_some_and(|cas| !cas.is_empty()), "CAConfig.ExternalCAs (--external-ca)", certificates),
        (given(&ca.signing_ca_cert) || given(&ca.signing_ca_key), "CAConfig.SigningCACert (--ca-cert)", certificates),
        (
            ca.force_rotate.is_some_and(|rotate| rotate != 0),
            "CAConfig.ForceRotate (docker swarm ca --rotate)",
            certificates,
        ),
        (
            spec.task_defaults.as_ref().is_some_and(|defaults| defaults.log_driver.is_some()),
            "TaskDefaults.LogDriver",
            "a service names its own log driver",
        ),
    ];
    match refused.into_iter().find(|(asked, ..)| *asked) {
        None => Ok(()),
        Some((_, what, why)) => Err(ApiError::NotImplemented(format!("{what} cannot be set: {why}; leave it out"))),
    }
}

/// `base` gives what Docker's spec has no word for, or the client left out.
pub fn swarm_spec_from_docker(spec: docker::SwarmSpec, base: &SwarmSpec) -> Result<SwarmSpec, ApiError> {
    refuse_what_is_not_kept(&spec)?;
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
        autolock: spec.encryption_config.and_then(|encryption| encryption.auto_lock_managers).unwrap_or(base.autolock),
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
        tls_info: Some(tls_info(swarm)),
        root_rotation_in_progress: Some(false),
        data_path_port: Some(u32::from(swarm.spec.data_path_port)),
        default_addr_pool: Some(swarm.spec.address_pools.clone()),
        subnet_size: Some(u32::from(swarm.spec.subnet_size)),
    }
}

/// The key that signs every node's certificate, as the swarm and its nodes show it; there is no X.509 to show.
pub fn tls_info(swarm: &Swarm) -> docker::TlsInfo {
    docker::TlsInfo {
        trust_root: None,
        cert_issuer_subject: None,
        cert_issuer_public_key: Some(STANDARD.encode(swarm.ca_public_key)),
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
        raft: Some(docker::SwarmSpecRaft {
            snapshot_interval: Some(SNAPSHOT_INTERVAL),
            keep_old_snapshots: Some(0),
            log_entries_for_slow_followers: Some(ENTRIES_FOR_SLOW_FOLLOWERS),
            election_tick: Some(ELECTION_TICK),
            heartbeat_tick: Some(HEARTBEAT_TICK),
        }),
        dispatcher: Some(docker::SwarmSpecDispatcher { heartbeat_period: Some(nanos(HEARTBEAT_PERIOD)) }),
        encryption_config: Some(docker::SwarmSpecEncryptionConfig { auto_lock_managers: Some(spec.autolock) }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: docker::SwarmSpec) -> Result<SwarmSpec, ApiError> {
        swarm_spec_from_docker(spec, &SwarmSpec::default())
    }

    #[test]
    fn what_is_shown_may_be_sent_back_whole() {
        let shown = SwarmSpec { task_history: 3, ..SwarmSpec::default() };
        assert_eq!(read(spec_out(&shown)), Ok(shown));
    }

    #[test]
    fn what_would_change_nothing_is_refused_by_its_name() {
        let raft = |raft| docker::SwarmSpec { raft: Some(raft), ..Default::default() };
        let ca = |ca| docker::SwarmSpec { ca_config: Some(ca), ..Default::default() };
        let heartbeat = docker::SwarmSpecDispatcher { heartbeat_period: Some(1) };
        for (spec, named) in [
            (raft(docker::SwarmSpecRaft { snapshot_interval: Some(5), ..Default::default() }), "--snapshot-interval"),
            (raft(docker::SwarmSpecRaft { keep_old_snapshots: Some(5), ..Default::default() }), "--max-snapshots"),
            (docker::SwarmSpec { dispatcher: Some(heartbeat), ..Default::default() }, "--dispatcher-heartbeat"),
            (
                ca(docker::SwarmSpecCaConfig { external_cas: Some(vec![Default::default()]), ..Default::default() }),
                "--external-ca",
            ),
            (ca(docker::SwarmSpecCaConfig { force_rotate: Some(1), ..Default::default() }), "swarm ca --rotate"),
            (docker::SwarmSpec { name: Some("other".into()), ..Default::default() }, "Name"),
        ] {
            let refused = read(spec).unwrap_err();
            assert!(matches!(&refused, ApiError::NotImplemented(why) if why.contains(named)), "{refused}");
        }
    }
}
