//! A daemon's API on a socket of its own, and the plainest of clients.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flok::api::Journal;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::backend::Bench;

/// For what answers at once, where it answers at all.
const WITHIN: Duration = Duration::from_secs(20);

pub struct Server {
    pub backend: Arc<Bench>,
    socket: PathBuf,
    ending: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("flok.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (ending, ended) = oneshot::channel();
        let backend = Arc::new(Bench::new());
        let listener = runtime.block_on(async { UnixListener::bind(&socket) }).unwrap();
        let served = flok::api::serve(vec![listener], Arc::clone(&backend), Journal::default(), async move {
            let _ = ended.await;
        });
        runtime.spawn(served);
        Server { backend, socket, ending: Some(ending), runtime: Some(runtime), _folder: folder }
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        stream.set_write_timeout(Some(WITHIN)).unwrap();
        stream
    }

    /// A request on a connection of its own. The error is a connection that ended without an answer, as it does where the
    /// one who answers panics.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.ask_with(method, path, "", body)
    }

    /// The same with `headers`, each with its line's end.
    pub fn ask_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: flok\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        let mut stream = self.connect();
        // What is refused before it is read whole is taken no further.
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ if method.eq_ignore_ascii_case("HEAD") => Answer::read_head(&mut stream).map(|(answer, _, _)| answer),
            _ => Answer::read(&mut stream),
        }
    }

    /// Stops serving, once what is under way is answered.
    pub fn stop(&mut self) {
        let _ = self.ending.take().map(|ending| ending.send(()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As far as its length is told beforehand.
    pub body: String,
}

impl Answer {
    pub fn read(stream: &mut impl Read) -> io::Result<Answer> {
        let (answer, mut body, length) = Answer::read_head(stream)?;
        let mut piece = [0; 16 * 1024];
        while body.len() < length {
            match stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => body.extend_from_slice(&piece[..count]),
            }
        }
        body.truncate(length);
        Ok(Answer { body: String::from_utf8_lossy(&body).into_owned(), ..answer })
    }

    /// With it what came along of the body, and how long that is.
    fn read_head(stream: &mut impl Read) -> io::Result<(Answer, Vec<u8>, usize)> {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes.extend_from_slice(&piece[..count]),
            }
        };
        let body = bytes.split_off(end);
        let head = String::from_utf8_lossy(&bytes).into_owned();
        let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(head.clone()))?;
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        let length = headers.find(|(key, _)| key.eq_ignore_ascii_case("Content-Length"));
        let length = length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
        Ok((Answer { status, body: String::new() }, body, length))
    }
}
