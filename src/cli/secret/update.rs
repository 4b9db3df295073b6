//! `flok secret update`, `flok config update`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::kind::Object;
use super::rollout::{self, RolloutArgs};
use super::{Kind, create};
use crate::api::client::Client;
use crate::api::model::data::{DataReplaced, DataUpdate};
use crate::cli::output::print;
use crate::cli::removal::Missing;
use crate::cli::retry::retried;
use crate::cli::{Usage, key_value};

/// Give it new data, and roll that out to the services that use it; or change labels
#[derive(Debug, Args)]
pub struct Update {
    /// Add or change a label; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label_add: Vec<(String, String)>,
    /// Remove a label; repeat it
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    #[command(flatten)]
    rollout: RolloutArgs,
    /// Name or id
    #[arg(value_name = "NAME")]
    name: String,
    /// File with the new data; -: standard input; left out: the data stays
    #[arg(value_name = "FILE")]
    file: Option<String>,
}

impl Update {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        if self.file.is_none() && self.label_add.is_empty() && self.label_rm.is_empty() {
            return Err(Usage::of(
                "there is nothing to change: give FILE (-: standard input), --label-add or --label-rm",
            ));
        }
        let data = self.file.as_deref().map(|file| create::read(file, kind)).transpose()?;
        let data = data.map(|data| STANDARD.encode(data));
        let mut told = BTreeSet::new();
        let what = format!("{} {}", kind.word(), self.name);
        let changed = retried(&what, async || {
            let mut object = kind.get(client, &self.name).await?;
            self.warn_of_missing(kind, &object, &mut told);
            object.labels.retain(|key, _| !self.label_rm.contains(key));
            object.labels.extend(self.label_add.iter().cloned());
            let Some(data) = &data else {
                kind.set_labels(client, &object).await?;
                return Ok(None);
            };
            let update = DataUpdate {
                version: object.version,
                data: data.clone(),
                labels: Some(object.labels.into_iter().collect()),
                roll_out: self.rollout.is_wanted(),
            };
            let replaced: DataReplaced = client.post(&rollout::path(kind, &object.id, "data"), &update).await?;
            Ok(Some((object.id, replaced)))
        });
        match changed.await? {
            None => print(&format!("{}\n", self.name)),
            Some((id, replaced)) => rollout::follow(client, kind, &id, &replaced, &self.rollout).await,
        }
    }

    /// Of labels to remove; once, however often it is tried.
    fn warn_of_missing(&self, kind: Kind, object: &Object, told: &mut BTreeSet<String>) {
        let mut missing = Missing::default();
        let mut known: Vec<String> = object.labels.keys().cloned().collect();
        known.sort();
        missing.look("label-rm", &self.label_rm, &known);
        for line in missing.lines {
            if told.insert(line.clone()) {
                eprintln!("Warning: {} {}: {line}", kind.word(), self.name);
            }
        }
    }
}
