//! `flok stack rm`.

use clap::Args;

use super::deploy::{render, stack_name};
use crate::api::client::Client;
use crate::api::model::stack::StackChanged;
use crate::cli::{each, output::print};

/// Remove stacks and their tasks; named volumes stay
#[derive(Debug, Args)]
pub struct Rm {
    /// Names of stacks
    #[arg(required = true, value_name = "NAME", value_parser = stack_name)]
    names: Vec<String>,
}

impl Rm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        each(self.names, async |name| {
            let changed: StackChanged = client.delete(&format!("/stacks/{name}")).await?;
            print(&render(&changed))
        })
        .await
    }
}
