//! `docker cp`: files of a container as a tar stream.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;

use super::Here;
use crate::api::docker::truthy;
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, Container, FileStat, WriteFiles};

const STAT_HEADER: &str = "X-Docker-Container-Path-Stat";

#[derive(Debug, Deserialize)]
pub struct ArchiveQuery {
    path: Option<String>,
    #[serde(rename = "noOverwriteDirNonDir")]
    keep_kinds: Option<String>,
    #[serde(rename = "copyUIDGID")]
    give_away: Option<String>,
}

fn path(query: &ArchiveQuery) -> Result<String, ApiError> {
    let path = query.path.clone().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| ApiError::invalid("missing parameter: path"))?;
    Ok(if path.starts_with('/') { path } else { format!("/{path}") })
}

fn nothing_at(path: &str, container: &Container) -> ApiError {
    ApiError::NotFound(format!("Could not find the file {path} in container {}", container.id))
}

/// `HEAD`: what stands there.
pub async fn stat<B: Backend>(
    State(backend): State<Arc<B>>,
    Here(container): Here,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response, ApiError> {
    let path = path(&query)?;
    let stat = backend.file_stat(container.task.task, path.clone()).await?;
    let stat = stat.ok_or_else(|| nothing_at(&path, &container))?;
    Ok(stat_header(&stat).into_response())
}

pub async fn read<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response, ApiError> {
    let path = path(&query)?;
    let found = backend.file_read(container.task.task, path.clone()).await?;
    let (stat, archive) = found.ok_or_else(|| nothing_at(&path, &container))?;
    journal.container(&container, "archive-path", &[], backend.now());
    let kind = [(header::CONTENT_TYPE, "application/x-tar")];
    Ok((stat_header(&stat), kind, Body::from_stream(archive)).into_response())
}

pub async fn write<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    Query(query): Query<ArchiveQuery>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let path = path(&query)?;
    let task = container.task.task;
    let archive = body.into_data_stream().map(|piece| piece.map_err(std::io::Error::other)).boxed();
    let owner = own_user(&container).filter(|_| truthy(query.give_away.as_deref()));
    let how = WriteFiles { replace_kinds: !truthy(query.keep_kinds.as_deref()), owner };
    match backend.file_write(task, path.clone(), archive, how).await? {
        Some(()) => {
            journal.container(&container, "extract-to-dir", &[], backend.now());
            Ok(StatusCode::OK)
        }
        None => match backend.file_stat(task, path.clone()).await? {
            Some(_) => Err(ApiError::invalid(format!("extraction point is not a directory: {path}"))),
            None => Err(nothing_at(&path, &container)),
        },
    }
}

/// User and group of the container's first process, where its service or its image says who that is.
fn own_user(container: &Container) -> Option<(u32, u32)> {
    let (user, is_said) = (container.process.user, container.task.spec.container.user.is_some());
    (user != (0, 0) || is_said).then_some(user)
}

fn stat_header(stat: &FileStat) -> HeaderMap {
    let seconds = i64::try_from(stat.modified_unix_ns.div_euclid(1_000_000_000)).unwrap_or(0);
    let nanos = i32::try_from(stat.modified_unix_ns.rem_euclid(1_000_000_000)).unwrap_or(0);
    let shown = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": gos_mode(stat.mode),
        "mtime": jiff::Timestamp::new(seconds, nanos).unwrap_or_default().to_string(),
        "linkTarget": stat.link.clone().unwrap_or_default(),
    });
    let value = HeaderValue::from_str(&STANDARD.encode(shown.to_string())).expect("base64 is a header value");
    HeaderMap::from_iter([(header::HeaderName::from_bytes(STAT_HEADER.as_bytes()).expect("it is a name"), value)])
}

/// Go's `os.FileMode`, which has bits of its own for what is no permission.
fn gos_mode(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 1 << 31,
        libc::S_IFLNK => 1 << 27,
        libc::S_IFBLK => 1 << 26,
        libc::S_IFIFO => 1 << 25,
        libc::S_IFSOCK => 1 << 24,
        libc::S_IFCHR => (1 << 26) | (1 << 21),
        _ => 0,
    };
    let special = [(libc::S_ISUID, 1 << 23), (libc::S_ISGID, 1 << 22), (libc::S_ISVTX, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |all, (_, gos)| all | gos);
    (mode & 0o777) | kind | special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_told_as_go_has_them() {
        assert_eq!(gos_mode(0o100_644), 0o644);
        assert_eq!(gos_mode(0o040_755), (1 << 31) | 0o755);
        assert_eq!(gos_mode(0o120_777), (1 << 27) | 0o777);
        assert_eq!(gos_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
    }
}
