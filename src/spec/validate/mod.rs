//! What makes a spec acceptable by itself, whatever else is in the swarm. Docker's rules and, where its clients show
//! them, its words. `state::apply` asks here before it stores a spec, so that nothing invalid gets into the log from
//! any client; defaults are not filled in, and references to other objects are not looked at.

mod container;
mod faults;
mod objects;
mod unmet;

use std::collections::BTreeSet;

use super::publish::MAX_PUBLISHED_PORTS;
use super::*;

pub use container::is_dns_domain;
pub use faults::Fault;
use faults::Faults;

/// CPUs and memory below which a limit or a reservation is refused, as in Docker Swarm.
pub const MIN_NANO_CPUS: u64 = 1_000_000;
pub const MIN_MEMORY_BYTES: u64 = 4 << 20;

const MAX_NAME: usize = 63;
const MAX_ALIAS: usize = 253;
const MAX_DATA_NAME: usize = 64;

/// A spec that is refused; the message says what is wrong with which part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSpec(String);

pub(in crate::spec) type Checked = Result<(), InvalidSpec>;

/// The refusal, unless `ok`.
fn require(ok: bool, why: impl FnOnce() -> String) -> Checked {
    if ok { Ok(()) } else { Err(InvalidSpec(why())) }
}

/// A hundred for each of a thousand nodes; more is a slip of the hand.
pub const MAX_REPLICAS: u64 = 100_000;

impl ServiceSpec {
    /// All that is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        Faults::within(|faults| {
            faults.check(&[], check_dns_name(&self.name));
            faults.check(&["deploy", "labels"], check_labels(&self.labels));
            self.task.note_faults(faults);
            self.note_misplaced_ports(faults);
            self.note_bad_templates(faults);
            self.note_unheeded(faults);
            note_update("UpdateConfig", "update_config", &self.update, faults);
            note_update("RollbackConfig", "rollback_config", &self.rollback, faults);
            self.endpoint.note_faults(faults);
            self.note_bad_dependencies(faults);
            self.note_bad_schedule(faults);
            self.note_bad_mode(faults);
        })
    }

    /// The first of its [`faults`](Self::faults).
    pub fn validate(&self) -> Checked {
        faults::first(self.faults())
    }

    fn note_bad_mode(&self, faults: &mut Faults) {
        let count = match self.mode {
            ServiceMode::Replicated { replicas } => Some((replicas, "replicas")),
            ServiceMode::ReplicatedJob { max_concurrent, .. } => Some((max_concurrent, "tasks at a time")),
            ServiceMode::Global | ServiceMode::GlobalJob => None,
        };
        if let Some((count, what)) = count {
            faults.require(&["deploy", "replicas"], count <= MAX_REPLICAS, || {
                let name = &self.name;
                format!("service {name}: {count} {what} are more than a swarm runs: {MAX_REPLICAS} at most")
            });
        }
        let never = matches!(self.mode, ServiceMode::ReplicatedJob { max_concurrent: 0, total_completions: 1.. });
        faults.require(&["deploy", "replicas"], !never, || {
            "a job that runs no task at a time never completes: set its maximum above 0".into()
        });
    }

    /// What its mode would not heed.
    fn note_unheeded(&self, faults: &mut Faults) {
        for (key, config) in [("update_config", &self.update), ("rollback_config", &self.rollback)] {
            faults.require(&["deploy", key], !self.mode.is_job() || config.is_default(), || {
                let name = key.trim_end_matches("_config");
                format!("Jobs may not have an update config: a job that is changed runs anew, so leave its {name} config out")
            });
        }
        let counted = !self.mode.is_global() || self.task.placement.max_replicas == 0;
        faults.require(&["deploy", "placement", "max_replicas_per_node"], counted, || {
            "replicas-max-per-node can only be used with replicated or replicated-job mode: \
             a global service has one task on each node"
                .into()
        });
    }

    /// Expression and time zone are looked at where they are given: another build may know others.
    fn note_bad_schedule(&self, faults: &mut Faults) {
        let Some(schedule) = &self.schedule else { return };
        faults.require(&["deploy", "mode"], self.mode.is_job(), || {
            format!(
                "service {} has a schedule, and is no job: only jobs have runs, so make its mode replicated-job or global-job",
                self.name
            )
        });
        let bounds = schedule.check_bounds();
        let why = |why| InvalidSpec(format!("the schedule of service {}: {why}", self.name));
        faults.check(&["x-schedule"], bounds.map_err(why));
    }

    fn note_misplaced_ports(&self, faults: &mut Faults) {
        let Some(network) = self.task.node_network().filter(|_| !self.task.has_own_addresses()) else { return };
        let why = match network {
            NodeNetwork::Host => "its ports are the node's own there",
            _ => "nobody reaches it there",
        };
        faults.require(&["ports"], self.endpoint.ports.is_empty(), || {
            format!(
                "service {} is on network {} and publishes ports, though {why}: leave one out",
                self.name,
                network.name()
            )
        });
    }

    fn note_bad_dependencies(&self, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for one in &self.depends_on {
            let at = ["depends_on"];
            faults.check(&at, check_dns_name(&one.service));
            faults.require(&at, one.service != self.name, || format!("service {} depends on itself", self.name));
            faults.require(&at, seen.insert(&one.service), || format!("service {} is depended on twice", one.service));
        }
    }

    /// Templates that cannot be filled in for any task.
    fn note_bad_templates(&self, faults: &mut Faults) {
        for (at, why) in self.task.container.bad_templates(&self.labels) {
            faults.check(&at.iter().map(String::as_str).collect::<Vec<_>>(), Err(InvalidSpec(why)));
        }
    }
}

