//! `flok service inspect --pretty`: a service in Docker's words and order, and below them what only flok has.

use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use bollard::models::*;
use jiff::Timestamp;

use super::ls::mode;
use crate::cli::node::capitalized;
use crate::cli::output::ago;
use crate::cli::tasks::service_name;
use crate::spec::quantity::{format_duration, format_size};
use crate::spec::{SCHEDULE_LABEL, UpdateConfig};

/// Columns before a value.
const WIDTH: usize = 24;
/// Labels that say what Docker has no word for.
const OWN_LABELS: &str = "flok.";

/// What a service's own object does not tell.
pub struct Beside {
    pub now: Timestamp,
    /// When it runs, and when next.
    pub schedule: Option<String>,
    /// By ids.
    pub networks: HashMap<String, String>,
}

/// Lines below one another; what belongs to a title stands one blank further in.
#[derive(Default)]
struct Page {
    depth: usize,
    out: String,
}

impl Page {
    fn words(&mut self, text: &str) {
        writeln!(self.out, "{:depth$}{text}", "", depth = self.depth).expect("a String takes all that is written");
    }

    /// Nothing where there is no value.
    fn line(&mut self, key: &str, value: Option<impl Display>) {
        let value = value.map(|value| value.to_string()).unwrap_or_default();
        if !value.is_empty() {
            let width = WIDTH - self.depth;
            self.words(&format!("{:<width$}{value}", format!("{key}:")));
        }
    }

    /// Nothing where nothing stands below the title.
    fn section(&mut self, title: &str, fill: impl FnOnce(&mut Page)) {
        let mut below = Page { depth: self.depth + 1, out: String::new() };
        fill(&mut below);
        if !below.out.is_empty() {
            self.words(&format!("{title}:"));
            self.out.push_str(&below.out);
        }
    }

    fn pairs(&mut self, title: &str, pairs: impl IntoIterator<Item = (String, String)>) {
        let mut pairs: Vec<(String, String)> = pairs.into_iter().collect();
        pairs.sort();
        self.section(title, |page| {
            for (key, value) in pairs {
                page.words(format!("{key}={value}").trim_end_matches('='));
            }
        });
    }
}

pub fn pretty(service: &Service, beside: &Beside) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let task = spec.task_template.clone().unwrap_or_default();
    let container = task.container_spec.clone().unwrap_or_default();
    let (own, labels): (HashMap<_, _>, HashMap<_, _>) =
        spec.labels.unwrap_or_default().into_iter().partition(|(label, _)| label.starts_with(OWN_LABELS));
    let mut page = Page::default();
    page.line("ID", service.id.as_ref());
    page.line("Name", Some(service_name(service)));
    page.pairs("Labels", labels);
    service_mode(&mut page, service);
    update_status(&mut page, service.update_status.as_ref(), beside.now);
    placement(&mut page, task.placement.as_ref());
    if let Some(update) = &spec.update_config {
        page.section("UpdateConfig", |page| rollout(page, "Update", update));
    }
    if let Some(rollback) = spec.rollback_config {
        let words = |word: String| word.parse().ok();
        let same = ServiceSpecUpdateConfig {
            parallelism: rollback.parallelism,
            delay: rollback.delay,
            failure_action: rollback.failure_action.and_then(|action| words(action.to_string())),
            monitor: rollback.monitor,
            max_failure_ratio: rollback.max_failure_ratio,
            order: rollback.order.and_then(|order| order.to_string().parse().ok()),
        };
        page.section("RollbackConfig", |page| rollout(page, "Rollback", &same));
    }
    page.section("ContainerSpec", |page| container_spec(page, &container));
    rights(&mut page, &container);
    files(&mut page, &container);
    if let Some(driver) = task.log_driver {
        page.section("Log Driver", |page| {
            page.line("Name", driver.name);
            page.pairs("LogOpts", driver.options.unwrap_or_default());
        });
    }
    page.section("Resources", |page| resources(page, &task.resources.unwrap_or_default()));
    page.section("RestartPolicy", |page| restart_policy(page, &task.restart_policy.unwrap_or_default()));
    let networks = task.networks.or(spec.networks).unwrap_or_default();
    page.line(
        "Networks",
        Some(networks.iter().map(|network| of_network(network, beside)).collect::<Vec<_>>().join(" ")),
    );
    let endpoint = service.endpoint.clone().unwrap_or_default();
    let endpoint_mode = endpoint.spec.or(spec.endpoint_spec).and_then(|spec| spec.mode);
    page.line("Endpoint Mode", endpoint_mode);
    page.section("Ports", |page| endpoint.ports.unwrap_or_default().iter().for_each(|port| of_port(page, port)));
    if let Some(check) = &container.health_check {
        page.section("Healthcheck", |page| health_check(page, check));
    }
    page.section("Additions", |page| {
        page.line("Schedule", beside.schedule.as_ref());
        let mut own: Vec<(&String, &String)> = own.iter().collect();
        own.sort();
        for (label, value) in own.into_iter().filter(|(label, _)| !label.starts_with(SCHEDULE_LABEL)) {
            let words = label.trim_start_matches(OWN_LABELS).replace(['-', '_', '.'], " ");
            page.line(&capitalized(&words), Some(value));
        }
    });
    page.out
}

