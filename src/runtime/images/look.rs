//! Images as people look at them: what they hold, how large they are, and pulled by hand.

use containerd_client::services::v1::GetImageRequest;
use oci_client::secrets::RegistryAuth;
use oci_spec::image::ImageConfiguration;

use super::manifest::{self, Document};
use super::{Images, LOADED_LABEL, Origin, Progress, broken, content, lookup_name, parse_reference, registry};
use crate::runtime::client::{SHORT, call};
use crate::runtime::error::{Result, RuntimeError};
use crate::spec::SecretBytes;

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
    /// Operating system and architecture of each; empty where there is but one image.
    pub platforms: Vec<(String, String)>,
}

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
        let reference = parse_reference(image)?;
        let described = self.describe(image, credentials).await?;
        let name = lookup_name(&reference);
        let before = self.list().await?.into_iter().find(|image| image.name == name);
        if before.is_some_and(|before| before.digest == described.digest) {
            return Ok((described.digest, false));
        }
        let exact = format!("{}/{}@{}", reference.registry(), reference.repository(), described.digest);
        self.ensure(&exact, credentials, progress).await?;
        let request = GetImageRequest { name: lookup_name(&parse_reference(&exact)?) };
        let found = call("looking for image", &exact, SHORT, self.shared.client.images().get(request)).await?;
        let target = found.image.and_then(|image| image.target).ok_or_else(|| broken(image, "it has no content"))?;
        self.name(&name, target, Origin::Registry).await?;
        Ok((described.digest, true))
    }

    /// Asks the registry; one attempt.
    pub async fn describe(&self, image: &str, credentials: Option<&SecretBytes>) -> Result<Described> {
        let reference = parse_reference(image)?;
        let failed = |reason: String| RuntimeError::NoImage { image: image.to_owned(), reason };
        if self.is_loaded(&reference).await? {
            return Err(failed("it was loaded into this node by hand, and no registry has it".to_owned()));
        }
        let auth = credentials.map_or(Ok(RegistryAuth::Anonymous), registry::parse_auth).map_err(failed)?;
        let host = reference.resolve_registry();
        let client = self.shared.registries.client(host);
        let accepted = [
            oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE,
            oci_client::manifest::OCI_IMAGE_MEDIA_TYPE,
            oci_client::manifest::IMAGE_MANIFEST_LIST_MEDIA_TYPE,
            oci_client::manifest::IMAGE_MANIFEST_MEDIA_TYPE,
        ];
        let asking = client.pull_manifest_raw(&reference, &auth, &accepted);
        let (bytes, digest) = match tokio::time::timeout(super::resolve::ANSWER_WITHIN, asking).await {
            Ok(answer) => answer.map_err(|error| failed(registry::explain(error, host).reason))?,
            Err(_) => return Err(failed(format!("registry {host} does not answer"))),
        };
        let document = manifest::parse(&bytes).map_err(failed)?;
        let platforms = match &document {
            Document::Index(index) => {
                let known = index.manifests().iter().filter_map(|entry| entry.platform().as_ref());
                let named = known.map(|platform| (platform.os().to_string(), platform.architecture().to_string()));
                named.filter(|(os, _)| os != "unknown").collect()
            }
            Document::Manifest(_) => Vec::new(),
        };
        let media_type = manifest::media_type(&document);
        Ok(Described { media_type, digest, size_bytes: bytes.len() as u64, platforms })
    }
}
