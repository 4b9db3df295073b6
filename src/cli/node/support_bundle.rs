//! `flok node support-bundle`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::api::client::{Client, escaped};
use crate::cli::output::print;

/// Gather what helps to find a trouble's cause: versions, states, specs, the network's side of the kernel, ends of logs
///
/// The data of secrets and configs, tokens, keys and the values of environment, arguments and labels are left out. It
/// works without a quorum, and says in contents.txt what could not be had.
#[derive(Debug, Args)]
pub struct SupportBundle {
    /// Name, id or "self"
    #[arg(value_name = "NODE", default_value = "self")]
    node: String,
    /// Where to write the archive; - is standard output
    #[arg(long, short, value_name = "FILE", default_value = "flok-support.tar.gz")]
    output: PathBuf,
}

impl SupportBundle {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let query = if self.node == "self" { String::new() } else { format!("?node={}", escaped(&self.node)) };
        let bytes = client.download(&format!("/support-bundle{query}")).await?;
        if self.output.as_os_str() == "-" {
            return Ok(std::io::stdout().write_all(&bytes)?);
        }
        // Names and addresses are nobody else's either.
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.output);
        let written = file.and_then(|mut file| file.write_all(&bytes));
        written.with_context(|| format!("write {}", self.output.display()))?;
        print(&format!("{}\n", self.output.display()))
    }
}
