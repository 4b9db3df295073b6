//! `flok network ls`.

use bollard::models::Network;
use bollard::query_parameters::ListNetworksOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::Table;

/// List networks
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

impl Ls {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let options = ListNetworksOptions { filters: Some(self.list.filters()) };
        let mut networks = client.docker().list_networks(Some(options)).await.map_err(|error| client.explain(error))?;
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        if self.list.quiet {
            let ids: Vec<String> = networks.iter().map(|network| id(network, self.list.no_trunc)).collect();
            return self.list.show_ids(ids.iter().map(Some));
        }
        self.list.show(&table(&networks, self.list.no_trunc))
    }
}

fn table(networks: &[Network], whole_ids: bool) -> Table {
    let mut table = Table::new(&[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")]);
    for network in networks {
        table.row([
            id(network, whole_ids),
            network.name.clone().unwrap_or_default(),
            network.driver.clone().unwrap_or_default(),
            network.scope.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn id(network: &Network, whole: bool) -> String {
    let id = network.id.as_deref().unwrap_or_default();
    if whole { id.to_owned() } else { id.chars().take(12).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn networks_are_listed_as_docker_lists_them() {
        let network = |id: &str, name: &str| Network {
            id: Some(id.into()),
            name: Some(name.into()),
            driver: Some("overlay".into()),
            scope: Some("swarm".into()),
            ..Network::default()
        };
        let networks = [network("bbbbbbbbbbbbbbbbbbbbbbbbb", "ingress"), network("a", "shop_default")];
        let expected = "\
NETWORK ID     NAME           DRIVER    SCOPE
bbbbbbbbbbbb   ingress        overlay   swarm
a              shop_default   overlay   swarm
";
        assert_eq!(table(&networks, false).render(Format::Table).unwrap(), expected);
    }
}
