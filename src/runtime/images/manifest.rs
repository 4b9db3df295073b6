//! Image manifests, indexes and configurations as bytes from a registry or an archive, and what flok needs of them. Pure.

use std::time::Duration;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::spec::{Healthcheck, Platform};

/// What registries are asked for.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Largest manifest, index or configuration that is read.
pub const MAX_DOCUMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Most layers of an image; overlayfs itself stops at about 500.
pub const MAX_LAYERS: usize = 256;

#[expect(clippy::large_enum_variant, reason = "one at a time, taken apart at once")]
pub enum Document {
    Index(ImageIndex),
    Manifest(ImageManifest),
}

/// Reads a manifest or an index. Some tools leave `mediaType` out, so the shape decides.
pub fn parse(bytes: &[u8]) -> Result<Document, String> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| format!("its manifest is no JSON: {error}"))?;
    let invalid = |error: serde_json::Error| format!("its manifest is invalid: {error}");
    if value.get("manifests").is_some() {
        return serde_json::from_value(value).map(Document::Index).map_err(invalid);
    }
    if value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
        return Err("its manifest has the obsolete schema 1; push it again with a tool of this decade".to_owned());
    }
    let manifest: ImageManifest = serde_json::from_value(value).map_err(invalid)?;
    if manifest.layers().len() > MAX_LAYERS {
        return Err(format!("it has {} layers, and {MAX_LAYERS} are the most", manifest.layers().len()));
    }
    Ok(Document::Manifest(manifest))
}

/// The media type to store a document with.
pub fn media_type(document: &Document) -> String {
    match document {
        Document::Index(index) => match index.media_type() {
            Some(given) => given.to_string(),
            None => MANIFEST_TYPES[0].to_owned(),
        },
        Document::Manifest(manifest) => match manifest.media_type() {
            Some(given) => given.to_string(),
            None => MANIFEST_TYPES[2].to_owned(),
        },
    }
}

/// The index's manifest for a platform. Where an entry names none, it fits if it is the only one.
pub fn choose<'a>(index: &'a ImageIndex, platform: &Platform) -> Result<&'a Descriptor, String> {
    let wanted = platform.normalized();
    let named = |entry: &&Descriptor| {
        entry.platform().as_ref().is_some_and(|given| {
            let given = Platform { os: given.os().to_string(), architecture: given.architecture().to_string() };
            given.normalized() == wanted
        })
    };
    let found = index.manifests().iter().filter(named).max_by_key(|entry| variant_rank(entry));
    if let Some(found) = found {
        return Ok(found);
    }
    match index.manifests().as_slice() {
        [only] if only.platform().is_none() => Ok(only),
        entries => {
            let offered: Vec<String> = entries
                .iter()
                .filter_map(|entry| entry.platform().as_ref())
                .filter(|platform| platform.os().to_string() != "unknown")
                .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
                .collect();
            Err(format!(
                "it is made for {}, and this node is {}/{}",
                offered.join(", "),
                wanted.os,
                wanted.architecture
            ))
        }
    }
}

/// Among variants of one architecture: arm's newest that every 64-bit-free arm of today runs, else the plain one.
fn variant_rank(entry: &Descriptor) -> u8 {
    match entry.platform().as_ref().and_then(|platform| platform.variant().as_deref()) {
        Some("v7") => 3,
        None | Some("v8" | "v1") => 2,
        Some("v6") => 1,
        Some(_) => 0,
    }
}

/// The names under which a chain of layers is unpacked, one for each layer (OCI image spec, "Layer ChainID").
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(parent) => digest_of(format!("{parent} {diff_id}").as_bytes()),
        });
    }
    chain
}

