//! `flok service inspect`.

use std::fmt::Write;

use bollard::models::Service;
use clap::Args;

use super::fetch;
use super::ls::mode;
use super::runs::{is_scheduled, summary};
use crate::api::client::Client;
use crate::cli::output::{JsonArg, print};
use crate::cli::tasks::{ports, service_name};

/// Show services in full
#[derive(Debug, Args)]
pub struct Inspect {
    /// For people instead of as JSON
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[command(flatten)]
    format: JsonArg,
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
            let mut shown = Vec::new();
            for service in &services {
                shown.push(pretty(service, schedule(client, service).await?));
            }
            print(&shown.join("\n"))
        } else {
            self.format.show(&services)
        }
    }
}

async fn schedule(client: &Client, service: &Service) -> anyhow::Result<Option<String>> {
    if !is_scheduled(service) {
        return Ok(None);
    }
    let id = service.id.as_deref().unwrap_or_default();
    Ok(Some(summary(&client.get(&format!("/services/{id}/runs")).await?)))
}

fn pretty(service: &Service, schedule: Option<String>) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            writeln!(out, "{:<16}{value}", format!("{key}:")).expect("a String takes all that is written");
        }
    };
    let spec = service.spec.as_ref();
    let task = spec.and_then(|spec| spec.task_template.as_ref());
    let container = task.and_then(|task| task.container_spec.as_ref());
    let replicas = spec.and_then(|spec| spec.mode.as_ref()?.replicated.as_ref()?.replicas);
    line("ID", service.id.clone());
    line("Name", Some(service_name(service)));
    line("Mode", Some(mode(service).into()));
    line("Replicas", replicas.map(|replicas| replicas.to_string()));
    line("Schedule", schedule);
    line("Image", container.and_then(|container| container.image.clone()));
    line("Entrypoint", container.and_then(|container| Some(container.command.as_ref()?.join(" "))));
    line("Args", container.and_then(|container| Some(container.args.as_ref()?.join(" "))));
    line("Env", container.and_then(|container| Some(container.env.as_ref()?.join(" "))));
    let placement = task.and_then(|task| task.placement.as_ref());
    line("Constraints", placement.and_then(|placement| Some(placement.constraints.as_ref()?.join(", "))));
    let published = service.endpoint.as_ref().and_then(|endpoint| endpoint.ports.as_deref());
    line("Ports", published.map(ports));
    let update = service.update_status.as_ref();
    let state = update.and_then(|update| update.state).map(|state| state.to_string());
    line(
        "Update",
        state.map(|state| {
            let message = update.and_then(|update| update.message.clone()).unwrap_or_default();
            format!("{state} {message}").trim_end().to_string()
        }),
    );
    let mut labels: Vec<String> = spec
        .and_then(|spec| spec.labels.as_ref())
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    line("Labels", Some(labels.join(", ")));
    out
}
