//! `flok service ps`.

use clap::Args;

use super::fetch;
use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::tasks;

/// List the tasks of services, those that ended with them
#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    ps: ListArgs,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

impl Ps {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut ids = Vec::new();
        for name in &self.services {
            ids.extend(fetch(client, name).await?.id);
        }
        tasks::list(client, "service", ids, &self.ps).await
    }
}
