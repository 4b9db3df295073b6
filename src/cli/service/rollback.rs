//! `flok service rollback`.

use clap::Args;

use super::roll_back;
use crate::api::client::Client;
use crate::cli::output::print;
use crate::cli::tasks;
use crate::cli::waiting::{self, WaitArgs};

/// Go back to the spec before the last update
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service rollback web
  flok service rollback --detach web")]
pub struct Rollback {
    #[command(flatten)]
    wait: WaitArgs,
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
}

impl Rollback {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let service = roll_back(client, &self.service).await?;
        print(&format!("{}\n", self.service))?;
        waiting::converged(client, &[tasks::service_name(&service)], &self.wait).await
    }
}
