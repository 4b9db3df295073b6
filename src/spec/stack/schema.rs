//! Every key of a stack file, how it is read, and what becomes of it. To support one more key, add its line here and
//! carry it over in `convert`.

use super::features::Feature;
use super::forms::{attachments, env_files, file_references, hosts, network_mode, ports, resolve_environment, ulimits};
use super::reader::*;
use super::volumes::{mounts, tmpfs};
use super::yaml::{Entry, Node, Value};

const fn used(key: &'static str, read: Read) -> Field {
    Field { key, read, support: Support::Used }
}

const fn ignored(key: &'static str) -> Field {
    Field { key, read: anything, support: Support::Ignored }
}

const fn refused(key: &'static str, why: &'static str) -> Field {
    Field { key, read: anything, support: Support::Refused(why) }
}

const fn needs(key: &'static str, feature: Feature, read: Read) -> Field {
    Field { key, read, support: Support::Needs(feature) }
}

const FILE: &[Field] = &[
    used("version", text),
    ignored("name"),
    used("services", |reader, path, node| reader.named(path, node, false, service)),
    used("volumes", |reader, path, node| reader.named(path, node, true, volume)),
    needs("networks", Feature::Networks, |reader, path, node| reader.named(path, node, true, network)),
    used("secrets", |reader, path, node| reader.named(path, node, true, file_object)),
    used("configs", |reader, path, node| reader.named(path, node, true, file_object)),
    needs("include", Feature::Composition, super::composition::include),
];

const NO_LIMIT_KEY: &str = "it has no effect in a swarm: use deploy.resources.limits";
const NOT_IN_SWARM: &str = "it has no meaning in a swarm: remove it";

const SERVICE: &[Field] = &[
    used("image", text),
    used("command", command),
    used("entrypoint", command),
    used("environment", key_values),
    used("env_file", env_files),
    used("deploy", |reader, path, node| reader.object(path, node, DEPLOY)),
    used("ports", ports),
    used("volumes", mounts),
    used("tmpfs", tmpfs),
    used("healthcheck", healthcheck),
    used("hostname", text),
    used("user", text),
    used("working_dir", text),
    used("cap_add", texts),
    used("cap_drop", texts),
    used("read_only", boolean),
    used("ulimits", ulimits),
    used("sysctls", key_values),
    used("init", boolean),
    used("isolation", text),
    used("tty", boolean),
    used("stdin_open", boolean),
    used("stop_signal", text),
    used("stop_grace_period", duration),
    used("labels", labels),
    used("logging", |reader, path, node| reader.object(path, node, LOGGING)),
    used("extra_hosts", hosts),
    used("dns", text_or_texts),
    used("dns_search", text_or_texts),
    used("dns_opt", texts),
    used("oom_score_adj", integer),
    used("restart", text),
    used("x-volume-policy", volume_policy),
    needs("x-drain", Feature::Networks, duration),
    used("x-schedule", super::schedule::schedule),
    needs("networks", Feature::Networks, attachments),
    used("secrets", file_references),
    used("configs", file_references),
    needs("depends_on", Feature::StartOrder, super::depends_on::depends_on),
    used("devices", texts),
    used("gpus", device_requests),
    used("privileged", boolean),
    used("security_opt", texts),
    used("shm_size", size),
    used("network_mode", network_mode),
    used("ipc", |reader, path, node| reader.one_of(path, node, &["private", "host"])),
    used("pid", |reader, path, node| reader.one_of(path, node, &["private", "host"])),
    needs("extends", Feature::Composition, super::composition::extends),
    needs("profiles", Feature::Composition, texts),
    ignored("build"),
    ignored("cgroup_parent"),
    ignored("cgroupns_mode"),
    ignored("container_name"),
    ignored("domainname"),
    ignored("expose"),
    ignored("external_links"),
    ignored("links"),
    ignored("mac_address"),
    ignored("userns_mode"),
    refused("cpu_count", NO_LIMIT_KEY),
    refused("cpu_percent", NO_LIMIT_KEY),
    refused("cpu_period", NO_LIMIT_KEY),
    refused("cpu_quota", NO_LIMIT_KEY),
    refused("cpu_rt_period", NO_LIMIT_KEY),
    refused("cpu_rt_runtime", NO_LIMIT_KEY),
    refused("cpu_shares", NO_LIMIT_KEY),
    refused("cpus", NO_LIMIT_KEY),
    refused("cpuset", NO_LIMIT_KEY),
    refused("mem_limit", NO_LIMIT_KEY),
    refused("mem_reservation", "it has no effect in a swarm: use deploy.resources.reservations.memory"),
    refused("mem_swappiness", NO_LIMIT_KEY),
    refused("memswap_limit", NO_LIMIT_KEY),
    refused("pids_limit", "it has no effect in a swarm: use deploy.resources.limits.pids"),
    refused("scale", "it has no effect in a swarm: use deploy.replicas"),
    refused("restart_policy", "it belongs below deploy"),
    refused("annotations", NOT_IN_SWARM),
    refused("attach", NOT_IN_SWARM),
    refused("blkio_config", NOT_IN_SWARM),
    refused("cgroup", NOT_IN_SWARM),
    refused("credential_spec", "it exists only on Windows"),
    refused("develop", NOT_IN_SWARM),
    refused("device_cgroup_rules", NOT_IN_SWARM),
    refused("group_add", NOT_IN_SWARM),
    refused("label_file", NOT_IN_SWARM),
    refused("models", NOT_IN_SWARM),
    refused("oom_kill_disable", NOT_IN_SWARM),
    refused("platform", "it has no meaning in a swarm: use a placement constraint on node.platform"),
    refused("post_start", NOT_IN_SWARM),
    refused("pre_stop", NOT_IN_SWARM),
    refused("provider", NOT_IN_SWARM),
    refused("pull_policy", NOT_IN_SWARM),
    refused("runtime", NOT_IN_SWARM),
    refused("storage_opt", NOT_IN_SWARM),
    refused("uts", NOT_IN_SWARM),
    refused("volume_driver", "it has no meaning in a swarm: name the driver below volumes"),
    refused("volumes_from", "it has no meaning in a swarm: share a named volume"),
];

