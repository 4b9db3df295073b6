//! `flok network`.

mod create;
mod doctor;
mod inspect;
mod ls;
mod prune;
mod rm;

use clap::Subcommand;

use crate::api::client::Client;

#[derive(Debug, Subcommand)]
pub enum Network {
    Create(Box<create::Create>),
    Doctor(doctor::Doctor),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Prune(prune::Prune),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
}

impl Network {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            Network::Create(verb) => verb.run(client).await,
            Network::Doctor(verb) => verb.run(client).await,
            Network::Ls(verb) => verb.run(client).await,
            Network::Inspect(verb) => verb.run(client).await,
            Network::Prune(verb) => verb.run(client).await,
            Network::Rm(verb) => verb.run(client).await,
        }
    }
}
