//! `flok volume create`.

use bollard::models::VolumeCreateRequest;
use clap::Args;

use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::output::print;
use crate::spec::volume::LOCAL_DRIVER;

/// Create a volume on this node
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok volume create data
  flok volume create --opt type=nfs --opt device=10.0.0.5:/x --opt o=ro,vers=4 shared
  flok volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=64m scratch
  flok volume create --opt type=none --opt device=/srv/data --opt o=bind data

A volume with options is mounted when the first task that uses it starts, and unmounted after the last.")]
pub struct Create {
    /// Driver; local is the only one
    #[arg(long, short, default_value = LOCAL_DRIVER)]
    driver: String,
    /// Option of the driver: type, device and o, as `mount -t TYPE -o O DEVICE` has them; repeat it
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    opt: Vec<(String, String)>,
    /// Label; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Name [default: a random one]
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

impl Create {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let request = VolumeCreateRequest {
            name: self.name,
            driver: Some(self.driver),
            driver_opts: Some(self.opt.into_iter().collect()),
            labels: Some(self.label.into_iter().collect()),
            cluster_volume_spec: None,
        };
        let created = client.docker().create_volume(request).await.map_err(|error| client.explain(error))?;
        print(&format!("{}\n", created.name))
    }
}
