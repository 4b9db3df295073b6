//! `flok top`.

use bollard::query_parameters::TopOptions;
use clap::Args;

use super::find;
use crate::api::client::Client;
use crate::cli::output::print;

/// Show the processes of a task
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok top web.1
  flok top db -- -o pid,args")]
pub struct Top {
    /// Task, container or service
    #[arg(value_name = "TASK")]
    name: String,
    /// Options of ps; the column PID must be among what it prints
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTION")]
    options: Vec<String>,
}

impl Top {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let container = find(client, &self.name).await?;
        let ps_args = if self.options.is_empty() { "-ef".into() } else { self.options.join(" ") };
        let told = client.docker().top_processes(&container, Some(TopOptions { ps_args })).await;
        let told = told.map_err(|error| client.explain(error))?;
        let titles = told.titles.unwrap_or_default();
        let rows: Vec<Vec<String>> = [titles].into_iter().chain(told.processes.unwrap_or_default()).collect();
        print(&aligned(&rows))
    }
}

/// In columns, the last one as long as it is.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}
