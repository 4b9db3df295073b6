//! Between Docker's JSON models and flok's own types. Models live here and in answers; nothing of them is stored.

mod container;
mod network;
mod node;
mod secret;
mod service;
mod swarm;
mod task;

pub use container::{health_out, mount_out, ulimit_out};
pub use network::{
    endpoints, endpoints_of_node, network_services, network_spec_from_docker, network_to_docker,
    node_network_to_docker, peers,
};
pub use node::{node_spec_from_docker, node_to_docker};
pub use secret::{config_spec_from_docker, config_to_docker, secret_spec_from_docker, secret_to_docker};
pub use service::{ServiceShown, ports_to_docker, service_spec_from_docker, service_to_docker, update_state};
pub use swarm::{swarm_spec_from_docker, swarm_to_cluster, swarm_to_docker};
pub use task::{TaskShown, desired_state, task_to_docker};

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ObjectVersion;
use jiff::Timestamp;

use super::ApiError;
use crate::spec::{Labels, UnixMs, Version};

fn labels_in(labels: Option<HashMap<String, String>>) -> Labels {
    labels.unwrap_or_default().into_iter().collect()
}

fn labels_out(labels: &Labels) -> Option<HashMap<String, String>> {
    Some(labels.clone().into_iter().collect())
}

/// RFC 3339 in UTC, as Docker shows times.
pub fn date(at: UnixMs) -> String {
    i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX).to_string()
}

fn version(version: Version) -> Option<ObjectVersion> {
    Some(ObjectVersion { index: Some(version.0) })
}

/// Docker's durations are nanoseconds; a negative one is refused.
fn duration(field: &str, nanos: i64) -> Result<Duration, ApiError> {
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| ApiError::invalid(format!("{field}: a duration cannot be negative, {nanos} ns was given")))
}

fn optional_duration(field: &str, nanos: Option<i64>) -> Result<Option<Duration>, ApiError> {
    nanos.map(|nanos| duration(field, nanos)).transpose()
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A count or size, which Docker's models hold as a signed number.
fn unsigned(field: &str, value: Option<i64>) -> Result<u64, ApiError> {
    let value = value.unwrap_or(0);
    u64::try_from(value).map_err(|_| ApiError::invalid(format!("{field}: {value} is negative")))
}

fn signed(value: u64) -> Option<i64> {
    Some(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `Some` unless it is what an absent value means.
fn some_if<T: PartialEq>(value: T, absent: &T) -> Option<T> {
    (value != *absent).then_some(value)
}

fn list_out<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
