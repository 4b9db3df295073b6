//! Loading images from a tar stream: what `docker save` writes, or an OCI layout. The stream is spooled to a file first,
//! since neither form says at its beginning what it holds. Where it is both, the layout counts: it has the images' own
//! manifests, by whose digests they are known, while Docker's list makes other ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use containerd_client::types::Descriptor;
use oci_spec::image::ImageIndex;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::content::{self, LabelMap, Writer};
use super::manifest::{self, Document, MAX_DOCUMENT_BYTES};
use super::pull::manifest_labels;
use super::{Images, Origin, end_lease, lookup_name, parse_reference, take_lease};
use crate::runtime::client::Client;
use crate::runtime::error::{Result, RuntimeError};

/// Most files in an archive.
const MAX_ENTRIES: usize = 100_000;
const READ_BYTES: usize = 512 * 1024;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Containerd looks at the data to see how a layer of this type is compressed.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

impl Images {
    /// Loads every image of an archive and returns their names. `repository`: for an OCI layout whose images have only tags.
    /// Images loaded before an error stay.
    pub async fn load(&self, archive: impl Read + Send + 'static, repository: Option<&str>) -> Result<Vec<String>> {
        let spool_dir = self.shared.spool_dir.clone();
        let archive = blocking(move || Archive::spool(archive, &spool_dir)).await?;
        let lease = format!("flok-load-{:016x}", rand::random::<u64>());
        let leased = take_lease(&self.shared.client, &lease).await?;
        let loaded = self.load_leased(&leased, archive, repository).await;
        end_lease(&self.shared.client, &lease).await;
        loaded
    }

    async fn load_leased(&self, client: &Client, archive: Archive, repository: Option<&str>) -> Result<Vec<String>> {
        let mut names = Vec::new();
        match archive.form().await? {
            Form::Layout(entries) => {
                for entry in entries {
                    names.push(self.load_oci(client, &archive, &entry, repository).await?);
                }
            }
            Form::Docker(images) => {
                for image in images {
                    names.extend(self.load_docker(client, &archive, &image).await?);
                }
            }
        }
        Ok(names)
    }

    async fn load_docker(&self, client: &Client, archive: &Archive, image: &DockerImage) -> Result<Vec<String>> {
        let config = archive.document(&image.config).await?;
        let parsed = manifest::configuration(&config, image.layers.len()).map_err(broken)?;
        let mut layers = Vec::new();
        for (path, diff_id) in image.layers.iter().zip(parsed.rootfs().diff_ids()) {
            let (digest, size) = archive.digest(path).await?;
            let labels = LabelMap::from([("containerd.io/uncompressed".to_owned(), diff_id.clone())]);
            copy_blob(client, archive, path, &digest, size, labels).await?;
            layers.push(serde_json::json!({"mediaType": DOCKER_LAYER, "digest": digest, "size": size}));
        }
        let config_digest = manifest::digest_of(&config);
        let document = serde_json::json!({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "layers": layers,
            "config": {"mediaType": DOCKER_CONFIG, "digest": config_digest, "size": config.len()},
        });
        content::write_bytes(client, &config_digest, config, LabelMap::new()).await?;
        let bytes = serde_json::to_vec(&document).expect("JSON of strings and numbers");
        let target = write_manifest(client, bytes).await?;
        let names = image.repo_tags.clone().unwrap_or_default();
        if names.is_empty() {
            return Err(broken("an image in it has no name; save it by name: docker save NAME:TAG"));
        }
        self.name_loaded(&names, &target).await
    }

