//! Images as people look at them: what they hold, how large they are, and pulled by hand.

use containerd_client::services::v1::GetImageRequest;
use oci_client::Reference;
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_spec::image::{Descriptor, ImageConfiguration};
use serde::Deserialize;

use super::manifest::{self, Document, MANIFEST_TYPES, MAX_DOCUMENT_BYTES};
use super::registry::Failure;
use super::{Images, LOADED_LABEL, Origin, Progress, broken, content, lookup_name, parse_reference, registry};
use crate::runtime::client::{SHORT, call};
use crate::runtime::error::{Result, RuntimeError};
use crate::spec::{Platform, SecretBytes};

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Look {
    /// Of the manifest for this node's platform, with its layers and configuration.
    pub size_bytes: u64,
    /// Of each layer as it is kept here, the lowest first.
    pub layers_bytes: Vec<u64>,
    pub config: ImageConfiguration,
    /// Given by hand: no registry knows it under this name.
    pub loaded: bool,
}

/// What a registry says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub media_type: String,
    pub digest: String,
    pub size_bytes: u64,
    /// Of each image, in the registry's words; empty where the only one does not say.
    pub platforms: Vec<Platform>,
}

/// Tags of one repository, and of one page of its list.
const MAX_TAGS: usize = 1000;
const TAGS_A_PAGE: usize = 100;

impl Images {
    /// An image of this node, by the full name that a list gives.
    pub async fn look(&self, name: &str) -> Result<Look> {
        let client = &self.shared.client;
        let request = GetImageRequest { name: name.to_owned() };
        let found = call("looking for image", name, SHORT, client.images().get(request)).await?;
        let image = found.image.unwrap_or_default();
        let loaded = image.labels.contains_key(LOADED_LABEL);
        let target = image.target.map(|target| target.digest).unwrap_or_default();
        let (bytes, manifest) = self.manifest(name, &target).await?;
        let config = content::read(client, manifest.config().digest().as_ref()).await?;
        let layers_bytes: Vec<u64> = manifest.layers().iter().map(|layer| layer.size()).collect();
        let size_bytes = layers_bytes.iter().sum::<u64>() + (bytes.len() + config.len()) as u64;
        let config =
            manifest::configuration(&config, manifest.layers().len()).map_err(|reason| broken(name, reason))?;
        Ok(Look { size_bytes, layers_bytes, config, loaded })
    }

    /// Pulls what the name means now. Returns its digest, and whether that is new here.
    pub async fn pull_anew(
        &self,
        image: &str,
        credentials: Option<&SecretBytes>,
        progress: impl FnMut(Progress),
    ) -> Result<(String, bool)> {
        let asked = self.ask(image, credentials)?;
        let (_, digest) = asked.manifest().await?;
        let reference = &asked.reference;
        let name = lookup_name(reference);
        let before = self.list().await?.into_iter().find(|image| image.name == name);
        if before.is_some_and(|before| before.digest == digest) {
            return Ok((digest, false));
        }
        let exact = format!("{}/{}@{digest}", reference.registry(), reference.repository());
        self.ensure(&exact, credentials, progress).await?;
        let request = GetImageRequest { name: lookup_name(&parse_reference(&exact)?) };
        let found = call("looking for image", &exact, SHORT, self.shared.client.images().get(request)).await?;
        let target = found.image.and_then(|image| image.target).ok_or_else(|| broken(image, "it has no content"))?;
        self.name(&name, target, Origin::Registry).await?;
        Ok((digest, true))
    }

    /// Asks the registry; one attempt.
    pub async fn describe(&self, image: &str, credentials: Option<&SecretBytes>) -> Result<Described> {
        let asked = self.ask(image, credentials)?;
        if self.is_loaded(&asked.reference).await? {
            return Err(asked.failed("it was loaded into this node by hand, and no registry has it".to_owned()));
        }
        let (bytes, digest) = asked.manifest().await?;
        let document = manifest::parse(&bytes).map_err(|reason| asked.failed(reason))?;
        let platforms = match &document {
            Document::Index(index) => {
                let known = index.manifests().iter().filter_map(|entry| entry.platform().as_ref());
                let platforms = known.map(|known| platform(known.os().to_string(), known.architecture().to_string()));
                platforms.filter(|platform| platform.os != "unknown").collect()
            }
            Document::Manifest(manifest) => asked.platform(manifest.config()).await.into_iter().collect(),
        };
        let media_type = manifest::media_type(&document);
        Ok(Described { media_type, digest, size_bytes: bytes.len() as u64, platforms })
    }

