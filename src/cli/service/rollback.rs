//! `flok service rollback`.

use clap::Args;

use super::{Store, fetch, store};
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
        let service = fetch(client, &self.service).await?;
        let spec = service.spec.clone().unwrap_or_default();
        store(client, &service, spec, Store { rollback: true, ..Store::default() }).await?;
        print(&format!("{}\n", self.service))?;
        waiting::converged(client, &[tasks::service_name(&service)], &self.wait).await
    }
}
