//! Handlers of Docker's Engine API, one file for each of its nouns.

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

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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
    let mut response = match serde_json::to_string(&value) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], keys::with_dockers_names(json)).into_response(),
        Err(error) => ApiError::Internal(format!("the answer cannot be written: {error}")).into_response(),
    };
    if let Some(stale) = &read.stale {
        let text = format!("{}ms; missing={}", stale.age.as_millis(), stale.missing.join(","));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(STALE_HEADER, value);
        }
    }
    response
}

/// A JSON body, whatever its Content-Type says, as Docker reads it; an empty one is `null`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::invalid(format!("cannot read the request's body: {error}")))?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        match Json::<T>::from_bytes(text) {
            Ok(Json(value)) => Ok(Body(value)),
            Err(JsonRejection::JsonDataError(error)) => Err(ApiError::invalid(error.body_text())),
            Err(error) => Err(ApiError::invalid(format!("the request's body is not JSON: {}", error.body_text()))),
        }
    }
}

/// The same for what Docker's clients send, whose field names may be in any case.
pub struct Docker<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Docker<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Body(value) = Body::<serde_json::Value>::from_request(request, state).await?;
        match serde_json::from_value(keys::canonical(value)) {
            Ok(value) => Ok(Docker(value)),
            Err(error) => Err(ApiError::invalid(error.to_string())),
        }
    }
}

/// Query values as Docker's clients write booleans: `1`, `true`, `True`.
pub fn truthy(value: Option<&str>) -> bool {
    matches!(value.map(str::to_ascii_lowercase).as_deref(), Some("1" | "true" | "t" | "yes"))
}
