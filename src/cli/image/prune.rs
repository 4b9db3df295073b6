//! `flok image prune`.

use bollard::query_parameters::PruneImagesOptions;
use clap::Args;

use super::removed;
use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::list::filters;
use crate::cli::output::print;
use crate::spec::quantity::format_size;

/// Remove this node's images that no container uses and that have no tag
#[derive(Debug, Args)]
pub struct Prune {
    /// Those with a tag, too
    #[arg(long, short)]
    all: bool,
    /// Only images that match: label=, label!=, until=; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// Do it; without, nothing is removed
    #[arg(long, short)]
    force: bool,
}

impl Prune {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        if !self.force {
            anyhow::bail!("this removes images that no container uses from this node: say --force to do it");
        }
        let mut filters = filters(&self.filter);
        if self.all {
            filters.insert("dangling".into(), vec!["false".into()]);
        }
        let options = PruneImagesOptions { filters: Some(filters) };
        let pruned = client.docker().prune_images(Some(options)).await.map_err(|error| client.explain(error))?;
        let space = u64::try_from(pruned.space_reclaimed.unwrap_or_default()).unwrap_or(0);
        let items = pruned.images_deleted.unwrap_or_default();
        print(&format!("{}Total reclaimed space: {}\n", removed(&items), format_size(space)))
    }
}
