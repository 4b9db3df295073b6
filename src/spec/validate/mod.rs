//! What makes a spec acceptable by itself, whatever else is in the swarm. Docker's rules and, where its clients show
//! them, its words. `state::apply` asks here before it stores a spec, so that nothing invalid gets into the log from
//! any client; defaults are not filled in, and references to other objects are not looked at.

mod container;
mod objects;

use std::collections::BTreeSet;

use super::publish::MAX_PUBLISHED_PORTS;
use super::*;

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
    pub fn validate(&self) -> Checked {
        check_dns_name(&self.name)?;
        check_labels(&self.labels)?;
        self.task.validate()?;
        self.check_ports_are_its_own()?;
        self.check_templates()?;
        check_update("UpdateConfig", &self.update)?;
        check_update("RollbackConfig", &self.rollback)?;
        self.endpoint.validate()?;
        self.check_depends_on()?;
        self.check_schedule()?;
        match self.mode {
            ServiceMode::Replicated { replicas } if replicas > MAX_REPLICAS => Err(InvalidSpec(format!(
                "service {}: {replicas} replicas are more than a swarm runs: {MAX_REPLICAS} at most",
                self.name
            ))),
            ServiceMode::ReplicatedJob { max_concurrent, .. } if max_concurrent > MAX_REPLICAS => {
                Err(InvalidSpec(format!(
                    "service {}: {max_concurrent} tasks at a time are more than a swarm runs: {MAX_REPLICAS} at most",
                    self.name
                )))
            }
            ServiceMode::ReplicatedJob { max_concurrent: 0, total_completions: 1.. } => {
                Err(InvalidSpec("a job that runs no task at a time never completes: set its maximum above 0".into()))
            }
            _ => Ok(()),
        }
    }
}

impl ServiceSpec {
    /// Expression and time zone are looked at where they are given: another build may know others.
    fn check_schedule(&self) -> Checked {
        let Some(schedule) = &self.schedule else { return Ok(()) };
        require(self.mode.is_job(), || {
            format!(
                "service {} has a schedule, and is no job: only jobs have runs, so make its mode replicated-job or global-job",
                self.name
            )
        })?;
        schedule.check_bounds().map_err(|why| InvalidSpec(format!("the schedule of service {}: {why}", self.name)))
    }

    fn check_ports_are_its_own(&self) -> Checked {
        let Some(network) = self.task.node_network().filter(|_| !self.task.has_own_addresses()) else { return Ok(()) };
        let why = match network {
            NodeNetwork::Host => "its ports are the node's own there",
            _ => "nobody reaches it there",
        };
        require(self.endpoint.ports.is_empty(), || {
            format!(
                "service {} is on network {} and publishes ports, though {why}: leave one out",
                self.name,
                network.name()
            )
        })
    }

    fn check_depends_on(&self) -> Checked {
        let mut seen = BTreeSet::new();
        for one in &self.depends_on {
            check_dns_name(&one.service)?;
            require(one.service != self.name, || format!("service {} depends on itself", self.name))?;
            require(seen.insert(&one.service), || format!("service {} is depended on twice", one.service))?;
        }
        Ok(())
    }

    /// Whether its templates can be filled in for some task.
    fn check_templates(&self) -> Checked {
        let context = template::Context {
            service_id: "id",
            service_name: &self.name,
            service_labels: &self.labels,
            node_id: "id",
            node_hostname: "node",
            node_os: "linux",
            node_architecture: "x86_64",
            task_id: "id",
            task_name: "name",
            task_slot: "1",
        };
        self.task.container.expanded(&context).map(|_| ()).map_err(InvalidSpec)
    }
}

impl TaskSpec {
    fn validate(&self) -> Checked {
        self.container.validate()?;
        self.resources.validate()?;
        self.placement.validate()?;
        self.check_networks()?;
        let Some(driver) = &self.log_driver else { return Ok(()) };
        require(!driver.name.is_empty(), || "log driver: a name must be provided".into())?;
        driver.read().map(drop).map_err(InvalidSpec)
    }

    /// No network is attached twice, and one of the node's own is the only one.
    pub fn check_networks(&self) -> Checked {
        let mut targets = Vec::new();
        for attachment in &self.networks {
            require(!targets.contains(&&attachment.target), || "a network is attached twice".into())?;
            targets.push(&attachment.target);
            attachment.aliases.iter().try_for_each(|alias| check_alias(alias))?;
        }
        let Some(network) = self.node_network() else { return Ok(()) };
        let name = network.name();
        require(self.networks.len() == 1, || {
            format!("network {name} is the node's own: a task is on it alone, or on networks of the swarm")
        })?;
        require(self.networks[0].aliases.is_empty(), || {
            format!("network {name} is the node's own and has no aliases")
        })?;
        let of_network = |name: &&String| name.starts_with("net.") || name.starts_with("net/");
        match self.container.sysctls.keys().find(of_network).filter(|_| network == NodeNetwork::Host) {
            Some(sysctl) => Err(InvalidSpec(format!(
                "sysctl {sysctl} would be set for the whole node, as the task is on network host"
            ))),
            None => Ok(()),
        }
    }
}

