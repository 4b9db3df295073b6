//! `flok service rm`.

use clap::Args;

use crate::api::client::Client;
use crate::cli::{each, output::print};

/// Remove services and their tasks
#[derive(Debug, Args)]
pub struct Rm {
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

impl Rm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        each(self.services, async |service| {
            client.docker().delete_service(&service).await.map_err(|error| client.explain(error))?;
            print(&format!("{service}\n"))
        })
        .await
    }
}
