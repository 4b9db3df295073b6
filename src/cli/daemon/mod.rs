//! `flok daemon`: this machine as a node.

use std::path::PathBuf;

use clap::Args;

use crate::node::HandedOver;
use crate::node::config::{Config, Settings};

/// Runs until SIGTERM or SIGINT. Containers go on running without the daemon, and its next start takes them up again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok daemon
  flok daemon --data-dir /srv/flok --advertise-addr 192.0.2.10 --label disk=ssd
  flok daemon --config ./flok.toml

Every flag is also a key of the file (--data-dir is `data-dir = ...`) and a FLOK_ variable; a flag wins over a
variable, that over the file.")]
pub struct Daemon {
    /// File with settings [default: /etc/flok/flok.toml, where it exists]
    #[arg(long, env = "FLOK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Daemon {
    /// With what the service manager opened, taken before there was a second thread.
    pub async fn run(self, handed: HandedOver) -> anyhow::Result<()> {
        let config = Config::load(self.settings, self.config.as_deref())?;
        crate::node::run(config, handed).await
    }
}
