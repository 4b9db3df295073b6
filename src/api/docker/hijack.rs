//! Connections that a request takes over: `exec`, `attach`, a forwarded port. A client that asks for an upgrade gets one;
//! one that does not gets what is printed as the answer's body.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::api::ApiError;
use crate::api::connection::Connection;
use crate::api::server::Slot;

const PIECE_BYTES: usize = 32 * 1024;

/// The connection of a request that asked for it, with its place among those that are served.
pub struct Hijack(Option<Upgrade>);

struct Upgrade {
    on: OnUpgrade,
    /// Of a client of this node's own socket.
    slot: Option<Slot>,
}

impl<S: Send + Sync> FromRequestParts<S> for Hijack {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Hijack, Self::Rejection> {
        let asked = parts.headers.contains_key(header::UPGRADE);
        let slot = parts.extensions.get::<Slot>().cloned();
        let on = asked.then(|| parts.extensions.remove::<OnUpgrade>()).flatten();
        Ok(Hijack(on.map(|on| Upgrade { on, slot })))
    }
}

/// What goes to and fro on it.
pub struct Streams {
    /// Dropped at the end of what the client sends.
    pub input: Option<mpsc::Sender<Bytes>>,
    /// Whether it is of stderr, and the bytes.
    pub output: BoxStream<'static, (bool, Bytes)>,
    /// One stream, without frames.
    pub raw: bool,
}

impl Hijack {
    /// Of a request that takes nothing over.
    pub fn none() -> Hijack {
        Hijack(None)
    }

    pub fn carry(self, streams: Streams) -> Response {
        let kind = content_type(streams.raw);
        match self.0 {
            Some(upgrade) => switched(upgrade, kind, async move |io| carry(io, streams).await),
            None => {
                let raw = streams.raw;
                // Nothing can be sent to it.
                drop(streams.input);
                let pieces = streams
                    .output
                    .map(move |(stderr, bytes)| Ok::<_, std::convert::Infallible>(framed(raw, stderr, bytes)));
                ([(header::CONTENT_TYPE, kind)], Body::from_stream(pieces)).into_response()
            }
        }
    }

    pub fn is_asked_for(&self) -> bool {
        self.0.is_some()
    }

    /// Of a client that asked: the streams of what begins once the answer's head is sent. Where it does not, they say why.
    pub fn carry_what_begins(
        self,
        raw: bool,
        begin: impl Future<Output = Result<Streams, ApiError>> + Send + 'static,
    ) -> Response {
        let why = move |error: ApiError| {
            let said = (true, Bytes::from(format!("{error}\r\n")));
            Streams { input: None, output: stream::once(std::future::ready(said)).boxed(), raw }
        };
        match self.0 {
            Some(upgrade) => switched(upgrade, content_type(raw), async move |io| {
                let streams = begin.await.unwrap_or_else(why);
                carry(io, streams).await;
            }),
            None => Hijack::none().carry(why(ApiError::invalid("the request asks for no upgrade"))),
        }
    }

    /// `None` where the client asked for no upgrade.
    pub fn join(self, other: tokio::net::TcpStream) -> Option<Response> {
        let work = async move |client: Connection| client.join(other, true).await;
        Some(switched(self.0?, content_type(true), work))
    }
}

pub fn content_type(raw: bool) -> &'static str {
    if raw { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" }
}

fn switched<F: Future<Output = ()> + Send + 'static>(
    upgrade: Upgrade,
    kind: &'static str,
    work: impl FnOnce(Connection) -> F + Send + 'static,
) -> Response {
    tokio::spawn(async move {
        let Upgrade { on, slot: _slot } = upgrade;
        if let Ok(upgraded) = on.await {
            work(Connection::new(upgraded)).await;
        }
    });
    let headers = [(header::CONTENT_TYPE, kind), (header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn carry(client: Connection, streams: Streams) {
    let Streams { input, mut output, raw } = streams;
    let Connection { io, watch } = client;
    let (mut from, mut to) = tokio::io::split(io);
    let feeding = async move {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match from.read(&mut buffer).await {
                // The end of what the client sends is the end of the input, not of the output.
                Ok(0) => break,
                Ok(count) => {
                    let Some(input) = &input else { continue };
                    if input.send(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                        break;
                    }
                }
                Err(_) => return,
            }
        }
        drop(input);
        std::future::pending::<()>().await;
    };
    let printing = async move {
        while let Some((stderr, bytes)) = output.next().await {
            if to.write_all(&framed(raw, stderr, bytes)).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
        // A client that is gone already needs no goodbye.
        let _ = to.shutdown().await;
    };
    tokio::select! {
        () = printing => {}
        () = feeding => {}
        () = watch.left() => {}
    }
}

fn framed(raw: bool, stderr: bool, bytes: Bytes) -> Bytes {
    if raw { bytes } else { frame(stderr, &bytes) }
}

/// Docker's stream framing: which stream, three zeros, the length as a big-endian u32.
pub fn frame(stderr: bool, text: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + text.len());
    frame.put_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0]);
    frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    frame.put_slice(text);
    frame.freeze()
}