    async fn load_oci(
        &self,
        client: &Client,
        archive: &Archive,
        entry: &oci_spec::image::Descriptor,
        repository: Option<&str>,
    ) -> Result<String> {
        let name = oci_name(entry, repository)?;
        let bytes = archive.document(&blob_path(entry.digest().as_ref())).await?;
        let target = match manifest::parse(&bytes).map_err(broken)? {
            Document::Manifest(_) => load_oci_image(client, archive, bytes).await?,
            Document::Index(index) => {
                let chosen = manifest::choose(&index, &self.shared.platform).map_err(broken)?.digest().to_string();
                load_oci_image(client, archive, archive.document(&blob_path(&chosen)).await?).await?;
                let digest = entry.digest().to_string();
                let size = bytes.len();
                let labels = LabelMap::from([("containerd.io/gc.ref.content.m.0".to_owned(), chosen)]);
                let media_type = manifest::media_type(&Document::Index(index));
                content::write_bytes(client, &digest, bytes, labels).await?;
                descriptor(media_type, digest, size)
            }
        };
        let mut names = self.name_loaded(&[name], &target).await?;
        Ok(names.pop().expect("one name was given"))
    }

    /// Names it, then unpacks it: what cannot be run shall fail now.
    async fn name_loaded(&self, names: &[String], target: &Descriptor) -> Result<Vec<String>> {
        let mut given = Vec::new();
        for name in names {
            let reference = parse_reference(name)?;
            let full = lookup_name(&reference);
            self.name(&full, target.clone(), Origin::Hand).await?;
            self.open(&full, &target.digest).await?;
            let by_digest = lookup_name(&reference.clone_with_digest(target.digest.clone()));
            self.name(&by_digest, target.clone(), Origin::Hand).await?;
            given.push(full);
        }
        Ok(given)
    }
}

async fn load_oci_image(client: &Client, archive: &Archive, bytes: Vec<u8>) -> Result<Descriptor> {
    let Document::Manifest(manifest) = manifest::parse(&bytes).map_err(broken)? else {
        return Err(broken("an index in it names another index"));
    };
    let config = archive.document(&blob_path(manifest.config().digest().as_ref())).await?;
    let parsed = manifest::configuration(&config, manifest.layers().len()).map_err(broken)?;
    for (layer, diff_id) in manifest.layers().iter().zip(parsed.rootfs().diff_ids()) {
        let labels = LabelMap::from([("containerd.io/uncompressed".to_owned(), diff_id.clone())]);
        let digest = layer.digest().to_string();
        copy_blob(client, archive, &blob_path(&digest), &digest, layer.size(), labels).await?;
    }
    content::write_bytes(client, manifest.config().digest().as_ref(), config, LabelMap::new()).await?;
    write_manifest(client, bytes).await
}

async fn write_manifest(client: &Client, bytes: Vec<u8>) -> Result<Descriptor> {
    let document = manifest::parse(&bytes).map_err(broken)?;
    let Document::Manifest(manifest) = &document else {
        return Err(broken("an index in it names another index"));
    };
    let labels = manifest_labels(manifest);
    let target = descriptor(manifest::media_type(&document), manifest::digest_of(&bytes), bytes.len());
    content::write_bytes(client, &target.digest, bytes, labels).await?;
    Ok(target)
}

async fn copy_blob(
    client: &Client,
    archive: &Archive,
    path: &str,
    digest: &str,
    size: u64,
    labels: LabelMap,
) -> Result<()> {
    let Some(mut writer) = Writer::open(client, digest, size, labels).await? else {
        return Ok(());
    };
    writer.restart_at(0);
    let (mut at, end) = archive.extent(path)?;
    while at < end {
        let part = archive.read_at(at, READ_BYTES.min((end - at) as usize)).await?;
        at += part.len() as u64;
        writer.write(Bytes::from(part)).await?;
    }
    writer.commit().await
}

/// What an archive is read as.
enum Form {
    Layout(Vec<oci_spec::image::Descriptor>),
    Docker(Vec<DockerImage>),
}

