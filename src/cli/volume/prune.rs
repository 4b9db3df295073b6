//! `flok volume prune`.

use bollard::query_parameters::PruneVolumesOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::list::filters;
use crate::cli::output::print;

/// Remove this node's volumes that no container uses, with their data
#[derive(Debug, Args)]
pub struct Prune {
    /// Those with a name of their own, too
    #[arg(long, short)]
    all: bool,
    /// Only volumes that match: label=, label!=; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// Do it; without, nothing is removed
    #[arg(long, short)]
    force: bool,
}

impl Prune {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        if !self.force {
            anyhow::bail!("this removes the data of all volumes that no container uses: say --force to do it");
        }
        let mut filters = filters(&self.filter);
        if self.all {
            filters.insert("all".into(), vec!["true".into()]);
        }
        let options = PruneVolumesOptions { filters: Some(filters) };
        let pruned = client.docker().prune_volumes(Some(options)).await.map_err(|error| client.explain(error))?;
        let deleted = pruned.volumes_deleted.unwrap_or_default();
        print(&deleted.iter().map(|name| format!("{name}\n")).collect::<String>())
    }
}
