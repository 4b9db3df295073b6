//! Images on this node, and what registries say of names.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::logs::time;
use super::truthy;
use crate::api::convert::date;
use crate::api::filters::Filters;
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, LocalImage};
use crate::spec::image::ImageReference;
use crate::spec::quantity::parse_duration;
use crate::spec::{SecretBytes, UnixMs};

/// Images in one archive.
const MAX_SAVED: usize = 256;

const FILTERS: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];
const PRUNE_FILTERS: [&str; 4] = ["dangling", "label", "label!", "until"];

#[derive(Debug, Deserialize)]
pub struct ListImages {
    filters: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pull {
    from_image: Option<String>,
    from_src: Option<String>,
    tag: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Named {
    repo: Option<String>,
    tag: Option<String>,
    force: Option<String>,
}

/// A name as Docker shows it: `redis:7` for `docker.io/library/redis:7`.
fn familiar(name: &str) -> String {
    name.parse::<ImageReference>().map_or_else(|_| name.to_owned(), |name| name.familiar())
}

fn tags(image: &LocalImage) -> Vec<String> {
    image.names.iter().filter(|name| !name.contains('@')).map(|name| familiar(name)).collect()
}

fn digests(image: &LocalImage) -> Vec<String> {
    let repository = |name: &String| {
        let mut read = name.parse::<ImageReference>().ok()?;
        (read.tag, read.digest) = (None, None);
        Some(format!("{}@{}", read.familiar().trim_end_matches(":latest"), image.digest))
    };
    let mut all: Vec<String> = image.names.iter().filter_map(repository).collect();
    all.sort();
    all.dedup();
    all
}

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListImages>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    let mut images = backend.images().await?;
    if filters.has("reference") {
        // An image is shown by those of its names that were asked for.
        let asked = |name: &String| filters.any("reference", |wanted| refers(wanted, &familiar(name)));
        images.iter_mut().for_each(|image| image.names.retain(asked));
        images.retain(|image| !image.names.is_empty());
    }
    let (after, before) = (moment(&*backend, &filters, "since").await?, moment(&*backend, &filters, "before").await?);
    let until = until(&filters, backend.now())?;
    let dangling = filters.flag("dangling")?;
    let wanted = |image: &&LocalImage| {
        dangling.is_none_or(|wanted| wanted == tags(image).is_empty())
            && has_labels(&filters, image)
            && after.is_none_or(|after| image.created > after)
            && [before, until].into_iter().flatten().all(|before| image.created < before)
    };
    Ok(Json(images.iter().filter(wanted).map(shown).collect()))
}

/// When the image was made that a filter names.
async fn moment<B: Backend>(backend: &B, filters: &Filters, key: &str) -> Result<Option<UnixMs>, ApiError> {
    match filters.values(key).next() {
        Some(name) => Ok(Some(find(backend, name).await?.created)),
        None => Ok(None),
    }
}

/// A time, or for how long before now.
pub fn until(filters: &Filters, now: jiff::Timestamp) -> Result<Option<UnixMs>, ApiError> {
    let Some(text) = filters.values("until").next() else { return Ok(None) };
    match parse_duration(text) {
        Ok(ago) => {
            let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
            Ok(Some(UnixMs(now.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))))
        }
        Err(_) => time("until", Some(text)),
    }
}

fn has_labels(filters: &Filters, image: &LocalImage) -> bool {
    let labels = image.config["config"]["Labels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    filters.wants_labels(&labels)
}

/// Of those that no container uses, the ones without a tag; with the filter `dangling=false`, all.
pub async fn prune<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Query(query): Query<ListImages>,
) -> Result<Json<Value>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &PRUNE_FILTERS)?;
    let all = filters.flag("dangling")? == Some(false);
    let until = until(&filters, backend.now())?;
    let (images, containers) = (backend.images().await?, backend.containers().await?);
    let in_use = |image: &LocalImage| containers.iter().any(|container| container.image_digest == image.digest);
    let (mut deleted, mut bytes) = (Vec::new(), 0);
    for image in images {
        let old_enough = until.is_none_or(|until| image.created < until);
        if (all || tags(&image).is_empty()) && old_enough && has_labels(&filters, &image) && !in_use(&image) {
            bytes += image.size_bytes;
            deleted.extend(remove_names(&*backend, &journal, &image, &image.names, false).await?);
        }
    }
    Ok(Json(json!({"ImagesDeleted": deleted, "SpaceReclaimed": bytes})))
}

