//! Handlers of Docker's Engine API, one file for each of its nouns.

mod body;
pub mod configs;
pub mod containers;
pub mod events;
pub mod exec;
pub mod hijack;
pub mod images;
mod keys;
pub mod logs;
mod names;
pub mod networks;
pub mod nodes;
pub mod secrets;
pub mod services;
pub mod swarm;
pub mod system;
pub mod tasks;
pub mod volumes;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

pub use body::{Body, Docker, MAX_BODY_BYTES};

use super::{ApiError, Read};

/// Names the answers that no quorum confirmed: how old they are, and who is missing.
pub const STALE_HEADER: &str = "Flok-Stale";

/// Of a list that takes filters and nothing else.
#[derive(Debug, Deserialize)]
pub struct ListQuery {
    filters: Option<String>,
}

/// Of an update that names the version it changes, and nothing else.
#[derive(Debug, Deserialize)]
pub struct UpdateQuery {
    version: u64,
}

/// An answer made from a read.
pub fn answer(read: &Read, value: impl Serialize) -> Response {
    answer_of(Some(read), value)
}

/// The same of what is not of the swarm alone.
pub fn answer_of(read: Option<&Read>, value: impl Serialize) -> Response {
    let mut response = match serde_json::to_string(&value) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], keys::with_dockers_names(json)).into_response(),
        Err(error) => ApiError::Internal(format!("the answer cannot be written: {error}")).into_response(),
    };
    if let Some(stale) = read.and_then(|read| read.stale.as_ref()) {
        let text = format!(
            "{}ms; missing={}",
            stale.age.as_millis(),
            if stale.missing.is_empty() { "unknown".to_owned() } else { stale.missing.join(",") }
        );
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(STALE_HEADER, value);
        }
    }
    response
}

/// A query value that is neither way of a boolean is refused, where Docker refuses it.
pub fn boolean(name: &str, value: Option<&str>) -> Result<bool, ApiError> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "0" | "f" | "false") => Ok(false),
        Some("1" | "t" | "true") => Ok(true),
        Some(_) => {
            let value = value.unwrap_or_default();
            Err(ApiError::invalid(format!("invalid value for {name}: {value}: true or false is wanted")))
        }
    }
}

/// What Docker takes for yes in a query where it refuses nothing: all that is not one of its words for no.
pub fn truthy(value: Option<&str>) -> bool {
    !matches!(
        value.map(|value| value.trim().to_ascii_lowercase()).as_deref(),
        None | Some("" | "0" | "no" | "false" | "none")
    )
}
