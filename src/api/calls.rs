//! Requests about what is on another node: carried to its own handlers as HTTP over a stream between the nodes, and its
//! answer back, an upgraded connection included. There is no other way: what a node answers of its containers to its own
//! user, it answers to all.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::client;
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::ApiError;
use super::connection::Connection;

/// Calls that a node serves at once, for all others together.
const MAX_CALLS: usize = 256;
/// Of a request's or an answer's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// On a request that another node has sent: it is about this node, and is not sent on.
#[derive(Debug, Clone, Copy)]
pub struct FromNode;

/// Serves what other nodes ask until their streams come no more.
pub async fn serve_calls<S>(mut calls: mpsc::Receiver<S>, router: Router)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CALLS));
    while let Some(stream) = calls.recv().await {
        let slot = Arc::clone(&slots).try_acquire_owned().ok();
        let router = match slot {
            Some(_) => router.clone().layer(axum::Extension(FromNode)),
            None => Router::new().fallback(busy),
        };
        let stream = Counted { stream, _slot: slot };
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEAD_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .with_upgrades();
            if let Err(error) = served.await {
                tracing::debug!(%error, "a call of another node ended");
            }
        });
    }
}

/// A call's stream: it counts as long as that is open, upgraded or not.
struct Counted<S> {
    stream: S,
    _slot: Option<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn busy() -> ApiError {
    ApiError::Unavailable(format!("the node serves {MAX_CALLS} calls of others already: try again"))
}

/// Sends a request on a stream of its own; the answer's body, or the upgraded connection, goes on after it.
pub async fn send<S>(stream: S, mut request: Request) -> Result<Response, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = client::conn::http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with the answer, or when nobody waits for that any more.
    tokio::spawn(connection.with_upgrades());
    let caller = request.extensions_mut().remove::<OnUpgrade>();
    // Of an attached client, the end of what it sends means nothing to the container, and a node that is told of it could
    // not be told any more when the client goes.
    let ends_input = !request.uri().path().ends_with("/attach");
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("flok"));
    let mut response = sender.send_request(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let node = hyper::upgrade::on(&mut response);
        if let Some(caller) = caller {
            tokio::spawn(join(caller, node, ends_input));
        }
        return Ok(response.map(|_| Body::empty()));
    }
    // Of this connection, not of the caller's.
    response.headers_mut().remove(CONNECTION);
    response.headers_mut().remove(TRANSFER_ENCODING);
    Ok(response.into_response())
}

async fn join(caller: OnUpgrade, node: OnUpgrade, ends_input: bool) {
    let (Ok(caller), Ok(node)) = tokio::join!(caller, node) else { return };
    Connection::new(caller).join(TokioIo::new(node), ends_input).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A node that serves `router`, and a stream to it.
    fn node(router: Router) -> tokio::io::DuplexStream {
        let (here, there) = tokio::io::duplex(1024);
        let (sender, calls) = mpsc::channel(1);
        sender.try_send(there).unwrap();
        tokio::spawn(serve_calls(calls, router));
        here
    }

    fn request(method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path)
    }

    #[tokio::test]
    async fn a_request_and_its_answer_are_carried_whole() {
        let body = vec![b'x'; 300_000];
        let asked = request("POST", "/a?b=c").header("X-Asked", "me").body(Body::from(body.clone())).unwrap();
        let router = Router::new().route(
            "/a",
            post(async |request: Request| {
                let header = request.headers()["X-Asked"].clone();
                assert!(request.extensions().get::<FromNode>().is_some());
                (StatusCode::CONFLICT, [("X-Answered", header)], request.into_body()).into_response()
            }),
        );
        let answer = send(node(router), asked).await.unwrap();
        assert_eq!((answer.status(), &answer.headers()["X-Answered"]), (StatusCode::CONFLICT, &"me".parse().unwrap()));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    }

    #[tokio::test]
    async fn an_upgraded_connection_is_carried_both_ways() {
        let router = Router::new().route(
            "/up",
            post(async |mut request: Request| {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgrade.await.unwrap());
                    let mut said = Vec::new();
                    stream.read_to_end(&mut said).await.unwrap();
                    said.reverse();
                    stream.write_all(&said).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
                (StatusCode::SWITCHING_PROTOCOLS, [("Connection", "Upgrade"), ("Upgrade", "tcp")]).into_response()
            }),
        );
        // The API node in the middle: its own caller's connection is upgraded, too.
        let there = Arc::new(std::sync::Mutex::new(Some(node(router))));
        let middle = Router::new().fallback(async move |request: Request| {
            let stream = there.lock().unwrap().take().unwrap();
            send(stream, request).await.unwrap()
        });
        let asked = request("POST", "/up").header("Connection", "Upgrade").header("Upgrade", "tcp");
        let (mut sender, connection) =
            client::conn::http1::handshake::<_, Body>(TokioIo::new(node(middle))).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let asked = asked.header("Host", "x").body(Body::empty()).unwrap();
        let answer = sender.send_request(asked).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        stream.write_all(b"stressed").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, "desserts");
    }

    #[tokio::test]
    async fn an_upgraded_connection_counts_until_it_ends() {
        let router = Router::new().route(
            "/up",
            post(async |mut request: Request| {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgrade.await.unwrap());
                    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
                });
                (StatusCode::SWITCHING_PROTOCOLS, [("Connection", "Upgrade"), ("Upgrade", "tcp")]).into_response()
            }),
        );
        let (streams, calls) = mpsc::channel(1);
        tokio::spawn(serve_calls(calls, router));
        let call = async || {
            let (here, there) = tokio::io::duplex(1024);
            streams.send(there).await.unwrap();
            let (mut sender, connection) = client::conn::http1::handshake::<_, Body>(TokioIo::new(here)).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            let asked = request("POST", "/up").header("Connection", "Upgrade").header("Upgrade", "tcp");
            sender.send_request(asked.header("Host", "x").body(Body::empty()).unwrap()).await.unwrap()
        };
        let mut upgraded = Vec::new();
        for _ in 0..MAX_CALLS {
            let answer = call().await;
            assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
            upgraded.push(hyper::upgrade::on(answer).await.unwrap());
        }
        assert_eq!(call().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(upgraded);
        while call().await.status() != StatusCode::SWITCHING_PROTOCOLS {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn too_large_a_head_is_refused() {
        let router = Router::new().route("/", get(async || "here"));
        let asked = request("GET", "/").header("X-Large", "x".repeat(MAX_HEAD_BYTES)).body(Body::empty()).unwrap();
        let refused = send(node(router), asked).await;
        assert!(refused.is_err() || refused.unwrap().status().is_client_error());
    }
}
