//! `flok service ps`.

use clap::Args;

use super::fetch;
use crate::api::client::Client;
use crate::cli::conditions::warn_of_taken_ports;
use crate::cli::tasks::{self, PsArgs};

/// List the tasks of services, those that ended with them
#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    ps: PsArgs,
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

impl Ps {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut services = Vec::new();
        for name in &self.services {
            services.push(fetch(client, name).await?);
        }
        let ids = services.iter().filter_map(|service| service.id.clone()).collect();
        tasks::list(client, "service", ids, &self.ps).await?;
        warn_of_taken_ports(client, &services).await
    }
}