fn service_mode(page: &mut Page, service: &Service) {
    let word = mode(service).split(' ').map(capitalized).collect::<Vec<_>>().join(" ");
    page.line("Service Mode", Some(word));
    let given = service.spec.as_ref().and_then(|spec| spec.mode.clone()).unwrap_or_default();
    page.depth += 1;
    page.line("Replicas", given.replicated.and_then(|replicated| replicated.replicas));
    let job = given.replicated_job.unwrap_or_default();
    page.line("Max Concurrent", job.max_concurrent);
    page.line("Total Completions", job.total_completions);
    page.depth -= 1;
}

fn update_status(page: &mut Page, status: Option<&ServiceUpdateStatus>, now: Timestamp) {
    let Some(status) = status else { return };
    let before = |time: &Option<String>| {
        let text = ago(now, time.as_deref()?);
        Some(text).filter(|text| !text.is_empty())
    };
    page.section("UpdateStatus", |page| {
        page.line("State", status.state);
        page.line("Started", before(&status.started_at));
        page.line("Completed", before(&status.completed_at));
        page.line("Message", status.message.as_ref());
    });
}

fn placement(page: &mut Page, placement: Option<&TaskSpecPlacement>) {
    let Some(placement) = placement else { return };
    let preferences = placement.preferences.iter().flatten().filter_map(|preference| {
        let descriptor = preference.spread.as_ref()?.spread_descriptor.as_ref()?;
        Some(format!("spread={descriptor}"))
    });
    let platforms = placement.platforms.iter().flatten().map(|platform| {
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        format!("{}/{}", word(&platform.os), word(&platform.architecture))
    });
    page.section("Placement", |page| {
        page.line("Constraints", list(placement.constraints.as_deref(), ", "));
        page.line("Preferences", Some(preferences.collect::<Vec<_>>().join(", ")));
        page.line("Platforms", Some(platforms.collect::<Vec<_>>().join(", ")));
        page.line("Max Replicas Per Node", placement.max_replicas.filter(|most| *most > 0));
    });
}

/// Of an update, or of a rollback in the same words.
fn rollout(page: &mut Page, what: &str, config: &ServiceSpecUpdateConfig) {
    let watched = config.monitor.filter(|nanos| *nanos > 0).map_or(UpdateConfig::DEFAULT_MONITOR, of_nanos);
    page.line("Parallelism", Some(config.parallelism.unwrap_or(1)));
    page.line("Delay", time(config.delay));
    page.line("On failure", config.failure_action);
    page.line("Monitoring Period", Some(format_duration(watched)));
    page.line("Max failure ratio", Some(config.max_failure_ratio.unwrap_or(0.0)));
    page.line(&format!("{what} order"), config.order);
}

