//! `flok secret rm`, `flok config rm`.

use clap::Args;

use super::Kind;
use crate::api::client::Client;
use crate::cli::{each, output::print};

/// Remove those that no service uses
#[derive(Debug, Args)]
pub struct Rm {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Rm {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        each(self.names, async |name| {
            kind.remove(client, &name).await?;
            print(&format!("{name}\n"))
        })
        .await
    }
}
