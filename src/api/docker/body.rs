//! JSON bodies of requests: bounded in size, in the time each piece of them takes, in how much they become once they are read,
//! and all of them together.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::keys;
use crate::api::ApiError;

/// A stack of a thousand services fits.
pub const MAX_BODY_BYTES: usize = 16 << 20;
/// A value in memory is many times as large as the shortest way to write one.
const MAX_VALUES: usize = 1_000_000;
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// What every request may send; beyond it there is room for all of them together.
const SMALL_BYTES: usize = 256 << 10;
const ROOM_STEP_BYTES: usize = 1 << 20;
static ROOM: Semaphore = Semaphore::const_new(128);

/// A JSON body, whatever its Content-Type says, as Docker reads it; an empty one is `null`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, _room) = read(request).await?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        match Json::<T>::from_bytes(text) {
            Ok(Json(value)) => Ok(Body(value)),
            Err(_) if bytes.is_empty() => Err(no_body()),
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
        let is_nothing = value.is_null();
        match serde_path_to_error::deserialize(keys::canonical(value)) {
            Ok(value) => Ok(Docker(value)),
            Err(_) if is_nothing => Err(no_body()),
            // The empty word, which clients send for none, is nothing to propose.
            Err(error) => Err(ApiError::invalid(error.to_string().replace("``, ", ""))),
        }
    }
}

fn no_body() -> ApiError {
    ApiError::invalid("the request has no body: a JSON object is wanted")
}

async fn read(request: Request) -> Result<(Bytes, Option<SemaphorePermit<'static>>), ApiError> {
    let mut body = request.into_body();
    let too_large = || ApiError::TooLarge(format!("the request's body is larger than {MAX_BODY_BYTES} bytes"));
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let (mut bytes, mut room, mut held) = (BytesMut::new(), None::<SemaphorePermit<'static>>, SMALL_BYTES);
    loop {
        let frame = timeout(PIECE_WITHIN, body.frame()).await.map_err(|_| {
            ApiError::invalid(format!("nothing more of the request's body has come for {PIECE_WITHIN:?}"))
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::invalid(format!("cannot read the request's body: {error}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        if bytes.len() + piece.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        while held < bytes.len() + piece.len() {
            let more = ROOM.try_acquire().map_err(|_| {
                ApiError::Unavailable("too many large requests are being read at once: try again".into())
            })?;
            match &mut room {
                Some(room) => room.merge(more),
                none => *none = Some(more),
            }
            held += ROOM_STEP_BYTES;
        }
        bytes.extend_from_slice(&piece);
    }
    if bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() > MAX_VALUES {
        return Err(ApiError::TooLarge(format!("the request's body has more than {MAX_VALUES} values")));
    }
    Ok((bytes.freeze(), room))
}
