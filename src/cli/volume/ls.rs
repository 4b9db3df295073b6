//! `flok volume ls`.

use bollard::query_parameters::ListVolumesOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::Table;

/// List the volumes of this node
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

impl Ls {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let options = ListVolumesOptions { filters: Some(self.list.filters()) };
        let found = client.docker().list_volumes(Some(options)).await.map_err(|error| client.explain(error))?;
        let mut volumes = found.volumes.unwrap_or_default();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        if self.list.quiet {
            return self.list.show_ids(volumes.iter().map(|volume| Some(&volume.name)));
        }
        let mut table = Table::new(&[("Driver", "DRIVER"), ("Name", "VOLUME NAME"), ("Mountpoint", "MOUNTPOINT")]);
        for volume in volumes {
            table.row([volume.driver, volume.name, volume.mountpoint]);
        }
        self.list.show(&table)
    }
}
