//! `flok image rm`.

use bollard::query_parameters::RemoveImageOptions;
use clap::Args;

use super::removed;
use crate::api::client::Client;
use crate::cli::{each, output::print};

/// Remove names of images from this node, and with its last name the image
#[derive(Debug, Args)]
pub struct Rm {
    /// Also one that a container uses, or that has several names and is given by its digest
    #[arg(long, short)]
    force: bool,
    /// Names, digests or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Rm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        each(self.images, async |image| {
            let options = RemoveImageOptions { force: self.force, ..RemoveImageOptions::default() };
            let items = client.docker().remove_image(&image, Some(options), None).await;
            print(&removed(&items.map_err(|error| client.explain(error))?))
        })
        .await
    }
}
