//! Images as an archive that `docker load` and flok's own read: an OCI layout (OCI image-spec, "Image Layout") with Docker's
//! `manifest.json` beside it, as Docker itself writes it. Of an image for several platforms what this node has is written: the
//! one for its own, below the index that names all, so that it stays the image that it is.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use oci_spec::image::ImageManifest;
use serde_json::{Value, json};
use tar::{EntryType, Header};
use tokio::sync::mpsc;

use super::manifest;
use super::{Images, content, parse_reference};
use crate::runtime::client::Client;
use crate::runtime::error::{Result, explained};

/// Pieces that wait for their reader.
const QUEUE: usize = 8;
const BLOCK_BYTES: usize = 512;
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image that is to be in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The full name that a list gives.
    pub name: String,
    /// What it is to be called where it is loaded; empty for one that was asked for by its digest.
    pub tags: Vec<String>,
}

/// Its documents, in memory, and where they say its layers are.
struct Opened {
    tags: Vec<String>,
    /// What its names stand for, where that is no manifest itself.
    index_bytes: Option<Vec<u8>>,
    manifest_bytes: Vec<u8>,
    manifest: ImageManifest,
    config: Vec<u8>,
}

impl Images {
    /// A tar of these images, each blob once. An image that is not here whole is an error now; what cannot be read later ends
    /// the stream with one.
    pub async fn save(&self, images: Vec<Saved>) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
        let mut opened = Vec::new();
        for image in images {
            opened.push(self.opened(image).await?);
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        let client = self.shared.client.clone();
        tokio::spawn(async move {
            let mut archive = Archive { to: sender, written: BTreeSet::new() };
            if let Err(Stop::Failed(error)) = write(&client, &opened, &mut archive).await {
                // A reader that is gone hears nothing.
                let _ = archive.to.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }

    async fn opened(&self, image: Saved) -> Result<Opened> {
        let (name, client) = (&image.name, &self.shared.client);
        let target = self.target(name).await?;
        let (manifest_bytes, manifest) = self.manifest(name, &target).await?;
        let index_bytes = match manifest::digest_of(&manifest_bytes) == target {
            true => None,
            false => Some(content::read(client, &target).await?),
        };
        let config = content::read(client, manifest.config().digest().as_ref()).await?;
        for layer in manifest.layers() {
            content::size(client, layer.digest().as_ref()).await?;
        }
        Ok(Opened { tags: image.tags, index_bytes, manifest_bytes, manifest, config })
    }
}

impl Opened {
    /// The document that its names stand for.
    fn target(&self) -> &[u8] {
        self.index_bytes.as_ref().unwrap_or(&self.manifest_bytes)
    }
}

/// Why an archive ends early.
enum Stop {
    Failed(io::Error),
    /// Nobody reads it any more.
    Unread,
}

async fn write(client: &Client, images: &[Opened], archive: &mut Archive) -> Result<(), Stop> {
    for image in images {
        for layer in image.manifest.layers() {
            archive.blob(client, layer.digest().as_ref(), layer.size()).await?;
        }
        archive.file(&blob_path(image.manifest.config().digest().as_ref()), &image.config).await?;
        for document in std::iter::once(&image.manifest_bytes).chain(&image.index_bytes) {
            archive.file(&blob_path(&manifest::digest_of(document)), document).await?;
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": images.iter().flat_map(descriptors).collect::<Vec<_>>(),
    });
    let docker: Vec<Value> = images.iter().map(docker_manifest).collect();
    archive.file("index.json", index.to_string().as_bytes()).await?;
    archive.file("manifest.json", Value::from(docker).to_string().as_bytes()).await?;
    archive.file("oci-layout", LAYOUT.as_bytes()).await?;
    archive.send(Bytes::from_static(&[0; 2 * BLOCK_BYTES])).await
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// One for each of its names, or one without any.
fn descriptors(image: &Opened) -> Vec<Value> {
    let Ok(document) = manifest::parse(image.target()) else { return Vec::new() };
    let plain = json!({
        "mediaType": manifest::media_type(&document),
        "digest": manifest::digest_of(image.target()),
        "size": image.target().len(),
    });
    let named = |tag: &String| {
        let reference = parse_reference(tag).ok()?;
        let mut named = plain.clone();
        named["annotations"] = json!({
            "io.containerd.image.name": reference.whole(),
            "org.opencontainers.image.ref.name": reference.tag(),
        });
        Some(named)
    };
    match image.tags.is_empty() {
        true => vec![plain],
        false => image.tags.iter().filter_map(named).collect(),
    }
}

fn docker_manifest(image: &Opened) -> Value {
    let layers = image.manifest.layers().iter().map(|layer| blob_path(layer.digest().as_ref()));
    json!({
        "Config": blob_path(image.manifest.config().digest().as_ref()),
        "RepoTags": (!image.tags.is_empty()).then_some(&image.tags),
        "Layers": layers.collect::<Vec<_>>(),
    })
}

/// A tar in the making.
struct Archive {
    to: mpsc::Sender<io::Result<Bytes>>,
    /// Paths that are in it: images share blobs.
    written: BTreeSet<String>,
}

impl Archive {
    async fn send(&self, bytes: Bytes) -> Result<(), Stop> {
        self.to.send(Ok(bytes)).await.map_err(|_| Stop::Unread)
    }

    /// False for one that is there.
    async fn begin(&mut self, path: &str, size: u64) -> Result<bool, Stop> {
        if !self.written.insert(path.to_owned()) {
            return Ok(false);
        }
        let mut header = Header::new_ustar();
        header.set_path(path).map_err(Stop::Failed)?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o444);
        header.set_size(size);
        header.set_mtime(0);
        header.set_cksum();
        self.send(Bytes::copy_from_slice(header.as_bytes())).await?;
        Ok(true)
    }

    async fn end(&self, size: u64) -> Result<(), Stop> {
        let over = usize::try_from(size % BLOCK_BYTES as u64).expect("smaller than a block");
        match over {
            0 => Ok(()),
            over => self.send(Bytes::from(vec![0; BLOCK_BYTES - over])).await,
        }
    }

    async fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Stop> {
        let size = bytes.len() as u64;
        if self.begin(path, size).await? {
            self.send(Bytes::copy_from_slice(bytes)).await?;
            self.end(size).await?;
        }
        Ok(())
    }

    /// Of the content store, piece by piece.
    async fn blob(&mut self, client: &Client, digest: &str, size: u64) -> Result<(), Stop> {
        if !self.begin(&blob_path(digest), size).await? {
            return Ok(());
        }
        let failed = |error| Stop::Failed(io::Error::other(explained(&error)));
        let mut pieces = content::pieces(client, digest).await.map_err(failed)?;
        let mut sent = 0;
        while let Some(piece) = pieces.next().await.map_err(failed)? {
            sent += piece.len() as u64;
            if sent > size {
                break;
            }
            self.send(piece).await?;
        }
        if sent != size {
            return Err(Stop::Failed(io::Error::other(format!("{digest} has another size than its manifest says"))));
        }
        self.end(size).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn an_archive_is_a_tar_of_each_file_once() {
        let (to, mut pieces) = mpsc::channel(64);
        let mut archive = Archive { to, written: BTreeSet::new() };
        let long = vec![b'x'; 1025];
        for (path, bytes) in [("a", b"one".as_slice()), ("b", &long), ("a", b"again"), ("c", b"")] {
            assert!(archive.file(path, bytes).await.is_ok());
        }
        drop(archive);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.recv().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut read = tar::Archive::new(bytes.as_slice());
        let entries = read.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [("a".to_owned(), b"one".to_vec()), ("b".to_owned(), long), ("c".to_owned(), Vec::new())]
        );
    }
}
