//! What the API asks of this node about its images and volumes: see [`Store`].

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::containers::refused;
use super::daemon::Daemon;
use crate::api::*;
use crate::runtime::{self, LoginRefused, Progress, RuntimeError, Saved, explained};
use crate::spec::*;

impl Store for Daemon {
    async fn load_image(&self, tar: BoxStream<'static, io::Result<Bytes>>) -> Result<Vec<String>, ApiError> {
        let reader = SyncIoBridge::new(Box::pin(StreamReader::new(tar)));
        let loaded = self.host.runtime.images().load(reader, None).await;
        loaded.map_err(|error| ApiError::Invalid(explained(&error)))
    }

    async fn save_images(
        &self,
        images: Vec<(LocalImage, Vec<String>)>,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ApiError> {
        let saved =
            |(image, tags): (LocalImage, Vec<String>)| Some(Saved { name: image.names.into_iter().next()?, tags });
        let images = images.into_iter().filter_map(saved).collect();
        let pieces = self.host.runtime.images().save(images).await.map_err(refused)?;
        Ok(stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) }).boxed())
    }

    async fn resolve_image(&self, image: &str, credentials: Option<SecretBytes>) -> Result<Option<String>, ApiError> {
        let resolved = self.host.runtime.images().resolve(image, credentials.as_ref()).await;
        resolved.map_err(|error| ApiError::NotFound(explained(&error)))
    }

    async fn describe_image(&self, image: &str, credentials: Option<SecretBytes>) -> Result<ImageDescribed, ApiError> {
        let told = self.host.runtime.images().describe(image, credentials.as_ref()).await.map_err(refused)?;
        let runtime::images::Described { media_type, digest, size_bytes, platforms } = told;
        Ok(ImageDescribed { media_type, digest, size_bytes, platforms })
    }

    async fn image_tags(&self, repository: &str, credentials: Option<SecretBytes>) -> Result<Vec<String>, ApiError> {
        self.host.runtime.images().tags(repository, credentials.as_ref()).await.map_err(refused)
    }

    async fn log_in(&self, server: &str, user: &str, password: SecretBytes) -> Result<(), ApiError> {
        self.host.runtime.images().log_in(server, user, &password).await.map_err(|refused| match refused {
            LoginRefused::Denied(why) => ApiError::Unauthorized(why),
            LoginRefused::Invalid(why) => ApiError::Invalid(why),
            LoginRefused::Unanswered(why) => ApiError::Unavailable(why),
        })
    }

    async fn images(&self) -> Result<Vec<LocalImage>, ApiError> {
        let images = self.host.runtime.images();
        let mut found: BTreeMap<String, LocalImage> = BTreeMap::new();
        let mut order = Vec::new();
        for image in images.list().await.map_err(refused)? {
            let arrived = UnixMs(u64::try_from(image.created_unix_s).unwrap_or(0) * 1000);
            if let Some(known) = found.get_mut(&image.digest) {
                known.names.push(image.name);
                continue;
            }
            // One that was pulled half, or is of another platform: its name is told.
            let look = images.look(&image.name).await.ok();
            let config = look.as_ref().and_then(|look| serde_json::to_value(&look.config).ok());
            order.push(image.digest.clone());
            let shown = LocalImage {
                names: vec![image.name],
                digest: image.digest.clone(),
                size_bytes: look.as_ref().map_or(0, |look| look.size_bytes),
                layers_bytes: look.as_ref().map_or(Vec::new(), |look| look.layers_bytes.clone()),
                arrived,
                config: config.unwrap_or_default(),
                loaded: look.is_some_and(|look| look.loaded),
            };
            found.insert(image.digest, shown);
        }
        Ok(order.iter().filter_map(|digest| found.remove(digest)).collect())
    }

    async fn pull_image(
        &self,
        image: &str,
        credentials: Option<SecretBytes>,
        progress: mpsc::Sender<(u64, u64)>,
    ) -> Result<(String, bool), ApiError> {
        let told = |now: Progress| {
            // A reader who is slow gets the next one.
            let _ = progress.try_send((now.done_bytes, now.total_bytes));
        };
        self.host.runtime.images().pull_anew(image, credentials.as_ref(), told).await.map_err(refused)
    }

    async fn image_users(&self) -> Result<Vec<ImageUser>, ApiError> {
        let made = self.host.runtime.made().await.map_err(refused)?;
        let reports = self.host.reports();
        let reports = reports.borrow();
        let user = |made: runtime::Made| {
            // Of one that nothing is known of yet, it is not known that it has ended.
            let runs = reports.tasks.get(&made.task).is_none_or(|report| !report.state.is_final());
            ImageUser { container: made.id, image: made.image, runs }
        };
        Ok(made.into_iter().map(user).collect())
    }

    async fn tag_image(&self, image: &str, name: &str) -> Result<(), ApiError> {
        self.host.runtime.images().tag(image, name).await.map_err(refused)
    }

    async fn remove_image(&self, name: &str, force: bool) -> Result<(), ApiError> {
        self.host.runtime.images().remove(name, force).await.map_err(refused)
    }

    fn volumes(&self) -> Vec<LocalVolume> {
        let volumes = self.host.runtime.volumes();
        let named = volumes.list().into_iter().filter_map(|name| volumes.look(&name));
        let of_tasks = self.host.runtime.anonymous_volumes().into_iter().map(|(_, volume)| volume);
        named.chain(of_tasks).map(shown).collect()
    }

    async fn volume_users(&self) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        self.host.runtime.volume_users().await.map_err(refused)
    }

    fn create_volume(&self, name: &str, labels: Labels, options: Labels) -> Result<LocalVolume, ApiError> {
        let created = self.host.runtime.volumes().create(name, &labels, &options);
        created.map(shown).map_err(|error| match error {
            RuntimeError::VolumeDiffers { .. } => ApiError::Conflict(explained(&error)),
            RuntimeError::VolumeOptions { .. } => ApiError::Invalid(explained(&error)),
            error => refused(error),
        })
    }

    fn remove_volume(&self, name: &str) -> Result<(), ApiError> {
        let removed = self.host.runtime.volumes().remove(name);
        removed.map_err(|error| match error {
            RuntimeError::VolumeInUse { .. } => ApiError::Conflict(format!("remove {name}: {}", explained(&error))),
            error => refused(error),
        })
    }

    async fn volume_size(&self, name: &str) -> Option<u64> {
        let (runtime, name) = (self.host.runtime.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || runtime.volume_size(&name)).await.unwrap_or_default()
    }
}

fn shown(volume: crate::runtime::Volume) -> LocalVolume {
    let crate::runtime::Volume { name, path, labels, options, created } = volume;
    LocalVolume { name, mountpoint: path.display().to_string(), labels, options: volume::shown(&options), created }
}
