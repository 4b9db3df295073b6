//! `flok stack services`.

use clap::Args;

use super::{existing, of_stack};
use crate::api::client::Client;
use crate::cli::output::FormatArg;
use crate::cli::service;

/// List the services of a stack
#[derive(Debug, Args)]
pub struct Services {
    /// Print ids alone
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArg,
    /// Name of the stack
    #[arg(value_name = "NAME")]
    name: String,
}

impl Services {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        existing(client, &self.name).await?;
        service::list(client, of_stack(Some(&self.name)), self.quiet, self.format.format).await
    }
}
