//! `flok volume ls`.

use bollard::models::Volume;
use bollard::query_parameters::ListVolumesOptions;
use clap::Args;
use serde_json::{Value, json};

use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::{Table, labels};

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
        self.list.show(&table(volumes))
    }
}

fn table(volumes: Vec<Volume>) -> Table {
    let columns = &[("Driver", "DRIVER"), ("Name", "VOLUME NAME"), ("Mountpoint", "MOUNTPOINT")];
    let hidden = &[("Scope", "SCOPE"), ("CreatedAt", "CREATED AT"), ("Labels", "LABELS"), ("Label", "LABEL")];
    let mut table = Table::with_hidden(columns, hidden);
    for volume in volumes {
        let scope = volume.scope.map(|scope| scope.to_string()).unwrap_or_default();
        table.row_of([
            Value::from(volume.driver),
            volume.name.into(),
            volume.mountpoint.into(),
            scope.into(),
            volume.created_at.unwrap_or_default().into(),
            labels(&volume.labels).into(),
            json!(volume.labels),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn labels_and_scope_are_there_for_templates() {
        let volume = Volume {
            name: "data".into(),
            driver: "local".into(),
            scope: Some(bollard::models::VolumeScopeEnum::LOCAL),
            labels: [("a".into(), "b".into())].into(),
            ..Volume::default()
        };
        let rows = table(vec![volume]);
        let row: Value = serde_json::from_str(&rows.render(Format::Json).unwrap()).unwrap();
        assert_eq!((&row["Scope"], &row["Labels"]), (&json!("local"), &json!("a=b")));
        assert_eq!(rows.text(), "DRIVER   VOLUME NAME   MOUNTPOINT\nlocal    data\n");
    }
}
