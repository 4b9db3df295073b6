//! `flok swarm unlock`.

use std::io::{BufRead, IsTerminal, Read};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::api::client::Client;
use crate::cli::container::terminal::Hidden;
use crate::cli::output::print;

/// The node opens its log and takes up its part.
const WITHIN: Duration = Duration::from_secs(60);
/// More than any key has.
const MAX_LINE: u64 = 1024;

/// Unlock this manager; the key is read from standard input
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok swarm unlock
  ssh -t manager-2 flok swarm unlock
  pass show flok/unlock-key | flok swarm unlock")]
pub struct Unlock {}

impl Unlock {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let key = read()?;
        client.post_docker("/swarm/unlock", &json!({ "UnlockKey": key }), WITHIN).await?;
        print("Manager unlocked.\n")
    }
}

/// One line. A terminal does not show what is typed.
fn read() -> anyhow::Result<String> {
    let hidden = Hidden::enter();
    if std::io::stdin().is_terminal() {
        eprint!("Please enter unlock key: ");
    }
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_LINE).read_line(&mut line).context("read the unlock key")?;
    if hidden.is_some() {
        eprintln!();
    }
    let key = line.trim();
    anyhow::ensure!(
        !key.is_empty(),
        "no unlock key was given: `flok swarm unlock-key` on an unlocked manager prints it"
    );
    Ok(key.to_owned())
}
