//! A container as Docker's clients read it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Here;
use crate::api::convert::{date, health_out, mount_out, ulimit_out};
use crate::api::docker::truthy;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, Container, ContainerSize, HostMount, ProbeShown};
use crate::spec::quantity::for_people;
use crate::spec::*;

#[derive(Debug, Deserialize)]
pub struct InspectQuery {
    size: Option<String>,
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<InspectQuery>,
) -> Result<Json<Value>, ApiError> {
    let mut shown = inspected(&container);
    if truthy(query.size.as_deref()) {
        put_size(&mut shown, backend.container_size(container.task.task).await?);
    }
    Ok(Json(shown))
}

/// In Docker's words.
pub fn put_size(shown: &mut Value, size: ContainerSize) {
    (shown["SizeRw"], shown["SizeRootFs"]) = (json!(size.written_bytes), json!(size.whole_bytes));
}

/// Docker's word for where a container is.
pub fn state(container: &Container) -> &'static str {
    match container.state {
        TaskState::Running => "running",
        // Its process runs, and its check has not passed yet.
        TaskState::Starting if container.pid.is_some() => "running",
        state if state.is_final() && container.started.is_some() => "exited",
        _ => "created",
    }
}

pub fn health(container: &Container) -> &'static str {
    match container.health {
        Health::None => "none",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

/// What Docker Swarm's nodes label the containers of tasks with, and the spec's own.
pub fn labels(container: &Container, node: NodeId) -> Labels {
    let task = &container.task;
    let mut labels = task.spec.container.labels.clone();
    for (key, value) in [
        ("com.docker.swarm.node.id", node.to_string()),
        ("com.docker.swarm.service.id", task.service.to_string()),
        ("com.docker.swarm.service.name", task.service_name.clone()),
        ("com.docker.swarm.task", String::new()),
        ("com.docker.swarm.task.id", task.task.to_string()),
        ("com.docker.swarm.task.name", task.name.clone()),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

/// When it ended.
pub fn finished(container: &Container) -> Option<UnixMs> {
    if state(container) != "exited" {
        return None;
    }
    let ran = u64::try_from(container.ran_for.unwrap_or_default().as_millis()).unwrap_or(0);
    Some(UnixMs(container.started?.0.saturating_add(ran)))
}

const NEVER: &str = "0001-01-01T00:00:00Z";

fn inspected(container: &Container) -> Value {
    let spec = &container.task.spec.container;
    let process = &container.process;
    let when = |at: Option<UnixMs>| at.map_or_else(|| NEVER.to_owned(), date);
    let stops = matches!(container.state, TaskState::Failed | TaskState::Rejected);
    let mut shown = json!({
        "Id": container.id,
        "Created": date(container.created),
        "Path": process.args.first().cloned().unwrap_or_default(),
        "Args": process.args.iter().skip(1).collect::<Vec<_>>(),
        "State": {
            "Status": state(container),
            "Running": state(container) == "running",
            "Paused": false,
            "Restarting": false,
            "OOMKilled": container.message.contains("out of memory"),
            "Dead": false,
            "Pid": container.pid.filter(|_| state(container) == "running").unwrap_or(0),
            "ExitCode": container.exit_code.unwrap_or(0),
            "Error": if stops { container.message.as_str() } else { "" },
            "StartedAt": when(container.started),
            "FinishedAt": when(finished(container)),
        },
        "Image": container.image_digest,
        "LogPath": container.log_path,
        "Name": format!("/{}", container.task.name),
        "RestartCount": 0,
        "Driver": "overlayfs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "GraphDriver": {"Name": "overlayfs", "Data": {}},
        "Mounts": mounts(container),
        "Config": {
            "Hostname": process.hostname,
            "Domainname": "",
            "User": spec.user.clone().unwrap_or_default(),
            "AttachStdin": false,
            "AttachStdout": false,
            "AttachStderr": false,
            "Tty": spec.tty,
            "OpenStdin": spec.stdin_open,
            "StdinOnce": false,
            "Env": process.env,
            "Cmd": process.args,
            "Image": spec.image,
            "Volumes": null,
            "WorkingDir": process.dir,
            "Entrypoint": null,
            "Labels": labels(container, container.node),
            "StopSignal": spec.stop_signal,
        },
        "NetworkSettings": network_settings(container),
    });
    if let Some(check) = &spec.healthcheck {
        shown["Config"]["Healthcheck"] = json!(health_out(check));
    }
    if container.health != Health::None {
        shown["State"]["Health"] = health_shown(container);
    }
    shown
}

fn health_shown(container: &Container) -> Value {
    let log = container.health_log.clone().unwrap_or_default();
    let probe = |probe: &ProbeShown| {
        let ProbeShown { begun, ended, exit_code, output } = probe;
        json!({"Start": date(*begun), "End": date(*ended), "ExitCode": exit_code, "Output": output})
    };
    json!({
        "Status": health(container),
        "FailingStreak": log.failing_streak,
        "Log": log.probes.iter().map(probe).collect::<Vec<_>>(),
    })
}

fn host_config(container: &Container) -> Value {
    let (spec, limits) = (&container.task.spec.container, &container.task.spec.resources);
    let driver = container.task.spec.log_driver.as_ref();
    let device = |device: &DeviceMapping| {
        let DeviceMapping { host_path, container_path, permissions } = device;
        json!({"PathOnHost": host_path, "PathInContainer": container_path, "CgroupPermissions": permissions})
    };
    json!({
        "NetworkMode": network_mode(container),
        "LogConfig": {
            "Type": driver.map_or("json-file", |driver| driver.name.as_str()),
            "Config": driver.map(|driver| driver.options.clone()).unwrap_or_default(),
        },
        "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
        "AutoRemove": false,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "Memory": limits.limits.memory_bytes,
        "MemoryReservation": limits.reservations.memory_bytes,
        "NanoCpus": limits.limits.nano_cpus,
        "PidsLimit": limits.limits.pids,
        "Init": spec.init,
        "Isolation": spec.isolation.clone().unwrap_or_default(),
        "PortBindings": ports(container),
        "ShmSize": spec.shm_size.unwrap_or(64 << 20),
        "Mounts": spec.mounts.iter().map(mount_out).collect::<Vec<_>>(),
        "ExtraHosts": extra_hosts(&spec.hosts),
        "Dns": spec.dns.nameservers,
        "DnsOptions": spec.dns.options,
        "DnsSearch": spec.dns.search,
        "GroupAdd": spec.groups,
        "OomScoreAdj": spec.oom_score_adj,
        "Sysctls": spec.sysctls,
        "Ulimits": spec.ulimits.iter().map(ulimit_out).collect::<Vec<_>>(),
        "SecurityOpt": spec.security_opt,
        "Devices": spec.devices.iter().map(device).collect::<Vec<_>>(),
        "IpcMode": spec.ipc.as_deref().unwrap_or("private"),
        "PidMode": spec.pid.clone().unwrap_or_default(),
    })
}

/// `NAME:ADDRESS` for each name of what a service has as lines of `/etc/hosts`.
fn extra_hosts(lines: &[String]) -> Vec<String> {
    let of_line = |line: &String| {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or_default();
        words.map(|name| format!("{name}:{address}")).collect::<Vec<_>>()
    };
    lines.iter().flat_map(of_line).collect()
}

pub fn network_mode(container: &Container) -> &str {
    match container.networks.first() {
        Some(place) => &place.name,
        None => container.task.spec.node_network().unwrap_or(NodeNetwork::Bridge).name(),
    }
}

/// What its service mounts, and the volumes that its image declares.
pub fn mounts(container: &Container) -> Vec<Value> {
    let (asked, there) = (&container.task.spec.container.mounts, &container.process.mounts);
    let of = |mount: &Mount| {
        let host = there.iter().find(|host| host.target == mount.target);
        let kind = match mount.kind {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Cluster => "cluster",
            MountKind::NamedPipe => "npipe",
        };
        let mut shown = json!({
            "Type": kind,
            "Source": host.map_or("", |host| host.source.as_str()),
            "Destination": mount.target,
            "Mode": if mount.read_only { "ro" } else { "" },
            "RW": !mount.read_only,
            "Propagation": mount.bind.propagation.clone().unwrap_or_default(),
        });
        if mount.kind == MountKind::Volume {
            let volume = host.and_then(|host| host.volume.as_ref()).or(mount.source.as_ref());
            shown["Name"] = json!(volume.map_or("", String::as_str));
            shown["Driver"] = json!("local");
        }
        shown
    };
    let of_image = |host: &HostMount| {
        let volume = host.volume.as_ref().filter(|_| asked.iter().all(|mount| mount.target != host.target))?;
        let (source, target) = (&host.source, &host.target);
        Some(json!({"Type": "volume", "Name": volume, "Source": source, "Destination": target, "Driver": "local",
            "Mode": "", "RW": host.writable, "Propagation": ""}))
    };
    asked.iter().map(of).chain(there.iter().filter_map(of_image)).collect()
}

/// Ports published on the container's own node.
fn ports(container: &Container) -> Map<String, Value> {
    let mut ports = Map::new();
    for port in &container.host_ports {
        let key = format!("{}/{}", port.target, protocol(port));
        let binding = json!({"HostIp": "0.0.0.0", "HostPort": port.published.to_string()});
        if let Some(list) = ports.entry(key).or_insert_with(|| json!([])).as_array_mut() {
            list.push(binding);
        }
    }
    ports
}

pub fn protocol(port: &PortConfig) -> &'static str {
    match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

pub fn networks(container: &Container) -> Map<String, Value> {
    let place = |place: &crate::api::Place| {
        let of = |ipv6: bool| place.addresses.iter().find(|(address, _)| address.is_ipv6() == ipv6);
        let text = |ipv6| of(ipv6).map(|(address, _)| address.to_string()).unwrap_or_default();
        let prefix = |ipv6| of(ipv6).map_or(0, |(_, prefix)| *prefix);
        let shown = json!({
            "NetworkID": place.id.to_string(),
            "EndpointID": container.id,
            "Gateway": "",
            "IPAddress": text(false),
            "IPPrefixLen": prefix(false),
            "IPv6Gateway": "",
            "GlobalIPv6Address": text(true),
            "GlobalIPv6PrefixLen": prefix(true),
            "MacAddress": place.mac,
            "Aliases": place.aliases,
            "DNSNames": place.aliases,
            "Links": null,
            "DriverOpts": null,
            "IPAMConfig": {},
        });
        (place.name.clone(), shown)
    };
    // One that its node has of its own goes by its name, and has no id, and no address that means anything elsewhere.
    let of_the_node = || {
        let name = network_mode(container);
        (name.to_owned(), json!({ "NetworkID": name, "EndpointID": container.id, "IPAddress": "", "Gateway": "" }))
    };
    let mut networks: Map<String, Value> = container.networks.iter().map(place).collect();
    if networks.is_empty() {
        networks.extend([of_the_node()]);
    }
    networks
}

fn network_settings(container: &Container) -> Value {
    let pid = container.pid.unwrap_or(0);
    json!({
        "Bridge": "",
        "SandboxID": container.id,
        "SandboxKey": if pid > 0 { format!("/proc/{pid}/ns/net") } else { String::new() },
        "Ports": ports(container),
        "Networks": networks(container),
    })
}

/// `Up 5 minutes (healthy)`, as `docker ps` shows it.
pub fn status(container: &Container, now: Timestamp) -> String {
    let ran = container.ran_for.unwrap_or_default().as_secs();
    let ran = for_people(i64::try_from(ran).unwrap_or(i64::MAX));
    match state(container) {
        "running" => match container.health {
            Health::None => format!("Up {ran}"),
            Health::Starting => format!("Up {ran} (health: starting)"),
            _ => format!("Up {ran} ({})", health(container)),
        },
        "exited" => {
            let ended = finished(container).map_or(0, |at| i64::try_from(at.0).unwrap_or(0));
            let ago = for_people((now.as_millisecond() - ended) / 1000);
            format!("Exited ({}) {ago} ago", container.exit_code.unwrap_or(0))
        }
        _ => "Created".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_of_a_line_of_hosts_is_told_with_its_address() {
        let lines = ["10.0.0.1 db db.local".to_owned(), "::1\tself".to_owned(), "10.0.0.2".to_owned()];
        assert_eq!(extra_hosts(&lines), ["db:10.0.0.1", "db.local:10.0.0.1", "self:::1"]);
    }
}
