//! Errors as HTTP answers: `{"message": ...}` with the status Docker gives.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::WriteError;
use crate::state::Refusal;

/// An answer that is not the one asked for; no state changed unless its text says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    TooLarge(String),
    /// By a registry, or by a lock that another key opens.
    #[error("{0}")]
    Unauthorized(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    /// Not now, or not on this node.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    NotImplemented(String),
    #[error("{0}")]
    Internal(String),
}

/// What Docker says where a command needs a manager.
pub const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster \
     state. Please run this command on a manager node or promote the current node to a manager.";
pub const NOT_IN_A_SWARM: &str = "This node is not a swarm manager. Use \"flok swarm init\" or \"flok swarm join\" to connect \
     this node to swarm and try again.";

/// Docker's words for a manager that waits for its swarm's unlock key.
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"flok swarm unlock\" \
     to unlock it.";

impl ApiError {
    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::Invalid(_) => StatusCode::BAD_REQUEST,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::Invalid(message.into())
    }

    pub fn not_found(kind: &str, name: &str) -> ApiError {
        ApiError::NotFound(format!("{kind} {name} not found"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(json!({ "message": self.to_string() }))).into_response()
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> ApiError {
        match error {
            WriteError::Unavailable(message) => ApiError::Unavailable(message),
            WriteError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        let message = refusal.to_string();
        match refusal {
            Refusal::NotFound(_) => ApiError::NotFound(message),
            Refusal::AlreadyExists(_) | Refusal::AnswerForgotten => ApiError::Conflict(message),
            // Docker answers 500 with these words, and its clients match them.
            Refusal::OutOfSequence => ApiError::Internal(format!("rpc error: code = Unknown desc = {message}")),
            Refusal::Invalid(_) | Refusal::Precondition(_) => ApiError::Invalid(message),
            Refusal::Unsupported { .. } => ApiError::Unavailable(message),
            Refusal::NotImplemented(_) => ApiError::NotImplemented(message),
        }
    }
}
