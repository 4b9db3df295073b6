//! A stream of plain bytes between two members: what carries HTTP from one node's API to another's.
//!
//! The connection's own window holds up a writer whose reader is slow; one that takes nothing at all for
//! [`STALL_LIMIT`] is given up, as is a stream whose connection is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::counters::Counters;
use super::protocol::Protocol;

/// A reader that takes no byte for so long is gone. People read logs with a pager: it is minutes.
const STALL_LIMIT: Duration = Duration::from_secs(600);

pub struct ByteStream {
    io: Compat<libp2p::Stream>,
    protocol: Protocol,
    counters: Arc<Counters>,
    /// Ends when the connection is given up, which a dead one does not tell by itself.
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Runs while a write waits.
    stall: Option<Pin<Box<Sleep>>>,
}

impl ByteStream {
    pub(super) fn new(
        stream: libp2p::Stream,
        protocol: Protocol,
        counters: Arc<Counters>,
        lost: CancellationToken,
    ) -> ByteStream {
        ByteStream { io: stream.compat(), protocol, counters, lost: Box::pin(lost.cancelled_owned()), stall: None }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.lost.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the connection was given up")),
            Poll::Pending => Ok(()),
        }
    }

    /// What a write came to: one that waits too long is an error.
    fn bounded<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        match self.stall.get_or_insert_with(|| Box::pin(sleep(STALL_LIMIT))).as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side takes nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.counters.received(self.protocol, count);
        }
        read
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.counters.sent(self.protocol, count);
        }
        self.bounded(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let closed = Pin::new(&mut self.io).poll_shutdown(context);
        self.bounded(context, closed)
    }
}