const DEPLOY: &[Field] = &[
    used("mode", |reader, path, node| {
        reader.one_of(path, node, &["replicated", "global", "replicated-job", "global-job"])
    }),
    used("replicas", count),
    used("labels", labels),
    used("endpoint_mode", |reader, path, node| reader.one_of(path, node, &["vip", "dnsrr"])),
    used("placement", |reader, path, node| reader.object(path, node, PLACEMENT)),
    used("resources", |reader, path, node| reader.object(path, node, RESOURCES)),
    used("restart_policy", |reader, path, node| reader.object(path, node, RESTART)),
    used("update_config", |reader, path, node| reader.object(path, node, UPDATE)),
    used("rollback_config", |reader, path, node| reader.object(path, node, UPDATE)),
    used("x-volume-policy", volume_policy),
];

const PLACEMENT: &[Field] = &[
    used("constraints", text_or_texts),
    used("preferences", |reader, path, node| {
        const PREFERENCE: &[Field] = &[used("spread", text)];
        reader.list(path, node, |reader, path, node| reader.object(path, node, PREFERENCE))
    }),
    used("max_replicas_per_node", count),
];

const RESOURCES: &[Field] = &[
    used("limits", |reader, path, node| reader.object(path, node, LIMITS)),
    used("reservations", |reader, path, node| reader.object(path, node, RESERVATIONS)),
];

const LIMITS: &[Field] = &[used("cpus", cpus), used("memory", size), used("pids", count)];

const RESERVATIONS: &[Field] = &[
    used("cpus", cpus),
    used("memory", size),
    used("generic_resources", |reader, path, node| {
        const GENERIC: &[Field] = &[used("discrete_resource_spec", |reader, path, node| {
            const DISCRETE: &[Field] = &[used("kind", text), used("value", count)];
            reader.object(path, node, DISCRETE)
        })];
        reader.list(path, node, |reader, path, node| reader.object(path, node, GENERIC))
    }),
    used("devices", device_requests),
];

const DEVICE_REQUEST: &[Field] = &[
    used("capabilities", texts),
    used("count", text),
    used("device_ids", texts),
    used("driver", text),
    ignored("options"),
];

