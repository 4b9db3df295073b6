//! `flok image inspect`.

use clap::Args;

use crate::api::client::Client;
use crate::cli::output::JsonArg;

/// Show images of this node in full
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    format: JsonArg,
    /// Names, digests or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Inspect {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut images = Vec::new();
        for name in &self.images {
            images.push(client.docker().inspect_image(name).await.map_err(|error| client.explain(error))?);
        }
        self.format.show(&images)
    }
}
