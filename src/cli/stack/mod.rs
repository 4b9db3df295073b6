//! `flok stack`.

mod config;
mod deploy;
mod files;
mod ls;
mod plan;
mod ps;
mod rm;
mod services;

use std::collections::HashMap;
use std::process::ExitCode;

use bollard::models::Service;
use bollard::query_parameters::ListServicesOptions;
use clap::Subcommand;

use crate::api::client::Client;
use crate::spec::stack::{NAMESPACE_LABEL, nearest};

#[derive(Debug, Subcommand)]
pub enum Stack {
    #[command(visible_alias = "up")]
    Deploy(deploy::Deploy),
    Plan(plan::Plan),
    Config(config::Config),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Ps(ps::Ps),
    Services(services::Services),
    #[command(visible_alias = "remove", alias = "down")]
    Rm(rm::Rm),
}

impl Stack {
    pub async fn run(self, client: &Client) -> anyhow::Result<ExitCode> {
        let done = match self {
            Stack::Plan(verb) => return verb.run(client).await,
            Stack::Deploy(verb) => verb.run(client).await,
            Stack::Config(verb) => verb.run(),
            Stack::Ls(verb) => verb.run(client).await,
            Stack::Ps(verb) => verb.run(client).await,
            Stack::Services(verb) => verb.run(client).await,
            Stack::Rm(verb) => verb.run(client).await,
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// The filter for what belongs to a stack, or to any.
fn of_stack(name: Option<&str>) -> HashMap<String, Vec<String>> {
    let label = name.map_or_else(|| NAMESPACE_LABEL.to_string(), |name| format!("{NAMESPACE_LABEL}={name}"));
    [("label".to_string(), vec![label])].into()
}

async fn services_of(client: &Client, name: Option<&str>) -> anyhow::Result<Vec<Service>> {
    let options = ListServicesOptions { filters: Some(of_stack(name)), status: None };
    Ok(client.docker().list_services(Some(options)).await.map_err(|error| client.explain(error))?)
}

/// The stack of each service that is in one.
pub async fn names(client: &Client) -> anyhow::Result<Vec<String>> {
    let label = |service: Service| service.spec?.labels?.remove(NAMESPACE_LABEL);
    Ok(services_of(client, None).await?.into_iter().filter_map(label).collect())
}

/// The services of a stack that there is.
async fn existing(client: &Client, name: &str) -> anyhow::Result<Vec<Service>> {
    let services = services_of(client, Some(name)).await?;
    if services.is_empty() {
        let stacks = names(client).await?;
        let near = nearest(name, stacks.iter().map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        anyhow::bail!("nothing found in stack: {name}{hint}");
    }
    Ok(services)
}
