//! `flok secret ls`, `flok config ls`.

use clap::Args;

use super::Kind;
use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::Table;

/// List them
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

impl Ls {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let objects = kind.list(client, self.list.filters()).await?;
        if self.list.quiet {
            return self.list.show_ids(objects.iter().map(|object| Some(&object.id)));
        }
        let mut table =
            Table::new(&[("ID", "ID"), ("Name", "NAME"), ("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")]);
        for object in objects {
            let (created, updated) = (object.created.unwrap_or_default(), object.updated.unwrap_or_default());
            table.row([object.id, object.name, created, updated]);
        }
        self.list.show(&table)
    }
}
