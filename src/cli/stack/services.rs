//! `flok stack services`.

use clap::Args;

use super::{existing, of_stack};
use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::service;

/// List the services of a stack
#[derive(Debug, Args)]
pub struct Services {
    #[command(flatten)]
    list: ListArgs,
    /// Name of the stack
    #[arg(value_name = "NAME")]
    name: String,
}

impl Services {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        existing(client, &self.name).await?;
        let mut filters = self.list.filters();
        for (key, values) in of_stack(Some(&self.name)) {
            // All labels that are asked for must match, this one with them.
            filters.entry(key).or_default().extend(values);
        }
        service::list(client, filters, &self.list).await
    }
}
