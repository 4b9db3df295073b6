//! `/_ping`, `/version`, `/info`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use bollard::models as docker;

use crate::api::convert::swarm_to_cluster;
use crate::api::router::{API_VERSION, MIN_API_VERSION};
use crate::api::{Backend, LocalNode, Membership};
use crate::spec::Role;

pub async fn ping<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    let mut response = "OK".into_response();
    let swarm = match backend.local().membership {
        Membership::Inactive => "inactive",
        Membership::Pending => "pending",
        Membership::Active { role: Role::Worker, .. } => "active/worker",
        Membership::Active { role: Role::Manager, .. } => "active/manager",
    };
    let headers = response.headers_mut();
    headers.insert("Swarm", HeaderValue::from_static(swarm));
    headers.insert("Cache-Control", HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    response
}

pub async fn version<B: Backend>(State(backend): State<Arc<B>>) -> Json<docker::SystemVersion> {
    let local = backend.local();
    let text = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let component =
        |name: &str, version: String| docker::SystemVersionComponents { name: name.into(), version, details: None };
    Json(docker::SystemVersion {
        platform: Some(docker::SystemVersionPlatform { name: "flok".into() }),
        components: Some(vec![
            component("Engine", env!("CARGO_PKG_VERSION").into()),
            component("containerd", local.containerd_version),
        ]),
        version: Some(env!("CARGO_PKG_VERSION").into()),
        api_version: Some(text(API_VERSION)),
        min_api_version: Some(text(MIN_API_VERSION)),
        os: Some(local.description.platform.os),
        arch: Some(local.description.platform.architecture),
        kernel_version: Some(local.kernel_version),
        ..Default::default()
    })
}

pub async fn info<B: Backend>(State(backend): State<Arc<B>>) -> Json<docker::SystemInfo> {
    let local = backend.local();
    let swarm = swarm_info(&*backend, &local).await;
    let resources = &local.description.resources;
    Json(docker::SystemInfo {
        id: Some(local.id.to_string()),
        name: Some(local.hostname.clone()),
        containers: i64::try_from(local.running_tasks).ok(),
        containers_running: i64::try_from(local.running_tasks).ok(),
        containers_paused: Some(0),
        containers_stopped: Some(0),
        images: i64::try_from(local.images).ok(),
        driver: Some("overlayfs".into()),
        docker_root_dir: Some(local.data_dir.clone()),
        logging_driver: Some("json-file".into()),
        cgroup_driver: Some(docker::SystemInfoCgroupDriverEnum::CGROUPFS),
        cgroup_version: Some(match local.cgroup_version {
            2 => docker::SystemInfoCgroupVersionEnum::_2,
            _ => docker::SystemInfoCgroupVersionEnum::_1,
        }),
        kernel_version: Some(local.kernel_version.clone()),
        operating_system: Some(local.operating_system.clone()),
        os_type: Some(local.description.platform.os.clone()),
        architecture: Some(local.description.platform.architecture.clone()),
        ncpu: i64::try_from(resources.nano_cpus / 1_000_000_000).ok(),
        mem_total: i64::try_from(resources.memory_bytes).ok(),
        labels: Some(local.description.engine_labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        experimental_build: Some(false),
        server_version: Some(env!("CARGO_PKG_VERSION").into()),
        default_runtime: Some("runc".into()),
        security_options: Some(vec!["name=seccomp,profile=builtin".into()]),
        live_restore_enabled: Some(true),
        swarm: Some(swarm),
        ..Default::default()
    })
}

async fn swarm_info<B: Backend>(backend: &B, local: &LocalNode) -> docker::SwarmInfo {
    let (state, manager) = match local.membership {
        Membership::Inactive => (docker::LocalNodeState::INACTIVE, false),
        Membership::Pending => (docker::LocalNodeState::PENDING, false),
        Membership::Active { role, .. } => (docker::LocalNodeState::ACTIVE, role == Role::Manager),
    };
    if local.membership == Membership::Inactive {
        return docker::SwarmInfo {
            node_id: Some(String::new()),
            node_addr: Some(String::new()),
            local_node_state: Some(state),
            control_available: Some(false),
            error: Some(String::new()),
            ..Default::default()
        };
    }
    let read = if manager { backend.read().await.ok() } else { None };
    let error = read
        .as_ref()
        .and_then(|read| read.stale.as_ref())
        .map(|stale| format!("no quorum for {:.1} s; missing: {}", stale.age.as_secs_f32(), stale.missing.join(", ")));
    // What the log says is newer than what this node was told of its members, which right after it began is nothing.
    let (members, managers) = match read.as_ref().map(|read| &read.state) {
        Some(state) => {
            let managers = state.nodes().filter(|node| node.is_manager());
            (state.nodes().count(), managers.map(|node| (node.id, node.transport_addr())).collect())
        }
        None => (local.members, local.managers.clone()),
    };
    docker::SwarmInfo {
        node_id: Some(local.id.to_string()),
        node_addr: Some(local.description.addr.to_string()),
        local_node_state: Some(state),
        control_available: Some(manager),
        error: Some(error.unwrap_or_default()),
        remote_managers: Some(
            managers
                .iter()
                .map(|(id, addr)| docker::PeerNode { node_id: Some(id.to_string()), addr: Some(addr.to_string()) })
                .collect(),
        ),
        nodes: i64::try_from(members).ok(),
        managers: i64::try_from(managers.len()).ok(),
        cluster: read.and_then(|read| read.state.swarm().map(|swarm| swarm_to_cluster(swarm))),
    }
}
