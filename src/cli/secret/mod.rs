//! `flok secret` and `flok config`: the same verbs for what is never shown and what may be.

mod create;
mod inspect;
mod kind;
mod ls;
mod rm;
mod rollback;
mod rollout;
mod update;
mod versions;

use clap::Subcommand;

pub use kind::Kind;
pub use kind::id_of;

use crate::api::client::Client;

#[derive(Debug, Subcommand)]
pub enum Verb {
    Create(create::Create),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Update(update::Update),
    Rollback(rollback::Rollback),
    Versions(versions::Versions),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
}

impl Verb {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        match self {
            Verb::Create(verb) => verb.run(kind, client).await,
            Verb::Ls(verb) => verb.run(kind, client).await,
            Verb::Inspect(verb) => verb.run(kind, client).await,
            Verb::Update(verb) => verb.run(kind, client).await,
            Verb::Rollback(verb) => verb.run(kind, client).await,
            Verb::Versions(verb) => verb.run(kind, client).await,
            Verb::Rm(verb) => verb.run(kind, client).await,
        }
    }
}