/// Takes names off an image; with its last tag goes the image. What came of it, as Docker tells it.
async fn remove_names<B: Backend>(
    backend: &B,
    journal: &Journal,
    image: &LocalImage,
    names: &[String],
    force: bool,
) -> Result<Vec<Value>, ApiError> {
    let mut told = Vec::new();
    for name in names {
        backend.remove_image(name, force).await?;
        journal.image("untag", &image.digest, &familiar(name), backend.now());
        told.push(json!({"Untagged": familiar(name)}));
    }
    if names.len() == image.names.len() {
        journal.image("delete", &image.digest, &image.digest, backend.now());
        told.push(json!({"Deleted": image.digest}));
    }
    Ok(told)
}

/// `redis` of `redis:7`.
fn repository(tag: &str) -> &str {
    tag.rsplit_once(':').map_or(tag, |(repository, _)| repository)
}

/// `redis`, `redis:7`, `*/redis`: a star is any text without a slash.
fn refers(pattern: &str, tag: &str) -> bool {
    let fits = |text: &str| glob(pattern.as_bytes(), text.as_bytes());
    fits(tag) || fits(repository(tag))
}

/// Of the stars before a place that does not fit only the last is tried with more text: whatever an earlier one could take,
/// the last one can, up to the next slash. So it takes no longer than the product of both lengths, and no stack.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut here, mut star) = (0, 0, None);
    while here < text.len() {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                star = Some((at, here));
                at += 1;
            }
            (Some(one), _) if *one == text[here] || (*one == b'?' && text[here] != b'/') => {
                at += 1;
                here += 1;
            }
            (_, Some((last, taken))) if text[taken] != b'/' => {
                star = Some((last, taken + 1));
                (at, here) = (last + 1, taken + 1);
            }
            _ => return false,
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

pub fn shown(image: &LocalImage) -> Value {
    json!({
        "Id": image.digest,
        "ParentId": "",
        "RepoTags": tags(image),
        "RepoDigests": digests(image),
        "Created": image.created.0 / 1000,
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Labels": image.config["config"]["Labels"].clone(),
        "Containers": -1,
    })
}

/// By a name, or by the beginning of a digest.
async fn find<B: Backend>(backend: &B, wanted: &str) -> Result<LocalImage, ApiError> {
    let mut images = backend.images().await?;
    let reference = wanted.parse::<ImageReference>().ok();
    let tagged = reference.as_ref().map(|name| name.familiar());
    let named = |image: &LocalImage| {
        let tags = tags(image);
        tags.iter().any(|tag| {
            Some(tag) == tagged.as_ref()
                || Some(tag.as_str()) == tagged.as_ref().map(|t| format!("{t}:latest")).as_deref()
        }) || image.names.iter().any(|name| name == wanted || Some(familiar(name)) == tagged)
    };
    let prefix = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is_digest =
        |image: &LocalImage| image.digest.strip_prefix("sha256:").is_some_and(|digest| digest.starts_with(prefix));
    let at = images.iter().position(named).or_else(|| {
        let hex = prefix.len() >= 4 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        images.iter().position(is_digest).filter(|_| hex)
    });
    at.map(|at| images.swap_remove(at)).ok_or_else(|| ApiError::NotFound(format!("No such image: {wanted}")))
}

/// `/images/NAME/json`, `/images/NAME/history` and `/images/NAME/get`; a name may have slashes.
pub async fn look<B: Backend>(State(backend): State<Arc<B>>, Path(rest): Path<String>) -> Result<Response, ApiError> {
    match rest.rsplit_once('/') {
        Some((wanted, "json")) => Ok(Json(inspected(&find(&*backend, wanted).await?)).into_response()),
        Some((wanted, "history")) => Ok(Json(history(&find(&*backend, wanted).await?)).into_response()),
        Some((wanted, "get")) => archive(&*backend, &[wanted.to_owned()]).await,
        _ => Err(ApiError::NotImplemented(format!("flok does not serve GET /images/{rest} yet"))),
    }
}

/// `/images/get?names=A&names=B`.
pub async fn save<B: Backend>(
    State(backend): State<Arc<B>>,
    axum::extract::Query(query): axum::extract::Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let names: Vec<String> = query.into_iter().filter(|(key, _)| key == "names").map(|(_, name)| name).collect();
    if names.is_empty() || names.len() > MAX_SAVED {
        return Err(ApiError::invalid(format!("names of images are wanted, {MAX_SAVED} at most: names=A&names=B")));
    }
    archive(&*backend, &names).await
}