pub fn digest_of(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

pub fn digest_text(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What an image says of the health of its containers. Docker's own addition to the configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageHealth {
    pub check: Option<Healthcheck>,
    /// That a check's line is given to; empty: the usual one.
    pub shell: Vec<String>,
}

/// One that does not read is none: the image runs without it.
pub fn health(configuration: &[u8]) -> ImageHealth {
    #[derive(Default, Deserialize)]
    struct Configuration {
        #[serde(default)]
        config: Option<Config>,
    }
    #[derive(Default, Deserialize)]
    struct Config {
        #[serde(rename = "Healthcheck")]
        check: Option<Written>,
        #[serde(rename = "Shell")]
        shell: Option<Vec<String>>,
    }
    /// Times in nanoseconds.
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Written {
        test: Option<Vec<String>>,
        interval: u64,
        timeout: u64,
        start_period: u64,
        start_interval: u64,
        retries: u32,
    }
    let read: Configuration = serde_json::from_slice(configuration).unwrap_or_default();
    let config = read.config.unwrap_or_default();
    let check = config.check.map(|written| Healthcheck {
        test: written.test.unwrap_or_default(),
        interval: Some(Duration::from_nanos(written.interval)),
        timeout: Some(Duration::from_nanos(written.timeout)),
        retries: Some(written.retries),
        start_period: Some(Duration::from_nanos(written.start_period)),
        start_interval: Some(Duration::from_nanos(written.start_interval)),
    });
    ImageHealth { check, shell: config.shell.unwrap_or_default() }
}

/// Reads the configuration and checks that it speaks of the manifest's layers.
pub fn configuration(bytes: &[u8], layers: usize) -> Result<ImageConfiguration, String> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|error| format!("its configuration is invalid: {error}"))?;
    let diff_ids = config.rootfs().diff_ids().len();
    if diff_ids != layers {
        return Err(format!("its configuration speaks of {diff_ids} layers, its manifest of {layers}"));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(entries: &str) -> ImageIndex {
        match parse(format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#).as_bytes()) {
            Ok(Document::Index(index)) => index,
            _ => panic!("not an index"),
        }
    }

    fn entry(platform: &str, size: u64) -> String {
        let media_type = MANIFEST_TYPES[2];
        format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":{size}{platform}}}"#)
    }

    fn platform(text: &str) -> String {
        format!(r#","platform":{text}"#)
    }

    fn linux_amd64() -> Platform {
        Platform { os: "linux".into(), architecture: "x86_64".into() }
    }

    #[test]
    fn the_entry_of_this_platform_is_chosen() {
        let entries = [
            entry(&platform(r#"{"os":"linux","architecture":"arm64"}"#), 1),
            entry(&platform(r#"{"os":"linux","architecture":"amd64"}"#), 2),
            entry(&platform(r#"{"os":"unknown","architecture":"unknown"}"#), 3),
        ];
        let index = index(&entries.join(","));
        assert_eq!(choose(&index, &linux_amd64()).unwrap().size(), 2);
    }

    #[test]
    fn a_missing_platform_is_said_with_those_there_are() {
        let index = index(&entry(&platform(r#"{"os":"linux","architecture":"arm64"}"#), 1));
        let said = choose(&index, &linux_amd64()).unwrap_err();
        assert!(said.contains("linux/arm64") && said.contains("linux/amd64"), "{said}");
    }

    #[test]
    fn a_single_entry_without_platform_fits() {
        let index = index(&entry("", 7));
        assert_eq!(choose(&index, &linux_amd64()).unwrap().size(), 7);
    }

    #[test]
    fn a_manifest_without_media_type_is_read() {
        let config = entry("", 1);
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        let document = parse(text.as_bytes()).unwrap();
        assert_eq!(media_type(&document), MANIFEST_TYPES[2]);
    }

    #[test]
    fn the_obsolete_schema_is_refused_by_name() {
        assert!(parse(br#"{"schemaVersion":1,"name":"x"}"#).err().unwrap().contains("schema 1"));
    }

    #[test]
    fn chain_ids_follow_the_image_spec() {
        let ids = chain_ids(&["sha256:a".into(), "sha256:b".into()]);
        assert_eq!(ids[0], "sha256:a");
        assert_eq!(ids[1], digest_of(b"sha256:a sha256:b"));
    }

    #[test]
    fn an_images_health_check_is_read_where_there_is_one() {
        let text = r#"{"config": {"Shell": ["/bin/bash", "-c"], "Healthcheck":
            {"Test": ["CMD-SHELL", "true"], "Interval": 2000000000, "Retries": 2}}}"#;
        let read = health(text.as_bytes());
        let check = read.check.unwrap();
        assert_eq!((check.test.len(), check.interval, check.retries), (2, Some(Duration::from_secs(2)), Some(2)));
        assert_eq!(read.shell, ["/bin/bash", "-c"]);
        for none in ["{}", r#"{"config": null}"#, r#"{"config": {"Healthcheck": {"Test": 3}}}"#] {
            assert_eq!(health(none.as_bytes()), ImageHealth::default(), "{none}");
        }
    }

    #[test]
    fn a_configuration_of_other_layers_is_refused() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:a"]}}"#;
        assert!(configuration(text.as_bytes(), 2).is_err());
        assert!(configuration(text.as_bytes(), 1).is_ok());
    }
}
