//! `flok image`.

mod load;

use clap::Subcommand;

use crate::api::client::Client;

#[derive(Debug, Subcommand)]
pub enum Image {
    Load(load::Load),
}

impl Image {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            Image::Load(verb) => verb.run(client).await,
        }
    }
}
