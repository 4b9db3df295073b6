//! Images on this node: found, pulled, loaded, listed, removed. One pull serves all who wait for it.
//!
//! To start a task, a tag is looked up in a registry only while the node has nothing under that name: clients have tags
//! resolved to digests when a service is stored ([`Images::resolve`]), so a restart never depends on a registry.

mod archive;
mod content;
mod login;
mod look;
pub mod manifest;
mod pull;
pub mod registry;
mod resolve;
mod save;
mod unpack;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListContainersRequest, ListImagesRequest,
    UpdateImageRequest,
};
use containerd_client::types::Descriptor;
use oci_client::Reference;
use oci_spec::image::{ImageConfiguration, ImageManifest};
use tokio::sync::{Semaphore, watch};

pub use self::login::LoginRefused;
pub use self::look::Described;
use self::manifest::Document;
pub use self::manifest::ImageHealth;
pub use self::registry::{Registries, RegistryConfig};
pub use self::save::Saved;
use super::client::{Client, LONG, SHORT, SNAPSHOTTER, call};
use super::error::{Result, RuntimeError, gone_is_fine};
use crate::spec::{Platform, SecretBytes};

/// Pulls at once; further ones wait. Each loads up to [`pull::LAYERS_AT_ONCE`] layers.
const PULLS_AT_ONCE: usize = 3;

/// On names that were given by hand ([`Images::load`], [`Images::tag`]): no registry knows them.
const LOADED_LABEL: &str = "flok/loaded";

/// An image that is here, unpacked, ready to be run.
#[derive(Debug, Clone)]
pub struct ImageInfo {
    /// The full name it was asked for by, as containerd's containers refer to it.
    pub name: String,
    /// Of the index, or of the manifest where there is no index: what `repo@digest` names.
    pub digest: String,
    pub config: ImageConfiguration,
    pub health: ImageHealth,
    /// The snapshot its containers start from.
    pub chain_id: String,
}

/// An image as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    pub name: String,
    pub digest: String,
    pub created_unix_s: i64,
}

/// How far a pull is. Bytes of layers that are here already count as done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub unpacking: bool,
    /// How the attempt before failed; until the next one brings something.
    pub trouble: Option<Trouble>,
}

