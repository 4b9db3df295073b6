//! `flok secret update`, `flok config update`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::rollout::{self, RolloutArgs};
use super::{Kind, create};
use crate::api::client::Client;
use crate::api::model::data::DataUpdate;
use crate::cli::key_value;
use crate::cli::output::print;

/// Give it new data, and roll that out to the services that use it; or change labels
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok secret update db_password ./password.txt          new data, service by service as their update settings say
  openssl rand -hex 32 | flok secret update key -
  flok config update --no-rollout site ./site.conf       services get it at their next update
  flok secret update --label-add tier=a key              labels alone
  flok secret rollback key                               back to the data before")]
pub struct Update {
    /// Add or change a label; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label_add: Vec<(String, String)>,
    /// Remove a label; repeat it
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    #[command(flatten)]
    rollout: RolloutArgs,
    #[arg(value_name = "NAME")]
    name: String,
    /// File with the new data; -: standard input; left out: the data stays
    #[arg(value_name = "FILE")]
    file: Option<String>,
}

impl Update {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let data = self.file.as_deref().map(|file| create::read(file, kind)).transpose()?;
        let mut object = kind.get(client, &self.name).await?;
        object.labels.retain(|key, _| !self.label_rm.contains(key));
        object.labels.extend(self.label_add);
        let Some(data) = data else {
            kind.set_labels(client, &object).await?;
            return print(&format!("{}\n", self.name));
        };
        let update = DataUpdate {
            version: object.version,
            data: STANDARD.encode(data),
            labels: Some(object.labels.into_iter().collect()),
            roll_out: self.rollout.is_wanted(),
        };
        let replaced = client.post(&rollout::path(kind, &object.id, "data"), &update).await?;
        rollout::follow(client, kind, &object.id, &replaced, &self.rollout).await
    }
}
