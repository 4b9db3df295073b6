//! Layers into snapshots, one for each prefix of the chain, named by its ChainID.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types;
use oci_spec::image::{Descriptor, ImageConfiguration};

use super::manifest::chain_ids;
use crate::runtime::client::{Client, LONG, SHORT, SNAPSHOTTER, call};
use crate::runtime::error::{Result, RuntimeError, gone_is_fine};

/// Makes sure that the image's whole chain is unpacked, and returns its last ChainID. Held by the client's lease until the
/// configuration's `gc.ref.snapshot` label holds it.
pub async fn unpack(
    client: &Client,
    image: &str,
    config: &ImageConfiguration,
    layers: &[Descriptor],
) -> Result<String> {
    let diff_ids = config.rootfs().diff_ids();
    let chain = chain_ids(diff_ids);
    let Some(top) = chain.last() else {
        return Err(RuntimeError::BrokenImage { image: image.to_owned(), reason: "it has no layers".to_owned() });
    };
    // The highest prefix that is there: layers are shared between images.
    let mut first_missing = 0;
    for (at, id) in chain.iter().enumerate().rev() {
        if exists(client, id).await? {
            first_missing = at + 1;
            break;
        }
    }
    for at in first_missing..chain.len() {
        let parent = if at == 0 { "" } else { &chain[at - 1] };
        apply(client, image, parent, &chain[at], &layers[at], &diff_ids[at]).await?;
    }
    Ok(top.clone())
}

pub async fn exists(client: &Client, name: &str) -> Result<bool> {
    let request = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: name.to_owned() };
    match call("looking for snapshot", name, SHORT, client.snapshots().stat(request)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn apply(
    client: &Client,
    image: &str,
    parent: &str,
    name: &str,
    layer: &Descriptor,
    diff_id: &str,
) -> Result<()> {
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let key = format!("extract-{}-{unique} {name}", std::process::id());
    let request = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.clone(),
        parent: parent.to_owned(),
        labels: HashMap::new(),
    };
    let prepared = call("preparing snapshot", &key, SHORT, client.snapshots().prepare(request)).await?;
    let applied = apply_to(client, image, layer, diff_id, prepared.mounts).await;
    let committed = match applied {
        Ok(()) => commit(client, &key, name).await,
        Err(error) => Err(error),
    };
    match committed {
        Ok(true) => Ok(()),
        other => {
            let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.clone() };
            let removed = call("removing snapshot", &key, SHORT, client.snapshots().remove(request)).await;
            if let Err(error) = gone_is_fine(removed) {
                tracing::warn!(%error, "a half-unpacked layer stays until the next collection of garbage");
            }
            other.map(|_| ())
        }
    }
}

async fn apply_to(
    client: &Client,
    image: &str,
    layer: &Descriptor,
    diff_id: &str,
    mounts: Vec<types::Mount>,
) -> Result<()> {
    let descriptor = types::Descriptor {
        media_type: layer.media_type().to_string(),
        digest: layer.digest().to_string(),
        size: i64::try_from(layer.size()).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    };
    let request = ApplyRequest { diff: Some(descriptor), mounts, ..Default::default() };
    // A layer of many GiB takes its time; the whole pull is what the user watches.
    let within = LONG.saturating_mul(15);
    let applied = call("unpacking a layer of", image, within, client.diff().apply(request)).await?;
    let digest = applied.applied.map(|applied| applied.digest).unwrap_or_default();
    if digest != diff_id {
        let reason = format!("layer {} unpacks to {digest} and should be {diff_id}", layer.digest());
        return Err(RuntimeError::BrokenImage { image: image.to_owned(), reason });
    }
    Ok(())
}

/// False: another unpacking of the same layer was faster.
async fn commit(client: &Client, key: &str, name: &str) -> Result<bool> {
    let request = CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        labels: HashMap::new(),
    };
    match call("committing snapshot", name, SHORT, client.snapshots().commit(request)).await {
        Ok(_) => Ok(true),
        Err(error) if error.already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}
