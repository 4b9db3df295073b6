//! The first line of a request as Docker's daemon takes it: whoever writes one by hand sends quotes in a query as they are, and
//! so do some libraries. What the HTTP library would refuse there is escaped before it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Of one read.
const PIECE_BYTES: usize = 16 * 1024;

/// A client's connection; says which bytes begin a request. What comes while a request is under way is left as it is.
pub struct Lenient {
    stream: UnixStream,
    /// Set by who has answered a request, or has had none yet.
    begins: Arc<AtomicBool>,
    line: Line,
    /// Escaped, and not read yet.
    ready: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Empty lines before it are none of it.
    Before,
    Within,
    After,
}

impl Lenient {
    pub fn new(stream: UnixStream, begins: Arc<AtomicBool>) -> Lenient {
        Lenient { stream, begins, line: Line::After, ready: BytesMut::new() }
    }

    /// The connection itself, and what was taken from it and not read.
    pub fn into_parts(self) -> (UnixStream, Bytes) {
        (self.stream, self.ready.freeze())
    }
}

/// Appends `bytes` to `to`, where those of a first line are escaped.
fn escape(bytes: &[u8], line: &mut Line, to: &mut BytesMut) {
    for (at, &byte) in bytes.iter().enumerate() {
        match (*line, byte) {
            (Line::After, _) => return to.extend_from_slice(&bytes[at..]),
            (Line::Within, b'\n') => *line = Line::After,
            (Line::Before, b'\r' | b'\n') | (Line::Within, _) => {}
            (Line::Before, _) => *line = Line::Within,
        }
        match byte {
            b'"' | b'<' | b'>' | b'#' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                to.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            _ => to.extend_from_slice(&[byte]),
        }
    }
}

impl AsyncRead for Lenient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ready.is_empty() {
            if self.begins.swap(false, Ordering::Relaxed) {
                self.line = Line::Before;
            }
            if self.line == Line::After {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            let mut piece = [0; PIECE_BYTES];
            let mut piece = ReadBuf::new(&mut piece);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
            let Lenient { line, ready, .. } = &mut *self;
            escape(piece.filled(), line, ready);
        }
        let count = buf.remaining().min(self.ready.len());
        buf.put_slice(&self.ready[..count]);
        self.ready.advance(count);
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
        let sent = "\r\nGET /a?filters={\"n\":[\"é<\"]} HTTP/1.1\r\nX: {\"\u{e9}\r\n\r\n{\"a\":1}";
        let wanted = "\r\nGET /a?filters=%7B%22n%22:[%22%C3%A9%3C%22]%7D HTTP/1.1\r\nX: {\"\u{e9}\r\n\r\n{\"a\":1}";
        for cut in 0..sent.len() {
            let (mut line, mut read) = (Line::Before, BytesMut::new());
            escape(&sent.as_bytes()[..cut], &mut line, &mut read);
            escape(&sent.as_bytes()[cut..], &mut line, &mut read);
            assert_eq!(read, wanted.as_bytes(), "{cut}");
        }
    }

    #[tokio::test]
    async fn each_request_has_a_first_line() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let begins = Arc::new(AtomicBool::new(true));
        let mut read = Lenient::new(near, Arc::clone(&begins));
        let mut asked = async |sent: &str| {
            far.write_all(sent.as_bytes()).await.unwrap();
            let mut piece = [0; 64];
            let count = read.read(&mut piece).await.unwrap();
            String::from_utf8_lossy(&piece[..count]).into_owned()
        };
        assert_eq!(asked("GET \"\n\"").await, "GET %22\n\"");
        assert_eq!(asked("\"").await, "\"");
        begins.store(true, Ordering::Relaxed);
        assert_eq!(asked("\"\n").await, "%22\n");
    }
}
