//! What a tag means now: asked of the registry when a service is stored, so that all nodes run the same image.

use std::time::Duration;

use containerd_client::services::v1::GetImageRequest;
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;

use super::{Images, LOADED_LABEL, lookup_name, parse_reference, registry};
use crate::runtime::client::{SHORT, call};
use crate::runtime::error::{Result, RuntimeError};
use crate::spec::SecretBytes;

/// A person waits for the answer, and a registry that is slower is no reason to refuse a deployment.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Images {
    /// The digest that the registry has for the tag; `None` for an image that was loaded into this node by hand, which is
    /// in no registry. One attempt: whoever asks decides what a failure means.
    pub async fn resolve(&self, image: &str, credentials: Option<&SecretBytes>) -> Result<Option<String>> {
        let reference = parse_reference(image)?;
        if let Some(digest) = reference.digest() {
            return Ok(Some(digest.to_owned()));
        }
        if self.is_loaded(&reference).await? {
            return Ok(None);
        }
        let failed = |reason: String| RuntimeError::Pull { image: image.to_owned(), reason };
        let auth = credentials.map_or(Ok(RegistryAuth::Anonymous), registry::parse_auth).map_err(failed)?;
        let host = reference.resolve_registry();
        let client = self.shared.registries.client(host);
        match tokio::time::timeout(ANSWER_WITHIN, client.fetch_manifest_digest(&reference, &auth)).await {
            Ok(Ok(digest)) => Ok(Some(digest)),
            Ok(Err(error)) => Err(failed(registry::explain(error, host).reason)),
            Err(_) => Err(failed(format!("registry {host} does not answer"))),
        }
    }

    pub(super) async fn is_loaded(&self, reference: &Reference) -> Result<bool> {
        let name = lookup_name(reference);
        let request = GetImageRequest { name: name.clone() };
        match call("looking for image", &name, SHORT, self.shared.client.images().get(request)).await {
            Ok(found) => Ok(found.image.is_some_and(|image| image.labels.contains_key(LOADED_LABEL))),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
