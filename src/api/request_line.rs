//! The first line of a request as Docker's daemon takes it: whoever writes one by hand sends quotes in a query as they are, and
//! so do some libraries. What the HTTP library would refuse there is escaped before it is read.
//!
//! Nothing else may change, or the bytes of a body would pass for requests. So the library is given a head up to its end and
//! no byte more, says then how long the body is that it expects ([`Rest`]), and is given that unchanged. Where the two do not
//! agree on where a head ends, or the body's length is not known, the connection is left as it is from there on.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::io::poll_read_buf;

/// Of one read.
const PIECE_BYTES: usize = 16 * 1024;

/// What follows a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// So many bytes, and then another head.
    Body(u64),
    /// Whatever it is, it has no end that is known now.
    Stream,
}

/// By which the reader of a head says what follows it.
#[derive(Debug, Clone, Default)]
pub struct Framing(Arc<Mutex<Option<Rest>>>);

impl Framing {
    /// To be said of each head before anything behind it is read.
    pub fn set(&self, rest: Rest) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    fn take(&self) -> Option<Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A client's connection, with the first line of each request escaped.
pub struct Lenient {
    stream: UnixStream,
    framing: Framing,
    place: Place,
    /// Taken from the connection, and not looked at yet.
    held: BytesMut,
    /// Of a head, escaped, and not read yet.
    ready: BytesMut,
}

/// Where in the conversation the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Empty lines before a head are none of it.
    Before,
    FirstLine,
    /// `is_empty`: nothing of this line has come yet.
    Headers {
        is_empty: bool,
    },
    /// Behind a head.
    Behind,
    Body(u64),
    Stream,
}

impl Lenient {
    pub fn new(stream: UnixStream, framing: Framing) -> Lenient {
        Lenient { stream, framing, place: Place::Before, held: BytesMut::new(), ready: BytesMut::new() }
    }

    /// The connection itself, and what was taken from it and not read.
    pub fn into_parts(self) -> (UnixStream, Bytes) {
        let mut rest = self.ready;
        rest.extend_from_slice(&self.held);
        (self.stream, rest.freeze())
    }

    /// The place of the next byte, with what has been said of it.
    fn settle(&mut self) {
        let has_read_all = self.ready.is_empty();
        self.place = match (self.place, self.framing.take()) {
            (Place::Behind, Some(Rest::Body(bytes))) if has_read_all => Place::Body(bytes),
            (Place::Behind, None) if !has_read_all => Place::Behind,
            // Said too early, or not when it should have been: the head ended elsewhere.
            (Place::Behind, _) | (_, Some(_)) => Place::Stream,
            (place, None) => place,
        };
        if self.place == Place::Body(0) {
            self.place = Place::Before;
        }
    }
}

