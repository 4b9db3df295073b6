//! `flok stack rm`.

use clap::Args;

use super::deploy::{render, stack_name};
use crate::api::client::Client;
use crate::api::model::stack::StackChanged;
use crate::cli::{each, output::print};

/// Remove stacks and their tasks; named volumes stay
#[derive(Debug, Args)]
pub struct Rm {
    /// Return at once, as this command does anyway: tasks end while it has ended
    #[arg(long, short, value_name = "true", value_parser = at_once, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    detach: Option<()>,
    /// Names of stacks
    #[arg(required = true, value_name = "NAME", value_parser = stack_name)]
    names: Vec<String>,
}

fn at_once(text: &str) -> Result<(), String> {
    if text == "true" { Ok(()) } else { Err("flok does not wait here: `flok stack ps` shows what is left".into()) }
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
