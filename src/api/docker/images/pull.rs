//! `POST /images/create`: images from their registries.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{credentials, familiar, repository};
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend};
use crate::spec::image::ImageReference;
use crate::spec::{Platform, SecretBytes};

/// Lines that wait for their reader.
const QUEUE: usize = 8;
/// What a platform of one word names, where it names no architecture.
const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasip1"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pull {
    from_image: Option<String>,
    from_src: Option<String>,
    tag: Option<String>,
    platform: Option<String>,
}

/// Lines of JSON as it goes; what goes wrong is the last of them.
pub async fn pull<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Query(query): Query<Pull>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if query.from_src.is_some_and(|source| !source.is_empty()) {
        return Err(ApiError::NotImplemented("flok does not import file systems as images yet".into()));
    }
    let image = query.from_image.filter(|image| !image.is_empty());
    let image = image.ok_or_else(|| ApiError::invalid("missing parameter: fromImage"))?;
    let tag = query.tag.filter(|tag| !tag.is_empty());
    let name = match &tag {
        Some(digest) if digest.starts_with("sha256:") => format!("{image}@{digest}"),
        Some(tag) => format!("{image}:{tag}"),
        None => image.clone(),
    };
    let credentials = credentials(&headers);
    let wanted = query.platform.as_deref().filter(|text| !text.is_empty()).map(platform).transpose()?;
    let asked = name.parse::<ImageReference>().map_err(|error| ApiError::Invalid(error.to_string()))?;
    let names = match (&asked.tag, &asked.digest) {
        // As in Docker, a repository is all that it has.
        (None, None) => {
            let tags = backend.image_tags(&name, credentials.clone()).await?;
            tags.into_iter().map(|tag| format!("{image}:{tag}")).collect()
        }
        _ => vec![name],
    };
    if let (Some(wanted), Some(first)) = (wanted, names.first()) {
        fits_this_node(&*backend, &wanted, first, credentials.clone()).await?;
    }
    let (lines, told) = mpsc::channel::<Value>(QUEUE);
    tokio::spawn(async move {
        for name in names {
            if pull_one(&*backend, &journal, &name, credentials.clone(), &lines).await.is_err() || lines.is_closed() {
                return;
            }
        }
    });
    let lines = futures::stream::unfold(told, |mut told| async move {
        let line = told.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(format!("{line}\n")), told))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

/// Tells how it goes and what came of it, a failure too.
async fn pull_one<B: Backend>(
    backend: &B,
    journal: &Journal,
    name: &str,
    credentials: Option<SecretBytes>,
    lines: &mpsc::Sender<Value>,
) -> Result<(), ApiError> {
    let short = familiar(name);
    let begun = name.rsplit_once('@').or_else(|| name.rsplit_once(':')).map_or("latest", |(_, tag)| tag);
    let _ = lines.send(json!({"status": format!("Pulling {short}"), "id": begun})).await;
    let (progress, mut done) = mpsc::channel(QUEUE);
    let showing = async {
        while let Some((current, total)) = done.recv().await {
            let line = json!({
                "status": "Downloading", "id": "layers", "progressDetail": {"current": current, "total": total},
            });
            let _ = lines.send(line).await;
        }
    };
    let (pulled, ()) = tokio::join!(backend.pull_image(name, credentials, progress), showing);
    let (digest, new) = match pulled {
        Ok(pulled) => pulled,
        Err(error) => {
            let text = error.to_string();
            let _ = lines.send(json!({"errorDetail": {"message": text}, "error": text})).await;
            return Err(error);
        }
    };
    journal.image("pull", &short, repository(&short), backend.now());
    let status = if new { "Downloaded newer image for" } else { "Image is up to date for" };
    let _ = lines.send(json!({"status": format!("Digest: {digest}")})).await;
    let _ = lines.send(json!({"status": format!("Status: {status} {short}")})).await;
    Ok(())
}

/// `linux/arm64`, `linux/arm/v7`, `arm64`, or `linux`, which has any architecture.
fn platform(text: &str) -> Result<Platform, ApiError> {
    let parts: Vec<&str> = text.split('/').collect();
    let (os, architecture) = match parts.as_slice() {
        [os] if SYSTEMS.contains(os) => (*os, ""),
        [architecture] => ("linux", *architecture),
        [os, architecture] | [os, architecture, _] => (*os, *architecture),
        _ => ("", ""),
    };
    if os.is_empty() || parts.iter().any(|part| part.is_empty()) {
        return Err(ApiError::invalid(format!("invalid platform {text:?}: write for example linux/arm64")));
    }
    Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned() }.normalized())
}

fn is(wanted: &Platform, offered: &Platform) -> bool {
    let offered = offered.normalized();
    offered.os == wanted.os && (wanted.architecture.is_empty() || offered.architecture == wanted.architecture)
}

/// A node holds what it can run: another platform's image is refused, and where the registry has none, that is said.
async fn fits_this_node<B: Backend>(
    backend: &B,
    wanted: &Platform,
    name: &str,
    credentials: Option<SecretBytes>,
) -> Result<(), ApiError> {
    let own = backend.local().description.platform;
    if is(wanted, &own) {
        return Ok(());
    }
    let offered = backend.describe_image(name, credentials).await?.platforms;
    let shown = |platform: &Platform| format!("{}/{}", platform.os, platform.architecture);
    if offered.iter().any(|offered| is(wanted, offered)) {
        let (own, wanted) = (shown(&own.normalized()), shown(wanted));
        let why = format!("flok keeps images of its node's own platform, {own}: pull {name} on a node of {wanted}");
        return Err(ApiError::NotImplemented(why));
    }
    let offered: Vec<String> = offered.iter().map(|platform| shown(&platform.normalized())).collect();
    let (wanted, offered) = (shown(wanted), offered.join(", "));
    let why = format!("no matching manifest for {wanted} in the manifest list entries: {name} is made for {offered}");
    Err(ApiError::NotFound(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_docker_reads_them() {
        let read = |text: &str| platform(text).map(|platform| (platform.os, platform.architecture)).ok();
        let of = |os: &str, architecture: &str| Some((os.to_owned(), architecture.to_owned()));
        for (text, wanted) in [
            ("linux/arm64", of("linux", "arm64")),
            ("linux/arm/v7", of("linux", "arm")),
            ("Linux/x86_64", of("linux", "amd64")),
            ("aarch64", of("linux", "arm64")),
            ("linux", of("linux", "")),
            ("windows", of("windows", "")),
            ("/", None),
            ("linux/", None),
            ("a/b/c/d", None),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
        let own = Platform { os: "linux".into(), architecture: "x86_64".into() };
        let fits = |text: &str| is(&platform(text).unwrap(), &own);
        assert!(fits("linux/amd64") && fits("linux") && !fits("linux/arm64") && !fits("windows/amd64"));
    }
}
