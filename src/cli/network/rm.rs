//! `flok network rm`.

use std::io::{IsTerminal, Write};

use bollard::query_parameters::InspectNetworkOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::{each, output::print};

/// Remove networks that nobody uses
#[derive(Debug, Args)]
pub struct Rm {
    /// Ask nothing, and mind no network that is not there
    #[arg(long, short)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

impl Rm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        each(self.networks, async |network| {
            if !self.force && !is_meant(client, &network).await? {
                return Ok(());
            }
            match client.docker().remove_network(&network).await.map_err(|error| client.explain(error)) {
                Err(error) if self.force && error.is_not_found() => Ok(()),
                removed => {
                    removed?;
                    print(&format!("{network}\n"))
                }
            }
        })
        .await
    }
}

/// The routing mesh's network is removed by those alone who say so; what cannot be looked at, removing will tell.
async fn is_meant(client: &Client, name: &str) -> anyhow::Result<bool> {
    let found = client.docker().inspect_network(name, None::<InspectNetworkOptions>).await;
    if !found.is_ok_and(|network| network.ingress == Some(true)) {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        anyhow::bail!(
            "network {name} is the routing mesh's: without it no service can publish ports on every node; say --force to \
             remove it"
        );
    }
    eprint!(
        "WARNING! {name} is the network of the routing mesh: without it no service can publish ports on every node.\n\
         Are you sure you want to remove it? [y/N] "
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
