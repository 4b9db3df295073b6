//! `flok secret ls`, `flok config ls`.

use clap::Args;

use super::Kind;
use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::list::filters;
use crate::cli::output::{FormatArg, Table, print};

/// List them
#[derive(Debug, Args)]
pub struct Ls {
    /// Only those that match: id=, name=, label=; repeat it
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// Print ids alone
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArg,
}

impl Ls {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let objects = kind.list(client, filters(&self.filter)).await?;
        if self.quiet {
            return print(&objects.iter().map(|object| format!("{}\n", object.id)).collect::<String>());
        }
        let mut table =
            Table::new(&[("ID", "ID"), ("Name", "NAME"), ("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")]);
        for object in objects {
            let (created, updated) = (object.created.unwrap_or_default(), object.updated.unwrap_or_default());
            table.row([object.id, object.name, created, updated]);
        }
        print(&table.render(self.format.format)?)
    }
}
