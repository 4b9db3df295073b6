//! `flok service scale`.

use clap::Args;

use super::{Store, change};
use crate::api::client::Client;
use crate::cli::each;
use crate::cli::output::print;
use crate::cli::tasks::service_name;
use crate::cli::waiting::{self, WaitArgs};

/// Change how many tasks replicated services have
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  flok service scale web=5 worker=2")]
pub struct Scale {
    #[command(flatten)]
    wait: WaitArgs,
    /// Names or ids, each with how many tasks it is to have
    #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = wanted)]
    wanted: Vec<(String, u32)>,
}

fn wanted(text: &str) -> Result<(String, u32), String> {
    let (service, replicas) = text.split_once('=').ok_or("write it as SERVICE=REPLICAS")?;
    let replicas = replicas.parse().map_err(|_| format!("{replicas:?} is not a number of replicas"))?;
    if service.is_empty() { Err("there is no service before the =".into()) } else { Ok((service.into(), replicas)) }
}

impl Scale {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut names = Vec::new();
        let scaled = each(self.wanted, async |(service, replicas)| {
            names.push(scale(client, &service, replicas).await?);
            print(&format!("{service} scaled to {replicas}\n"))
        })
        .await;
        waiting::converged(client, &names, &self.wait).await?;
        scaled
    }
}

/// Gives the service's name.
async fn scale(client: &Client, name: &str, replicas: u32) -> anyhow::Result<String> {
    let scaled = change(client, name, async |spec| {
        let mode = spec.mode.get_or_insert_default();
        match (&mut mode.replicated, &mut mode.replicated_job) {
            (Some(replicated), _) => replicated.replicas = Some(i64::from(replicas)),
            (None, Some(job)) => job.total_completions = Some(i64::from(replicas)),
            (None, None) => {
                anyhow::bail!("service {name} is global: it has one task on every node that fits, and cannot be scaled")
            }
        }
        Ok(Store::default())
    });
    Ok(service_name(&scaled.await?))
}
