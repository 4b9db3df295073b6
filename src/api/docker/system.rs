//! `/_ping`, `/version`, `/info`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use bollard::models as docker;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Body;
use crate::api::convert::swarm_to_cluster;
use crate::api::router::{API_VERSION, MIN_API_VERSION};
use crate::api::{ApiError, Backend, LOCKED, LocalNode, Membership};
use crate::spec::{Role, SecretBytes};

pub async fn ping<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    let mut response = "OK".into_response();
    let swarm = match backend.local().membership {
        Membership::Inactive => "inactive",
        Membership::Pending => "pending",
        Membership::Locked => "locked",
        Membership::Active { role: Role::Worker, .. } => "active/worker",
        Membership::Active { role: Role::Manager, .. } => "active/manager",
    };
    let headers = response.headers_mut();
    headers.insert("Swarm", HeaderValue::from_static(swarm));
    headers.insert("Cache-Control", HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    response
}

const NO_GO: &str = "none (Rust)";
const UNKNOWN: &str = "unknown";

/// As Go names it, and with it `docker version` and registries.
fn gos_architecture(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
    .to_owned()
}

pub async fn version<B: Backend>(State(backend): State<Arc<B>>) -> Json<docker::SystemVersion> {
    let local = backend.local();
    let text = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let (api, least) = (text(API_VERSION), text(MIN_API_VERSION));
    let (os, arch) = (local.description.platform.os, gos_architecture(&local.description.platform.architecture));
    // The keys that Docker's clients print; a build of flok knows no commit and no time, and was made by no Go.
    let details = [
        ("ApiVersion", api.as_str()),
        ("MinAPIVersion", &least),
        ("Os", &os),
        ("Arch", &arch),
        ("KernelVersion", &local.kernel_version),
        ("GoVersion", NO_GO),
        ("GitCommit", UNKNOWN),
        ("BuildTime", UNKNOWN),
        ("Experimental", "false"),
    ];
    let details = details.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let version = env!("CARGO_PKG_VERSION");
    let engine =
        docker::SystemVersionComponents { name: "Engine".into(), version: version.into(), details: Some(details) };
    let containerd = docker::SystemVersionComponents {
        name: "containerd".into(),
        version: local.containerd_version,
        details: Some(HashMap::new()),
    };
    Json(docker::SystemVersion {
        platform: Some(docker::SystemVersionPlatform { name: "flok".into() }),
        components: Some(vec![engine, containerd]),
        version: Some(version.into()),
        api_version: Some(api),
        min_api_version: Some(least),
        os: Some(os),
        arch: Some(arch),
        kernel_version: Some(local.kernel_version),
        go_version: Some(NO_GO.into()),
        git_commit: Some(UNKNOWN.into()),
        build_time: Some(UNKNOWN.into()),
        ..Default::default()
    })
}

/// As Docker says of a program whose version it did not ask.
const NOT_ASKED: &str = "N/A";

/// The plugins that were installed: there are none.
pub async fn plugins() -> Json<Value> {
    Json(json!([]))
}

pub async fn info<B: Backend>(State(backend): State<Arc<B>>) -> Result<Response, ApiError> {
    let mut info = serde_json::to_value(system_info(&*backend).await)
        .map_err(|error| ApiError::Internal(format!("the answer cannot be written: {error}")))?;
    // Docker's command before 23 warns where these are not there. No network of flok's needs the two of bridges.
    for key in ["BridgeNfIptables", "BridgeNfIp6tables", "KernelMemory"] {
        info[key] = json!(true);
    }
    Ok(Json(info).into_response())
}