const RESTART: &[Field] = &[
    used("condition", |reader, path, node| reader.one_of(path, node, &["none", "on-failure", "any"])),
    used("delay", duration),
    used("max_attempts", count),
    used("window", duration),
];

const UPDATE: &[Field] = &[
    used("parallelism", count),
    used("delay", duration),
    used("failure_action", |reader, path, node| reader.one_of(path, node, &["pause", "continue", "rollback"])),
    used("monitor", duration),
    used("max_failure_ratio", ratio),
    used("order", |reader, path, node| reader.one_of(path, node, &["stop-first", "start-first"])),
];

const HEALTHCHECK: &[Field] = &[
    used("test", health_test),
    used("interval", duration),
    used("timeout", duration),
    used("retries", count),
    used("start_period", duration),
    used("start_interval", duration),
    used("disable", boolean),
];

const LOGGING: &[Field] = &[used("driver", text), used("options", labels)];

const VOLUME: &[Field] = &[
    used("name", text),
    used("external", external),
    used("driver", text),
    used("driver_opts", labels),
    used("labels", labels),
    needs("x-cluster-spec", Feature::ClusterVolumes, anything),
];

const NETWORK: &[Field] = &[
    used("name", text),
    used("external", external),
    used("driver", text),
    used("driver_opts", labels),
    used("ipam", |reader, path, node| {
        const IPAM: &[Field] = &[used("driver", text), used("config", ipam_config), ignored("options")];
        reader.object(path, node, IPAM)
    }),
    used("internal", boolean),
    used("attachable", boolean),
    used("enable_ipv6", boolean),
    used("labels", labels),
];

const FILE_OBJECT: &[Field] = &[
    used("name", text),
    used("external", external),
    used("file", |reader, path, node| {
        let node = text(reader, path, node)?;
        Some(Node::text(node.place, absolute(reader, node.as_text())))
    }),
    used("content", text),
    used("environment", text),
    used("labels", labels),
    refused("driver", "secret drivers are not supported"),
    refused("driver_opts", "secret drivers are not supported"),
    used("template_driver", text),
];

/// Every key by the section it stands in, for the table in docs/stack-file.md.
#[cfg(test)]
pub(super) const SECTIONS: [(&str, &[Field]); 27] = [
    ("The file", FILE),
    ("include, long form", super::composition::INCLUDE),
    ("services.*", SERVICE),
    ("services.*.deploy", DEPLOY),
    ("services.*.deploy.placement", PLACEMENT),
    ("services.*.deploy.resources", RESOURCES),
    ("services.*.deploy.resources.limits", LIMITS),
    ("services.*.deploy.resources.reservations", RESERVATIONS),
    ("services.*.deploy.resources.reservations.devices and services.*.gpus", DEVICE_REQUEST),
    ("services.*.deploy.restart_policy", RESTART),
    ("services.*.deploy.update_config and rollback_config", UPDATE),
    ("services.*.ports, long form", super::forms::LONG_PORT),
    ("services.*.networks.*", super::forms::ATTACHMENT),
    ("services.*.secrets and configs, long form", super::forms::FILE_REFERENCE),
    ("services.*.extends, long form", super::composition::EXTENDS),
    ("services.*.depends_on, long form", super::depends_on::LONG),
    ("services.*.x-schedule, long form", super::schedule::LONG),
    ("services.*.env_file, long form", super::forms::ENV_FILE),
    ("services.*.volumes, long form", super::volumes::LONG),
    ("services.*.volumes, long form: bind", super::volumes::BIND),
    ("services.*.volumes, long form: volume", super::volumes::VOLUME),
    ("services.*.volumes, long form: tmpfs", super::volumes::TMPFS),
    ("services.*.healthcheck", HEALTHCHECK),
    ("services.*.logging", LOGGING),
    ("volumes.*", VOLUME),
    ("networks.*", NETWORK),
    ("secrets.* and configs.*", FILE_OBJECT),
];

/// A whole file.
pub fn file(reader: &mut Reader<'_>, node: Node) -> Option<Node> {
    if node.is_null() {
        reader.problem(node.place, "", "the file is empty");
        return None;
    }
    reader.object("", node, FILE)
}

