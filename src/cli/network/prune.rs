//! `flok network prune`.

use bollard::query_parameters::PruneNetworksOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::list::filters;
use crate::cli::output::print;

/// Remove every network that nobody uses
#[derive(Debug, Args)]
pub struct Prune {
    /// Only networks that match: label=, label!=; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// Do it; without, nothing is removed
    #[arg(long, short)]
    force: bool,
}

impl Prune {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        if !self.force {
            anyhow::bail!("this removes all networks that no service uses: say --force to do it");
        }
        let filters = filters(&self.filter);
        let options = PruneNetworksOptions { filters: Some(filters) };
        let pruned = client.docker().prune_networks(Some(options)).await.map_err(|error| client.explain(error))?;
        let deleted = pruned.networks_deleted.unwrap_or_default();
        print(&deleted.iter().map(|name| format!("{name}\n")).collect::<String>())
    }
}
