//! `flok swarm update`, and what other verbs change of the swarm.

use std::time::Duration;

use anyhow::Context;
use bollard::models::{Swarm, SwarmSpec, SwarmSpecCaConfig, SwarmSpecEncryptionConfig, SwarmSpecOrchestration};
use bollard::query_parameters::UpdateSwarmOptions;
use clap::Args;

use super::unlock_key;
use crate::api::client::Client;
use crate::cli::output::print;
use crate::spec::quantity::parse_duration;

/// Change how the swarm works
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  flok swarm update --autolock                 managers ask for a key after a restart
  flok swarm update --autolock=false
  flok swarm update --task-history-limit 2     finished tasks kept in each slot
  flok swarm update --cert-expiry 720h         how long a node's certificate lives"
)]
pub struct Update {
    /// Lock the managers' keys on their disks: after a restart each wants `flok swarm unlock`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autolock: Option<bool>,
    /// Finished tasks kept in each slot
    #[arg(long, value_name = "COUNT")]
    task_history_limit: Option<u32>,
    /// Life of a node's certificate, at least an hour; it is renewed long before its end
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    cert_expiry: Option<Duration>,
}

impl Update {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let swarm = inspect(client).await?;
        let mut spec = swarm.spec.clone().unwrap_or_default();
        let was_locked = is_autolocked(&spec);
        if let Some(on) = self.autolock {
            spec.encryption_config = Some(SwarmSpecEncryptionConfig { auto_lock_managers: Some(on) });
        }
        if let Some(limit) = self.task_history_limit {
            spec.orchestration = Some(SwarmSpecOrchestration { task_history_retention_limit: Some(i64::from(limit)) });
        }
        if let Some(expiry) = self.cert_expiry {
            let nanos = i64::try_from(expiry.as_nanos()).context("--cert-expiry is longer than any clock counts")?;
            spec.ca_config =
                Some(SwarmSpecCaConfig { node_cert_expiry: Some(nanos), ..spec.ca_config.unwrap_or_default() });
        }
        let locks = is_autolocked(&spec) && !was_locked;
        change(client, &swarm, spec, UpdateSwarmOptions::default()).await?;
        print("Swarm updated.\n")?;
        if locks { unlock_key::show(client).await } else { Ok(()) }
    }
}

fn is_autolocked(spec: &SwarmSpec) -> bool {
    spec.encryption_config.as_ref().and_then(|encryption| encryption.auto_lock_managers).unwrap_or(false)
}

pub async fn inspect(client: &Client) -> anyhow::Result<Swarm> {
    Ok(client.docker().inspect_swarm().await.map_err(|error| client.explain(error))?)
}

/// Gives the swarm that was read another spec, and rotates what `options` say; their version is the swarm's.
pub async fn change(client: &Client, read: &Swarm, spec: SwarmSpec, options: UpdateSwarmOptions) -> anyhow::Result<()> {
    let version = read.version.as_ref().and_then(|version| version.index).and_then(|index| i64::try_from(index).ok());
    let options = UpdateSwarmOptions { version: version.unwrap_or(0), ..options };
    Ok(client.docker().update_swarm(spec, options).await.map_err(|error| client.explain(error))?)
}