fn service(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let mut node = reader.object(path, node, SERVICE)?;
    resolve_environment(reader, path, &mut node);
    tmpfs_into_volumes(&mut node);
    Some(node)
}

/// The two keys name the same thing; canonically there is one.
fn tmpfs_into_volumes(service: &mut Node) {
    let Value::Map(entries) = &mut service.value else { return };
    let Some(at) = entries.iter().position(|entry| entry.key == "tmpfs") else { return };
    let mut tmpfs = entries.remove(at);
    match entries.iter_mut().find(|entry| entry.key == "volumes").map(|entry| &mut entry.value.value) {
        Some(Value::List(mounts)) => mounts.extend(tmpfs.value.items().iter().cloned()),
        _ => {
            tmpfs.key = "volumes".into();
            entries.push(tmpfs);
        }
    }
}

fn volume(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = reader.object(path, node, VOLUME)?;
    check_external(reader, path, node, &["driver", "driver_opts", "labels", "x-cluster-spec"])
}

fn network(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = reader.object(path, node, NETWORK)?;
    check_external(reader, path, node, &["driver", "driver_opts", "ipam", "internal", "attachable", "labels"])
}

fn file_object(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let node = reader.object(path, node, FILE_OBJECT)?;
    check_external(reader, path, node, &["file", "content", "environment", "labels", "template_driver"])
}

/// `external: true`, or in the old form `external: {name: x}`; canonically a boolean beside a name.
fn external(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    const OLD: &[Field] = &[used("name", text)];
    match node.value {
        Value::Map(_) => reader.object(path, node, OLD),
        _ => boolean(reader, path, node),
    }
}

/// What exists already is not described again.
fn check_external(reader: &mut Reader<'_>, path: &str, mut node: Node, own: &[&str]) -> Option<Node> {
    let (place, name) = match node.get("external") {
        Some(Node { value: Value::Bool(true), place }) => (*place, None),
        Some(old @ Node { value: Value::Map(_), place }) => (*place, old.get("name").map(|n| n.as_text().to_string())),
        _ => return Some(node),
    };
    for key in own {
        if node.get(key).is_some() {
            reader.problem(place, path, format!("{key} cannot be given for what is external"));
        }
    }
    if let Value::Map(entries) = &mut node.value {
        for entry in entries.iter_mut().filter(|entry| entry.key == "external") {
            entry.value.value = Value::Bool(true);
        }
        if let Some(name) = name {
            entries.push(Entry { key: "name".into(), place, value: Node::text(place, name) });
        }
    }
    Some(node)
}

fn volume_policy(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.one_of(path, node, &["wait", "start-empty"])
}

/// A list of requests, or `all`, which is one.
fn device_requests(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    if let Value::Text(word) = &node.value {
        let (place, count) = (node.place, Node::text(node.place, word.clone()));
        let request = Node::new(place, Value::Map(vec![Entry { key: "count".into(), place, value: count }]));
        return Some(Node::new(place, Value::List(vec![request])));
    }
    reader.list(path, node, |reader, path, node| reader.object(path, node, DEVICE_REQUEST))
}

fn ipam_config(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    const CONFIG: &[Field] =
        &[used("subnet", text), used("gateway", text), used("ip_range", text), ignored("aux_addresses")];
    reader.list(path, node, |reader, path, node| reader.object(path, node, CONFIG))
}

fn healthcheck(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.object(path, node, HEALTHCHECK)
}

/// A string is a shell's line, `["CMD-SHELL", line]`; a list says its own kind first.
fn health_test(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    if !matches!(node.value, Value::List(_)) {
        let line = text(reader, path, node)?;
        let place = line.place;
        return Some(Node::new(place, Value::List(vec![Node::text(place, "CMD-SHELL"), line])));
    }
    let node = texts(reader, path, node)?;
    let words = node.items().len();
    match node.items().first().map(Node::as_text) {
        None => None,
        Some("NONE") if words == 1 => Some(node),
        Some("CMD" | "CMD-SHELL") if words > 1 => Some(node),
        Some(_) => {
            reader.problem(node.place, path, "a list begins with NONE, CMD or CMD-SHELL: [\"CMD\", \"curl\", ...]");
            None
        }
    }
}
