//! What a container prints, as it prints it: the log writer tells whoever is connected to a socket beside the log, and the
//! daemon listens there for those who attach. Prompts without a line end arrive, which the log itself holds back.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// Beside the log.
const SOCKET: &str = "live";
/// Of what a listener has not taken yet; one that is slower than that is left behind.
const MOST_BYTES: usize = 4 << 20;
const MAX_LISTENERS: usize = 64;
/// For the last words to be taken.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// One byte for the stream, four for the length of what follows, big-endian.
const HEAD_BYTES: usize = 5;
/// More in one piece is no message of a log writer.
const MAX_PIECE_BYTES: u32 = 1 << 20;
/// Pieces that wait for a reader.
const QUEUE: usize = 64;

/// A path to the socket that is short, however long that of the directory is: a socket's may have 108 bytes.
fn short(dir: &fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// The writer's end.
pub struct Live {
    listener: UnixListener,
    listeners: Vec<Listener>,
}

struct Listener {
    stream: UnixStream,
    waiting: VecDeque<u8>,
}

impl Live {
    pub fn open(dir: &Path) -> io::Result<Live> {
        let _ = fs::remove_file(dir.join(SOCKET));
        let listener = UnixListener::bind(short(&fs::File::open(dir)?))?;
        listener.set_nonblocking(true)?;
        Ok(Live { listener, listeners: Vec::new() })
    }

    /// What is to be watched: where somebody may come, and who may have left or has something to take.
    pub fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let each = self.listeners.iter().map(|listener| (listener.stream.as_fd(), !listener.waiting.is_empty()));
        std::iter::once((self.listener.as_fd(), false)).chain(each)
    }

    /// Lets in who waits, drops who has left, and goes on telling.
    pub fn attend(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.listeners.len() < MAX_LISTENERS && stream.set_nonblocking(true).is_ok() {
                self.listeners.push(Listener { stream, waiting: VecDeque::new() });
            }
        }
        self.listeners.retain_mut(|listener| listener.is_there() && listener.flush());
    }

    pub fn tell(&mut self, stderr: bool, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a piece is what one read gives");
        self.listeners.retain_mut(|listener| {
            listener.waiting.push_back(u8::from(stderr));
            listener.waiting.extend(length.to_be_bytes());
            listener.waiting.extend(bytes);
            listener.flush() && listener.waiting.len() <= MOST_BYTES
        });
    }

    pub fn close(self) {
        for mut listener in self.listeners {
            let bounded = listener.stream.set_nonblocking(false);
            let bounded = bounded.and_then(|()| listener.stream.set_write_timeout(Some(LEAVE_WITHIN)));
            if bounded.is_ok() {
                // Whoever does not take it has heard enough.
                let _ = listener.stream.write_all(listener.waiting.make_contiguous());
            }
        }
    }
}

impl Listener {
    /// Nobody sends anything here: there is something to read when the other end is closed.
    fn is_there(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.stream.write(self.waiting.as_slices().0) {
                Ok(0) => return false,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// What the container with its log in `dir` prints from now on: whether to stderr, and the bytes. Ends with it.
pub async fn listen(dir: &Path) -> io::Result<mpsc::Receiver<(bool, Bytes)>> {
    let at = fs::File::open(dir)?;
    let mut stream = tokio::net::UnixStream::connect(short(&at)).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut head = [0; HEAD_BYTES];
        loop {
            let read = tokio::select! {
                read = stream.read_exact(&mut head) => read,
                () = sender.closed() => return,
            };
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            if read.is_err() || length > MAX_PIECE_BYTES {
                return;
            }
            let mut bytes = vec![0; length as usize];
            if stream.read_exact(&mut bytes).await.is_err() || sender.send((head[0] == 1, bytes.into())).await.is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_listen_hear_it_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let mut live = Live::open(&deep).unwrap();
        let mut first = listen(&deep).await.unwrap();
        let second = listen(&deep).await.unwrap();
        live.attend();
        assert_eq!(live.watched().count(), 3);
        live.tell(true, b"prompt> ");
        assert_eq!(first.recv().await, Some((true, Bytes::from("prompt> "))));
        drop(second);
        while live.watched().count() > 2 {
            tokio::task::yield_now().await;
            live.attend();
        }
        live.tell(false, b"bye");
        live.close();
        assert_eq!(first.recv().await, Some((false, Bytes::from("bye"))));
        assert_eq!(first.recv().await, None);
    }

    #[test]
    fn one_that_takes_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut live = Live::open(dir.path()).unwrap();
        let _deaf = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        live.attend();
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..=2 * MOST_BYTES / piece.len() {
            live.tell(false, &piece);
        }
        assert_eq!(live.watched().count(), 1);
    }
}
