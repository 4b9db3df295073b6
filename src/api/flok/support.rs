//! `GET /flok/v1/support-bundle`: all that helps whoever looks into a trouble, in one archive that may leave the swarm. Where
//! something cannot be had, there is no quorum for one, the rest is had all the same, and the archive says why.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::swarm_status;
use crate::api::convert::*;
use crate::api::query::Query;
use crate::api::redact::redact;
use crate::api::{ApiError, Backend, Read, lookup};
use crate::spec::{NodeId, SupportFile};

/// Of one file; what is longer is cut off, and that is said.
const MAX_FILE_BYTES: usize = 4 << 20;

#[derive(Debug, Deserialize)]
pub struct BundleQuery {
    node: Option<String>,
}

pub async fn bundle<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<BundleQuery>,
) -> Result<Response, ApiError> {
    let read = backend.read().await;
    let own = backend.local();
    let node = match (query.node.as_deref(), &read) {
        (None, _) => own.id,
        (Some(name), _) if name == own.id.to_string() || name == own.hostname => own.id,
        (Some(name), Ok(read)) => lookup::node(&read.state, name)?.id,
        (Some(name), Err(why)) => {
            return Err(ApiError::Unavailable(format!(
                "{why}; so of {name} nothing can be had here: ask for this node's own, or on {name} itself"
            )));
        }
    };
    let (mut files, note) = match &read {
        Ok(read) => (of_swarm(read, own.id), staleness(read)),
        Err(why) => (Vec::new(), format!("Of the swarm nothing could be had: {why}\n")),
    };
    files.extend(backend.support_files(node).await);
    files.insert(0, contents(&files, node, &note));
    let archive = tokio::task::spawn_blocking(move || archive(&files)).await;
    let bytes = archive.map_err(|_| ApiError::Unavailable("the daemon is shutting down".to_owned()))?;
    let bytes = bytes.map_err(|error| ApiError::Internal(format!("the archive cannot be made: {error}")))?;
    Ok(([(header::CONTENT_TYPE, "application/gzip")], bytes).into_response())
}

fn staleness(read: &Read) -> String {
    match &read.stale {
        Some(stale) => format!(
            "No quorum: what the swarm holds is as this node last heard it, {:.1} s ago or more; missing: {}\n",
            stale.age.as_secs_f32(),
            stale.missing.join(", ")
        ),
        None => "What the swarm holds was confirmed by a quorum\n".to_owned(),
    }
}

/// Specs as the API shows them, without what was entrusted to them.
fn of_swarm(read: &Read, own: NodeId) -> Vec<SupportFile> {
    let state = &read.state;
    let status = swarm_status(read, own).map_err(|error| error.to_string());
    vec![
        SupportFile { path: "swarm/status.json".into(), text: status.map(|status| plain(&status)) },
        file("nodes", state.nodes().map(|node| node_to_docker(node, read))),
        file("services", state.services().map(|service| service_to_docker(service, state))),
        file("tasks", state.tasks().map(|task| task_to_docker(task, read))),
        file("networks", state.networks().map(|network| network_to_docker(network))),
        file("secrets", state.secrets().map(|secret| secret_to_docker(secret))),
        file("configs", state.configs().map(|config| config_to_docker(config))),
    ]
}

fn file<T: Serialize>(name: &str, objects: impl Iterator<Item = T>) -> SupportFile {
    let values: Result<Vec<Value>, _> = objects.map(|object| serde_json::to_value(object)).collect();
    let text = values.map_err(|error| error.to_string()).map(|mut values| {
        values.iter_mut().for_each(redact);
        plain(&values)
    });
    SupportFile { path: format!("swarm/{name}.json"), text }
}

fn plain(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string())
}

/// What is in the archive, and what is not.
fn contents(files: &[SupportFile], node: NodeId, note: &str) -> SupportFile {
    let mut text = format!(
        "A support bundle of flok {} for node {node}.\n{note}\nThe data of secrets and configs, tokens, keys, and the values \
         of environment, arguments, labels\nand driver options are not in it. Addresses and names are: read it before you \
         pass it on.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    for SupportFile { path, text: had } in files {
        let _ = match had {
            Ok(had) => writeln!(text, "{path}: {} bytes", had.len()),
            Err(why) => writeln!(text, "{path}: could not be had: {why}"),
        };
    }
    SupportFile { path: "contents.txt".into(), text: Ok(text) }
}

fn archive(files: &[SupportFile]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for SupportFile { path, text } in files {
        let Ok(text) = text else { continue };
        let kept = &text[..text.floor_char_boundary(MAX_FILE_BYTES)];
        let cut = if kept.len() < text.len() { "\n(cut off here)\n" } else { "" };
        let bytes = [kept.as_bytes(), cut.as_bytes()].concat();
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_cksum();
        tar.append_data(&mut header, format!("flok-support/{path}"), bytes.as_slice())?;
    }
    tar.into_inner()?.finish()
}
