//! What makes the specs of secrets, configs, networks, nodes and the swarm acceptable.

use std::time::Duration;

use super::faults::{Fault, Faults, first};
use super::{Checked, InvalidSpec, check_data_name, check_labels, check_present, is_resource_name, require};
use crate::spec::network::is_encrypted;
use crate::spec::*;

/// As in Docker Swarm: a certificate must outlive a few attempts at its renewal.
const MIN_CERT_EXPIRY: Duration = Duration::from_secs(3600);
/// As in Docker Swarm: neither privileged nor of those that hosts choose for themselves.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49151;
const MAX_NETWORK_NAME: usize = 63;

impl SecretSpec {
    /// All that is wrong with it; nothing of its data is said.
    pub fn faults(&self) -> Vec<Fault> {
        let Self { name, labels, data, templating } = self;
        data_faults("secret", name, labels, templating.as_deref(), (&data.0, MAX_SECRET_BYTES))
    }

    /// The first of its [`faults`](Self::faults).
    pub fn validate(&self) -> Checked {
        first(self.faults())
    }
}

impl ConfigSpec {
    /// All that is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        let Self { name, labels, data, templating } = self;
        data_faults("config", name, labels, templating.as_deref(), (data, MAX_CONFIG_BYTES))
    }

    /// The first of its [`faults`](Self::faults).
    pub fn validate(&self) -> Checked {
        first(self.faults())
    }
}

fn data_faults(
    kind: &str,
    name: &str,
    labels: &Labels,
    templating: Option<&str>,
    (data, most): (&[u8], usize),
) -> Vec<Fault> {
    Faults::within(|faults| {
        faults.check(&["name"], check_data_name(name));
        faults.check(&["labels"], check_labels(labels));
        faults.check(&["template_driver"], check_templating(templating));
        faults.check(&[], check_size(kind, data.len(), most));
        if templating == Some("golang") && data.len() <= most {
            let checked = template::check_data(data, kind == "secret")
                .map_err(|why| InvalidSpec(format!("{kind} {name}: its template cannot be filled in: {why}")));
            faults.check(&[], checked);
        }
    })
}

fn check_size(kind: &str, bytes: usize, most: usize) -> Checked {
    require((1..=most).contains(&bytes), || {
        format!("{kind} data must be larger than 0 and at most {most} bytes; it has {bytes}")
    })
}

fn check_templating(driver: Option<&str>) -> Checked {
    require(matches!(driver, None | Some("" | "golang")), || {
        format!("templating driver {:?} is not supported: use golang", driver.unwrap_or_default())
    })
}

impl NetworkSpec {
    /// All that is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        Faults::within(|faults| {
            faults.check(&["name"], self.check_name());
            faults.check(&["labels"], check_labels(&self.labels));
            faults.require(&["driver"], matches!(self.driver.as_str(), "" | "overlay"), || {
                format!("network driver {:?} cannot span a swarm: use overlay", self.driver)
            });
            self.note_bad_options(faults);
            faults.require(&[], !self.ingress || !(self.attachable || self.internal), || {
                "an ingress network is neither attachable nor internal".into()
            });
            self.note_bad_subnets(faults);
        })
    }

    /// The first of its [`faults`](Self::faults).
    pub fn validate(&self) -> Checked {
        first(self.faults())
    }

    fn check_name(&self) -> Checked {
        check_present(&self.name)?;
        require(self.name.len() <= MAX_NETWORK_NAME && is_resource_name(&self.name), || {
            format!(
                "invalid network name {:?}: use up to {MAX_NETWORK_NAME} of [a-zA-Z0-9_.-], beginning with a letter or digit",
                self.name
            )
        })?;
        require(NodeNetwork::named(&self.name).is_none(), || {
            format!("network {} is predefined on every node and cannot be made", self.name)
        })
    }

    fn note_bad_subnets(&self, faults: &mut Faults) {
        let mut known: Vec<Subnet> = Vec::new();
        for spec in &self.subnets {
            let at = ["ipam", "config", &spec.subnet];
            match spec.validate() {
                Ok(subnet) => {
                    faults.check(&at, self.check_beside(&subnet, &known));
                    known.push(subnet);
                }
                Err(invalid) => faults.check(&at, Err(invalid)),
            }
        }
    }

    fn check_beside(&self, subnet: &Subnet, known: &[Subnet]) -> Checked {
        require(subnet.base().is_ipv4() || self.ipv6, || {
            format!("subnet {subnet} is of IPv6: enable IPv6 for network {} too", self.name)
        })?;
        match known.iter().find(|other| other.overlaps(subnet)) {
            Some(other) => {
                Err(InvalidSpec(format!("subnet {subnet} overlaps with {other} of the same network {}", self.name)))
            }
            None => Ok(()),
        }
    }
}

/// A packet of IPv4 that every host takes (RFC 791), and the least of IPv6 (RFC 8200).
const LEAST_MTU: (u32, u32) = (576, 1280);
const MOST_MTU: u32 = 65535;

