//! `flok image`: the images in this node's store.

mod inspect;
mod load;
mod ls;
mod prune;
mod pull;
mod rm;
mod tag;

use bollard::models::ImageDeleteResponseItem;
use clap::Subcommand;

use crate::api::client::Client;

#[derive(Debug, Subcommand)]
pub enum Image {
    Inspect(inspect::Inspect),
    Load(load::Load),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Prune(prune::Prune),
    Pull(pull::Pull),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    Tag(tag::Tag),
}

impl Image {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            Image::Inspect(verb) => verb.run(client).await,
            Image::Load(verb) => verb.run(client).await,
            Image::Ls(verb) => verb.run(client).await,
            Image::Prune(verb) => verb.run(client).await,
            Image::Pull(verb) => verb.run(client).await,
            Image::Rm(verb) => verb.run(client).await,
            Image::Tag(verb) => verb.run(client).await,
        }
    }
}

/// What was removed, a line each.
fn removed(items: &[ImageDeleteResponseItem]) -> String {
    let line = |item: &ImageDeleteResponseItem| match (&item.untagged, &item.deleted) {
        (Some(name), _) => format!("Untagged: {name}\n"),
        (None, Some(digest)) => format!("Deleted: {digest}\n"),
        (None, None) => String::new(),
    };
    items.iter().map(line).collect()
}
