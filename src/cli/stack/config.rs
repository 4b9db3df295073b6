//! `flok stack config`.

use clap::Args;

use super::files::{FilesArg, warn};
use crate::cli::output::print;
use crate::spec::stack::Features;

/// Print the files as one, checked, merged and with variables filled in; needs no daemon
#[derive(Debug, Args)]
pub struct Config {
    #[command(flatten)]
    files: FilesArg,
}

impl Config {
    pub fn run(self) -> anyhow::Result<()> {
        self.files.with(Features::all(), |file, around| {
            let file = file.checked(around)?;
            warn(file.warnings());
            print(&file.print())
        })
    }
}
