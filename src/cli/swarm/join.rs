//! `flok swarm join`.

use std::time::Duration;

use bollard::models::SwarmJoinRequest;
use clap::Args;
use serde_json::json;

use super::{AvailabilityArg, With};
use crate::api::client::Client;
use crate::cli::output::{FormatArg, print};

/// The daemon tries each address within bounds of its own.
const WITHIN: Duration = Duration::from_secs(120);

/// Join a swarm; the token decides whether as a manager or as a worker
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok swarm join --token FLKTKN-1-... 192.0.2.10:2377
  flok swarm join --token FLKTKN-1-... 192.0.2.10:2377 192.0.2.11:2377      several ways in")]
pub struct Join {
    /// Token that `flok swarm join-token` printed
    #[arg(long, value_name = "TOKEN")]
    token: String,
    /// Address told to other nodes (IP[:PORT])
    #[arg(long, value_name = "ADDR")]
    advertise_addr: Option<String>,
    /// Address on which other nodes reach this one (IP[:PORT])
    #[arg(long, value_name = "ADDR")]
    listen_addr: Option<String>,
    #[command(flatten)]
    availability: AvailabilityArg,
    /// Members of the swarm to join through
    #[arg(required = true, value_name = "HOST[:PORT]")]
    remote: Vec<String>,
    #[command(flatten)]
    format: FormatArg,
}

impl Join {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        eprintln!("Joining through {}...", self.remote.join(", "));
        let request = SwarmJoinRequest {
            listen_addr: self.listen_addr,
            advertise_addr: self.advertise_addr,
            remote_addrs: Some(self.remote),
            join_token: Some(self.token),
            ..SwarmJoinRequest::default()
        };
        let request = With { request, availability: self.availability.availability };
        client.post_docker("/swarm/join", &request, WITHIN).await?;
        let info = client.docker().info().await.map_err(|error| client.explain(error))?;
        let swarm = info.swarm.unwrap_or_default();
        let role = if swarm.control_available == Some(true) { "manager" } else { "worker" };
        let told = json!({ "NodeID": swarm.node_id, "Role": role });
        print(&self.format.format.show(&told, || format!("This node joined a swarm as a {role}.\n"))?)
    }
}