/// One entry of `docker save`'s manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The name of an OCI layout's image: containerd's annotation has it whole; the standard's often has the tag alone.
fn oci_name(entry: &oci_spec::image::Descriptor, repository: Option<&str>) -> Result<String> {
    let annotations = entry.annotations().clone().unwrap_or_default();
    if let Some(full) = annotations.get("io.containerd.image.name") {
        return Ok(full.clone());
    }
    let given = annotations.get("org.opencontainers.image.ref.name");
    match (given, repository) {
        (Some(name), _) if name.contains(['/', ':']) => Ok(name.clone()),
        (Some(tag), Some(repository)) => Ok(format!("{repository}:{tag}")),
        (None, Some(repository)) => Ok(repository.to_owned()),
        (tag, None) => {
            let tag = tag.map_or("no name", String::as_str);
            Err(broken(format!("an image in it has no repository (only {tag:?}); give one")))
        }
    }
}

/// Whether an index names an image by each name that Docker's list has, and none that has no name.
fn says_all_names(entries: &[oci_spec::image::Descriptor], images: &[DockerImage]) -> bool {
    let full = |name: &str| parse_reference(name).map(|reference| lookup_name(&reference)).ok();
    let named: Option<BTreeSet<String>> =
        entries.iter().map(|entry| oci_name(entry, None).ok().and_then(|name| full(&name))).collect();
    let listed = images.iter().flat_map(|image| image.repo_tags.iter().flatten());
    named.is_some_and(|named| listed.map(|name| full(name)).all(|name| name.is_some_and(|name| named.contains(&name))))
}

fn descriptor(media_type: String, digest: String, size: usize) -> Descriptor {
    Descriptor { media_type, digest, size: i64::try_from(size).unwrap_or(i64::MAX), annotations: HashMap::new() }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn broken(reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Archive(reason.into())
}

/// A tar file and where each of its files lies in it.
struct Archive {
    file: std::sync::Arc<File>,
    extents: BTreeMap<String, (u64, u64)>,
    /// Old `docker save` links a layer that two images share.
    links: BTreeMap<String, String>,
}

impl Archive {
    fn spool(mut from: impl Read, dir: &Path) -> Result<Archive> {
        let writing = |error| RuntimeError::io("spooling the image archive to", dir)(error);
        std::fs::create_dir_all(dir).map_err(writing)?;
        let path = dir.join(format!("load-{:016x}", rand::random::<u64>()));
        let mut file = File::options().create_new(true).read(true).write(true).open(&path).map_err(writing)?;
        // Nameless from here on: it goes with the last descriptor, whatever happens.
        std::fs::remove_file(&path).map_err(writing)?;
        io::copy(&mut from, &mut file).map_err(writing)?;
        file.seek(SeekFrom::Start(0)).map_err(writing)?;
        Archive::index(file)
    }

    fn index(mut file: File) -> Result<Archive> {
        let mut magic = [0u8; 4];
        let filled = file.read(&mut magic).unwrap_or(0);
        if magic[..filled].starts_with(&[0x1f, 0x8b]) || magic[..filled].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(broken("it is compressed; unpack it first, for example with gunzip or zstd -d"));
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| broken(error.to_string()))?;
        let whole = file.metadata().map_err(|error| broken(error.to_string()))?.len();
        let (mut extents, mut links) = (BTreeMap::new(), BTreeMap::new());
        let mut tar = tar::Archive::new(&file);
        let entries = tar.entries_with_seek().map_err(|error| broken(error.to_string()))?;
        for entry in entries {
            let entry = entry.map_err(|error| broken(format!("it is no tar file, or cut short: {error}")))?;
            let path = entry.path().map_err(|error| broken(error.to_string()))?;
            let name = cleaned(&path);
            match entry.link_name().ok().flatten() {
                Some(target) => {
                    let base = path.parent().unwrap_or(Path::new(""));
                    links.insert(name, cleaned(&base.join(target)));
                }
                None => {
                    let start = entry.raw_file_position();
                    let end = start + entry.size();
                    if end > whole {
                        return Err(broken(format!("it is cut short, within {name}")));
                    }
                    extents.insert(name, (start, end));
                }
            }
            if extents.len() + links.len() > MAX_ENTRIES {
                return Err(broken(format!("it has more than {MAX_ENTRIES} files")));
            }
        }
        Ok(Archive { file: std::sync::Arc::new(file), extents, links })
    }

    /// A layout that does not say by which names Docker's list knows its images is read by that list.
    async fn form(&self) -> Result<Form> {
        let layout = match self.has("index.json") {
            true => Some(self.json::<ImageIndex>("index.json").await?.manifests().clone()),
            false => None,
        };
        let docker = match self.has("manifest.json") {
            true => Some(self.json::<Vec<DockerImage>>("manifest.json").await?),
            false => None,
        };
        match (layout, docker) {
            (Some(entries), None) => Ok(Form::Layout(entries)),
            (Some(entries), Some(images)) => Ok(match says_all_names(&entries, &images) {
                true => Form::Layout(entries),
                false => Form::Docker(images),
            }),
            (None, Some(images)) => Ok(Form::Docker(images)),
            (None, None) => Err(broken("it has neither a manifest.json (docker save) nor an index.json (OCI layout)")),
        }
    }

    fn has(&self, path: &str) -> bool {
        self.extents.contains_key(path)
    }

    fn extent(&self, path: &str) -> Result<(u64, u64)> {
        let path = cleaned(Path::new(path));
        let real = self.links.get(&path).unwrap_or(&path);
        self.extents.get(real).copied().ok_or_else(|| broken(format!("{path} is missing in it")))
    }

    async fn read_at(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let file = std::sync::Arc::clone(&self.file);
        blocking(move || {
            use std::os::unix::fs::FileExt;
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at).map_err(|error| broken(format!("it is cut short: {error}")))?;
            Ok(bytes)
        })
        .await
    }

    async fn document(&self, path: &str) -> Result<Vec<u8>> {
        let (start, end) = self.extent(path)?;
        if end - start > MAX_DOCUMENT_BYTES {
            return Err(broken(format!("{path} in it is far too large")));
        }
        self.read_at(start, (end - start) as usize).await
    }

    async fn json<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T> {
        let bytes = self.document(path).await?;
        serde_json::from_slice(&bytes).map_err(|error| broken(format!("{path} in it is invalid: {error}")))
    }

    /// Digest and size of a file.
    async fn digest(&self, path: &str) -> Result<(String, u64)> {
        let (start, end) = self.extent(path)?;
        let mut hash = Sha256::new();
        let mut at = start;
        while at < end {
            let part = self.read_at(at, READ_BYTES.min((end - at) as usize)).await?;
            at += part.len() as u64;
            hash.update(&part);
        }
        Ok((manifest::digest_text(&hash.finalize()), end - start))
    }
}

