//! `flok secret inspect`, `flok config inspect`.

use clap::Args;

use super::Kind;
use crate::api::client::Client;
use crate::cli::output::print_json;

/// Show what is known of them; never the data of a secret
#[derive(Debug, Args)]
pub struct Inspect {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Inspect {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let mut shown = Vec::new();
        for name in &self.names {
            shown.push(kind.shown(client, name).await?);
        }
        print_json(&shown)
    }
}
