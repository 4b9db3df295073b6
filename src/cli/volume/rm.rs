//! `flok volume rm`.

use bollard::query_parameters::RemoveVolumeOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::{each, output::print};

/// Remove volumes of this node with their data; what a server holds stays there
#[derive(Debug, Args)]
pub struct Rm {
    /// One that is not there is no error
    #[arg(long, short)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

impl Rm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        each(self.volumes, async |volume| {
            let options = RemoveVolumeOptions { force: self.force };
            client.docker().remove_volume(&volume, Some(options)).await.map_err(|error| client.explain(error))?;
            print(&format!("{volume}\n"))
        })
        .await
    }
}
