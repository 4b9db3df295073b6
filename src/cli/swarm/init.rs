//! `flok swarm init`.

use std::time::Duration;

use bollard::models::{SwarmInitRequest, SwarmSpec, SwarmSpecEncryptionConfig, SwarmSpecOrchestration};
use clap::Args;
use serde_json::json;

use super::join_token::{Role, join_line, own_address, token};
use super::{AvailabilityArg, With, unlock_key};
use crate::api::client::Client;
use crate::cli::output::{Format, FormatArg, print};
use crate::spec::Subnet;

/// Founding includes a first election.
const WITHIN: Duration = Duration::from_secs(30);

/// Begin a swarm with this node as its first manager
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok swarm init
  flok swarm init --advertise-addr 192.0.2.10
  flok swarm init --autolock               managers ask for a key after a restart
  flok swarm init --format json            the node's id and address, and the join tokens
  flok swarm init --force-new-cluster      go on with this manager alone, after the loss of most others")]
pub struct Init {
    /// Address told to other nodes (IP[:PORT])
    #[arg(long, value_name = "ADDR")]
    advertise_addr: Option<String>,
    /// Address on which other nodes reach this one (IP[:PORT])
    #[arg(long, value_name = "ADDR")]
    listen_addr: Option<String>,
    /// UDP port of the networks' tunnels between nodes [default: 4789]
    #[arg(long, value_name = "PORT")]
    data_path_port: Option<u16>,
    /// Where networks get their subnets from [default: 10.0.0.0/8]; repeat it
    #[arg(long, value_name = "CIDR")]
    default_addr_pool: Vec<Subnet>,
    /// Prefix length of these subnets [default: 24]
    #[arg(long, value_name = "LENGTH")]
    default_addr_pool_mask_length: Option<u8>,
    #[command(flatten)]
    availability: AvailabilityArg,
    /// Finished tasks kept in each slot [default: 5]
    #[arg(long, value_name = "COUNT")]
    task_history_limit: Option<u32>,
    /// Lock the managers' keys on their disks: after a restart each wants `flok swarm unlock`
    #[arg(long)]
    autolock: bool,
    /// Make a new swarm of this manager's state: the other managers are given up
    #[arg(long)]
    force_new_cluster: bool,
    #[command(flatten)]
    format: FormatArg,
}

impl Init {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let spec = self.spec();
        let request = SwarmInitRequest {
            listen_addr: self.listen_addr,
            advertise_addr: self.advertise_addr,
            force_new_cluster: Some(self.force_new_cluster),
            spec: Some(spec),
            data_path_port: self.data_path_port.map(u32::from),
            default_addr_pool: Some(self.default_addr_pool.iter().map(Subnet::to_string).collect()),
            subnet_size: self.default_addr_pool_mask_length.map(u32::from),
            ..SwarmInitRequest::default()
        };
        let request = With { request, availability: self.availability.availability };
        let node: String = client.ask_docker("/swarm/init", &request, WITHIN).await?;
        if self.format.format != Format::Table {
            let (manager, worker) = (token(client, Role::Manager).await?, token(client, Role::Worker).await?);
            let tokens = json!({ "Manager": manager, "Worker": worker });
            let mut told = json!({ "NodeID": node, "Address": own_address(client).await?, "JoinTokens": tokens });
            if self.autolock {
                told["UnlockKey"] = unlock_key::current(client).await?.into();
            }
            return print(&self.format.format.show(&told, String::new)?);
        }
        let manager = join_line(client, Role::Manager).await?;
        let worker = join_line(client, Role::Worker).await?;
        print(&format!(
            "Swarm initialized: current node ({node}) is now a manager.\n\n\
             To add a manager to this swarm, run the following command:\n\n    {manager}\n\n\
             To add a worker to this swarm, run the following command:\n\n    {worker}\n\n"
        ))?;
        if self.autolock { unlock_key::show(client).await } else { Ok(()) }
    }

    fn spec(&self) -> SwarmSpec {
        let kept = self.task_history_limit.map(i64::from);
        SwarmSpec {
            encryption_config: self.autolock.then_some(SwarmSpecEncryptionConfig { auto_lock_managers: Some(true) }),
            orchestration: kept.map(|kept| SwarmSpecOrchestration { task_history_retention_limit: Some(kept) }),
            ..SwarmSpec::default()
        }
    }
}
