//! Connections of clients that requests have taken over, and how one learns that its client is gone: the end of what it sends
//! is not that, and where nothing is printed no write fails.

use std::io::Cursor;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::request_line::Lenient;

/// How soon a client that has gone without a word is missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub struct Connection {
    pub io: Box<dyn Io>,
    pub watch: Watch,
}

/// On the other end of a connection.
pub struct Watch(Option<OwnedFd>);

impl Connection {
    pub fn new(upgraded: Upgraded) -> Connection {
        match upgraded.downcast::<TokioIo<Lenient>>() {
            Ok(parts) => {
                let (stream, rest) = parts.io.into_inner().into_parts();
                let watch = Watch(stream.as_fd().try_clone_to_owned().ok());
                let (from, to) = stream.into_split();
                let io = tokio::io::join(Cursor::new(parts.read_buf).chain(Cursor::new(rest)).chain(from), to);
                Connection { io: Box::new(io), watch }
            }
            // Between nodes: a stream that is given up fails when it is read.
            Err(upgraded) => Connection { io: Box::new(TokioIo::new(upgraded)), watch: Watch(None) },
        }
    }

    /// Carries both ways until both have ended, one breaks off, or the client is gone; both are closed then. `ends_input`: the
    /// end of what the client sends is passed on.
    pub async fn join(self, other: impl AsyncRead + AsyncWrite + Unpin, ends_input: bool) {
        let Connection { io, watch } = self;
        let (mut from, mut to) = tokio::io::split(io);
        let (mut back, mut there) = tokio::io::split(other);
        let asking = async {
            tokio::io::copy(&mut from, &mut there).await?;
            match ends_input && !watch.has_left() {
                true => there.shutdown().await,
                false => Ok(()),
            }
        };
        let answering = async {
            tokio::io::copy(&mut back, &mut to).await?;
            to.shutdown().await
        };
        // Whoever breaks off has said what there was to say.
        tokio::select! {
            _ = async { tokio::try_join!(asking, answering) } => {}
            () = watch.left() => {}
        }
    }
}

impl Watch {
    /// Both directions are closed. Never true where that cannot be seen.
    pub fn has_left(&self) -> bool {
        let Some(fd) = &self.0 else { return false };
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents().is_some_and(|events| events.intersects(gone))
    }

    pub async fn left(&self) {
        if self.0.is_none() {
            std::future::pending::<()>().await;
        }
        while !self.has_left() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_client_is_gone_when_it_has_closed_both_ways() {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let watch = Watch(Some(here.into()));
        assert!(!watch.has_left());
        there.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!watch.has_left(), "it may still read");
        drop(there);
        watch.left().await;
        assert!(watch.has_left() && !Watch(None).has_left());
    }

    #[tokio::test]
    async fn a_silent_connection_ends_with_its_client() {
        let (here, there) = UnixStream::pair().unwrap();
        let watch = Watch(here.as_fd().try_clone_to_owned().ok());
        let (other, mut far) = tokio::io::duplex(64);
        let joined = tokio::spawn(Connection { io: Box::new(here), watch }.join(other, false));
        drop(there);
        joined.await.unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }
}
