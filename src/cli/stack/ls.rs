//! `flok stack ls`.

use std::collections::BTreeMap;

use clap::Args;

use super::names;
use crate::api::client::Client;
use crate::cli::output::{FormatArg, Table, print};

/// List stacks
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    format: FormatArg,
}

impl Ls {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in names(client).await? {
            *counts.entry(name).or_default() += 1;
        }
        let mut table = Table::new(&[("Name", "NAME"), ("Services", "SERVICES")]);
        for (name, count) in counts {
            table.row([name, count.to_string()]);
        }
        print(&table.render(self.format.format)?)
    }
}
