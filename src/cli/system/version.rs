//! `flok version`.

use bollard::models::SystemVersion;
use clap::Args;

use crate::api::client::Client;
use crate::cli::output::{Format, print};

#[derive(Debug, Args)]
pub struct Version {
    /// How to print: table, json, or a template such as '{{.Client.Version}}'
    #[arg(long, short, value_name = "FORMAT", value_parser = Format::parse, default_value = "table", hide_default_value = true)]
    format: Format,
}

impl Version {
    /// The client's version stands also where no daemon answers; the error then follows it.
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let own = env!("CARGO_PKG_VERSION");
        let server = client.docker().version().await.map_err(|error| client.explain(error));
        let value = serde_json::json!({
            "Client": {"Version": own},
            "Server": server.as_ref().ok().map(serde_json::to_value).transpose()?,
        });
        print(&self.format.show(&value, || render(own, server.as_ref().ok()))?)?;
        server?;
        Ok(())
    }
}

fn render(own: &str, server: Option<&SystemVersion>) -> String {
    let mut out = format!("Client:\n Version:      {own}\n");
    if let Some(server) = server {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        out.push_str(&format!(
            "\nServer:\n Version:      {}\n API version:  {} (minimum {})\n OS/Arch:      {}/{}\n Kernel:       {}\n",
            text(&server.version),
            text(&server.api_version),
            text(&server.min_api_version),
            text(&server.os),
            text(&server.arch),
            text(&server.kernel_version),
        ));
    }
    out
}
