//! `flok swarm join-token`.

use anyhow::Context;
use bollard::models::JoinTokens;
use bollard::query_parameters::UpdateSwarmOptions;
use clap::Args;
use serde_json::json;

use super::update::{change, inspect};
use crate::api::client::Client;
use crate::cli::output::{Format, FormatArg, print};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Manager,
    Worker,
}

/// Print the command with which a node joins this swarm
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok swarm join-token worker
  flok swarm join-token -q manager
  flok swarm join-token --rotate worker      tokens handed out so far admit nobody any more")]
pub struct JoinToken {
    /// Print the token alone
    #[arg(long, short)]
    quiet: bool,
    /// Make a new token; the old one is no longer accepted
    #[arg(long)]
    rotate: bool,
    #[command(flatten)]
    format: FormatArg,
    /// What joins with it
    role: Role,
}

impl JoinToken {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let name = if self.role == Role::Manager { "manager" } else { "worker" };
        if self.rotate {
            rotate(client, self.role).await?;
            if !self.quiet && self.format.format == Format::Table {
                print(&format!("Successfully rotated {name} join token.\n\n"))?;
            }
        }
        if self.quiet {
            return print(&format!("{}\n", token(client, self.role).await?));
        }
        if self.format.format != Format::Table {
            let (token, address) = (token(client, self.role).await?, own_address(client).await?);
            let told = json!({ "Role": name, "Token": token, "Address": address });
            return print(&self.format.format.show(&told, String::new)?);
        }
        let line = join_line(client, self.role).await?;
        print(&format!("To add a {name} to this swarm, run the following command:\n\n    {line}\n\n"))
    }
}

async fn rotate(client: &Client, role: Role) -> anyhow::Result<()> {
    let swarm = inspect(client).await?;
    let options = UpdateSwarmOptions {
        rotate_worker_token: role == Role::Worker,
        rotate_manager_token: role == Role::Manager,
        ..UpdateSwarmOptions::default()
    };
    let spec = swarm.spec.clone().unwrap_or_default();
    change(client, &swarm, spec, options).await
}

/// The present token of a role.
pub async fn token(client: &Client, role: Role) -> anyhow::Result<String> {
    let JoinTokens { worker, manager } =
        inspect(client).await?.join_tokens.context("the daemon gave no join tokens")?;
    let token = if role == Role::Manager { manager } else { worker };
    token.filter(|token| !token.is_empty()).context("the daemon gave no join token")
}

/// The command to run on the node that joins.
pub async fn join_line(client: &Client, role: Role) -> anyhow::Result<String> {
    Ok(format!("flok swarm join --token {} {}", token(client, role).await?, own_address(client).await?))
}

/// Where others reach this manager.
pub async fn own_address(client: &Client) -> anyhow::Result<String> {
    let info = client.docker().info().await.map_err(|error| client.explain(error))?;
    let id = info.swarm.and_then(|swarm| swarm.node_id).context("the daemon named no node of its own")?;
    let node = client.docker().inspect_node(&id).await.map_err(|error| client.explain(error))?;
    node.manager_status.and_then(|status| status.addr).context("this node has no manager's address")
}
