//! `flok secret versions`, `flok config versions`.

use clap::Args;

use super::{Kind, rollout};
use crate::api::client::Client;
use crate::api::model::data::{DataVersionShown, DataVersions};
use crate::cli::output::{FormatArg, Table, print};

/// List the versions of its data, newest first, and the services that use them; never the data
#[derive(Debug, Args)]
pub struct Versions {
    #[command(flatten)]
    format: FormatArg,
    /// Name or id
    #[arg(value_name = "NAME")]
    name: String,
}

/// A secret's length would tell of it.
const OF_SECRETS: [(&str, &str); 5] = [
    ("Version", "VERSION"),
    ("CreatedAt", "CREATED"),
    ("Restored", "DATA OF"),
    ("Services", "SERVICES"),
    ("Previously", "PREVIOUSLY"),
];
const OF_CONFIGS: [(&str, &str); 6] =
    [OF_SECRETS[0], OF_SECRETS[1], OF_SECRETS[2], ("Size", "BYTES"), OF_SECRETS[3], OF_SECRETS[4]];

impl Versions {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let object = kind.get(client, &self.name).await?;
        let found: DataVersions = client.get(&rollout::path(kind, &object.id, "versions")).await?;
        let mut table = Table::new(if kind == Kind::Config { &OF_CONFIGS } else { &OF_SECRETS });
        for version in found.versions {
            let [number, created, restored, bytes, services, previously] = cells(version);
            match kind {
                Kind::Secret => table.row([number, created, restored, services, previously]),
                Kind::Config => table.row([number, created, restored, bytes, services, previously]),
            }
        }
        print(&table.render(self.format.format)?)
    }
}

fn cells(version: DataVersionShown) -> [String; 6] {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let (restored, bytes) = (number(version.restored), number(version.size_bytes));
    let (services, previously) = (version.services.join(","), version.previously.join(","));
    [version.version.to_string(), version.created_at, restored, bytes, services, previously]
}
