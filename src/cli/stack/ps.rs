//! `flok stack ps`.

use clap::Args;

use super::existing;
use crate::api::client::Client;
use crate::cli::conditions::warn_of_taken_ports;
use crate::cli::tasks::{self, PsArgs};

/// List the tasks of a stack, those that ended with them
#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    ps: PsArgs,
    /// Name of the stack
    #[arg(value_name = "NAME")]
    name: String,
}

impl Ps {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let services = existing(client, &self.name).await?;
        let ids = services.iter().filter_map(|service| service.id.clone()).collect();
        tasks::list(client, "service", ids, &self.ps).await?;
        warn_of_taken_ports(client, &services).await
    }
}
