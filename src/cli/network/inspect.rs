//! `flok network inspect`.

use bollard::query_parameters::InspectNetworkOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::output::JsonArg;

/// Show networks in full
#[derive(Debug, Args)]
pub struct Inspect {
    /// With the services on them and their tasks
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    format: JsonArg,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

impl Inspect {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut networks = Vec::new();
        for name in &self.networks {
            let options = InspectNetworkOptions { verbose: self.verbose, scope: None };
            let found = client.docker().inspect_network(name, Some(options)).await;
            networks.push(found.map_err(|error| client.explain(error))?);
        }
        self.format.show(&networks)
    }
}
