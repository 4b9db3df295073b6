//! One service.

use std::collections::BTreeSet;

use super::super::features::Feature;
use super::super::yaml::{Entry, Node};
use super::{Converter, IMAGE_LABEL, deploy, section, text_map};
use crate::spec::image::ImageReference;
use crate::spec::*;

const ALL_CAPABILITIES: &str = "ALL";

impl Converter<'_> {
    pub(super) fn service(&mut self, entry: &Entry) -> Option<ServiceSpec> {
        let path = format!("services.{}", entry.key);
        let (service, root_deploy) = (&entry.value, entry.value.get("deploy"));
        let name = format!("{}_{}", self.name, entry.key);
        let image = self.image(entry, &path)?;
        let mut labels = self.owned(root_deploy.and_then(|deploy| deploy.get("labels")));
        labels.insert(IMAGE_LABEL.into(), entry.value.string("image").unwrap_or_default());
        let ports = ports(service);
        let mut spec = ServiceSpec {
            name,
            labels,
            mode: self.mode(&path, root_deploy),
            update: deploy::update(root_deploy, "update_config"),
            rollback: deploy::update(root_deploy, "rollback_config"),
            depends_on: self.depends_on(&path, service),
            schedule: None,
            endpoint: EndpointSpec { mode: endpoint_mode(root_deploy), ports },
            task: TaskSpec {
                container: self.container(&path, service, image),
                resources: self.resources(&path, service, root_deploy),
                restart: self.restart(&path, service, root_deploy),
                placement: deploy::placement(root_deploy),
                networks: self.attachments(&path, &entry.key, service),
                log_driver: log_driver(service),
                force_update: 0,
                host_ports: Vec::new(),
                ingress: false,
                volume_policy: volume_policy(service, root_deploy),
            },
        };
        spec.task.derive_from_ports(&spec.endpoint.ports);
        // As labels, for files that Docker is to read too.
        if let Err(why) = spec.read_additions() {
            self.report.problem(entry.place, &path, why);
        }
        self.schedule(&path, service, &mut spec);
        self.report_faults("services", entry, spec.faults());
        self.warn_of_unmet("services", entry, spec.unmet());
        Some(spec)
    }

    /// With its tag, as Docker stores it.
    fn image(&mut self, entry: &Entry, path: &str) -> Option<String> {
        let Some(image) = entry.value.get("image") else {
            let message = "has no image: a swarm runs images and builds none";
            self.report.undefined(entry.place, path, ("services", &entry.key), message);
            return None;
        };
        match image.as_text().parse::<ImageReference>() {
            Ok(reference) => Some(reference.familiar()),
            Err(error) => {
                self.report.problem(image.place, &format!("{path}.image"), error.to_string());
                None
            }
        }
    }

    fn container(&mut self, path: &str, service: &Node, image: String) -> ContainerSpec {
        let (cap_add, cap_drop) = capabilities(service);
        ContainerSpec {
            image,
            command: service.strings("entrypoint"),
            args: service.strings("command"),
            env: environment(service),
            dir: service.string("working_dir"),
            user: service.string("user"),
            groups: Vec::new(),
            hostname: service.string("hostname"),
            labels: self.owned(service.get("labels")),
            mounts: self.mounts(path, service),
            stop_signal: service.string("stop_signal"),
            stop_grace: service.duration("stop_grace_period"),
            drain: service.duration("x-drain"),
            healthcheck: self.healthcheck(path, service),
            hosts: extra_hosts(service),
            dns: DnsConfig {
                nameservers: service.strings("dns"),
                search: service.strings("dns_search"),
                options: service.strings("dns_opt"),
            },
            secrets: self.secret_references(path, service),
            configs: self.config_references(path, service),
            cap_add,
            cap_drop,
            sysctls: text_map(service.get("sysctls")),
            ulimits: ulimits(service),
            read_only: service.flag("read_only"),
            init: service.optional_flag("init"),
            tty: service.flag("tty"),
            stdin_open: service.flag("stdin_open"),
            isolation: service.string("isolation"),
            oom_score_adj: service.int("oom_score_adj").unwrap_or(0),
            privileged: service.flag("privileged"),
            security_opt: service.strings("security_opt"),
            devices: service.strings("devices").iter().map(|device| DeviceMapping::parse(device)).collect(),
            shm_size: service.bytes("shm_size"),
            ipc: service.string("ipc"),
            pid: service.string("pid"),
        }
    }

    fn healthcheck(&mut self, path: &str, service: &Node) -> Option<Healthcheck> {
        let check = service.get("healthcheck")?;
        let test = check.strings("test");
        if check.flag("disable") {
            if !test.is_empty() && test != ["NONE"] {
                let message = "test and disable cannot both be given";
                self.report.problem(check.place, &format!("{path}.healthcheck"), message);
            }
            return Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() });
        }
        Some(Healthcheck {
            test,
            interval: check.duration("interval"),
            timeout: check.duration("timeout"),
            retries: check.count("retries").and_then(|retries| u32::try_from(retries).ok()),
            start_period: check.duration("start_period"),
            start_interval: check.duration("start_interval"),
        })
    }

    /// A service without networks of its own is on the stack's default network, once there are networks.
    fn attachments(&mut self, path: &str, key: &str, service: &Node) -> Vec<NetworkAttachment> {
        if !self.features.has(Feature::Networks) {
            return Vec::new();
        }
        let attach = |target: String, aliases: Vec<String>, driver_options: Labels| NetworkAttachment {
            // A network of the node's own has no names.
            aliases: match NodeNetwork::named(&target) {
                Some(_) => aliases,
                None => aliases.into_iter().chain([key.to_string()]).collect(),
            },
            target: NetworkTarget::Name(target),
            driver_options,
        };
        if let Some(mode) = service.get("network_mode") {
            if service.get("networks").is_some() {
                self.report.problem(
                    mode.place,
                    &format!("{path}.network_mode"),
                    "stands beside networks: leave one out",
                );
            }
            return vec![attach(mode.as_text().to_owned(), Vec::new(), Labels::new())];
        }
        let own = service.get("networks").map_or(&[][..], Node::entries);
        let root = self.root;
        let defined = |name: &str| section(root, "networks").iter().find(|entry| entry.key == name);
        let mut attachments = Vec::new();
        for entry in own {
            let network = match defined(&entry.key) {
                Some(network) => self.scoped(&entry.key, &network.value),
                None if entry.key == "default" => format!("{}_default", self.name),
                None => {
                    let message = format!("undefined network {:?}: define it under the top-level networks", entry.key);
                    self.report.undefined(entry.place, &format!("{path}.networks"), ("networks", &entry.key), message);
                    continue;
                }
            };
            let aliases = entry.value.strings("aliases");
            attachments.push(attach(network, aliases, text_map(entry.value.get("driver_opts"))));
        }
        if own.is_empty() {
            let network = defined("default").map(|network| self.scoped("default", &network.value));
            let network = network.unwrap_or_else(|| format!("{}_default", self.name));
            attachments.push(attach(network, Vec::new(), Labels::new()));
        }
        attachments
    }

    fn secret_references(&mut self, path: &str, service: &Node) -> Vec<SecretReference> {
        let reference = |(name, file)| SecretReference { id: SecretId(0), name, file, data_version: DataVersion(0) };
        self.file_references("secrets", path, service).into_iter().map(reference).collect()
    }

    fn config_references(&mut self, path: &str, service: &Node) -> Vec<ConfigReference> {
        let reference = |(name, file)| ConfigReference { id: ConfigId(0), name, file, data_version: DataVersion(0) };
        self.file_references("configs", path, service).into_iter().map(reference).collect()
    }

    /// Names and places of secrets or configs, sorted, as Docker does, so that the order in the file changes no task; the ids
    /// are filled in by whoever stores the service.
    fn file_references(&mut self, kind: &str, path: &str, service: &Node) -> Vec<(String, FileTarget)> {
        let mut references = Vec::new();
        for item in service.get(kind).map_or(&[][..], Node::items) {
            let source = item.string("source").unwrap_or_default();
            let Some(entry) = section(self.root, kind).iter().find(|entry| entry.key == source) else {
                let message = format!("undefined name {source:?}: define it under the top-level {kind}");
                self.report.undefined(item.place, &format!("{path}.{kind}"), (kind, &source), message);
                continue;
            };
            let file = FileTarget {
                name: item.string("target").unwrap_or_else(|| source.clone()),
                uid: item.string("uid").unwrap_or_else(|| "0".into()),
                gid: item.string("gid").unwrap_or_else(|| "0".into()),
                mode: item.count("mode").and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o444),
            };
            references.push((self.scoped(&source, &entry.value), file));
        }
        references.sort_by(|(a, _), (b, _)| a.cmp(b));
        references
    }
}