fn container_spec(page: &mut Page, container: &TaskSpecContainerSpec) {
    page.line("Image", container.image.as_ref());
    page.line("Entrypoint", list(container.command.as_deref(), " "));
    page.line("Args", list(container.args.as_deref(), " "));
    page.line("Env", list(container.env.as_deref(), " "));
    page.line("Dir", container.dir.as_ref());
    page.line("User", container.user.as_ref());
    page.line("Groups", list(container.groups.as_deref(), " "));
    page.line("Hostname", container.hostname.as_ref());
    page.line("Hosts", list(container.hosts.as_deref(), ", "));
    let dns = container.dns_config.clone().unwrap_or_default();
    page.line("DNS", list(dns.nameservers.as_deref(), " "));
    page.line("DNS search", list(dns.search.as_deref(), " "));
    page.line("DNS options", list(dns.options.as_deref(), " "));
    page.line("Init", container.init);
    page.line("TTY", container.tty);
    page.line("Open stdin", container.open_stdin);
    page.line("Read only", container.read_only);
    page.line("Stop signal", container.stop_signal.as_ref());
    page.line("Stop grace period", time(container.stop_grace_period));
    page.line("OOM score adj", container.oom_score_adj.filter(|score| *score != 0));
    page.line("Isolation", container.isolation.filter(|isolation| !isolation.as_ref().is_empty()));
    page.pairs("Labels", container.labels.clone().unwrap_or_default());
}

fn rights(page: &mut Page, container: &TaskSpecContainerSpec) {
    page.section("Capabilities", |page| {
        page.line("Add", list(container.capability_add.as_deref(), ", "));
        page.line("Drop", list(container.capability_drop.as_deref(), ", "));
    });
    let privileges = container.privileges.clone().unwrap_or_default();
    page.line("No new privileges", privileges.no_new_privileges.filter(|no| *no));
    page.section("SysCtls", |page| {
        let mut settings: Vec<(&String, &String)> = container.sysctls.iter().flatten().collect();
        settings.sort();
        settings.into_iter().for_each(|(key, value)| page.words(&format!("{key}: {value}")));
    });
    page.section("Ulimits", |page| {
        for limit in container.ulimits.iter().flatten() {
            let name = limit.name.as_deref().unwrap_or_default();
            page.words(&format!("{name}: {}:{}", limit.soft.unwrap_or(0), limit.hard.unwrap_or(0)));
        }
    });
}

fn files(page: &mut Page, container: &TaskSpecContainerSpec) {
    page.section("Mounts", |page| container.mounts.iter().flatten().for_each(|mount| of_mount(page, mount)));
    page.section("Configs", |page| {
        for config in container.configs.iter().flatten() {
            let target = config.file.as_ref().and_then(|file| file.name.as_deref());
            of_file(page, target, config.config_name.as_deref());
        }
    });
    page.section("Secrets", |page| {
        for secret in container.secrets.iter().flatten() {
            let target = secret.file.as_ref().and_then(|file| file.name.as_deref());
            of_file(page, target, secret.secret_name.as_deref());
        }
    });
}

fn of_mount(page: &mut Page, mount: &Mount) {
    page.line("Target", mount.target.as_ref());
    page.depth += 1;
    page.line("Source", mount.source.as_ref());
    page.line("ReadOnly", Some(mount.read_only.unwrap_or(false)));
    page.line("Type", mount.typ);
    let volume = mount.volume_options.clone().unwrap_or_default();
    page.line("Subpath", volume.subpath);
    page.line("Driver", volume.driver_config.and_then(|driver| driver.name));
    let bind = mount.bind_options.clone().unwrap_or_default();
    page.line("Propagation", bind.propagation.filter(|propagation| !propagation.as_ref().is_empty()));
    let words = [
        ("disabled", bind.non_recursive),
        ("writable", bind.read_only_non_recursive),
        ("readonly", bind.read_only_force_recursive),
    ];
    page.line("Recursive", words.iter().find(|(_, said)| *said == Some(true)).map(|(word, _)| *word));
    let tmpfs = mount.tmpfs_options.clone().unwrap_or_default();
    page.line("Size", size(tmpfs.size_bytes));
    page.line("Options", tmpfs.options.map(|options| options.concat().join(",")));
    page.depth -= 1;
}

fn of_file(page: &mut Page, target: Option<&str>, source: Option<&str>) {
    page.line("Target", target);
    page.depth += 1;
    page.line("Source", source);
    page.depth -= 1;
}

