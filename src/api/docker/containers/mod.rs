//! The containers of tasks, on this node or on any other: a request about one is answered by the node that has it.

pub mod files;
pub mod find;
pub mod life;
pub mod list;
pub mod logs;
pub mod show;
pub mod stats;

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::calls::FromNode;
use crate::api::{ApiError, Backend, Container};
use crate::spec::NodeId;

/// The container that a request is about; it is on this node.
#[derive(Debug, Clone)]
pub struct Here(pub Arc<Container>);

impl<S: Send + Sync> FromRequestParts<S> for Here {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Here, ApiError> {
        let here = parts.extensions.get::<Here>().cloned();
        here.ok_or_else(|| ApiError::Internal("a route about a container was made without looking for it".into()))
    }
}

/// Before every handler of `/containers/{id}/...`: finds the container, and sends the request to its node.
pub async fn reach<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    mut request: Request,
    next: Next,
) -> Response {
    let from_node = request.extensions().get::<FromNode>().is_some();
    let found = match from_node {
        true => find::on_this_node(&*backend, &wanted).await.map(find::Found::Here),
        false => find::anywhere(&*backend, &wanted).await,
    };
    match found {
        Ok(find::Found::Here(container)) => {
            request.extensions_mut().insert(Here(Arc::from(container)));
            next.run(request).await
        }
        Ok(find::Found::On { node, container }) => send(&*backend, node, request, &wanted, &container).await,
        Err(error) => error.into_response(),
    }
}

/// The same for `/exec/{id}/...`: the id of a command names its node.
pub async fn reach_exec<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(id): Path<String>,
    request: Request,
    next: Next,
) -> Response {
    let local = backend.local().id;
    match backend.exec_node(&id) {
        Some(node) if node != local && request.extensions().get::<FromNode>().is_none() => {
            send(&*backend, node, request, &id, &id).await
        }
        Some(_) => next.run(request).await,
        None => ApiError::NotFound(format!("No such exec instance: {id}")).into_response(),
    }
}

/// To another node, which knows the container by its whole id.
async fn send<B: Backend>(backend: &B, node: NodeId, mut request: Request, wanted: &str, id: &str) -> Response {
    // However the name was written, the route says where it stands.
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().replace("{id}", id));
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{query}", route.unwrap_or_default());
    match path.parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return ApiError::invalid(format!("{wanted:?} is no container's name")).into_response(),
    }
    backend.call(node, request).await.unwrap_or_else(IntoResponse::into_response)
}