fn log_driver(service: &Node) -> Option<LogDriver> {
    let logging = service.get("logging")?;
    Some(LogDriver {
        name: logging.string("driver").unwrap_or_else(|| logging::DEFAULT_LOG_DRIVER.into()),
        options: text_map(logging.get("options")),
    })
}

fn endpoint_mode(deploy: Option<&Node>) -> EndpointMode {
    match deploy.and_then(|deploy| deploy.string("endpoint_mode")).as_deref() {
        Some("dnsrr") => EndpointMode::Dnsrr,
        _ => EndpointMode::Vip,
    }
}

fn ports(service: &Node) -> Vec<PortConfig> {
    let mut ports: Vec<PortConfig> = service.get("ports").map_or(&[][..], Node::items).iter().map(port).collect();
    ports.sort_by_key(|port| (port.published, port.target));
    ports
}

fn port(item: &Node) -> PortConfig {
    let number = |key| item.int(key).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    PortConfig {
        name: item.string("name"),
        protocol: match item.string("protocol").as_deref() {
            Some("udp") => Protocol::Udp,
            Some("sctp") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        target: number("target"),
        published: number("published"),
        mode: if item.string("mode").as_deref() == Some("host") { PublishMode::Host } else { PublishMode::Ingress },
    }
}

/// Sorted, as Docker does, so that the order in the file changes no task.
fn environment(service: &Node) -> Vec<String> {
    let entries = service.get("environment").map_or(&[][..], Node::entries);
    let mut env: Vec<String> = entries
        .iter()
        .map(|entry| match entry.value.is_null() {
            true => entry.key.clone(),
            false => format!("{}={}", entry.key, entry.value.as_text()),
        })
        .collect();
    env.sort();
    env
}

/// In the order of `/etc/hosts`, as Docker's specs have them: `address name`.
fn extra_hosts(service: &Node) -> Vec<String> {
    let bare = |address: &str| address.trim_start_matches('[').trim_end_matches(']').to_owned();
    let swap = |host: String| host.split_once(':').map(|(name, address)| format!("{} {name}", bare(address)));
    service.strings("extra_hosts").into_iter().filter_map(swap).collect()
}

/// What is added and what is dropped, by full names, each once and sorted, as Docker stores them: ALL stands for every other,
/// and what is both dropped and added is added.
fn capabilities(service: &Node) -> (Vec<String>, Vec<String>) {
    let named = |key| {
        let full = |name: String| match name.to_ascii_uppercase() {
            all if all == ALL_CAPABILITIES => all,
            full if full.starts_with("CAP_") => full,
            short => format!("CAP_{short}"),
        };
        let names: BTreeSet<String> = service.strings(key).into_iter().map(full).collect();
        if names.contains(ALL_CAPABILITIES) { [ALL_CAPABILITIES.to_owned()].into() } else { names }
    };
    let (add, drop) = (named("cap_add"), named("cap_drop"));
    let dropped = drop.difference(&add).cloned().collect();
    (add.into_iter().collect(), dropped)
}

fn ulimits(service: &Node) -> Vec<Ulimit> {
    let entries = service.get("ulimits").map_or(&[][..], Node::entries);
    let limit = |entry: &Entry| {
        Some(Ulimit { name: entry.key.clone(), soft: entry.value.int("soft")?, hard: entry.value.int("hard")? })
    };
    let mut ulimits: Vec<Ulimit> = entries.iter().filter_map(limit).collect();
    ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    ulimits
}

fn volume_policy(service: &Node, deploy: Option<&Node>) -> VolumePolicy {
    let policy = service.get("x-volume-policy").or_else(|| deploy.and_then(|deploy| deploy.get("x-volume-policy")));
    match policy.map(Node::as_text) {
        Some("start-empty") => VolumePolicy::StartEmpty,
        _ => VolumePolicy::Wait,
    }
}