impl NetworkSpec {
    /// What none of this swarm's nodes would heed is refused.
    fn note_bad_options(&self, faults: &mut Faults) {
        const KNOWN: [&str; 2] = [MTU_OPTION, ENCRYPTED_OPTION];
        for key in self.driver_options.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
            let why = format!(
                "network {}: the overlay driver knows no option {key:?}, only {MTU_OPTION:?}: leave it out",
                self.name
            );
            faults.check(&["driver_opts", key], Err(InvalidSpec(why)));
        }
        // All services that publish ports would wait.
        let is_heeded = !self.ingress || !is_encrypted(&self.driver_options);
        faults.require(&["driver_opts", ENCRYPTED_OPTION], is_heeded, || {
            format!("network {}: no network for ingress can be {ENCRYPTED_OPTION} yet: leave that out", self.name)
        });
        let least = if self.ipv6 { LEAST_MTU.1 } else { LEAST_MTU.0 };
        let fits = |text: &String| text.parse().is_ok_and(|mtu| (least..=MOST_MTU).contains(&mtu));
        faults.require(&["driver_opts", MTU_OPTION], self.driver_options.get(MTU_OPTION).is_none_or(fits), || {
            format!(
                "network {}: {MTU_OPTION} is {:?}: give a number from {least} to {MOST_MTU}",
                self.name, self.driver_options[MTU_OPTION]
            )
        });
    }
}

/// Addresses that mean the same on every host, and what they are for.
const SPECIAL: [(&str, &str); 8] = [
    ("0.0.0.0/8", "this host"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/3", "multicast and what is reserved"),
    ("::/8", "loopback and what is reserved"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast"),
    ("fd66:6c6f:6b::/48", "host-local addresses of tasks"),
];

fn check_special(subnet: &Subnet) -> Checked {
    let overlaps = |special: &str| special.parse().is_ok_and(|special: Subnet| special.overlaps(subnet));
    match SPECIAL.iter().find(|(special, _)| overlaps(special)) {
        Some((special, what)) => Err(InvalidSpec(format!(
            "subnet {subnet} overlaps with {special}, which is for {what}: choose another one"
        ))),
        None => Ok(()),
    }
}

impl SubnetSpec {
    fn validate(&self) -> Result<Subnet, InvalidSpec> {
        let subnet = parse_subnet(&self.subnet)?;
        check_special(&subnet)?;
        let most = if subnet.base().is_ipv4() { 30 } else { 126 };
        require(subnet.prefix() <= most, || format!("subnet {subnet} has no room: its prefix is at most /{most}"))?;
        if let Some(gateway) = &self.gateway {
            let usable = |addr| subnet.contains(addr) && subnet.host_offsets().contains(&subnet.offset_of(addr));
            require(gateway.parse().is_ok_and(usable), || {
                format!("gateway {gateway:?} is no address that a host in subnet {subnet} can have")
            })?;
        }
        if let Some(range) = &self.ip_range {
            let range = parse_subnet(range)?;
            require(subnet.contains(range.base()) && range.prefix() >= subnet.prefix(), || {
                format!("IP range {range} does not lie in subnet {subnet}")
            })?;
            let single = range.base().is_ipv4() && range.prefix() > 31 || range.prefix() > 127;
            require(!single, || format!("IP range {range} has no room for a service and its tasks"))?;
        }
        Ok(subnet)
    }
}

fn parse_subnet(text: &str) -> Result<Subnet, InvalidSpec> {
    text.parse::<Subnet>().map_err(|invalid| InvalidSpec(invalid.to_string()))
}

impl NodeSpec {
    pub fn validate(&self) -> Checked {
        check_labels(&self.labels)?;
        let fits = |name: &String| name.is_empty() || (name.len() <= 253 && is_resource_name(name));
        require(self.name.as_ref().is_none_or(fits), || {
            format!("invalid node name {:?}: use [a-zA-Z0-9_.-]", self.name.as_deref().unwrap_or_default())
        })
    }
}

impl SwarmSpec {
    pub fn validate(&self) -> Checked {
        check_labels(&self.labels)?;
        require(DATA_PATH_PORTS.contains(&self.data_path_port), || {
            format!(
                "data path port {} is not between {} and {}",
                self.data_path_port,
                DATA_PATH_PORTS.start(),
                DATA_PATH_PORTS.end()
            )
        })?;
        require(self.cert_expiry >= MIN_CERT_EXPIRY, || "minimum certificate expiry time is: 1h".into())?;
        require(!self.address_pools.is_empty(), || "at least one address pool is needed".into())?;
        let mut pools: Vec<Subnet> = Vec::new();
        for pool in &self.address_pools {
            let pool = parse_subnet(pool)?;
            require(pool.base().is_ipv4(), || format!("address pool {pool} is not of IPv4"))?;
            require(!pools.iter().any(|other| other.overlaps(&pool)), || {
                format!("address pool {pool} overlaps with another")
            })?;
            require((pool.prefix()..=29).contains(&self.subnet_size), || {
                format!("subnets of size /{} cannot be cut from pool {pool}", self.subnet_size)
            })?;
            pools.push(pool);
        }
        Ok(())
    }
}
