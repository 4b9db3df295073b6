//! Routes, and what every answer has in common.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tokio::net::UnixListener;

use super::docker::MAX_BODY_BYTES;
use super::error::ApiError;
use super::journal::{Journal, follow};
use super::routes::{self, About};
use super::{Backend, server};

/// Docker's API versions that are spoken.
pub const API_VERSION: (u32, u32) = (1, 50);
pub const MIN_API_VERSION: (u32, u32) = (1, 24);

/// Serves until `shutdown` resolves; requests under way are answered.
pub async fn serve<B: Backend>(
    listener: UnixListener,
    backend: Arc<B>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let journal = Journal::default();
    tokio::spawn(follow(Arc::clone(&backend), journal.clone()));
    server::serve(listener, router(backend, journal), shutdown).await;
    Ok(())
}

fn router<B: Backend>(backend: Arc<B>, journal: Journal) -> Router {
    finished(routes::router(&backend, |_| true), backend).layer(Extension(journal))
}

/// What other nodes may ask of this one: what is about itself and its containers.
pub fn for_nodes<B: Backend>(backend: Arc<B>) -> Router {
    let about_itself = |about| matches!(about, About::Container | About::Exec | About::Containers);
    finished(routes::router(&backend, about_itself), backend)
}

fn finished<B: Backend>(router: Router<Arc<B>>, backend: Arc<B>) -> Router {
    router
        .fallback(not_served)
        .method_not_allowed_fallback(not_served)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(common))
        .with_state(backend)
}

async fn not_served(request: Request) -> ApiError {
    ApiError::NotImplemented(format!("flok does not serve {} {} yet", request.method(), request.uri().path()))
}

/// What [`strip_version`] found in front of a path.
#[derive(Debug, Clone, Copy)]
struct PathVersion(u32, u32);

/// `/v1.43/services` becomes `/services`, the version an extension.
pub(super) fn strip_version(mut request: Request) -> Request {
    let uri = request.uri();
    let Some((version, rest)) = uri.path().strip_prefix("/v").and_then(|path| path.split_once('/')) else {
        return request;
    };
    let Some(version) =
        version.split_once('.').and_then(|(major, minor)| Some(PathVersion(major.parse().ok()?, minor.parse().ok()?)))
    else {
        return request;
    };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(stripped) = format!("/{rest}{query}").parse::<Uri>() else { return request };
    *request.uri_mut() = stripped;
    request.extensions_mut().insert(version);
    request
}

/// Refuses versions that are not spoken, and gives every answer the headers Docker's clients look for.
async fn common(request: Request, next: Next) -> Response {
    let refused = request.extensions().get::<PathVersion>().and_then(|version| refuse_version(*version));
    let mut response = match refused {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    let (major, minor) = API_VERSION;
    let api_version = HeaderValue::from_str(&format!("{major}.{minor}")).expect("digits and a dot are a header value");
    headers.insert("Api-Version", api_version);
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(header::SERVER, HeaderValue::from_static(concat!("flok/", env!("CARGO_PKG_VERSION"), " (linux)")));
    response
}

fn refuse_version(PathVersion(major, minor): PathVersion) -> Option<ApiError> {
    let version = (major, minor);
    if version > API_VERSION {
        let (most, least) = API_VERSION;
        return Some(ApiError::invalid(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is {most}.{least}"
        )));
    }
    if version < MIN_API_VERSION {
        let (most, least) = MIN_API_VERSION;
        return Some(ApiError::invalid(format!(
            "client version {major}.{minor} is too old. Minimum supported API version is {most}.{least}, please upgrade \
             your client to a newer version"
        )));
    }
    None
}
