//! `flok node ps`.

use clap::Args;

use super::own_id;
use crate::api::client::Client;
use crate::cli::tasks::{self, PsArgs};

/// List the tasks on nodes, by default on this one
#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    ps: PsArgs,
    /// Names, ids or "self"
    #[arg(value_name = "NODE", default_value = "self")]
    nodes: Vec<String>,
}

impl Ps {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut ids = Vec::new();
        for name in &self.nodes {
            let name = own_id(client, name).await?;
            let node = client.docker().inspect_node(&name).await.map_err(|error| client.explain(error))?;
            ids.extend(node.id);
        }
        tasks::list(client, "node", ids, &self.ps).await
    }
}
