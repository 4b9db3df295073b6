//! The connections to the API's socket: how many there may be, and how long one may take to say what it wants. Clients that
//! are slow, or half open, or many, take nothing from the others.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::util::ServiceExt;

use super::ApiError;
use super::request_line::{Framing, Lenient, Rest};

/// Connections at once, those that wait for a request among them.
const MAX_CONNECTIONS: usize = 512;
/// Connections beyond them that are told so.
const MAX_REFUSED: usize = 64;
/// Of a request's head: long lists of filters and logins fit.
const MAX_HEAD_BYTES: usize = 256 * 1024;
const MAX_HEADERS: usize = 128;
/// As in Docker.
const HEAD_WITHIN: Duration = Duration::from_secs(300);
/// After an error of the listener itself, as where the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// A connection counts as long as somebody holds this: it is on each request, for who takes the connection over.
#[derive(Clone)]
pub struct Slot(#[expect(dead_code, reason = "it is given back when it is dropped")] Arc<OwnedSemaphorePermit>);

/// Serves until `shutdown` resolves; requests under way are answered.
pub async fn serve(listeners: Vec<UnixListener>, router: Router, shutdown: impl Future<Output = ()> + Send) {
    let (slots, refusals) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(Semaphore::new(MAX_REFUSED)));
    let waiting = Waiting::default();
    let (ending, ended) = watch::channel(());
    let tracker = TaskTracker::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listeners) => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection to the API can be taken");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        match slot(&slots, &waiting).await {
            Some(slot) => {
                let place = Place { waiting: waiting.clone(), ..Place::default() };
                tracker.spawn(connection(stream, Slot(Arc::new(slot)), router.clone(), place, ended.clone()));
            }
            None => {
                let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() else { continue };
                tracker.spawn(refuse(stream, refusal));
            }
        }
    }
    drop(listeners);
    drop(ended);
    // All of them answer what they were asked and end.
    let _ = ending.send(());
    tracker.close();
    tracker.wait().await;
}

/// Of whichever of them has one.
async fn accept(listeners: &[UnixListener]) -> std::io::Result<UnixStream> {
    std::future::poll_fn(|cx| {
        let accepted = listeners.iter().map(|listener| listener.poll_accept(cx)).find(Poll::is_ready);
        accepted.map_or(Poll::Pending, |accepted| accepted.map_ok(|(stream, _)| stream))
    })
    .await
}

/// Where all are taken, the one that has been waiting the longest gives its own up. `None`: none waits.
async fn slot(slots: &Arc<Semaphore>, waiting: &Waiting) -> Option<OwnedSemaphorePermit> {
    match Arc::clone(slots).try_acquire_owned() {
        Ok(slot) => Some(slot),
        Err(_) if waiting.close_longest() => Arc::clone(slots).acquire_owned().await.ok(),
        Err(_) => None,
    }
}

async fn connection(stream: UnixStream, slot: Slot, router: Router, place: Place, mut ending: watch::Receiver<()>) {
    place.waits();
    let outcome = served(stream, slot, router, &place, &mut ending).await;
    // What it still sent is dropped by now.
    place.begins();
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the API ended");
    }
}

async fn served(
    stream: UnixStream,
    slot: Slot,
    router: Router,
    place: &Place,
    ending: &mut watch::Receiver<()>,
) -> hyper::Result<()> {
    let (asked, framing) = (place.clone(), Framing::default());
    let stream = TokioIo::new(Lenient::new(stream, framing.clone()));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        framing.set(rest_of(&request));
        request.extensions_mut().insert(slot.clone());
        answer(router.clone(), asked.clone(), request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut served = pin!(served);
    tokio::select! {
        outcome = &mut served => outcome,
        () = place.closed.notified() => Ok(()),
        _ = ending.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    }
}

/// What follows the head of a request, as the HTTP library will read it.
fn rest_of(request: &hyper::Request<Incoming>) -> Rest {
    let is_taken_over = request.headers().contains_key(header::UPGRADE);
    match request.body().size_hint().exact() {
        Some(bytes) if !is_taken_over => Rest::Body(bytes),
        _ => Rest::Stream,
    }
}

async fn answer(router: Router, place: Place, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    if !place.begins() {
        // It is being closed: what has not begun is not to begin.
        std::future::pending::<()>().await;
    }
    let response = match head_bytes(&request) {
        0..=MAX_HEAD_BYTES => {
            let request: Request = request.map(Body::new);
            let Ok(response) = router.oneshot(super::router::strip_version(request)).await;
            response
        }
        bytes => too_long(bytes),
    };
    // One that is taken over never waits again: closing it would give back no slot.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    Ok(response.map(|body| Body::new(Sending { body, place })))
}

/// As they were sent, but for the line ends and the version.
fn head_bytes(request: &hyper::Request<Incoming>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.method().as_str().len() + target + headers.sum::<usize>()
}

fn too_long(bytes: usize) -> Response {
    let message = format!("the request's head has {bytes} bytes; the bound is {MAX_HEAD_BYTES}");
    let mut response = ApiError::TooLarge(message).into_response();
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

/// Says that there are too many, to who asks something.
async fn refuse(stream: UnixStream, _refusal: OwnedSemaphorePermit) {
    let busy = service_fn(|_| {
        let error = ApiError::Unavailable(format!("{MAX_CONNECTIONS} requests are under way already: try again"));
        std::future::ready(Ok::<_, Infallible>(error.into_response()))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(2))
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), busy);
    let _ = served.await;
}

/// The connections on which no request is under way, the longest wait first.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    next: u64,
    places: BTreeMap<u64, Arc<Notify>>,
}

impl Waiting {
    fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was one.
    fn close_longest(&self) -> bool {
        let longest = self.line().places.pop_first();
        longest.inspect(|(_, closed)| closed.notify_one()).is_some()
    }
}

/// A connection's place in that line.
#[derive(Clone, Default)]
struct Place {
    waiting: Waiting,
    closed: Arc<Notify>,
    at: Arc<Mutex<u64>>,
}

impl Place {
    fn waits(&self) {
        let mut line = self.waiting.line();
        line.next += 1;
        let at = line.next;
        line.places.insert(at, Arc::clone(&self.closed));
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Whether it still waited: one that is closed does not.
    fn begins(&self) -> bool {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.line().places.remove(&at).is_some()
    }
}

/// An answer's body; once it is sent, or dropped, the connection waits for the next request.
struct Sending {
    body: Body,
    place: Place,
}

impl hyper::body::Body for Sending {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.place.waits();
    }
}