    /// The tags that a repository has in its registry.
    pub async fn tags(&self, repository: &str, credentials: Option<&SecretBytes>) -> Result<Vec<String>> {
        let asked = self.ask(repository, credentials)?;
        let mut all: Vec<String> = Vec::new();
        loop {
            let listing = asked.client.list_tags(
                &asked.reference,
                &asked.auth,
                Some(TAGS_A_PAGE),
                all.last().map(String::as_str),
            );
            let page = asked.answer(listing).await?.tags;
            let is_last = page.len() < TAGS_A_PAGE;
            // A registry that knows no pages gives them all each time.
            let known = all.len();
            all.extend(page.into_iter().filter(|tag| !all[..known].contains(tag)).collect::<Vec<_>>());
            if all.len() > MAX_TAGS {
                return Err(asked.failed(format!("it has more than {MAX_TAGS} tags; pull those that you need by name")));
            }
            if is_last || all.len() == known {
                return Ok(all);
            }
        }
    }

    fn ask(&self, image: &str, credentials: Option<&SecretBytes>) -> Result<Asked> {
        let reference = parse_reference(image)?;
        let auth = credentials.map_or(Ok(RegistryAuth::Anonymous), registry::parse_auth);
        let auth = auth.map_err(|reason| RuntimeError::NoImage { image: image.to_owned(), reason })?;
        let client = self.shared.registries.client(reference.resolve_registry());
        Ok(Asked { image: image.to_owned(), reference, auth, client })
    }
}

/// A registry that is asked about an image.
struct Asked {
    image: String,
    reference: Reference,
    auth: RegistryAuth,
    client: oci_client::Client,
}

impl Asked {
    fn failed(&self, reason: String) -> RuntimeError {
        RuntimeError::NoImage { image: self.image.clone(), reason }
    }

    /// While the registry is away, nobody knows whether it has the image.
    fn told(&self, failure: Failure) -> RuntimeError {
        match failure.transient {
            true => RuntimeError::Pull { image: self.image.clone(), reason: failure.reason },
            false => self.failed(failure.reason),
        }
    }

    async fn answer<T>(&self, asking: impl Future<Output = Result<T, OciDistributionError>>) -> Result<T> {
        let host = self.reference.resolve_registry();
        match tokio::time::timeout(super::resolve::ANSWER_WITHIN, asking).await {
            Ok(answer) => answer.map_err(|error| self.told(registry::explain(error, host))),
            Err(_) => Err(self.told(Failure { reason: format!("registry {host} does not answer"), transient: true })),
        }
    }

    /// The manifest or index that the name means now, and its digest.
    async fn manifest(&self) -> Result<(Vec<u8>, String)> {
        let asking = self.client.pull_manifest_raw(&self.reference, &self.auth, &MANIFEST_TYPES);
        let (bytes, digest) = self.answer(asking).await?;
        Ok((bytes.to_vec(), digest))
    }

    /// What an image's configuration says that it is made for; what is no image says nothing.
    async fn platform(&self, config: &Descriptor) -> Option<Platform> {
        #[derive(Deserialize)]
        struct Configuration {
            os: String,
            architecture: String,
        }
        if config.size() > MAX_DOCUMENT_BYTES {
            return None;
        }
        let source = OciDescriptor { digest: config.digest().to_string(), ..Default::default() };
        let mut bytes = Vec::new();
        self.answer(self.client.pull_blob(&self.reference, &source, &mut bytes)).await.ok()?;
        let read: Configuration = serde_json::from_slice(&bytes).ok()?;
        (!read.architecture.is_empty()).then(|| platform(read.os, read.architecture))
    }
}

fn platform(os: String, architecture: String) -> Platform {
    Platform { os, architecture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_away_is_no_word_on_its_images() {
        let asked = Asked {
            image: "reg:5000/a:b".into(),
            reference: parse_reference("reg:5000/a:b").unwrap(),
            auth: RegistryAuth::Anonymous,
            client: oci_client::Client::default(),
        };
        let told = |reason: &str, transient| asked.told(Failure { reason: reason.into(), transient }).to_string();
        assert_eq!(told("it does not answer", true), "pulling reg:5000/a:b: it does not answer");
        assert_eq!(told("it does not have it", false), "no such image: reg:5000/a:b: it does not have it");
    }
}