impl TaskSpec {
    fn note_faults(&self, faults: &mut Faults) {
        self.container.note_faults(faults);
        self.resources.note_faults(faults);
        self.placement.note_faults(faults);
        self.note_bad_networks(faults);
        if let Some(driver) = &self.log_driver {
            let named = require(!driver.name.is_empty(), || "log driver: a name must be provided".into());
            faults.check(&["logging"], named.and_then(|()| driver.read().map(drop).map_err(InvalidSpec)));
        }
    }

    /// No network is attached twice, and one of the node's own is the only one.
    pub fn check_networks(&self) -> Checked {
        faults::first(Faults::within(|faults| self.note_bad_networks(faults)))
    }

    fn note_bad_networks(&self, faults: &mut Faults) {
        let mut targets = Vec::new();
        for attachment in &self.networks {
            let target = &attachment.target;
            let name = match target {
                NetworkTarget::Name(name) => name.as_str(),
                NetworkTarget::Id(_) => "",
            };
            faults.require(&["networks", name], !targets.contains(&target), || "a network is attached twice".into());
            targets.push(target);
            for alias in &attachment.aliases {
                faults.check(&["networks", name, "aliases", alias], check_alias(alias));
            }
        }
        if let Some(network) = self.node_network() {
            self.note_bad_node_network(network, faults);
        }
    }

    fn note_bad_node_network(&self, network: NodeNetwork, faults: &mut Faults) {
        let name = network.name();
        faults.require(&["networks", name], self.networks.len() == 1, || {
            format!("network {name} is the node's own: a task is on it alone, or on networks of the swarm")
        });
        faults.require(&["networks", name], self.networks[0].aliases.is_empty(), || {
            format!("network {name} is the node's own and has no aliases")
        });
        let of_network = |name: &&String| name.starts_with("net.") || name.starts_with("net/");
        for sysctl in self.container.sysctls.keys().filter(of_network).filter(|_| network == NodeNetwork::Host) {
            faults.require(&["sysctls", sysctl], false, || {
                format!("sysctl {sysctl} would be set for the whole node, as the task is on network host")
            });
        }
    }
}

impl Resources {
    fn note_faults(&self, faults: &mut Faults) {
        let (limits, reserved) = (&self.limits, &self.reservations);
        for (what, section, nano_cpus, memory_bytes) in [
            ("limit", "limits", limits.nano_cpus, limits.memory_bytes),
            ("reservation", "reservations", reserved.nano_cpus, reserved.memory_bytes),
        ] {
            let at = |key| ["deploy", "resources", section, key];
            faults.require(&at("cpus"), nano_cpus == 0 || nano_cpus >= MIN_NANO_CPUS, || {
                format!("invalid cpu value of the {what}: must be at least 0.001")
            });
            faults.require(&at("memory"), memory_bytes == 0 || memory_bytes >= MIN_MEMORY_BYTES, || {
                format!("invalid memory value {memory_bytes} of the {what}: must be at least 4MiB")
            });
        }
        let above = |reserved: u64, limit: u64| limit != 0 && reserved > limit;
        let at = |key| ["deploy", "resources", "reservations", key];
        faults.require(&at("cpus"), !above(reserved.nano_cpus, limits.nano_cpus), || {
            "the cpu reservation is above the limit".into()
        });
        faults.require(&at("memory"), !above(reserved.memory_bytes, limits.memory_bytes), || {
            "the memory reservation is above the limit".into()
        });
        note_generic(&reserved.generic, faults);
    }
}

