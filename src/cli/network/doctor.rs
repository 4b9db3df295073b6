//! `flok network doctor`.

use clap::Args;

use crate::api::client::{Client, escaped};
use crate::api::model::doctor::{Diagnosis, NodeFinding};
use crate::cli::output::{FormatArg, Table, print};

/// Find what is broken in the network: between two tasks, or, where none are named, on this node as a whole
///
/// Ends with exit code 1 where something is.
#[derive(Debug, Args)]
pub struct Doctor {
    /// A task: its id, its name as in web.1, or its container's id
    #[arg(value_name = "TASK_A", requires = "to")]
    from: Option<String>,
    /// The task it is to reach
    #[arg(value_name = "TASK_B")]
    to: Option<String>,
    #[command(flatten)]
    format: FormatArg,
}

impl Doctor {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let path = match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!("/network/doctor?from={}&to={}", escaped(from), escaped(to)),
            _ => "/network/doctor".to_owned(),
        };
        let Diagnosis { findings } = client.get(&path).await?;
        print(&table(&findings).render(self.format.format)?)?;
        let broken = findings.iter().filter(|finding| !finding.ok).count();
        anyhow::ensure!(broken == 0, "{broken} of {} things looked at are broken", findings.len());
        Ok(())
    }
}

fn table(findings: &[NodeFinding]) -> Table {
    let mut table = Table::new(&[("Node", "NODE"), ("What", "WHAT"), ("Status", "STATUS"), ("Detail", "DETAIL")]);
    for NodeFinding { node, ok, what, detail } in findings {
        let status = if *ok { "ok" } else { "broken" };
        table.row([node.clone(), what.clone(), status.to_owned(), detail.clone()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn what_is_broken_is_told_in_its_place() {
        let finding = |node: &str, ok, what: &str, detail: &str| NodeFinding {
            node: node.into(),
            ok,
            what: what.into(),
            detail: detail.into(),
        };
        let findings = [
            finding("", true, "networks", "both are on shop_default"),
            finding("n1", false, "route", "10.0.1.5 via 169.254.128.1 by flok0: the kernel lacks it"),
        ];
        let expected = "\
NODE   WHAT       STATUS   DETAIL
       networks   ok       both are on shop_default
n1     route      broken   10.0.1.5 via 169.254.128.1 by flok0: the kernel lacks it
";
        assert_eq!(table(&findings).render(Format::Table).unwrap(), expected);
    }
}
