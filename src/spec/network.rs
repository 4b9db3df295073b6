//! What a user asks a network to be.

use serde::{Deserialize, Serialize};

use super::Labels;

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubnetSpec {
    pub subnet: String,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
}
