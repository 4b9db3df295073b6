//! `flok volume`.

mod create;
mod inspect;
mod ls;
mod prune;
mod rm;

use clap::Subcommand;

use crate::api::client::Client;

#[derive(Debug, Subcommand)]
pub enum Volume {
    Create(create::Create),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Prune(prune::Prune),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
}

impl Volume {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            Volume::Create(verb) => verb.run(client).await,
            Volume::Ls(verb) => verb.run(client).await,
            Volume::Inspect(verb) => verb.run(client).await,
            Volume::Prune(verb) => verb.run(client).await,
            Volume::Rm(verb) => verb.run(client).await,
        }
    }
}
