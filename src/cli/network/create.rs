//! `flok network create`.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use clap::Args;

use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::output::print;
use crate::spec::Subnet;

/// Create a network that spans the swarm
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok network create back
  flok network create --subnet 10.5.0.0/16 --gateway 10.5.0.254 back
  flok network create --ipv6 --internal --label tier=data store")]
pub struct Create {
    /// Driver; overlay is the only one that spans a swarm
    #[arg(long, short, default_value = "overlay")]
    driver: String,
    /// Subnet in CIDR form [default: allocated]; repeat it
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<Subnet>,
    /// Address of a subnet that no task gets [default: its first]; repeat it
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<std::net::IpAddr>,
    /// Part of a subnet that tasks get addresses from; repeat it
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<Subnet>,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// Let containers that are no service's be attached
    #[arg(long)]
    attachable: bool,
    /// The network of published ports, of which there is one
    #[arg(long)]
    ingress: bool,
    /// Addresses of IPv6 too
    #[arg(long)]
    ipv6: bool,
    /// Label; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Option of the driver; repeat it
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    opt: Vec<(String, String)>,
    /// What it is to be called
    #[arg(value_name = "NETWORK")]
    name: String,
}

impl Create {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let request = self.request()?;
        let created = client.docker().create_network(request).await.map_err(|error| client.explain(error))?;
        if !created.warning.is_empty() {
            eprintln!("Warning: {}", created.warning);
        }
        print(&format!("{}\n", created.id))
    }

    fn request(self) -> anyhow::Result<NetworkCreateRequest> {
        let config = configs(&self.subnet, &self.gateway, &self.ip_range)?;
        let map = |pairs: Vec<(String, String)>| -> HashMap<String, String> { pairs.into_iter().collect() };
        Ok(NetworkCreateRequest {
            name: self.name,
            driver: Some(self.driver),
            internal: Some(self.internal),
            attachable: Some(self.attachable),
            ingress: Some(self.ingress),
            enable_ipv6: Some(self.ipv6),
            ipam: Some(Ipam { driver: Some("default".into()), config: Some(config), options: None }),
            options: Some(map(self.opt)),
            labels: Some(map(self.label)),
            ..Default::default()
        })
    }
}

/// Each gateway and range belongs to the subnet that it lies in.
fn configs(subnets: &[Subnet], gateways: &[std::net::IpAddr], ranges: &[Subnet]) -> anyhow::Result<Vec<IpamConfig>> {
    let mut configs: Vec<IpamConfig> =
        subnets.iter().map(|subnet| IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() }).collect();
    let home = |addr| subnets.iter().position(|subnet| subnet.contains(addr));
    for gateway in gateways {
        let at = home(*gateway).ok_or_else(|| anyhow::anyhow!("no matching subnet for gateway {gateway}"))?;
        if let Some(other) = configs[at].gateway.replace(gateway.to_string()) {
            anyhow::bail!("gateways {other} and {gateway} are in one subnet");
        }
    }
    for range in ranges {
        let at = home(range.base()).ok_or_else(|| anyhow::anyhow!("no matching subnet for range {range}"))?;
        if let Some(other) = configs[at].ip_range.replace(range.to_string()) {
            anyhow::bail!("ranges {other} and {range} are in one subnet");
        }
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_and_ranges_find_their_subnets() {
        let subnets = ["10.5.0.0/16", "fd00::/64"].map(|text| text.parse().unwrap());
        let gateways = ["fd00::9", "10.5.0.9"].map(|text| text.parse().unwrap());
        let ranges = ["10.5.3.0/24".parse().unwrap()];
        let configs = configs(&subnets, &gateways, &ranges).unwrap();
        let shown: Vec<_> = configs.iter().map(|c| (c.gateway.as_deref(), c.ip_range.as_deref())).collect();
        assert_eq!(shown, [(Some("10.5.0.9"), Some("10.5.3.0/24")), (Some("fd00::9"), None)]);
    }

    #[test]
    fn what_lies_in_no_subnet_or_twice_in_one_is_refused() {
        let subnet = ["10.5.0.0/16".parse().unwrap()];
        let error = configs(&subnet, &["10.6.0.1".parse().unwrap()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "no matching subnet for gateway 10.6.0.1");
        assert!(configs(&subnet, &["10.5.0.1", "10.5.0.2"].map(|text| text.parse().unwrap()), &[]).is_err());
        assert!(configs(&[], &[], &["10.5.0.0/24".parse().unwrap()]).is_err());
    }
}
