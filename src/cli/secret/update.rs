//! `flok secret update`, `flok config update`.

use clap::Args;

use super::Kind;
use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::output::print;

/// Change labels; data does not change
#[derive(Debug, Args)]
pub struct Update {
    /// Add or change a label; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label_add: Vec<(String, String)>,
    /// Remove a label; repeat it
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    #[arg(value_name = "NAME")]
    name: String,
}

impl Update {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let mut object = kind.get(client, &self.name).await?;
        object.labels.retain(|key, _| !self.label_rm.contains(key));
        object.labels.extend(self.label_add);
        kind.set_labels(client, &object).await?;
        print(&format!("{}\n", self.name))
    }
}
