//! Images on this node, and what registries say of names.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

pub use self::pull::pull;
use super::logs::time;
use super::truthy;
use crate::api::convert::date;
use crate::api::filters::Filters;
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, ImageUser, LocalImage};
use crate::spec::image::ImageReference;
use crate::spec::quantity::parse_duration;
use crate::spec::{Platform, SecretBytes, UnixMs, short_id};

mod pull;

/// Images in one archive.
const MAX_SAVED: usize = 256;

const FILTERS: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];
const PRUNE_FILTERS: [&str; 4] = ["dangling", "label", "label!", "until"];

#[derive(Debug, Deserialize)]
pub struct ListImages {
    filters: Option<String>,
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
            && after.is_none_or(|after| created(image) > after)
            && [before, until].into_iter().flatten().all(|before| created(image) < before)
    };
    Ok(Json(images.iter().filter(wanted).map(shown).collect()))
}

/// When the image was made that a filter names.
async fn moment<B: Backend>(backend: &B, filters: &Filters, key: &str) -> Result<Option<UnixMs>, ApiError> {
    match filters.values(key).next() {
        Some(name) => Ok(Some(created(&find(backend, name).await?))),
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
    let (images, users) = (backend.images().await?, backend.image_users().await?);
    let in_use = |image: &LocalImage| users.iter().any(|user| image.names.contains(&user.image));
    let (mut deleted, mut bytes) = (Vec::new(), 0);
    for image in images {
        let old_enough = until.is_none_or(|until| created(&image) < until);
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

/// When it was built; where it does not say, when it came here.
fn created(image: &LocalImage) -> UnixMs {
    let said = image.config["created"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    said.map_or(image.arrived, |at| UnixMs(u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

pub fn shown(image: &LocalImage) -> Value {
    json!({
        "Id": image.digest,
        "ParentId": "",
        "RepoTags": tags(image),
        "RepoDigests": digests(image),
        "Created": created(image).0 / 1000,
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Labels": image.config["config"]["Labels"].clone(),
        "Containers": -1,
    })
}

/// A digest says all: the tag beside it is a remark.
fn reference(name: &str) -> Option<ImageReference> {
    let mut read = name.parse::<ImageReference>().ok()?;
    read.tag = read.tag_or_latest().filter(|_| read.digest.is_none()).map(str::to_owned);
    Some(read)
}

/// By a name, or by the beginning of a digest.
async fn find<B: Backend>(backend: &B, wanted: &str) -> Result<LocalImage, ApiError> {
    let mut images = backend.images().await?;
    let asked = reference(wanted);
    let named = |image: &LocalImage| asked.is_some() && image.names.iter().any(|name| reference(name) == asked);
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
        "Created": config["created"].as_str().map_or_else(|| date(image.arrived), str::to_owned),
        "Author": config["author"].as_str().unwrap_or_default(),
        "Architecture": config["architecture"],
        "Os": config["os"],
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "GraphDriver": {"Name": "overlayfs", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
        "Config": config["config"],
        "Metadata": {"LastTagTime": date(image.arrived)},
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
    let lines: String = names
        .iter()
        .map(|name| format!("{}\n", json!({ "stream": format!("Loaded image: {}\n", familiar(name)) })))
        .collect();
    Ok(([("Content-Type", "application/json")], lines).into_response())
}

/// The login that a client sends for one registry.
fn credentials(headers: &HeaderMap) -> Option<SecretBytes> {
    let sent = headers.get("X-Registry-Auth")?.as_bytes();
    // `e30=` is an empty object: nothing is known.
    (!sent.is_empty() && sent != b"e30=").then(|| SecretBytes(sent.to_vec()))
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
    let going = going_with(&image, &wanted, force)?;
    // Nothing goes where not all can.
    if going.len() == image.names.len() {
        refuse_what_is_used(&backend.image_users().await?, &image, &wanted, force)?;
    }
    Ok(Json(remove_names(&*backend, &journal, &image, &going, force).await?.into()))
}

/// No force takes the image from a container that runs: what it needs to start again would be gone.
fn refuse_what_is_used(users: &[ImageUser], image: &LocalImage, wanted: &str, force: bool) -> Result<(), ApiError> {
    let users = || users.iter().filter(|user| image.names.contains(&user.image));
    let why = match users().find(|user| user.runs) {
        Some(running) => {
            format!("(cannot be forced) - image is being used by running container {}", short_id(&running.container))
        }
        None => match users().next().filter(|_| !force) {
            Some(user) => {
                format!("(must be forced) - container {} is using its referenced image", short_id(&user.container))
            }
            None => return Ok(()),
        },
    };
    Err(ApiError::Conflict(format!("conflict: unable to delete {wanted} {why}")))
}

/// The names that an image loses with the one that is removed, as in Docker: with the last tag of a repository those by which
/// it was pulled from there, and all of them with its id, unless several repositories have it and nobody insists.
fn going_with(image: &LocalImage, wanted: &str, force: bool) -> Result<Vec<String>, ApiError> {
    let names: Vec<(&String, ImageReference)> =
        image.names.iter().filter_map(|name| Some((name, reference(name)?))).collect();
    let asked = reference(wanted).filter(|asked| names.iter().any(|(_, name)| name == asked));
    let Some(asked) = asked else {
        return match force || is_of_one_repository(&names) {
            true => Ok(image.names.clone()),
            false => Err(ApiError::Conflict(format!(
                "conflict: unable to delete {wanted} (must be forced) - image is referenced in multiple repositories"
            ))),
        };
    };
    let same_repository =
        |name: &ImageReference| (&name.registry, &name.repository) == (&asked.registry, &asked.repository);
    let is_tag = |name: &ImageReference| name.digest.is_none();
    let is_last =
        is_tag(&asked) && !names.iter().any(|(_, name)| is_tag(name) && *name != asked && same_repository(name));
    let goes = |name: &ImageReference| *name == asked || (is_last && !is_tag(name) && same_repository(name));
    Ok(names.into_iter().filter(|(_, name)| goes(name)).map(|(name, _)| name.clone()).collect())
}

/// At most one tag, and no name of another repository than that one's.
fn is_of_one_repository(names: &[(&String, ImageReference)]) -> bool {
    let repositories: BTreeSet<_> = names.iter().map(|(_, name)| (&name.registry, &name.repository)).collect();
    repositories.len() <= 1 && names.iter().filter(|(_, name)| name.digest.is_none()).count() <= 1
}

/// `/distribution/NAME/json`: what `docker service create` pins a tag by.
pub async fn distribution<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let name = rest.strip_suffix("/json").ok_or_else(|| ApiError::NotFound("page not found".into()))?;
    let told = backend.describe_image(name, credentials(&headers)).await?;
    let platforms = told.platforms.iter().map(Platform::normalized);
    let platforms = platforms.map(|platform| json!({"os": platform.os, "architecture": platform.architecture}));
    Ok(Json(json!({
        "Descriptor": {"mediaType": told.media_type, "digest": told.digest, "size": told.size_bytes},
        "Platforms": platforms.collect::<Vec<_>>(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_uses_goes_by_force_alone_and_not_while_it_runs() {
        let image = image("sha256:a", &["docker.io/library/redis:7"]);
        let refused = |name: &str, runs, force| {
            let user = ImageUser { container: "c0ffee00c0ffee00".into(), image: name.into(), runs };
            refuse_what_is_used(&[user], &image, "redis", force).err().map(|error| error.to_string())
        };
        let name = "docker.io/library/redis:7";
        assert!(refused(name, true, true).unwrap().contains("cannot be forced"));
        assert!(refused(name, false, false).unwrap().contains("container c0ffee00c0ff is using"));
        assert_eq!((refused(name, false, true), refused("docker.io/library/redis:8", true, false)), (None, None));
    }

    fn image(digest: &str, names: &[&str]) -> LocalImage {
        LocalImage {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            digest: digest.to_owned(),
            size_bytes: 0,
            layers_bytes: Vec::new(),
            arrived: UnixMs(7_000),
            config: Value::Null,
            loaded: false,
        }
    }

    #[test]
    fn a_name_is_removed_alone_and_the_last_tag_with_what_was_pulled_by_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let exact = |repository: &str| format!("docker.io/{repository}@{digest}");
        let (a, b) = (exact("x/a"), exact("x/b"));
        let going = |names: &[&str], wanted: &str, force| going_with(&image(&digest, names), wanted, force);
        let all = ["docker.io/x/a:1", "docker.io/x/a:2", a.as_str(), "docker.io/x/b:1", b.as_str()];
        assert_eq!(going(&all, &format!("x/a@{digest}"), false).unwrap(), [a.as_str()]);
        assert_eq!(going(&all, &format!("x/a:2@{digest}"), false).unwrap(), [a.as_str()]);
        assert_eq!(going(&all, "x/a:1", false).unwrap(), ["docker.io/x/a:1"]);
        assert_eq!(going(&all, "x/b:1", false).unwrap(), ["docker.io/x/b:1", b.as_str()]);
        // By its id.
        assert!(matches!(going(&all, "abab", false), Err(ApiError::Conflict(_))));
        assert!(matches!(going(&["docker.io/x/a:1", b.as_str()], &digest, false), Err(ApiError::Conflict(_))));
        assert_eq!(going(&all, "abab", true).unwrap(), all);
        assert_eq!(going(&all[1..3], &digest, false).unwrap(), all[1..3]);
    }

    #[test]
    fn an_image_is_as_old_as_it_says() {
        let mut image = image("sha256:ab", &[]);
        assert_eq!(created(&image), UnixMs(7_000));
        image.config = json!({"created": "1970-01-01T00:00:02.5Z"});
        assert_eq!((created(&image), &shown(&image)["Created"]), (UnixMs(2_500), &json!(2)));
        image.config = json!({"created": "0001-01-01T00:00:00Z"});
        assert_eq!(created(&image), UnixMs(0));
    }

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
        let image =
            LocalImage { layers_bytes: vec![5, 7], config, ..image("sha256:ab", &["docker.io/library/redis:7"]) };
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
