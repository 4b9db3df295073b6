//! What a user asks a network to be.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Labels, Subnet};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Labels,
    /// `overlay` is the only driver of swarm scope.
    pub driver: String,
    pub driver_options: Labels,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub ipv6: bool,
    /// Subnets the user asked for, in CIDR form; empty: allocated.
    pub subnets: Vec<SubnetSpec>,
}

/// A network that every node has of its own, known by its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeNetwork {
    /// The node's own interfaces: the task has no network namespace of its own.
    Host,
    /// A loopback interface and nothing else.
    None,
    /// The way out through the node that every task has which has a namespace of its own.
    Bridge,
}

impl NodeNetwork {
    pub const ALL: [NodeNetwork; 3] = [NodeNetwork::Bridge, NodeNetwork::Host, NodeNetwork::None];

    pub fn named(name: &str) -> Option<NodeNetwork> {
        NodeNetwork::ALL.into_iter().find(|network| network.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            NodeNetwork::Host => "host",
            NodeNetwork::None => "none",
            NodeNetwork::Bridge => "bridge",
        }
    }

    /// As Docker calls it.
    pub fn driver(self) -> &'static str {
        match self {
            NodeNetwork::None => "null",
            other => other.name(),
        }
    }
}

/// The one option of the driver that there is: what a packet on the network may be.
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// Docker's option of an overlay network whose traffic IPsec is to encrypt.
pub const ENCRYPTED_OPTION: &str = "encrypted";

/// Whether a network with these options is to be encrypted.
pub fn is_encrypted(options: &Labels) -> bool {
    options.get(ENCRYPTED_OPTION).is_some_and(|value| !matches!(value.as_str(), "0" | "false"))
}

impl NetworkSpec {
    /// What the option says, which was read before it was stored.
    pub fn mtu(&self) -> Option<u32> {
        self.driver_options.get(MTU_OPTION)?.parse().ok()
    }

    /// In which settings two differ, by the words that users have for them.
    pub fn differences(&self, other: &NetworkSpec) -> Vec<&'static str> {
        let differ = [
            ("name", self.name != other.name),
            ("labels", self.labels != other.labels),
            ("driver", self.driver != other.driver),
            ("driver options", self.driver_options != other.driver_options),
            ("internal", self.internal != other.internal),
            ("attachable", self.attachable != other.attachable),
            ("ingress", self.ingress != other.ingress),
            ("IPv6", self.ipv6 != other.ipv6),
            ("subnets", self.subnets != other.subnets),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// What the user said of one of the network's subnets; of one that was allocated, nothing.
    pub fn subnet(&self, subnet: &Subnet) -> Option<&SubnetSpec> {
        self.subnets.iter().find(|asked| asked.subnet.parse() == Ok(*subnet))
    }

    /// The address of a subnet that no task gets: what the user called the gateway, or the first one.
    pub fn gateway(&self, subnet: &Subnet) -> IpAddr {
        let asked = self.subnet(subnet).and_then(|asked| asked.gateway.as_ref()?.parse().ok());
        asked.unwrap_or_else(|| subnet.at(1))
    }

    /// Whether the user chose this family's subnets, so that the swarm adds none.
    pub fn chose_subnets(&self, ipv4: bool) -> bool {
        self.subnets.iter().any(|asked| is_ipv4(&asked.subnet) == ipv4)
    }
}

fn is_ipv4(subnet: &str) -> bool {
    subnet.parse::<Subnet>().is_ok_and(|subnet| subnet.base().is_ipv4())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubnetSpec {
    pub subnet: String,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
}