impl Resources {
    fn validate(&self) -> Checked {
        let (limits, reserved) = (&self.limits, &self.reservations);
        for (what, nano_cpus, memory_bytes) in [
            ("limit", limits.nano_cpus, limits.memory_bytes),
            ("reservation", reserved.nano_cpus, reserved.memory_bytes),
        ] {
            require(nano_cpus == 0 || nano_cpus >= MIN_NANO_CPUS, || {
                format!("invalid cpu value of the {what}: must be at least 0.001")
            })?;
            require(memory_bytes == 0 || memory_bytes >= MIN_MEMORY_BYTES, || {
                format!("invalid memory value {memory_bytes} of the {what}: must be at least 4MiB")
            })?;
        }
        let above = |reserved: u64, limit: u64| limit != 0 && reserved > limit;
        require(!above(reserved.nano_cpus, limits.nano_cpus), || "the cpu reservation is above the limit".into())?;
        require(!above(reserved.memory_bytes, limits.memory_bytes), || {
            "the memory reservation is above the limit".into()
        })?;
        check_generic(&reserved.generic)
    }
}

/// A kind is counted once, or its things are named one by one.
fn check_generic(generic: &[GenericResource]) -> Checked {
    let mut seen = BTreeSet::new();
    let mut counted = BTreeSet::new();
    for resource in generic {
        let (kind, empty) = match resource {
            GenericResource::Discrete { kind, value } => (kind, *value == 0),
            GenericResource::Named { kind, value } => (kind, value.is_empty()),
            GenericResource::All { kind } => (kind, false),
        };
        require(!kind.is_empty() && !empty, || format!("generic resource {kind:?} has no name or no amount"))?;
        let is_named = matches!(resource, GenericResource::Named { .. });
        let is_all = matches!(resource, GenericResource::All { .. });
        let named_too = is_all && seen.iter().any(|other: &&GenericResource| other.kind() == kind);
        let twice =
            named_too || !seen.insert(resource) || counted.contains(kind) || (!is_named && !counted.insert(kind));
        require(!twice, || format!("generic resource {kind:?} is asked for twice"))?;
    }
    Ok(())
}

impl Placement {
    fn validate(&self) -> Checked {
        for constraint in &self.constraints {
            constraint.parse::<Constraint>().map_err(|invalid| InvalidSpec(invalid.to_string()))?;
        }
        for path in &self.spread {
            require(NodeField::parse(path).is_some(), || {
                format!("invalid placement preference {path:?}: spread over a field such as node.labels.zone")
            })?;
        }
        Ok(())
    }
}

impl EndpointSpec {
    fn validate(&self) -> Checked {
        require(self.ports.len() <= MAX_PUBLISHED_PORTS, || {
            format!(
                "EndpointSpec: {} ports are published: a service has at most {MAX_PUBLISHED_PORTS}",
                self.ports.len()
            )
        })?;
        let mut published = BTreeSet::new();
        for port in &self.ports {
            require(port.target != 0, || "EndpointSpec: a port needs the port in the container".into())?;
            require(self.mode != EndpointMode::Dnsrr || port.mode != PublishMode::Ingress, || {
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode".into()
            })?;
            require(port.published == 0 || published.insert((port.published, port.protocol)), || {
                format!("EndpointSpec: duplicate published ports provided: {}", port.published)
            })?;
        }
        Ok(())
    }
}

fn check_update(what: &str, update: &UpdateConfig) -> Checked {
    // Also false for what is no number.
    let ratio = (0.0..=1.0).contains(&update.max_failure_ratio);
    require(ratio, || format!("{what}: the maximum failure ratio cannot be less than 0 or bigger than 1"))
}

/// Names of services, which are names in the swarm's DNS.
fn check_dns_name(name: &str) -> Checked {
    check_present(name)?;
    require(name.len() <= MAX_NAME, || format!("name must be {MAX_NAME} characters or fewer"))?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    require(name.bytes().all(inner) && has_alphanumeric_ends(name), || {
        format!("name {name:?} must be valid as a DNS name component")
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
