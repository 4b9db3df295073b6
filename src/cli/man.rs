//! `flok man`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};

/// Write a manual page for each command into a directory
#[derive(Debug, Args)]
pub struct Man {
    /// Made where it is not there
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

impl Man {
    /// `flok.1`, `flok-stack.1`, `flok-stack-deploy.1`...
    pub fn run(self, command: Command) -> anyhow::Result<()> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        clap_mangen::generate_to(command, directory).with_context(|| format!("cannot write to {}", directory.display()))
    }
}
