//! Image references, in the grammar of `distribution/reference`: `[registry[:port]/]path[:tag][@digest]`.
//! A reference without a registry means Docker Hub; one without a path below it means its `library`.

use std::fmt;
use std::str::FromStr;

/// Where references without a registry point.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// A reference, normalised: `redis` reads as `docker.io/library/redis` with no tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    /// `docker.io`, `localhost:5000`, `registry.example.com`.
    pub registry: String,
    /// `library/redis`.
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// A text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {why}")]
pub struct InvalidImage {
    pub text: String,
    pub why: &'static str,
}

impl ImageReference {
    /// The tag to pull where neither tag nor digest is given is `latest`.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// As a user would write it: Docker Hub and its `library` left out.
    pub fn familiar(&self) -> String {
        let short = match self.repository.strip_prefix("library/") {
            Some(name) if !name.contains('/') => name,
            _ => &self.repository,
        };
        // What would be read as a registry stays behind its own.
        let reads_back = split_registry(short) == (DEFAULT_REGISTRY, short);
        let mut text = if self.registry == DEFAULT_REGISTRY && reads_back {
            short.to_string()
        } else {
            format!("{}/{}", self.registry, self.repository)
        };
        if let Some(tag) = self.tag_or_latest() {
            text = format!("{text}:{tag}");
        }
        match &self.digest {
            Some(digest) => format!("{text}@{digest}"),
            None => text,
        }
    }
}

/// The full form: registry, repository, tag (`latest` where nothing is given) and digest.
impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag_or_latest() {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ImageReference {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        parse(text).map_err(|why| InvalidImage { text: text.chars().take(128).collect(), why })
    }
}

fn parse(text: &str) -> Result<ImageReference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("an image's id cannot be used here: write its name");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    // A colon after the last slash begins the tag; an earlier one belongs to the registry's port.
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].find(':') {
        Some(colon) => (&rest[..name_start + colon], Some(check_tag(&rest[name_start + colon + 1..])?)),
        None => (rest, None),
    };
    let (registry, path) = split_registry(name);
    check_registry(registry)?;
    let repository =
        if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("library/{path}") } else { path.to_string() };
    check_repository(&repository)?;
    Ok(ImageReference { registry: registry.to_string(), repository, tag, digest })
}

/// The part before the first slash is a registry where it looks like a host: a dot, a port, `localhost`, or capitals.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_REGISTRY, path),
        Some((host, path))
            if host.contains(['.', ':', '[']) || host == "localhost" || host.chars().any(char::is_uppercase) =>
        {
            (host, path)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return Err("its registry is not a host");
            }
            return check_port(port.strip_prefix(':'));
        }
        None => registry,
    };
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !host.split('.').all(label_ok) {
        return Err("its registry is not a host");
    }
    check_port(port)
}

fn check_port(port: Option<&str>) -> Result<(), &'static str> {
    match port {
        Some(port) if port.parse::<u16>().map_or(true, |p| p == 0) => Err("its registry's port is not a port"),
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.len() > MAX_REPOSITORY {
        return Err("its name is longer than 255 characters");
    }
    if repository.chars().any(char::is_uppercase) {
        return Err("repository names are lowercase");
    }
    if repository.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("its name has characters or an order of them that names may not have")
    }
}

/// Lowercase letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_path_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_ok = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    ends_ok
        && bytes
            .split(alphanumeric)
            .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
}

fn check_tag(tag: &str) -> Result<String, &'static str> {
    let first_ok = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let rest_ok = tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first_ok && rest_ok && tag.len() <= MAX_TAG { Ok(tag.to_string()) } else { Err("its tag is not a tag") }
}

fn check_digest(digest: &str) -> Result<String, &'static str> {
    let hex = digest.strip_prefix("sha256:").ok_or("its digest is not a sha256 digest")?;
    let hex_ok = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex_ok { Ok(digest.to_string()) } else { Err("its digest is not 64 hexadecimal digits") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:38a203e1986cf79639cfb9b2e1d6e773de84002feea2d4eb006b52004ee8502d";

    #[test]
    fn the_short_name_reads_as_the_same_image() {
        for text in
            ["redis", "a/b:1", "docker.io/docker.io/x", "docker.io/library/a/b", "docker.io/localhost/x", "r:5/x"]
        {
            let image: ImageReference = text.parse().unwrap();
            let read = image.familiar().parse::<ImageReference>().map(|read| read.to_string());
            assert_eq!(read, Ok(image.to_string()), "{text}");
        }
    }

    #[test]
    fn references_are_normalised() {
        let cases = [
            ("redis", "docker.io/library/redis:latest", "redis:latest"),
            ("redis:7", "docker.io/library/redis:7", "redis:7"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest", "bitnami/redis:latest"),
            ("docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
            ("index.docker.io/library/redis", "docker.io/library/redis:latest", "redis:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("registry.example.com/x__y/z-.w", "", ""),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("10.0.0.1:80/a.b-c_d", "10.0.0.1:80/a.b-c_d:latest", "10.0.0.1:80/a.b-c_d:latest"),
        ];
        for (text, full, familiar) in cases {
            match text.parse::<ImageReference>() {
                Ok(image) => assert_eq!((image.to_string().as_str(), image.familiar().as_str()), (full, familiar)),
                Err(error) => assert!(full.is_empty(), "{error}"),
            }
        }
    }

    #[test]
    fn a_digest_leaves_no_default_tag() {
        let image: ImageReference = format!("busybox@{DIGEST}").parse().unwrap();
        assert_eq!((image.tag.clone(), image.digest.as_deref()), (None, Some(DIGEST)));
        assert_eq!(image.to_string(), format!("docker.io/library/busybox@{DIGEST}"));
        let both: ImageReference = format!("busybox:1.36@{DIGEST}").parse().unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/busybox:1.36@{DIGEST}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let id = "a".repeat(64);
        let long = format!("a/{}", "b".repeat(256));
        let bad = [
            "",
            ":tag",
            "a:",
            "a:b:c",
            "UPPER",
            "a//b",
            "/a",
            "a/",
            "a b",
            "-a",
            "a:-x",
            "a@sha256:12",
            "a@md5:00",
            "reg.io:99999/a",
            "http://a",
            "a@",
            &id,
            &long,
        ];
        for text in bad {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }
}