fn resources(page: &mut Page, resources: &TaskSpecResources) {
    let cpus = |nanos: Option<i64>| nanos.filter(|nanos| *nanos > 0).map(|nanos| nanos as f64 / 1e9);
    let reservations = resources.reservations.clone().unwrap_or_default();
    page.section("Reservations", |page| {
        page.line("CPU", cpus(reservations.nano_cpus));
        page.line("Memory", size(reservations.memory_bytes));
        for resource in reservations.generic_resources.iter().flatten() {
            if let Some(counted) = &resource.discrete_resource_spec {
                let count = counted.value.map(|count| if count < 0 { "all".to_owned() } else { count.to_string() });
                page.line(counted.kind.as_deref().unwrap_or_default(), count);
            }
            if let Some(named) = &resource.named_resource_spec {
                page.line(named.kind.as_deref().unwrap_or_default(), named.value.as_ref());
            }
        }
    });
    let limits = resources.limits.clone().unwrap_or_default();
    page.section("Limits", |page| {
        page.line("CPU", cpus(limits.nano_cpus));
        page.line("Memory", size(limits.memory_bytes));
        page.line("PIDs", limits.pids.filter(|pids| *pids > 0));
    });
}

fn restart_policy(page: &mut Page, policy: &TaskSpecRestartPolicy) {
    page.line("Condition", policy.condition.filter(|condition| !condition.as_ref().is_empty()));
    page.line("Delay", time(policy.delay));
    page.line("Max attempts", policy.max_attempts.filter(|most| *most > 0));
    page.line("Window", time(policy.window));
}

fn of_network(network: &NetworkAttachmentConfig, beside: &Beside) -> String {
    let target = network.target.clone().unwrap_or_default();
    let name = beside.networks.get(&target).cloned().unwrap_or(target);
    let aliases = network.aliases.as_deref().unwrap_or_default();
    if aliases.is_empty() { name } else { format!("{name} (as {})", aliases.join(", ")) }
}

fn of_port(page: &mut Page, port: &EndpointPortConfig) {
    let number = |port: Option<i64>| port.filter(|port| *port > 0);
    page.words(&format!("PublishedPort = {}", number(port.published_port).map_or("-".into(), |port| port.to_string())));
    page.depth += 1;
    let word = |word: Option<String>| word.unwrap_or_default();
    page.words(&format!("Protocol = {}", word(port.protocol.map(|protocol| protocol.to_string()))));
    page.words(&format!("TargetPort = {}", port.target_port.unwrap_or(0)));
    page.words(&format!("PublishMode = {}", word(port.publish_mode.map(|mode| mode.to_string()))));
    page.depth -= 1;
}

fn health_check(page: &mut Page, check: &HealthConfig) {
    page.line("Test", list(check.test.as_deref(), " "));
    page.line("Interval", time(check.interval));
    page.line("Timeout", time(check.timeout));
    page.line("Retries", check.retries.filter(|retries| *retries > 0));
    page.line("StartPeriod", time(check.start_period));
    page.line("StartInterval", time(check.start_interval));
}

fn list(words: Option<&[String]>, between: &str) -> Option<String> {
    words.map(|words| words.join(between))
}

fn of_nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// Nothing for none.
fn time(nanos: Option<i64>) -> Option<String> {
    nanos.filter(|nanos| *nanos > 0).map(|nanos| format_duration(of_nanos(nanos)))
}