/// An attempt at a part of a pull that failed and is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// From 1.
    pub attempt: u32,
    pub reason: String,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.unpacking, self.total_bytes) {
            (true, _) => f.write_str("unpacking the image"),
            (false, 0) => f.write_str("pulling"),
            (false, total) => write!(f, "pulling {}%", self.done_bytes.min(total) * 100 / total),
        }?;
        match &self.trouble {
            Some(Trouble { attempt, reason }) => write!(f, "; attempt {attempt} failed: {reason}"),
            None => Ok(()),
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Images {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    registries: Registries,
    platform: Platform,
    spool_dir: std::path::PathBuf,
    slots: Semaphore,
    /// Unpacking is bound by the disk: one at a time, and never the same layer twice.
    unpacking: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    /// Counts the changes of what [`Images::list`] says.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    ready: BTreeMap<String, Arc<ImageInfo>>,
    pulls: BTreeMap<String, watch::Receiver<PullState>>,
}

#[derive(Debug, Clone)]
enum PullState {
    Running(Progress),
    Done(Result<Arc<ImageInfo>, PullFailure>),
}

/// An error for each of a pull's waiters.
#[derive(Debug, Clone)]
struct PullFailure {
    image: String,
    reason: String,
    missing: bool,
}

impl Images {
    pub fn new(client: Client, registries: Registries, platform: Platform, spool_dir: std::path::PathBuf) -> Images {
        let shared = Shared {
            client,
            registries,
            platform,
            spool_dir,
            slots: Semaphore::new(PULLS_AT_ONCE),
            unpacking: tokio::sync::Mutex::new(()),
            inner: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        Images { shared: Arc::new(shared) }
    }

    /// The image, from this node or else from its registry. Dropping the call does not end a pull that others wait for,
    /// nor one that nobody waits for: what it has loaded serves the next attempt.
    pub async fn ensure(
        &self,
        image: &str,
        credentials: Option<&SecretBytes>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Arc<ImageInfo>> {
        let reference = parse_reference(image)?;
        if let Some(found) = self.local(&reference).await? {
            return Ok(found);
        }
        let mut state = self.join_pull(&reference, credentials);
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                PullState::Running(at) => progress(at),
                PullState::Done(Ok(info)) => return Ok(info),
                PullState::Done(Err(failure)) => return Err(failure.into()),
            }
            if state.changed().await.is_err() {
                return Err(RuntimeError::Pull { image: image.to_owned(), reason: "the pull was given up".to_owned() });
            }
        }
    }

    /// What is here under this name, unpacked.
    pub async fn local(&self, reference: &Reference) -> Result<Option<Arc<ImageInfo>>> {
        let name = lookup_name(reference);
        if let Some(ready) = self.inner().ready.get(&name) {
            return Ok(Some(Arc::clone(ready)));
        }
        let request = GetImageRequest { name: name.clone() };
        let found = match call("looking for image", &name, SHORT, self.shared.client.images().get(request)).await {
            Ok(found) => found.image.and_then(|image| image.target),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        match found {
            Some(target) => self.open(&name, &target.digest).await.map(Some),
            None => Ok(None),
        }
    }

    /// Forgets what is known of an image: its snapshot turned out to be missing.
    pub fn invalidate(&self, name: &str) {
        self.inner().ready.remove(name);
    }

    /// Changes whenever an image was added, removed or renamed by this process.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub async fn list(&self) -> Result<Vec<ImageSummary>> {
        let request = ListImagesRequest::default();
        let list = call("listing", "images", SHORT, self.shared.client.images().list(request)).await?;
        let mut images: Vec<ImageSummary> = list.images.into_iter().map(summary).collect();
        images.sort_by(|a, b| b.created_unix_s.cmp(&a.created_unix_s).then_with(|| a.name.cmp(&b.name)));
        Ok(images)
    }

    /// Removes a name; the data goes with its last name. Refused while a container was made from it, unless `force`.
    pub async fn remove(&self, image: &str, force: bool) -> Result<()> {
        let name = lookup_name(&parse_reference(image)?);
        if !force {
            let filters = vec![format!("image=={name}")];
            let request = ListContainersRequest { filters };
            let users = call("listing", "containers", SHORT, self.shared.client.containers().list(request)).await?;
            if let Some(user) = users.containers.first() {
                return Err(RuntimeError::ImageInUse(name, format!("container {}", user.id)));
            }
        }
        let request = DeleteImageRequest { name: name.clone(), sync: true, target: None };
        let removed = call("removing image", &name, LONG, self.shared.client.images().delete(request)).await;
        self.inner().ready.clear();
        self.shared.changes.send_modify(|count| *count += 1);
        removed.map(|_| ())
    }

    /// Gives an image a further name.
    pub async fn tag(&self, image: &str, new: &str) -> Result<()> {
        let source = parse_reference(image)?;
        let name = lookup_name(&source);
        let request = GetImageRequest { name: name.clone() };
        let found = call("looking for image", &name, SHORT, self.shared.client.images().get(request)).await?;
        let target = found.image.and_then(|image| image.target);
        let target = target.ok_or_else(|| broken(&name, "it has no content"))?;
        self.name(&lookup_name(&parse_reference(new)?), target, Origin::Hand).await
    }

    /// The digest that a full name stands for.
    async fn target(&self, name: &str) -> Result<String> {
        let request = GetImageRequest { name: name.to_owned() };
        let found = call("looking for image", name, SHORT, self.shared.client.images().get(request)).await?;
        let target = found.image.and_then(|image| image.target);
        target.map(|target| target.digest).ok_or_else(|| broken(name, "it has no content"))
    }

    /// Points a name at a target, whatever it was before.
    async fn name(&self, name: &str, target: Descriptor, origin: Origin) -> Result<()> {
        let labels = match origin {
            Origin::Hand => HashMap::from([(LOADED_LABEL.to_owned(), "true".to_owned())]),
            Origin::Registry => HashMap::new(),
        };
        let image = Image { name: name.to_owned(), target: Some(target), labels, ..Default::default() };
        let request = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        match call("naming image", name, SHORT, self.shared.client.images().create(request)).await {
            Err(error) if error.already_exists() => {
                let request = UpdateImageRequest { image: Some(image), ..Default::default() };
                call("naming image", name, SHORT, self.shared.client.images().update(request)).await?;
            }
            other => {
                other?;
            }
        }
        self.invalidate(name);
        self.shared.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The manifest for this node's platform, as it is written and as it reads.
    async fn manifest(&self, name: &str, target: &str) -> Result<(Vec<u8>, ImageManifest)> {
        let client = &self.shared.client;
        let mut bytes = content::read(client, target).await?;
        let mut document = manifest::parse(&bytes).map_err(|reason| broken(name, reason))?;
        if let Document::Index(index) = &document {
            let chosen = manifest::choose(index, &self.shared.platform)
                .map_err(|reason| RuntimeError::NoImage { image: name.to_owned(), reason })?;
            bytes = content::read(client, chosen.digest().as_ref()).await?;
            document = manifest::parse(&bytes).map_err(|reason| broken(name, reason))?;
        }
        match document {
            Document::Manifest(manifest) => Ok((bytes, manifest)),
            Document::Index(_) => Err(broken(name, "its index names another index")),
        }
    }

    /// Reads what is in the store from its target down, unpacks what is not, and remembers it.
    async fn open(&self, name: &str, target: &str) -> Result<Arc<ImageInfo>> {
        let client = &self.shared.client;
        let (_, manifest) = self.manifest(name, target).await?;
        let config_digest = manifest.config().digest().to_string();
        let config = content::read(client, &config_digest).await?;
        let health = manifest::health(&config);
        let config =
            manifest::configuration(&config, manifest.layers().len()).map_err(|reason| broken(name, reason))?;
        let chain_id = self.unpacked(name, &config, &manifest, &config_digest).await?;
        let info = Arc::new(ImageInfo { name: name.to_owned(), digest: target.to_owned(), config, health, chain_id });
        self.inner().ready.insert(name.to_owned(), Arc::clone(&info));
        Ok(info)
    }

    /// The image's last ChainID. New snapshots are held by a lease until the configuration's label holds them.
    async fn unpacked(
        &self,
        name: &str,
        config: &ImageConfiguration,
        manifest: &ImageManifest,
        config_digest: &str,
    ) -> Result<String> {
        let _one_at_a_time = self.shared.unpacking.lock().await;
        let client = &self.shared.client;
        let lease = format!("flok-unpack-{}", &config_digest["sha256:".len()..]);
        let leased = take_lease(client, &lease).await?;
        let unpacked = unpack::unpack(&leased, name, config, manifest.layers()).await;
        let labelled = match unpacked {
            Ok(chain_id) => {
                let labels = HashMap::from([(snapshot_label(), chain_id.clone())]);
                content::label(client, config_digest, labels).await.map(|()| chain_id)
            }
            Err(error) => Err(error),
        };
        end_lease(client, &lease).await;
        labelled
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().expect("nothing panics while it is held")
    }
}

/// Who gave an image its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Registry,
    Hand,
}

/// The label by which an image's configuration holds its snapshots.
fn snapshot_label() -> String {
    format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}")
}

