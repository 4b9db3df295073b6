//! `flok network rm`.

use clap::Args;

use crate::api::client::Client;
use crate::cli::{each, output::print};

/// Remove networks that nobody uses
#[derive(Debug, Args)]
pub struct Rm {
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

impl Rm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        each(self.networks, async |network| {
            client.docker().remove_network(&network).await.map_err(|error| client.explain(error))?;
            print(&format!("{network}\n"))
        })
        .await
    }
}
