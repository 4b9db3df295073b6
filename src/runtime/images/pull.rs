//! Pulling: resolve the reference, load what is missing into the content store under a lease, unpack, name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use containerd_client::types;
use futures::stream::{self, StreamExt, TryStreamExt};
use oci_client::Reference;
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_spec::image::{Descriptor, ImageManifest};
use rand::RngExt;
use tokio::sync::watch;

use super::content::{self, CopyError, LabelMap, Writer};
use super::manifest::{self, Document, MANIFEST_TYPES, MAX_DOCUMENT_BYTES};
use super::registry::{self, Failure, STALL_AFTER};
use super::{ImageInfo, Images, Origin, Progress, PullFailure, PullState, Trouble, end_lease, lookup_name, take_lease};
use crate::runtime::client::Client;
use crate::runtime::error::{Result, RuntimeError, explained};
use crate::spec::SecretBytes;

/// Layers of one image loaded at once.
pub const LAYERS_AT_ONCE: usize = 3;
/// Attempts at each document or layer, with a back-off between them; what is loaded stays.
const ATTEMPTS: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);

impl Images {
    /// The pull of this reference that is under way, or a new one.
    pub(super) fn join_pull(
        &self,
        reference: &Reference,
        credentials: Option<&SecretBytes>,
    ) -> watch::Receiver<PullState> {
        let name = lookup_name(reference);
        let mut inner = self.inner();
        if let Some(running) = inner.pulls.get(&name) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(PullState::Running(Progress::default()));
        inner.pulls.insert(name.clone(), receiver.clone());
        drop(inner);
        let (images, reference, credentials) = (self.clone(), reference.clone(), credentials.cloned());
        tokio::spawn(async move {
            let slot = images.shared.slots.acquire().await.expect("the semaphore is never closed");
            let result = images.pull(&reference, credentials.as_ref(), &sender).await;
            drop(slot);
            let done = result.map_err(|error| PullFailure {
                image: name.clone(),
                missing: matches!(error, RuntimeError::NoImage { .. }),
                reason: match error {
                    RuntimeError::NoImage { reason, .. } | RuntimeError::Pull { reason, .. } => reason,
                    other => explained(&other),
                },
            });
            images.inner().pulls.remove(&name);
            sender.send_replace(PullState::Done(done));
        });
        receiver
    }

    async fn pull(
        &self,
        reference: &Reference,
        credentials: Option<&SecretBytes>,
        progress: &watch::Sender<PullState>,
    ) -> Result<Arc<ImageInfo>> {
        let auth = credentials.map_or(Ok(RegistryAuth::Anonymous), registry::parse_auth);
        let auth = auth.map_err(|reason| RuntimeError::NoImage { image: reference.whole(), reason })?;
        let name = lookup_name(reference);
        let lease = format!("flok-pull-{}", &manifest::digest_of(name.as_bytes())[7..39]);
        let leased = take_lease(&self.shared.client, &lease).await?;
        let host = reference.resolve_registry();
        let pull = Pull {
            registry: self.shared.registries.client(host),
            auth,
            reference,
            client: leased,
            progress,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        };
        let result = self.pull_leased(&pull).await;
        end_lease(&self.shared.client, &lease).await;
        result
    }

