//! `flok node rm`.

use bollard::query_parameters::DeleteNodeOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::{each, output::print};

/// Remove nodes that are down from the swarm
#[derive(Debug, Args)]
pub struct Rm {
    /// Remove a node although it is up: it is cut off at once, and its tasks are replaced
    #[arg(long, short)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Rm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        each(self.nodes, async |node| {
            let options = DeleteNodeOptions { force: self.force };
            client.docker().delete_node(&node, Some(options)).await.map_err(|error| client.explain(error))?;
            print(&format!("{node}\n"))
        })
        .await
    }
}
