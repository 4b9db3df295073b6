//! Images on this node.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::api::{ApiError, Backend};

pub async fn list<B: Backend>(State(backend): State<Arc<B>>) -> Result<Json<Vec<Value>>, ApiError> {
    let images = backend.images().await?;
    let shown = images.into_iter().map(|image| {
        json!({
            "Id": image.digest,
            "ParentId": "",
            "RepoTags": image.names,
            "RepoDigests": [],
            "Created": image.created.0 / 1000,
            "Size": image.size_bytes,
            "SharedSize": -1,
            "Labels": {},
            "Containers": -1,
        })
    });
    Ok(Json(shown.collect()))
}

/// Answers as Docker does: 200, and a line of JSON for each image.
pub async fn load<B: Backend>(State(backend): State<Arc<B>>, body: Body) -> Result<Response, ApiError> {
    let tar = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other)).boxed();
    let names = backend.load_image(tar).await?;
    let lines: String =
        names.iter().map(|name| format!("{}\n", json!({ "stream": format!("Loaded image: {name}\n") }))).collect();
    Ok(([("Content-Type", "application/json")], lines).into_response())
}
