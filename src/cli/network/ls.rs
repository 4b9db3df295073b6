//! `flok network ls`.

use bollard::models::Network;
use bollard::query_parameters::ListNetworksOptions;
use clap::Args;
use serde_json::{Value, json};

use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::{Table, labels};

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
    let columns = &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")];
    let hidden = &[
        ("Internal", "INTERNAL"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("CreatedAt", "CREATED AT"),
        ("Labels", "LABELS"),
        ("Label", "LABEL"),
    ];
    let mut table = Table::with_hidden(columns, hidden);
    for network in networks {
        let own_labels = network.labels.clone().unwrap_or_default();
        table.row_of([
            Value::from(id(network, whole_ids)),
            network.name.clone().unwrap_or_default().into(),
            network.driver.clone().unwrap_or_default().into(),
            network.scope.clone().unwrap_or_default().into(),
            network.internal.unwrap_or(false).into(),
            network.enable_ipv4.unwrap_or(true).into(),
            network.enable_ipv6.unwrap_or(false).into(),
            network.created.clone().unwrap_or_default().into(),
            labels(&own_labels).into(),
            json!(own_labels),
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
            internal: Some(true),
            labels: Some([("c", "d"), ("a", "b")].map(|(key, value)| (key.into(), value.into())).into()),
            ..Network::default()
        };
        let networks = [network("bbbbbbbbbbbbbbbbbbbbbbbbb", "ingress"), network("a", "shop_default")];
        let expected = "\
NETWORK ID     NAME           DRIVER    SCOPE
bbbbbbbbbbbb   ingress        overlay   swarm
a              shop_default   overlay   swarm
";
        assert_eq!(table(&networks, false).render(Format::Table).unwrap(), expected);
        let json = table(&networks[..1], false).render(Format::Json).unwrap();
        let row: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&row["Internal"], &row["IPv6"], &row["Labels"]), (&json!(true), &json!(false), &json!("a=b,c=d")));
    }
}
