//! `flok swarm unlock-key`.

use anyhow::bail;
use bollard::query_parameters::UpdateSwarmOptions;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::update::{change, inspect};
use crate::api::client::Client;
use crate::cli::output::{Format, FormatArg, print};

/// Print the key that unlocks this swarm's managers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok swarm unlock-key
  flok swarm unlock-key -q
  flok swarm unlock-key --rotate      keep the old key until every manager is up and has the new one")]
pub struct UnlockKey {
    /// Print the key alone
    #[arg(long, short)]
    quiet: bool,
    /// Make a new key; a manager that is down now still opens with the old one
    #[arg(long)]
    rotate: bool,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    unlock_key: String,
}

impl UnlockKey {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        if self.rotate {
            let swarm = inspect(client).await?;
            let spec = swarm.spec.clone().unwrap_or_default();
            let options = UpdateSwarmOptions { rotate_manager_unlock_key: true, ..UpdateSwarmOptions::default() };
            change(client, &swarm, spec, options).await?;
        }
        if self.quiet {
            return print(&format!("{}\n", current(client).await?));
        }
        if self.format.format != Format::Table {
            let told = json!({ "UnlockKey": current(client).await? });
            return print(&self.format.format.show(&told, String::new)?);
        }
        if self.rotate {
            print("Successfully rotated manager unlock key.\n")?;
        }
        show(client).await
    }
}

pub async fn current(client: &Client) -> anyhow::Result<String> {
    let shown: Shown = client.get_docker("/swarm/unlockkey").await?;
    if shown.unlock_key.is_empty() {
        bail!("no unlock key is set: managers are not locked; \"flok swarm update --autolock\" locks them");
    }
    Ok(shown.unlock_key)
}

/// The key, and what it is for.
pub async fn show(client: &Client) -> anyhow::Result<()> {
    let key = current(client).await?;
    print(&format!(
        "\nTo unlock a manager after it restarts, run `flok swarm unlock` on it and give it this key:\n\n    {key}\n\n\
         Keep it in a password manager: without it a manager that restarts cannot come back.\n"
    ))
}