/// Each is called in it as it was asked for, where that was by a name.
async fn archive<B: Backend>(backend: &B, names: &[String]) -> Result<Response, ApiError> {
    let mut images: Vec<(LocalImage, Vec<String>)> = Vec::new();
    for name in names {
        let image = find(backend, name).await?;
        let asked = name.parse::<ImageReference>().map(|name| name.familiar()).ok();
        let tag = asked.filter(|asked| tags(&image).contains(asked));
        match images.iter_mut().find(|(known, _)| known.digest == image.digest) {
            Some((_, tags)) => tags.extend(tag),
            None => images.push((image, tag.into_iter().collect())),
        }
    }
    let pieces = backend.save_images(images).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(pieces)).into_response())
}

fn inspected(image: &LocalImage) -> Value {
    let config = &image.config;
    json!({
        "Id": image.digest,
        "RepoTags": tags(image),
        "RepoDigests": digests(image),
        "Parent": "",
        "Comment": "",
        "Created": config["created"].as_str().map_or_else(|| date(image.created), str::to_owned),
        "Author": config["author"].as_str().unwrap_or_default(),
        "Architecture": config["architecture"],
        "Os": config["os"],
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "GraphDriver": {"Name": "overlayfs", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
        "Config": config["config"],
        "Metadata": {"LastTagTime": date(image.created)},
    })
}

/// What made the image, the last first; a layer that nothing is said of is one of them all the same.
fn history(image: &LocalImage) -> Vec<Value> {
    let mut layers = image.layers_bytes.iter();
    let told = image.config["history"].as_array().into_iter().flatten();
    let mut lines: Vec<Value> = told
        .map(|entry| {
            let created = entry["created"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let size = if entry["empty_layer"] == true { None } else { layers.next() };
            json!({
                "Id": "<missing>",
                "Created": created.map_or(0, jiff::Timestamp::as_second),
                "CreatedBy": entry["created_by"].as_str().unwrap_or_default(),
                "Tags": null,
                "Size": size.copied().unwrap_or(0),
                "Comment": entry["comment"].as_str().unwrap_or_default(),
            })
        })
        .collect();
    lines.extend(layers.map(
        |size| json!({"Id": "<missing>", "Created": 0, "CreatedBy": "", "Tags": null, "Size": size, "Comment": ""}),
    ));
    lines.reverse();
    if let Some(last) = lines.first_mut() {
        (last["Id"], last["Tags"]) = (image.digest.clone().into(), tags(image).into());
    }
    lines
}

/// Answers as Docker does: 200, and a line of JSON for each image.
pub async fn load<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    body: Body,
) -> Result<Response, ApiError> {
    let tar = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other)).boxed();
    let names = backend.load_image(tar).await?;
    for name in &names {
        let id = find(&*backend, name).await.map_or_else(|_| name.clone(), |image| image.digest);
        journal.image("load", &id, &familiar(name), backend.now());
    }
    let lines: String =
        names.iter().map(|name| format!("{}\n", json!({ "stream": format!("Loaded image: {name}\n") }))).collect();
    Ok(([("Content-Type", "application/json")], lines).into_response())
}

