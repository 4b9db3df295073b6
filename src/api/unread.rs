//! Bodies of requests that are answered before they were read.
//!
//! A client that still writes when the connection closes reports that its pipe broke, and never reads the answer. So what a
//! handler leaves of a body is read and thrown away, within bounds, while the answer is on its way.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Of one body, after its handler has let go of it: a build's context, and more.
const MAX_BYTES: usize = 2 << 30;
const WITHIN: Duration = Duration::from_secs(30);

/// A body whose rest is read when it is dropped.
pub struct ReadToItsEnd(Body);

impl ReadToItsEnd {
    pub fn new(body: Body) -> ReadToItsEnd {
        ReadToItsEnd(body)
    }
}

impl HttpBody for ReadToItsEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for ReadToItsEnd {
    fn drop(&mut self) {
        if self.0.is_end_stream() {
            return;
        }
        let body = std::mem::take(&mut self.0);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(WITHIN, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Body) {
    let mut left = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else { return };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{StreamExt, stream};

    use super::*;

    fn body(pieces: usize, read: &Arc<AtomicUsize>) -> Body {
        let read = Arc::clone(read);
        Body::from_stream(stream::iter(0..pieces).map(move |_| {
            read.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(b"piece"))
        }))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_handler_leaves_is_read() {
        let read = Arc::new(AtomicUsize::new(0));
        let mut left = ReadToItsEnd::new(body(100, &read));
        left.frame().await.unwrap().unwrap();
        assert_eq!(read.load(Ordering::Relaxed), 1);
        drop(left);
        while read.load(Ordering::Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
    }
}