    async fn pull_leased(&self, pull: &Pull<'_>) -> Result<Arc<ImageInfo>> {
        let (bytes, digest) = pull.manifest(pull.reference).await?;
        let document = manifest::parse(&bytes).map_err(|reason| pull.missing(reason))?;
        let target = types::Descriptor {
            media_type: manifest::media_type(&document),
            digest: digest.clone(),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        match document {
            Document::Manifest(manifest) => pull.image(&digest, bytes, &manifest).await?,
            Document::Index(index) => {
                let chosen = manifest::choose(&index, &self.shared.platform).map_err(|reason| pull.missing(reason))?;
                let chosen = chosen.digest().to_string();
                let (manifest_bytes, _) = pull.manifest(&pull.reference.clone_with_digest(chosen.clone())).await?;
                let parsed = manifest::parse(&manifest_bytes).map_err(|reason| pull.missing(reason))?;
                let Document::Manifest(manifest) = parsed else {
                    return Err(pull.missing("its index names another index".to_owned()));
                };
                pull.image(&chosen, manifest_bytes, &manifest).await?;
                // Other platforms' manifests are not here, so the index holds the chosen one alone.
                let labels = LabelMap::from([("containerd.io/gc.ref.content.m.0".to_owned(), chosen)]);
                content::write_bytes(&pull.client, &digest, bytes, labels).await?;
            }
        }
        pull.tell(true);
        let info = self.open(&lookup_name(pull.reference), &digest).await?;
        self.name_pulled(pull.reference, target).await?;
        self.inner().ready.insert(info.name.clone(), Arc::clone(&info));
        Ok(info)
    }

    /// Under the name asked for, and under its digest.
    async fn name_pulled(&self, reference: &Reference, target: types::Descriptor) -> Result<()> {
        let by_digest = lookup_name(&reference.clone_with_digest(target.digest.clone()));
        if let Some(tag) = reference.tag() {
            let tagged = format!("{}/{}:{tag}", reference.registry(), reference.repository());
            self.name(&tagged, target.clone(), Origin::Registry).await?;
        }
        self.name(&by_digest, target, Origin::Registry).await
    }
}

/// One pull under way.
struct Pull<'a> {
    registry: oci_client::Client,
    auth: RegistryAuth,
    reference: &'a Reference,
    client: Client,
    progress: &'a watch::Sender<PullState>,
    done: AtomicU64,
    total: AtomicU64,
}

/// How one attempt at a blob ended without success.
enum Attempt {
    Registry(Failure),
    Containerd(RuntimeError),
}

