//! `flok secret rollback`, `flok config rollback`.

use clap::Args;

use super::Kind;
use super::rollout::{self, RolloutArgs};
use crate::api::client::Client;
use crate::api::model::data::DataRollback;

/// Go back to earlier data, and roll that out to the services that use it
#[derive(Debug, Args)]
pub struct Rollback {
    /// Version to go back to, of those that `versions` shows; left out: the one before the newest
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    rollout: RolloutArgs,
    /// Name or id
    #[arg(value_name = "NAME")]
    name: String,
}

impl Rollback {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let object = kind.get(client, &self.name).await?;
        let asked = DataRollback { version: object.version, to: self.to, roll_out: self.rollout.is_wanted() };
        let replaced = client.post(&rollout::path(kind, &object.id, "rollback"), &asked).await?;
        rollout::follow(client, kind, &object.id, &replaced, &self.rollout).await
    }
}