/// The login that a client sends for one registry.
fn credentials(headers: &HeaderMap) -> Option<SecretBytes> {
    let sent = headers.get("X-Registry-Auth")?.as_bytes();
    // `e30=` is an empty object: nothing is known.
    (!sent.is_empty() && sent != b"e30=").then(|| SecretBytes(sent.to_vec()))
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
    let short = familiar(&name);
    let (lines, told) = mpsc::channel::<Value>(8);
    tokio::spawn(async move {
        let (progress, mut done) = mpsc::channel(8);
        let begun = json!({"status": format!("Pulling {short}"), "id": tag.unwrap_or_else(|| "latest".into())});
        let _ = lines.send(begun).await;
        let showing = async {
            while let Some((current, total)) = done.recv().await {
                let line = json!({
                    "status": "Downloading", "id": "layers", "progressDetail": {"current": current, "total": total},
                });
                let _ = lines.send(line).await;
            }
        };
        let (pulled, ()) = tokio::join!(backend.pull_image(&name, credentials(&headers), progress), showing);
        match pulled {
            Ok((digest, new)) => {
                journal.image("pull", &short, repository(&short), backend.now());
                let status = if new { "Downloaded newer image for" } else { "Image is up to date for" };
                let _ = lines.send(json!({"status": format!("Digest: {digest}")})).await;
                let _ = lines.send(json!({"status": format!("Status: {status} {short}")})).await;
            }
            Err(error) => {
                let text = error.to_string();
                let _ = lines.send(json!({"errorDetail": {"message": text}, "error": text})).await;
            }
        }
    });
    let lines = futures::stream::unfold(told, |mut told| async move {
        let line = told.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(format!("{line}\n")), told))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

/// `/images/NAME/tag`.
pub async fn tag<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Path(rest): Path<String>,
    Query(query): Query<Named>,
) -> Result<StatusCode, ApiError> {
    let Some(wanted) = rest.strip_suffix("/tag") else {
        return Err(ApiError::NotImplemented(format!("flok does not serve POST /images/{rest} yet")));
    };
    let image = find(&*backend, wanted).await?;
    let repo = query.repo.filter(|repo| !repo.is_empty());
    let repo = repo.ok_or_else(|| ApiError::invalid("missing parameter: repo"))?;
    let name = match query.tag.filter(|tag| !tag.is_empty()) {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo,
    };
    backend.tag_image(image.names.first().map_or(wanted, String::as_str), &name).await?;
    journal.image("tag", &image.digest, &familiar(&name), backend.now());
    Ok(StatusCode::CREATED)
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Path(wanted): Path<String>,
    Query(query): Query<Named>,
) -> Result<Json<Value>, ApiError> {
    let image = find(&*backend, &wanted).await?;
    let force = truthy(query.force.as_deref());
    let (tagged, exact): (Vec<&String>, Vec<&String>) = image.names.iter().partition(|name| !name.contains('@'));
    let named: Vec<&String> = tagged.iter().copied().filter(|name| familiar(name) == familiar(&wanted)).collect();
    let by_digest = named.is_empty()
        && image.digest.trim_start_matches("sha256:").starts_with(wanted.trim_start_matches("sha256:"));
    if by_digest && tagged.len() > 1 && !force {
        return Err(ApiError::Conflict(format!(
            "conflict: unable to delete {wanted} (must be forced) - image is referenced in multiple repositories"
        )));
    }
    let mut going = if named.is_empty() { tagged.clone() } else { named };
    // With its last tag goes the name by which it was pulled.
    if going.len() == tagged.len() {
        going.extend(exact);
    }
    let going: Vec<String> = going.into_iter().cloned().collect();
    Ok(Json(remove_names(&*backend, &journal, &image, &going, force).await?.into()))
}

/// `/distribution/NAME/json`: what `docker service create` pins a tag by.
pub async fn distribution<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let name = rest.strip_suffix("/json").ok_or_else(|| ApiError::NotFound("page not found".into()))?;
    let told = backend.describe_image(name, credentials(&headers)).await?;
    let platforms = told.platforms.iter().map(|(os, architecture)| json!({"os": os, "architecture": architecture}));
    Ok(Json(json!({
        "Descriptor": {"mediaType": told.media_type, "digest": told.digest, "size": told.size_bytes},
        "Platforms": platforms.collect::<Vec<_>>(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_matched_by_repository_and_by_tag() {
        for pattern in ["redis", "redis:7", "re*", "redis:*"] {
            assert!(refers(pattern, "redis:7"), "{pattern}");
        }
        for pattern in ["redi", "redis:8", "*/redis"] {
            assert!(!refers(pattern, "redis:7"), "{pattern}");
        }
        assert!(refers("*/redis", "a/redis:7") && !refers("*", "a/redis:7"));
        assert!(refers("*a*/r?d*s", "bab/redis:7") && !refers("a?redis", "a/redis:7"));
    }

    #[test]
    fn the_history_tells_of_each_step_and_each_layer() {
        let config = json!({"history": [
            {"created": "1970-01-01T00:01:00Z", "created_by": "ADD x", "comment": "first"},
            {"created_by": "ENV a=b", "empty_layer": true},
        ]});
        let names = vec!["docker.io/library/redis:7".to_owned()];
        let (digest, layers_bytes) = ("sha256:ab".to_owned(), vec![5, 7]);
        let created = crate::spec::UnixMs(0);
        let image = LocalImage { names, digest, size_bytes: 0, layers_bytes, created, config, loaded: false };
        let line = |id: &str, created, by: &str, tags: Value, size, comment: &str| json!({"Id": id, "Created": created, "CreatedBy": by, "Tags": tags, "Size": size, "Comment": comment});
        let expected = [
            line("sha256:ab", 0, "", json!(["redis:7"]), 7, ""),
            line("<missing>", 0, "ENV a=b", Value::Null, 0, ""),
            line("<missing>", 60, "ADD x", Value::Null, 5, "first"),
        ];
        assert_eq!(history(&image), expected);
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_in_time_and_on_a_small_stack() {
        let text = "a".repeat(200);
        assert!(glob("*".repeat(100_000).as_bytes(), text.as_bytes()));
        assert!(!glob(format!("{}b", "a*".repeat(100)).as_bytes(), text.as_bytes()));
    }
}