impl Pull<'_> {
    async fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, String)> {
        let mut attempt = 0;
        loop {
            let within = STALL_AFTER;
            let asked =
                tokio::time::timeout(within, self.registry.pull_manifest_raw(reference, &self.auth, &MANIFEST_TYPES))
                    .await;
            let failure = match asked {
                Ok(Ok((bytes, digest))) => return Ok((bytes.to_vec(), digest)),
                Ok(Err(error)) => registry::explain(error, self.host()),
                Err(_) => Failure { reason: format!("registry {} does not answer", self.host()), transient: true },
            };
            self.back_off(&mut attempt, failure).await?;
        }
    }

    /// Everything one manifest names, then the manifest itself.
    async fn image(&self, digest: &str, bytes: Vec<u8>, manifest: &ImageManifest) -> Result<()> {
        self.total.store(manifest.layers().iter().map(Descriptor::size).sum(), Ordering::Relaxed);
        self.tell(false);
        if manifest.config().size() > MAX_DOCUMENT_BYTES {
            return Err(self.missing("its configuration is far too large".to_owned()));
        }
        // Its snapshot label is put on when the chain is unpacked; until then the lease holds everything.
        self.blob(manifest.config(), LabelMap::new(), false).await?;
        let diff_ids = self.diff_ids(manifest).await?;
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (layer, diff_id) in manifest.layers().iter().zip(diff_ids) {
            let labels = LabelMap::from([("containerd.io/uncompressed".to_owned(), diff_id)]);
            layers.push(self.blob(layer, labels, true));
        }
        stream::iter(layers).buffer_unordered(LAYERS_AT_ONCE).try_collect::<()>().await?;
        content::write_bytes(&self.client, digest, bytes, manifest_labels(manifest)).await
    }

    async fn diff_ids(&self, manifest: &ImageManifest) -> Result<Vec<String>> {
        let config = content::read(&self.client, manifest.config().digest().as_ref()).await?;
        let config =
            manifest::configuration(&config, manifest.layers().len()).map_err(|reason| self.missing(reason))?;
        Ok(config.rootfs().diff_ids().clone())
    }

    async fn blob(&self, descriptor: &Descriptor, labels: LabelMap, counted: bool) -> Result<()> {
        let digest = descriptor.digest().to_string();
        let mut attempt = 0;
        loop {
            let counted_before = AtomicU64::new(0);
            let result = self.blob_once(descriptor, &digest, labels.clone(), counted.then_some(&counted_before)).await;
            let failure = match result {
                Ok(()) => return Ok(()),
                Err(Attempt::Containerd(error)) => return Err(error),
                Err(Attempt::Registry(failure)) => failure,
            };
            self.done.fetch_sub(counted_before.into_inner(), Ordering::Relaxed);
            self.back_off(&mut attempt, failure).await?;
        }
    }

    async fn blob_once(
        &self,
        descriptor: &Descriptor,
        digest: &str,
        labels: LabelMap,
        counted: Option<&AtomicU64>,
    ) -> Result<(), Attempt> {
        let count = |bytes: u64| {
            if let Some(counted) = counted {
                counted.fetch_add(bytes, Ordering::Relaxed);
                self.done.fetch_add(bytes, Ordering::Relaxed);
                self.tell(false);
            }
        };
        let Some(mut writer) = Writer::open(&self.client, digest, descriptor.size(), labels).await? else {
            count(descriptor.size());
            return Ok(());
        };
        if writer.offset() < descriptor.size() || descriptor.size() == 0 {
            let source = OciDescriptor {
                digest: digest.to_owned(),
                media_type: descriptor.media_type().to_string(),
                size: i64::try_from(descriptor.size()).unwrap_or(i64::MAX),
                ..Default::default()
            };
            let explain = |error: OciDistributionError| Attempt::Registry(registry::explain(error, self.host()));
            let opened = match writer.offset() {
                0 => self.registry.pull_blob_stream(self.reference, &source).await.map(BlobResponse::Full),
                offset => self.registry.pull_blob_stream_partial(self.reference, &source, offset, None).await,
            };
            let stream = match opened.map_err(explain)? {
                BlobResponse::Partial(stream) => {
                    count(writer.offset());
                    stream
                }
                BlobResponse::Full(stream) => {
                    writer.restart_at(0);
                    stream
                }
            };
            match writer.copy(stream, STALL_AFTER, count).await? {
                Ok(()) => {}
                Err(CopyError::Source(error)) => return Err(explain(OciDistributionError::IoError(error))),
                Err(CopyError::Stalled(after)) => {
                    let reason = format!("registry {} sent nothing for {} s", self.host(), after.as_secs());
                    return Err(Attempt::Registry(Failure { reason, transient: true }));
                }
            }
        } else {
            count(writer.offset());
        }
        Ok(writer.commit().await?)
    }

    /// Waits before the next attempt, or gives up.
    async fn back_off(&self, attempt: &mut u32, failure: Failure) -> Result<()> {
        *attempt += 1;
        let image = self.reference.whole();
        if !failure.transient {
            return Err(RuntimeError::NoImage { image, reason: failure.reason });
        }
        if *attempt >= ATTEMPTS {
            return Err(RuntimeError::Pull { image, reason: format!("{} ({ATTEMPTS} attempts)", failure.reason) });
        }
        tracing::warn!(image, reason = failure.reason, attempt, "a pull stumbled, trying again");
        self.tell_of(false, Some(Trouble { attempt: *attempt, reason: failure.reason }));
        let wait = BACKOFF_FIRST.saturating_mul(1 << (*attempt - 1)).min(BACKOFF_MAX);
        #[expect(clippy::disallowed_methods, reason = "spreads the retries of many nodes")]
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        Ok(())
    }

    fn tell(&self, unpacking: bool) {
        self.tell_of(unpacking, None);
    }

    fn tell_of(&self, unpacking: bool, trouble: Option<Trouble>) {
        let (done_bytes, total_bytes) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        self.progress.send_replace(PullState::Running(Progress { done_bytes, total_bytes, unpacking, trouble }));
    }

    fn missing(&self, reason: String) -> RuntimeError {
        RuntimeError::NoImage { image: self.reference.whole(), reason }
    }

    fn host(&self) -> &str {
        self.reference.resolve_registry()
    }
}

impl From<RuntimeError> for Attempt {
    fn from(error: RuntimeError) -> Attempt {
        Attempt::Containerd(error)
    }
}

/// How a manifest holds what it names.
pub(super) fn manifest_labels(manifest: &ImageManifest) -> LabelMap {
    let config = ("containerd.io/gc.ref.content.config".to_owned(), manifest.config().digest().to_string());
    let layers = manifest.layers().iter().enumerate();
    let layers = layers.map(|(at, layer)| (format!("containerd.io/gc.ref.content.l.{at}"), layer.digest().to_string()));
    std::iter::once(config).chain(layers).collect()
}
