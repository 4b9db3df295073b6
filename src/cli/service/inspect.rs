//! `flok service inspect`.

use std::collections::HashMap;

use bollard::models::Service;
use bollard::query_parameters::ListNetworksOptions;
use clap::Args;

use super::fetch;
use super::pretty::{Beside, pretty};
use super::runs::{is_scheduled, summary};
use crate::api::client::Client;
use crate::cli::output::{JsonArg, now, print};

/// Show services in full
#[derive(Debug, Args)]
pub struct Inspect {
    /// For people instead of as JSON
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[command(flatten)]
    format: JsonArg,
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

impl Inspect {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut services = Vec::new();
        for name in &self.services {
            services.push(fetch(client, name).await?);
        }
        if self.pretty {
            let networks = networks(client).await?;
            let mut shown = Vec::new();
            for service in &services {
                let schedule = schedule(client, service).await?;
                shown.push(pretty(service, &Beside { now: now(), schedule, networks: networks.clone() }));
            }
            print(&shown.join("\n"))
        } else {
            self.format.show(&services)
        }
    }
}

/// Names by ids.
async fn networks(client: &Client) -> anyhow::Result<HashMap<String, String>> {
    let all =
        client.docker().list_networks(None::<ListNetworksOptions>).await.map_err(|error| client.explain(error))?;
    Ok(all.into_iter().filter_map(|network| Some((network.id?, network.name?))).collect())
}

async fn schedule(client: &Client, service: &Service) -> anyhow::Result<Option<String>> {
    if !is_scheduled(service) {
        return Ok(None);
    }
    let id = service.id.as_deref().unwrap_or_default();
    Ok(Some(summary(&client.get(&format!("/services/{id}/runs")).await?)))
}
