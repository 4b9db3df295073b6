//! What all commands that list have in common: filters, ids alone or cut short, formats.

use std::collections::HashMap;

use clap::Args;

use super::key_value;
use super::output::{Format, FormatArg, Table, print};

/// As the daemon takes them; a label is asked for as `label=key` or `label=key=value`.
pub fn filters(given: &[(String, String)]) -> HashMap<String, Vec<String>> {
    let mut filters: HashMap<String, Vec<String>> = HashMap::new();
    for (key, value) in given {
        filters.entry(key.clone()).or_default().push(value.clone());
    }
    filters
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only what matches: name=web, label=key=value...; repeat it, and any of the values of one key will do
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// Print ids alone
    #[arg(long, short)]
    pub quiet: bool,
    /// Print ids, images and errors in full
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    format: FormatArg,
}

impl ListArgs {
    pub fn filters(&self) -> HashMap<String, Vec<String>> {
        filters(&self.filter)
    }

    pub fn format(&self) -> Format {
        self.format.format
    }

    /// Prints the table as it is asked for.
    pub fn show(&self, table: &Table) -> anyhow::Result<()> {
        print(&table.render(self.format.format)?)
    }

    /// Prints the ids, one a line.
    pub fn show_ids<'a>(&self, ids: impl Iterator<Item = Option<&'a String>>) -> anyhow::Result<()> {
        print(&ids.flatten().map(|id| format!("{id}\n")).collect::<String>())
    }
}
