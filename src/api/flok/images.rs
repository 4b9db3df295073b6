//! Images as registries know them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures::stream::{self, StreamExt};

use crate::api::docker::Body;
use crate::api::model::image::{ResolveImages, ResolvedImages};
use crate::api::{ApiError, Backend};
use crate::spec::SecretBytes;

/// Registries asked at once.
const AT_ONCE: usize = 16;
/// Images in one request. A stack of more distinct ones asks again.
const MAX_IMAGES: usize = 32;

pub async fn resolve<B: Backend>(
    State(backend): State<Arc<B>>,
    Body(request): Body<ResolveImages>,
) -> Result<Json<ResolvedImages>, ApiError> {
    if request.images.len() > MAX_IMAGES {
        return Err(ApiError::invalid(format!("at most {MAX_IMAGES} images are resolved at once")));
    }
    let asked = stream::iter(request.images).map(|(image, auth)| {
        let backend = &backend;
        async move {
            let auth = (!auth.is_empty()).then(|| SecretBytes(auth.into_bytes()));
            let answer = backend.resolve_image(&image, auth).await;
            (image, answer)
        }
    });
    let mut asked = asked.buffer_unordered(AT_ONCE);
    let mut resolved = ResolvedImages::default();
    while let Some((image, answer)) = asked.next().await {
        match answer {
            Ok(Some(digest)) => _ = resolved.digests.insert(image, digest),
            Ok(None) => {}
            Err(error) => _ = resolved.failed.insert(image, error.to_string()),
        }
    }
    Ok(Json(resolved))
}
