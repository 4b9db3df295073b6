//! `flok stack ls`.

use std::collections::BTreeMap;

use clap::Args;

use super::services_of;
use crate::api::client::Client;
use crate::cli::output::{FormatArg, Table, print};
use crate::spec::stack::NAMESPACE_LABEL;

/// List stacks
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    format: FormatArg,
}

impl Ls {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for service in services_of(client, None).await? {
            let labels = service.spec.and_then(|spec| spec.labels).unwrap_or_default();
            *counts.entry(labels.get(NAMESPACE_LABEL).cloned().unwrap_or_default()).or_default() += 1;
        }
        let mut table = Table::new(&[("Name", "NAME"), ("Services", "SERVICES")]);
        for (name, count) in counts {
            table.row([name, count.to_string()]);
        }
        print(&table.render(self.format.format)?)
    }
}