fn broken(image: &str, reason: impl Into<String>) -> RuntimeError {
    RuntimeError::BrokenImage { image: image.to_owned(), reason: reason.into() }
}

/// Reads a name as Docker does: `redis` is `docker.io/library/redis:latest`.
pub fn parse_reference(image: &str) -> Result<Reference> {
    image
        .parse()
        .map_err(|error: oci_client::ParseError| RuntimeError::InvalidReference(image.to_owned(), error.to_string()))
}

/// The name under which an image is kept. A digest says all: the tag beside it is a remark.
pub fn lookup_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}/{}@{digest}", reference.registry(), reference.repository()),
        None => reference.whole(),
    }
}

fn summary(image: Image) -> ImageSummary {
    ImageSummary {
        name: image.name,
        digest: image.target.map(|target| target.digest).unwrap_or_default(),
        created_unix_s: image.created_at.map_or(0, |at| at.seconds),
    }
}

impl From<PullFailure> for RuntimeError {
    fn from(failure: PullFailure) -> RuntimeError {
        let PullFailure { image, reason, missing } = failure;
        match missing {
            true => RuntimeError::NoImage { image, reason },
            false => RuntimeError::Pull { image, reason },
        }
    }
}

/// Deletes a lease; what it alone held goes at the next collection of garbage.
async fn end_lease(client: &Client, id: &str) {
    use containerd_client::services::v1::DeleteRequest;
    let request = DeleteRequest { id: id.to_owned(), sync: false };
    if let Err(error) = gone_is_fine(call("deleting lease", id, SHORT, client.leases().delete(request)).await) {
        tracing::warn!(%error, "a lease stays until it expires");
    }
}

/// A lease that expires by itself, should this daemon not live to delete it. One that is there is used again, with what it
/// holds: that is how a pull goes on after a restart.
async fn take_lease(client: &Client, id: &str) -> Result<Client> {
    use containerd_client::services::v1::CreateRequest;
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let labels =
        HashMap::from([("containerd.io/gc.expire".to_owned(), expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())]);
    let request = CreateRequest { id: id.to_owned(), labels };
    match call("creating lease", id, SHORT, client.leases().create(request)).await {
        Err(error) if !error.already_exists() => Err(error),
        _ => Ok(client.with_lease(id)),
    }
}