/// Moves bytes of a head from `held` to `ready`, where those of its first line are escaped, up to its end.
fn escape(held: &mut BytesMut, place: &mut Place, ready: &mut BytesMut) {
    let mut taken = 0;
    for &byte in held.iter() {
        let is_of_line = matches!(place, Place::Before | Place::FirstLine);
        *place = match (*place, byte) {
            (Place::Before, b'\r' | b'\n') => Place::Before,
            (Place::FirstLine, b'\n') => Place::Headers { is_empty: true },
            (Place::Before | Place::FirstLine, _) => Place::FirstLine,
            (Place::Headers { is_empty: true }, b'\n') => Place::Behind,
            (Place::Headers { is_empty }, b'\r') => Place::Headers { is_empty },
            (Place::Headers { .. }, byte) => Place::Headers { is_empty: byte == b'\n' },
            (Place::Behind | Place::Body(_) | Place::Stream, _) => break,
        };
        taken += 1;
        match byte {
            b'"' | b'<' | b'>' | b'#' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. if is_of_line => {
                ready.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            _ => ready.extend_from_slice(&[byte]),
        }
    }
    let _ = held.split_to(taken);
}

/// As much as fits, and `most` bytes at most. How many.
fn give(from: &mut BytesMut, most: u64, buf: &mut ReadBuf<'_>) -> u64 {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let count = from.len().min(buf.remaining()).min(most);
    buf.put_slice(&from.split_to(count));
    count as u64
}

impl AsyncRead for Lenient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.settle();
        let Lenient { stream, held, ready: head, place, .. } = &mut *self;
        if !head.is_empty() {
            give(head, u64::MAX, buf);
            return Poll::Ready(Ok(()));
        }
        if held.is_empty() {
            if *place == Place::Stream {
                return Pin::new(stream).poll_read(cx, buf);
            }
            held.reserve(PIECE_BYTES);
            if ready!(poll_read_buf(Pin::new(stream), cx, held))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        match place {
            Place::Stream => {
                give(held, u64::MAX, buf);
            }
            Place::Body(left) => *left -= give(held, *left, buf),
            _ => {
                escape(held, place, head);
                give(head, u64::MAX, buf);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lenient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn the_first_line_alone_is_escaped_however_it_is_cut() {
        let sent = "\r\nGET /a?filters={\"n\":[\"é<\"]} HTTP/1.1\r\nX: {\"\u{e9}\r\nY: z\r\n\r\n{\"a\":1}";
        let wanted = "\r\nGET /a?filters=%7B%22n%22:[%22%C3%A9%3C%22]%7D HTTP/1.1\r\nX: {\"\u{e9}\r\nY: z\r\n\r\n";
        for cut in 0..sent.len() {
            let (mut place, mut held, mut ready) = (Place::Before, BytesMut::new(), BytesMut::new());
            held.extend_from_slice(&sent.as_bytes()[..cut]);
            escape(&mut held, &mut place, &mut ready);
            held.extend_from_slice(&sent.as_bytes()[cut..]);
            escape(&mut held, &mut place, &mut ready);
            assert_eq!((ready, place), (BytesMut::from(wanted), Place::Behind), "{cut}");
            assert_eq!(held, "{\"a\":1}", "{cut}");
        }
    }

    /// Reads once.
    async fn read(from: &mut Lenient) -> String {
        let mut piece = [0; 64];
        let count = from.read(&mut piece).await.unwrap();
        String::from_utf8_lossy(&piece[..count]).into_owned()
    }

    #[tokio::test]
    async fn heads_are_escaped_and_bodies_are_not_though_all_come_at_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let framing = Framing::default();
        let mut lenient = Lenient::new(near, framing.clone());
        far.write_all(b"P \"\n\n\"\"\n\"P {\n\n\"G }\n\n").await.unwrap();
        for (head, body, length) in [("P %22\n\n", "\"\"\n\"", 4), ("P %7B\n\n", "\"", 1)] {
            assert_eq!(read(&mut lenient).await, head);
            framing.set(Rest::Body(length));
            assert_eq!(read(&mut lenient).await, body);
        }
        assert_eq!(read(&mut lenient).await, "G %7D\n\n");
        framing.set(Rest::Stream);
        far.write_all(b"G \"\n\n").await.unwrap();
        assert_eq!(read(&mut lenient).await, "G \"\n\n");
    }

    #[tokio::test]
    async fn nothing_changes_where_it_is_not_agreed_what_a_head_is() {
        for is_early in [true, false] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let framing = Framing::default();
            let mut lenient = Lenient::new(near, framing.clone());
            far.write_all(if is_early { b"G \"\nX" } else { b"G \"\n\n" }).await.unwrap();
            read(&mut lenient).await;
            if is_early {
                framing.set(Rest::Body(0));
            }
            far.write_all(b"G \"\n\n").await.unwrap();
            assert_eq!(read(&mut lenient).await, "G \"\n\n");
            far.write_all(b"G \"\n\n").await.unwrap();
            assert_eq!(read(&mut lenient).await, "G \"\n\n");
        }
    }
}
