//! `flok secret ls`, `flok config ls`.

use clap::Args;
use serde_json::{Value, json};

use super::Kind;
use super::kind::Object;
use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::{Table, labels};

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
        self.list.show(&table(objects))
    }
}

fn table(objects: Vec<Object>) -> Table {
    let columns = &[("ID", "ID"), ("Name", "NAME"), ("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")];
    let hidden = &[("Driver", "DRIVER"), ("Labels", "LABELS"), ("Label", "LABEL")];
    let mut table = Table::with_hidden(columns, hidden);
    for object in objects {
        table.row_of([
            Value::from(object.id),
            object.name.into(),
            object.created.unwrap_or_default().into(),
            object.updated.unwrap_or_default().into(),
            object.driver.into(),
            labels(&object.labels).into(),
            json!(object.labels),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn labels_are_there_for_templates() {
        let labels = [("b".into(), "2".into()), ("a".into(), "1".into())].into();
        let object = Object { id: "1".into(), name: "key".into(), labels, ..Object::default() };
        let rows = table(vec![object]);
        let row: Value = serde_json::from_str(&rows.render(Format::Json).unwrap()).unwrap();
        assert_eq!((&row["Labels"], &row["Driver"]), (&json!("a=1,b=2"), &json!("")));
        assert_eq!(rows.text(), "ID   NAME   CREATED   UPDATED\n1    key\n");
    }
}