fn size(bytes: Option<i64>) -> Option<String> {
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0).map(format_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(service: serde_json::Value, schedule: Option<&str>) -> String {
        let beside = Beside {
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
            schedule: schedule.map(str::to_owned),
            networks: [("n1".to_owned(), "back".to_owned())].into(),
        };
        pretty(&serde_json::from_value(service).unwrap(), &beside)
    }

    #[test]
    fn a_service_is_shown_whole_in_dockers_words() {
        let service = serde_json::json!({
            "ID": "s1",
            "Spec": {
                "Name": "web",
                "Labels": {"tier": "front", "empty": "", "flok.privileged": "true", "flok.depends-on": "db:healthy"},
                "Mode": {"Replicated": {"Replicas": 3}},
                "UpdateConfig": {"Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback",
                    "MaxFailureRatio": 0.25, "Order": "start-first"},
                "RollbackConfig": {"FailureAction": "pause", "Monitor": 60_000_000_000_u64},
                "EndpointSpec": {"Mode": "vip"},
                "TaskTemplate": {
                    "ContainerSpec": {
                        "Image": "redis:7", "Command": ["sh"], "Args": ["-c", "true"], "Env": ["A=1", "B=2"], "Dir": "/d",
                        "User": "u", "Init": true, "Hosts": ["10.0.0.9 db"], "CapabilityAdd": ["CAP_NET_ADMIN"],
                        "Sysctls": {"a.b": "1"}, "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                        "Mounts": [{"Target": "/data", "Source": "data", "Type": "volume", "ReadOnly": true},
                        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
                            "BindOptions": {"ReadOnlyNonRecursive": true}}],
                        "Secrets": [{"File": {"Name": "key"}, "SecretName": "key_1"}],
                        "Configs": [{"File": {"Name": "/etc/c"}, "ConfigName": "c_1"}],
                        "HealthCheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64, "Retries": 3},
                    },
                    "Resources": {
                        "Limits": {"NanoCPUs": 1_500_000_000, "MemoryBytes": 1 << 20, "Pids": 9},
                        "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]},
                    },
                    "RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 4},
                    "Placement": {"Constraints": ["node.role==worker"], "MaxReplicas": 2,
                        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}]},
                    "Networks": [{"Target": "n1", "Aliases": ["w"]}, {"Target": "n2"}],
                    "LogDriver": {"Name": "local", "Options": {"max-size": "1m"}},
                },
            },
            "Endpoint": {"Spec": {"Mode": "vip"}, "Ports": [
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
            "UpdateStatus": {"State": "completed", "StartedAt": "2026-01-01T00:00:00Z",
                "CompletedAt": "2026-01-01T00:58:00Z", "Message": "update completed"},
        });
        let expected = "\
ID:                     s1
Name:                   web
Labels:
 empty
 tier=front
Service Mode:           Replicated
 Replicas:              3
UpdateStatus:
 State:                 completed
 Started:               About an hour ago
 Completed:             2 minutes ago
 Message:               update completed
Placement:
 Constraints:           node.role==worker
 Preferences:           spread=node.labels.zone
 Max Replicas Per Node: 2
UpdateConfig:
 Parallelism:           2
 Delay:                 1s
 On failure:            rollback
 Monitoring Period:     5s
 Max failure ratio:     0.25
 Update order:          start-first
RollbackConfig:
 Parallelism:           1
 On failure:            pause
 Monitoring Period:     1m0s
 Max failure ratio:     0
ContainerSpec:
 Image:                 redis:7
 Entrypoint:            sh
 Args:                  -c true
 Env:                   A=1 B=2
 Dir:                   /d
 User:                  u
 Hosts:                 10.0.0.9 db
 Init:                  true
Capabilities:
 Add:                   CAP_NET_ADMIN
SysCtls:
 a.b: 1
Ulimits:
 nofile: 1:2
Mounts:
 Target:                /data
  Source:               data
  ReadOnly:             true
  Type:                 volume
 Target:                /b
  Source:               /a
  ReadOnly:             true
  Type:                 bind
  Recursive:            writable
Configs:
 Target:                /etc/c
  Source:               c_1
Secrets:
 Target:                key
  Source:               key_1
Log Driver:
 Name:                  local
 LogOpts:
  max-size=1m
Resources:
 Reservations:
  gpu:                  2
 Limits:
  CPU:                  1.5
  Memory:               1MiB
  PIDs:                 9
RestartPolicy:
 Condition:             on-failure
 Max attempts:          4
Networks:               back (as w) n2
Endpoint Mode:          vip
Ports:
 PublishedPort = 8080
  Protocol = tcp
  TargetPort = 80
  PublishMode = ingress
Healthcheck:
 Test:                  CMD-SHELL true
 Interval:              5s
 Retries:               3
Additions:
 Depends on:            db:healthy
 Privileged:            true
";
        assert_eq!(shown(service, None), expected);
    }

    #[test]
    fn a_job_with_a_schedule_says_when_it_runs_and_nothing_that_it_has_not() {
        let service = serde_json::json!({
            "ID": "s1",
            "Spec": {
                "Name": "backup",
                "Labels": {"flok.schedule": "@daily", "flok.schedule.window": "1h"},
                "Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}},
                "TaskTemplate": {"ContainerSpec": {"Image": "backup:1"}},
            },
        });
        let expected = "\
ID:                     s1
Name:                   backup
Service Mode:           Replicated Job
 Max Concurrent:        1
 Total Completions:     2
ContainerSpec:
 Image:                 backup:1
Additions:
 Schedule:              \"@daily\" in UTC
";
        assert_eq!(shown(service, Some("\"@daily\" in UTC")), expected);
    }
}
