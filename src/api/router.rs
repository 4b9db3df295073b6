//! Routes, and what every answer has in common.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use serde_json::json;
use tokio::net::UnixListener;

use super::docker::MAX_BODY_BYTES;
use super::docker::containers::find;
use super::error::ApiError;
use super::journal::{Journal, follow_containers, follow_swarm};
use super::routes::{self, About};
use super::unread::ReadToItsEnd;
use super::{Backend, server};

/// Docker's API versions that are spoken.
pub const API_VERSION: (u32, u32) = (1, 50);
pub const MIN_API_VERSION: (u32, u32) = (1, 24);

const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Serves until `shutdown` resolves; requests under way are answered.
pub async fn serve<B: Backend>(
    listeners: Vec<UnixListener>,
    backend: Arc<B>,
    journal: Journal,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    tokio::spawn(follow_swarm(Arc::clone(&backend), journal.clone()));
    tokio::spawn(follow_containers(Arc::clone(&backend), journal.clone()));
    server::serve(listeners, router(backend, journal), shutdown).await;
    Ok(())
}

fn router<B: Backend>(backend: Arc<B>, journal: Journal) -> Router {
    finished(routes::router(&backend, |_| true), backend, journal)
}

/// What other nodes may ask of this one: what is about itself and its containers.
pub fn for_nodes<B: Backend>(backend: Arc<B>, journal: Journal) -> Router {
    let about_itself = |about| matches!(about, About::Container | About::Exec | About::Containers);
    finished(routes::router(&backend, about_itself), backend, journal)
}

fn finished<B: Backend>(router: Router<Arc<B>>, backend: Arc<B>, journal: Journal) -> Router {
    router
        .fallback(not_served)
        .method_not_allowed_fallback(not_served)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(common))
        .with_state(backend)
        .layer(Extension(journal))
}

async fn not_served(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    nothing_called(method, path)
        .unwrap_or_else(|| ApiError::NotImplemented(format!("flok does not serve {method} {path} yet")))
}

/// Docker takes names with slashes in its paths, and its clients ask for the name of an image as one of everything else: nothing
/// is called so here, and they go on at a 404 alone.
fn nothing_called(method: &Method, path: &str) -> Option<ApiError> {
    let mut parts = path.trim_matches('/').split('/');
    let kind = parts.next()?;
    let mut name: Vec<&str> = parts.collect();
    let action = match kind {
        "containers" | "exec" | "plugins" => name.pop(),
        _ => name.pop_if(|last| matches!((kind, *last), ("services" | "tasks", "logs")) || *last == "update"),
    };
    let whole = name.join("/");
    match kind {
        "plugins" if method == Method::GET && action == Some("json") && !whole.is_empty() => {
            Some(ApiError::NotFound(format!("plugin {whole:?} not found")))
        }
        _ if name.len() < 2 => None,
        "containers" => Some(find::no_such(&whole)),
        "exec" => Some(ApiError::NotFound(format!("No such exec instance: {whole}"))),
        "volumes" if matches!(*method, Method::GET | Method::DELETE) => {
            Some(ApiError::NotFound(format!("get {whole}: no such volume")))
        }
        "networks" | "services" | "tasks" | "nodes" | "secrets" | "configs"
            if matches!(*method, Method::GET | Method::DELETE) || action == Some("update") =>
        {
            Some(ApiError::not_found(kind.trim_end_matches('s'), &whole))
        }
        _ => None,
    }
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
    let request = request.map(|body| Body::new(ReadToItsEnd::new(body)));
    let refused = request.extensions().get::<PathVersion>().and_then(|version| refuse_version(*version));
    let mut response = match refused {
        Some(error) => error.into_response(),
        None => as_json(next.run(request).await).await,
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

/// What the HTTP library itself refuses, such as a path that is no text, is told as every other error is.
async fn as_json(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || !kind.starts_with("text/plain") {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), MAX_REFUSAL_BYTES).await.unwrap_or_default();
    (status, axum::Json(json!({ "message": String::from_utf8_lossy(&text) }))).into_response()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_slashes_is_nothing_that_is_here_and_the_rest_is_not_served() {
        for (method, path, said) in [
            (Method::GET, "/containers/flok/redis/json", "No such container: flok/redis"),
            (Method::POST, "/containers/a/b/exec", "No such container: a/b"),
            (Method::GET, "/plugins/flok/redis/json", "plugin \"flok/redis\" not found"),
            (Method::GET, "/plugins/x/json", "plugin \"x\" not found"),
            (Method::GET, "/volumes/a/b", "get a/b: no such volume"),
            (Method::DELETE, "/secrets/a/b", "secret a/b not found"),
            (Method::GET, "/services/a/b/logs", "service a/b not found"),
            (Method::POST, "/nodes/a/b/update", "node a/b not found"),
        ] {
            assert_eq!(nothing_called(&method, path), Some(ApiError::NotFound(said.to_owned())), "{method} {path}");
        }
        for (method, path) in [
            (Method::POST, "/build"),
            (Method::POST, "/containers/x/start"),
            (Method::POST, "/networks/x/connect"),
            (Method::POST, "/plugins/x/enable"),
        ] {
            assert_eq!(nothing_called(&method, path), None, "{method} {path}");
        }
    }
}
