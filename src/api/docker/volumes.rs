//! Local volumes of this node.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::containers::show;
use super::{Docker, ListQuery, truthy};
use crate::api::convert::date;
use crate::api::filters::Filters;
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, Container, LocalImage, LocalVolume};
use crate::spec::volume::check_driver;
use crate::spec::{Labels, VolumeMount};

const FILTERS: [&str; 4] = ["dangling", "driver", "label", "name"];
const PRUNE_FILTERS: [&str; 3] = ["all", "label", "label!"];

/// A `null` is what is not said.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateVolume {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<Labels>,
    labels: Option<Labels>,
    cluster_volume_spec: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub struct RemoveQuery {
    force: Option<String>,
}

pub fn shown(volume: &LocalVolume) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.mountpoint,
        "CreatedAt": date(volume.created),
        "Labels": volume.labels,
        "Options": volume.options,
        "Scope": "local",
    })
}

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let users = backend.volume_users().await?;
    let volumes = backend.volumes();
    let wanted = |volume: &&LocalVolume| {
        filters.name(&volume.name)
            && filters.any("driver", |driver| driver == "local")
            && filters.labels("label", &volume.labels)
            && dangling.is_none_or(|wanted| wanted != users.contains_key(&volume.name))
    };
    let volumes: Vec<Value> = volumes.iter().filter(wanted).map(shown).collect();
    Ok(Json(json!({"Volumes": volumes, "Warnings": []})))
}

pub async fn create<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Docker(asked): Docker<Option<CreateVolume>>,
) -> Result<Response, ApiError> {
    let asked = asked.unwrap_or_default();
    if asked.cluster_volume_spec.is_some() {
        return Err(ApiError::NotImplemented("flok has no cluster volumes (CSI) yet: use local ones, or NFS".into()));
    }
    check_driver(asked.driver.as_deref()).map_err(ApiError::NotFound)?;
    let options = asked.driver_opts.unwrap_or_default();
    VolumeMount::read(&options).map_err(|why| ApiError::invalid(format!("create volume: {why}")))?;
    let name = asked.name.filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| format!("{:032x}{:032x}", backend.new_id(), backend.new_id()));
    let is_new = find(&*backend, &name).is_err();
    let volume = backend.create_volume(&name, asked.labels.unwrap_or_default(), options)?;
    if is_new {
        journal.volume("create", &name, backend.now());
    }
    Ok((StatusCode::CREATED, Json(shown(&volume))).into_response())
}

fn find<B: Backend>(backend: &B, name: &str) -> Result<LocalVolume, ApiError> {
    let mut volumes = backend.volumes().into_iter();
    volumes.find(|volume| volume.name == name).ok_or_else(|| ApiError::NotFound(format!("get {name}: no such volume")))
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(shown(&find(&*backend, &name)?)))
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    match find(&*backend, &name) {
        Err(ApiError::NotFound(_)) if truthy(query.force.as_deref()) => return Ok(StatusCode::NO_CONTENT),
        found => drop(found?),
    }
    if let Some(users) = backend.volume_users().await?.get(&name) {
        return Err(ApiError::Conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
    }
    backend.remove_volume(&name)?;
    journal.volume("destroy", &name, backend.now());
    Ok(StatusCode::NO_CONTENT)
}

/// Of those that nobody mounts, the ones without a name of their own; with the filter `all`, all.
pub async fn prune<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &PRUNE_FILTERS)?;
    let all = filters.flag("all")? == Some(true);
    let users = backend.volume_users().await?;
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for volume in backend.volumes() {
        let unnamed = volume.name.len() == 64 && volume.name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let wanted = (all || unnamed) && filters.wants_labels(&volume.labels);
        if wanted && !users.contains_key(&volume.name) {
            bytes += backend.volume_size(&volume.name).await.unwrap_or(0);
            backend.remove_volume(&volume.name)?;
            journal.volume("destroy", &volume.name, backend.now());
            gone.push(volume.name);
        }
    }
    Ok(Json(json!({"VolumesDeleted": gone, "SpaceReclaimed": bytes})))
}

/// What `type=` may ask for, each as often as it likes; without it, all.
const DISK_USES: [&str; 4] = ["container", "image", "volume", "build-cache"];

/// `GET /system/df`.
pub async fn disk_usage<B: Backend>(
    State(backend): State<Arc<B>>,
    axum::extract::Query(query): axum::extract::Query<Vec<(String, String)>>,
) -> Result<Json<Value>, ApiError> {
    let kinds: Vec<String> = query.into_iter().filter(|(key, _)| key == "type").map(|(_, kind)| kind).collect();
    if let Some(kind) = kinds.iter().find(|kind| !DISK_USES.contains(&kind.as_str())) {
        return Err(ApiError::invalid(format!("unknown object type: {kind}: {} are known", DISK_USES.join(", "))));
    }
    let wanted = |kind: &str| kinds.is_empty() || kinds.iter().any(|asked| asked == kind);
    let containers = backend.containers().await?;
    let mut usage = json!({"LayersSize": 0, "Images": null, "Containers": null, "Volumes": null, "BuildCache": null});
    if wanted("image") {
        let images = disk_usage_of_images(&*backend, &containers).await?;
        usage["LayersSize"] = json!(images.iter().filter_map(|image| image["Size"].as_u64()).sum::<u64>());
        usage["Images"] = json!(images);
    }
    if wanted("container") {
        let mut shown = Vec::new();
        for container in &containers {
            let mut line = super::containers::list::line(container, backend.now());
            show::put_size(&mut line, backend.container_size(container.task.task).await.unwrap_or_default());
            shown.push(line);
        }
        usage["Containers"] = json!(shown);
    }
    if wanted("volume") {
        usage["Volumes"] = json!(disk_usage_of_volumes(&*backend).await?);
    }
    if wanted("build-cache") {
        usage["BuildCache"] = json!([]);
    }
    Ok(Json(usage))
}

async fn disk_usage_of_images<B: Backend>(backend: &B, containers: &[Container]) -> Result<Vec<Value>, ApiError> {
    let of_image = |digest: &str| containers.iter().filter(|container| container.image_digest == digest).count();
    let images = backend.images().await?;
    let line = |image: &LocalImage| {
        let mut shown = super::images::shown(image);
        shown["Containers"] = json!(of_image(&image.digest));
        shown["SharedSize"] = json!(0);
        shown
    };
    Ok(images.iter().map(line).collect())
}

async fn disk_usage_of_volumes<B: Backend>(backend: &B) -> Result<Vec<Value>, ApiError> {
    let users = backend.volume_users().await?;
    let mut volumes = Vec::new();
    for volume in backend.volumes() {
        let mut line = shown(&volume);
        let count = users.get(&volume.name).map_or(0, Vec::len);
        // Docker's word for what is not measured.
        let size = backend.volume_size(&volume.name).await.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1);
        line["UsageData"] = json!({"Size": size, "RefCount": count});
        volumes.push(line);
    }
    Ok(volumes)
}