/// A kind is counted once, or its things are named one by one.
fn note_generic(generic: &[GenericResource], faults: &mut Faults) {
    let at = ["deploy", "resources", "reservations", "generic_resources"];
    let mut seen = BTreeSet::new();
    let mut counted = BTreeSet::new();
    for resource in generic {
        let kind = resource.kind();
        let empty = match resource {
            GenericResource::Discrete { value, .. } => *value == 0,
            GenericResource::Named { value, .. } => value.is_empty(),
            GenericResource::All { .. } => false,
        };
        faults
            .require(&at, !kind.is_empty() && !empty, || format!("generic resource {kind:?} has no name or no amount"));
        let is_named = matches!(resource, GenericResource::Named { .. });
        let is_all = matches!(resource, GenericResource::All { .. });
        let named_too = is_all && seen.iter().any(|other: &&GenericResource| other.kind() == kind);
        let twice =
            named_too || !seen.insert(resource) || counted.contains(kind) || (!is_named && !counted.insert(kind));
        faults.require(&at, !twice, || format!("generic resource {kind:?} is asked for twice"));
    }
}

impl Placement {
    fn note_faults(&self, faults: &mut Faults) {
        for text in &self.constraints {
            let parsed = text.parse::<Constraint>().map(drop);
            let at = ["deploy", "placement", "constraints", text];
            faults.check(&at, parsed.map_err(|invalid| InvalidSpec(invalid.to_string())));
        }
        for path in &self.spread {
            faults.require(&["deploy", "placement", "preferences", path], NodeField::parse(path).is_some(), || {
                format!("invalid placement preference {path:?}: spread over a field such as node.labels.zone")
            });
        }
    }
}

impl EndpointSpec {
    fn note_faults(&self, faults: &mut Faults) {
        faults.require(&["ports"], self.ports.len() <= MAX_PUBLISHED_PORTS, || {
            format!(
                "EndpointSpec: {} ports are published: a service has at most {MAX_PUBLISHED_PORTS}",
                self.ports.len()
            )
        });
        let mut published = BTreeSet::new();
        for port in &self.ports {
            let at = ["ports", &port.published.to_string()];
            faults.require(&at, port.target != 0, || "EndpointSpec: a port needs the port in the container".into());
            faults.require(&at, port.published == 0 || published.insert((port.published, port.protocol)), || {
                format!("EndpointSpec: duplicate published ports provided: {}", port.published)
            });
        }
        let in_mesh = self.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        faults.require(&["deploy", "endpoint_mode"], self.mode != EndpointMode::Dnsrr || !in_mesh, || {
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode: publish it in host mode"
                .into()
        });
    }
}

fn note_update(what: &str, key: &str, update: &UpdateConfig, faults: &mut Faults) {
    // Also false for what is no number.
    let ratio = (0.0..=1.0).contains(&update.max_failure_ratio);
    faults.require(&["deploy", key, "max_failure_ratio"], ratio, || {
        format!("{what}: the maximum failure ratio cannot be less than 0 or bigger than 1")
    });
}

/// Names of services, which are names in the swarm's DNS.
fn check_dns_name(name: &str) -> Checked {
    check_present(name)?;
    require(name.len() <= MAX_NAME, || format!("name must be {MAX_NAME} characters or fewer"))?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    require(name.bytes().all(inner) && has_alphanumeric_ends(name), || {
        format!(
            "name {name:?} must be valid as a DNS name component: letters, digits, '-' and '_' between letters or digits"
        )
    })
}

/// Other names of a service on a network: as in DNS, and with the underscores that services have too.
pub(in crate::spec) fn check_alias(alias: &str) -> Checked {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label =
        |label: &str| (1..=MAX_NAME).contains(&label.len()) && label.bytes().all(inner) && has_alphanumeric_ends(label);
    require(alias.len() <= MAX_ALIAS && alias.split('.').all(label), || {
        let shown: String = alias.chars().take(80).collect();
        format!(
            "alias {shown:?} is no DNS name: use letters, digits, '-' and '_', up to {MAX_NAME} between dots, \
             each part beginning and ending with a letter or digit"
        )
    })
}

/// Names of secrets and configs.
fn check_data_name(name: &str) -> Checked {
    check_present(name)?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    require(name.len() <= MAX_DATA_NAME && name.bytes().all(inner) && has_alphanumeric_ends(name), || {
        format!(
            "invalid name {name:?}, only {MAX_DATA_NAME} [a-zA-Z0-9-_.] characters allowed, \
             and the start and end character must be [a-zA-Z0-9]"
        )
    })
}

/// Names of networks and volumes.
fn is_resource_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && name.bytes().all(inner)
}

fn check_present(name: &str) -> Checked {
    require(!name.is_empty(), || "meta: name must be provided".into())
}

fn has_alphanumeric_ends(name: &str) -> bool {
    let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    alphanumeric(name.bytes().next()) && alphanumeric(name.bytes().last())
}

fn check_labels(labels: &Labels) -> Checked {
    require(!labels.contains_key(""), || "a label needs a name".into())
}

/// A value that is filled in for each task (`{{.Node.Hostname}}`) can be judged only then.
fn is_template(text: &str) -> bool {
    text.contains("{{")
}

#[cfg(test)]
pub(super) mod tests;