async fn system_info<B: Backend>(backend: &B) -> docker::SystemInfo {
    let local = backend.local();
    let swarm = swarm_info(backend, &local).await;
    let resources = &local.description.resources;
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    let commit = |id: &str| Some(docker::Commit { id: Some(id.to_owned()) });
    let runtime = docker::Runtime { path: Some("runc".into()), ..Default::default() };
    docker::SystemInfo {
        id: Some(local.id.to_string()),
        name: Some(local.hostname.clone()),
        containers: i64::try_from(local.containers).ok(),
        containers_running: i64::try_from(local.running).ok(),
        containers_paused: Some(0),
        containers_stopped: i64::try_from(local.containers.saturating_sub(local.running)).ok(),
        images: i64::try_from(local.images).ok(),
        driver: Some("overlayfs".into()),
        docker_root_dir: Some(local.data_dir.clone()),
        logging_driver: Some("json-file".into()),
        cgroup_driver: Some(docker::SystemInfoCgroupDriverEnum::CGROUPFS),
        memory_limit: Some(true),
        swap_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        cpu_shares: Some(true),
        cpu_set: Some(true),
        pids_limit: Some(true),
        oom_kill_disable: Some(local.cgroup_version == 1),
        ipv4_forwarding: Some(true),
        debug: Some(false),
        system_time: Some(backend.now().to_string()),
        index_server_address: Some("https://index.docker.io/v1/".into()),
        registry_config: Some(docker::RegistryServiceConfig::default()),
        runtimes: Some([("runc".to_owned(), runtime)].into()),
        containerd_commit: commit(&local.containerd_version),
        runc_commit: commit(NOT_ASKED),
        init_commit: commit(NOT_ASKED),
        warnings: Some(Vec::new()),
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
        plugins: Some(docker::PluginsInfo {
            volume: words(&["local"]),
            network: words(&["overlay"]),
            log: words(&["json-file", "local", "journald", "syslog", "none"]),
            ..Default::default()
        }),
        swarm: Some(swarm),
        ..Default::default()
    }
}

/// As Docker's clients send it; what is not there is `null` or empty.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Login {
    username: Option<String>,
    password: Option<String>,
    #[serde(alias = "serverAddress")]
    serveraddress: Option<String>,
    identitytoken: Option<String>,
}

/// Asks the registry whether it takes a user and a password; they are kept by the client alone.
pub async fn log_in<B: Backend>(
    State(backend): State<Arc<B>>,
    Body(login): Body<Option<Login>>,
) -> Result<Json<Value>, ApiError> {
    let login = login.unwrap_or_default();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (user, password) = match (given(login.username), given(login.password)) {
        (Some(user), Some(password)) => (user, password),
        _ if given(login.identitytoken).is_some() => {
            return Err(ApiError::NotImplemented("flok takes a user and a password, and no identity token".into()));
        }
        _ => return Err(ApiError::invalid("a username and a password are wanted")),
    };
    let server = login.serveraddress.unwrap_or_default();
    backend.log_in(&server, &user, SecretBytes(password.into_bytes())).await?;
    Ok(Json(json!({"Status": "Login Succeeded", "IdentityToken": ""})))
}

/// There are no builds, and so no cache of theirs.
pub async fn prune_builds() -> Json<Value> {
    Json(json!({"CachesDeleted": [], "SpaceReclaimed": 0}))
}

async fn swarm_info<B: Backend>(backend: &B, local: &LocalNode) -> docker::SwarmInfo {
    let (state, manager) = match local.membership {
        Membership::Inactive => (docker::LocalNodeState::INACTIVE, false),
        Membership::Pending => (docker::LocalNodeState::PENDING, false),
        Membership::Locked => (docker::LocalNodeState::LOCKED, false),
        Membership::Active { role, .. } => (docker::LocalNodeState::ACTIVE, role == Role::Manager),
    };
    if matches!(local.membership, Membership::Inactive | Membership::Locked) {
        let error = if local.membership == Membership::Locked { LOCKED } else { "" };
        return docker::SwarmInfo {
            node_id: Some(String::new()),
            node_addr: Some(String::new()),
            local_node_state: Some(state),
            control_available: Some(false),
            error: Some(error.to_owned()),
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
