//! Images as services store them: each tag with the digest it means now, so that every node runs the same, and with the
//! credentials that pulling takes.

use std::collections::{BTreeMap, BTreeSet};

use bollard::auth::DockerCredentials;
use clap::Args;

use super::registry_auth::Logins;
use crate::api::client::Client;
use crate::api::model::image::{ResolveImages, ResolvedImages};

/// Images in one request; the daemon takes no more.
const AT_ONCE: usize = 32;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Give the swarm your `docker login` of the images' registries, so that its nodes can pull them
    #[arg(long)]
    with_registry_auth: bool,
    /// Ask the registry what a tag means now and store that; or never, and each node runs what it finds under the tag
    #[arg(long, value_name = "WHEN", value_parser = ["always", "never"], default_value = "always")]
    resolve_image: String,
}

impl ImageArgs {
    /// For one image's registry, where they are to be given.
    pub fn credentials(&self, image: &str) -> anyhow::Result<Option<DockerCredentials>> {
        if self.with_registry_auth { Logins::load()?.of(image) } else { Ok(None) }
    }

    /// By image, as headers.
    pub fn headers<'a>(&self, images: impl Iterator<Item = &'a str>) -> anyhow::Result<BTreeMap<String, String>> {
        if !self.with_registry_auth {
            return Ok(BTreeMap::new());
        }
        let logins = Logins::load()?;
        let mut headers = BTreeMap::new();
        for image in images {
            if let Some(header) = logins.header_of(image)? {
                headers.insert(image.to_owned(), header);
            }
        }
        Ok(headers)
    }

    /// `repo:tag@sha256:...` for each image whose registry says; what cannot be told is warned of and stays as it is.
    pub async fn pinned<'a>(
        &self,
        client: &Client,
        images: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let images: BTreeSet<&str> = images.filter(|image| !image.contains('@')).collect();
        let mut pinned = BTreeMap::new();
        if self.resolve_image == "never" || images.is_empty() {
            return Ok(pinned);
        }
        // A registry that is away costs its time limit: a node that can store nothing is told of first.
        client.docker().inspect_swarm().await.map_err(|error| client.explain(error))?;
        let headers = self.headers(images.iter().copied())?;
        let images: Vec<&str> = images.into_iter().collect();
        for some in images.chunks(AT_ONCE) {
            let auth = |image: &str| headers.get(image).cloned().unwrap_or_default();
            let request =
                ResolveImages { images: some.iter().map(|image| ((*image).to_owned(), auth(image))).collect() };
            let answer: ResolvedImages = client.post("/images/resolve", &request).await?;
            for why in answer.failed.values() {
                eprintln!("Warning: {why}; each node runs what it finds under that tag, which may differ");
            }
            pinned.extend(answer.digests.into_iter().map(|(image, digest)| {
                let with_digest = format!("{image}@{digest}");
                (image, with_digest)
            }));
        }
        Ok(pinned)
    }

    /// The same for one image.
    pub async fn pin(&self, client: &Client, image: String) -> anyhow::Result<String> {
        let mut pinned = self.pinned(client, std::iter::once(image.as_str())).await?;
        Ok(pinned.remove(&image).unwrap_or(image))
    }
}
