//! `flok version`.

use clap::Args;

use crate::api::client::Client;
use crate::cli::output::{Format, FormatArg, print};

#[derive(Debug, Args)]
pub struct Version {
    #[command(flatten)]
    format: FormatArg,
}

impl Version {
    /// The client's version stands also where no daemon answers; the error then follows it.
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let own = env!("CARGO_PKG_VERSION");
        let server = client.docker().version().await.map_err(|error| client.explain(error));
        match self.format.format {
            Format::Json => {
                let server_json = server.as_ref().ok().map(serde_json::to_value).transpose()?;
                print(&format!("{}\n", serde_json::json!({"Client": {"Version": own}, "Server": server_json})))?;
            }
            Format::Table => {
                print(&format!("Client:\n Version:      {own}\n"))?;
                if let Ok(server) = &server {
                    let text = |text: &Option<String>| text.clone().unwrap_or_default();
                    print(&format!(
                        "\nServer:\n Version:      {}\n API version:  {} (minimum {})\n OS/Arch:      {}/{}\n Kernel:       {}\n",
                        text(&server.version),
                        text(&server.api_version),
                        text(&server.min_api_version),
                        text(&server.os),
                        text(&server.arch),
                        text(&server.kernel_version),
                    ))?;
                }
            }
        }
        server?;
        Ok(())
    }
}
