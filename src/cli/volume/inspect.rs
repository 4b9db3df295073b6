//! `flok volume inspect`.

use clap::Args;

use crate::api::client::Client;
use crate::cli::output::JsonArg;

/// Show volumes of this node in full; passwords in their options are not shown
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    format: JsonArg,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

impl Inspect {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut volumes = Vec::new();
        for name in &self.volumes {
            let found = client.docker().inspect_volume(name).await;
            volumes.push(found.map_err(|error| client.explain(error))?);
        }
        self.format.show(&volumes)
    }
}