/// `./a/../b` is `b`: names as archives' own documents write them.
fn cleaned(path: &Path) -> String {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic and is not cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(annotations: &str) -> oci_spec::image::Descriptor {
        let digest = manifest::digest_of(b"x");
        let text = format!(
            r#"{{"mediaType":"{DOCKER_MANIFEST}","digest":"{digest}","size":1,"annotations":{{{annotations}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_layout_counts_where_it_names_what_dockers_list_names() {
        let image = |tags: &[&str]| DockerImage {
            config: String::new(),
            repo_tags: Some(tags.iter().map(|&tag| tag.to_owned()).collect()),
            layers: Vec::new(),
        };
        let whole =
            entry(r#""io.containerd.image.name":"docker.io/team/web:1","org.opencontainers.image.ref.name":"1""#);
        let only_tag = entry(r#""org.opencontainers.image.ref.name":"1""#);
        assert!(says_all_names(std::slice::from_ref(&whole), &[image(&["team/web:1"])]));
        assert!(!says_all_names(std::slice::from_ref(&whole), &[image(&["team/web:1", "team/web:2"])]));
        assert!(!says_all_names(&[only_tag], &[image(&["team/web:1"])]));
        assert!(!says_all_names(&[whole, entry("")], &[image(&["team/web:1"])]));
    }
}
