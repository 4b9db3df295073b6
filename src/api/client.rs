//! The CLI's way to a daemon: Docker's Engine API through bollard, and `/flok/v1` beside it, over one unix socket.
//! Every call ends within a bound; an error says what the user can do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::{BollardRequest, ClientVersion, Docker};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::docker::STALE_HEADER;

/// Where a daemon listens unless told otherwise.
pub const DEFAULT_HOST: &str = "unix:///run/flok/flok.sock";

/// A daemon's own bounds are shorter; this one is for a daemon that hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const DOWNLOAD_WITHIN: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is not a host flok can reach: write unix:///path/to/flok.sock")]
    Host(String),
    #[error(
        "cannot reach flok at {host}: is the daemon running? Start it with `flok daemon`, or name its socket with --host"
    )]
    Unreachable { host: String, source: std::io::Error },
    #[error("no permission to reach flok at {0}: run as root, or let your group use the socket")]
    Forbidden(String),
    #[error("flok at {host} did not answer within {within:?}: the daemon may be overloaded or hang; see its log")]
    TimedOut { host: String, within: Duration },
    /// The daemon's own words.
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("flok at {host} broke off the answer: {why}")]
    Broken { host: String, why: String },
}

impl ClientError {
    /// Somebody else changed the object after it was looked at.
    pub fn is_out_of_sequence(&self) -> bool {
        matches!(self, ClientError::Refused { message, .. } if message.contains("out of sequence"))
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { status: 404, .. })
    }
}

/// A daemon to talk to. Opens a connection for each request, so it can be kept through a daemon's restart.
#[derive(Clone)]
pub struct Client {
    socket: Socket,
    docker: Docker,
}

impl Client {
    /// `host` is `unix://` and a path, or a path.
    pub fn new(host: &str) -> Result<Client, ClientError> {
        let path = host.strip_prefix("unix://").unwrap_or(host);
        if !path.starts_with('/') {
            return Err(ClientError::Host(host.to_string()));
        }
        let socket = Socket { path: PathBuf::from(path), stale: Arc::default() };
        let carrier = socket.clone();
        let transport = move |request: BollardRequest| {
            let carrier = carrier.clone();
            async move { carrier.send(request).await.map_err(|err| bollard::errors::Error::IOError { err }) }
        };
        let version = ClientVersion { major_version: 1, minor_version: 50 };
        let within = ANSWER_WITHIN.as_secs();
        let docker = Docker::connect_with_custom_transport(transport, Some("http://flok"), within, &version)
            .map_err(|error| ClientError::Broken { host: host.to_string(), why: error.to_string() })?;
        Ok(Client { socket, docker })
    }

    /// Docker's API. Its errors go through [`Self::explain`].
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The same daemon with another bound on answers: joins and uploads take long.
    pub fn patient(&self, within: Duration) -> Docker {
        self.docker.clone().with_timeout(within)
    }

    /// `Some` where an answer since the last call was not confirmed by a quorum: how old it is, who is missing.
    pub fn take_stale(&self) -> Option<String> {
        self.socket.stale.lock().expect("no holder of this lock panics").take()
    }

    /// bollard's error in the user's words.
    pub fn explain(&self, error: bollard::errors::Error) -> ClientError {
        use bollard::errors::Error;
        let host = self.host();
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                ClientError::Refused { status: status_code, message }
            }
            Error::DockerStreamError { error } => ClientError::Refused { status: 500, message: error },
            Error::IOError { err } => self.explain_io(err),
            Error::RequestTimeoutError => ClientError::TimedOut { host, within: self.docker.timeout() },
            other => ClientError::Broken { host, why: other.to_string() },
        }
    }

    fn explain_io(&self, source: std::io::Error) -> ClientError {
        let host = self.host();
        match source.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::Forbidden(host),
            std::io::ErrorKind::TimedOut => ClientError::TimedOut { host, within: CONNECT_WITHIN },
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                ClientError::Unreachable { host, source }
            }
            _ => ClientError::Broken { host, why: source.to_string() },
        }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.path.display())
    }

    /// `GET` of a path below `/flok/v1`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.flok(Method::GET, path, Bytes::new()).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("plain types with text keys are JSON");
        self.flok(Method::POST, path, body.into()).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.flok(Method::DELETE, path, Bytes::new()).await
    }

    /// The bytes at a path below `/flok/v1`, which may take long to gather.
    pub async fn download(&self, path: &str) -> Result<Bytes, ClientError> {
        self.bytes(Method::GET, &flok_path(path), Bytes::new(), DOWNLOAD_WITHIN).await
    }

    /// `POST` of a path below `/flok/v1` that takes the connection over.
    pub async fn upgrade(&self, path: &str) -> Result<TokioIo<Upgraded>, ClientError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(flok_path(path))
            .header("Connection", "Upgrade")
            .header("Upgrade", "tcp")
            .body(Full::new(Bytes::new()))
            .expect("the path is of URL characters");
        let broken = |why: String| ClientError::Broken { host: self.host(), why };
        let opening = async {
            let response = self.socket.send(request).await.map_err(|error| self.explain_io(error))?;
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS {
                return hyper::upgrade::on(response).await.map_err(|error| broken(error.to_string()));
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
            Err(ClientError::Refused { status: status.as_u16(), message: error_message(&body) })
        };
        let timed_out = |_| ClientError::TimedOut { host: self.host(), within: ANSWER_WITHIN };
        Ok(TokioIo::new(tokio::time::timeout(ANSWER_WITHIN, opening).await.map_err(timed_out)??))
    }

    /// `GET` of a path of Docker's API that its client has no call for.
    pub async fn get_docker<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, Bytes::new()).await
    }

    /// `POST` of a path of Docker's API that its client has no call for and that answers nothing.
    pub async fn post_docker(&self, path: &str, body: &impl Serialize, within: Duration) -> Result<(), ClientError> {
        let body = serde_json::to_vec(body).expect("plain types with text keys are JSON");
        self.bytes(Method::POST, path, body.into(), within).await.map(drop)
    }

    /// The same, where it answers JSON.
    pub async fn ask_docker<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("plain types with text keys are JSON");
        let answer = self.bytes(Method::POST, path, body.into(), within).await?;
        let broken = |error: serde_json::Error| ClientError::Broken { host: self.host(), why: error.to_string() };
        serde_json::from_slice(&answer).map_err(broken)
    }

    async fn flok<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        self.json(method, &flok_path(path), body).await
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let body = self.bytes(method, path, body, ANSWER_WITHIN).await?;
        let broken = |error: serde_json::Error| ClientError::Broken { host: self.host(), why: error.to_string() };
        serde_json::from_slice(&body).map_err(broken)
    }

    async fn bytes(&self, method: Method, path: &str, body: Bytes, within: Duration) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", "application/json")
            .body(Full::new(body))
            .expect("the path is of URL characters");
        let broken = |why: String| ClientError::Broken { host: self.host(), why };
        let exchange = async {
            let response = self.socket.send(request).await.map_err(|error| self.explain_io(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| broken(error.to_string()))?.to_bytes()))
        };
        let timed_out = |_| ClientError::TimedOut { host: self.host(), within };
        let (status, body) = tokio::time::timeout(within, exchange).await.map_err(timed_out)??;
        if !status.is_success() {
            return Err(ClientError::Refused { status: status.as_u16(), message: error_message(&body) });
        }
        Ok(body)
    }
}

fn flok_path(path: &str) -> String {
    format!("/flok/v1{path}")
}

/// Text as a value in a query, or as one part of a path.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            other => write!(escaped, "%{other:02X}").expect("a String takes all"),
        }
    }
    escaped
}

/// Docker's `{"message": ...}`, or whatever the body says.
fn error_message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    match serde_json::from_slice::<Message>(body) {
        Ok(Message { message }) => message,
        Err(_) => String::from_utf8_lossy(body).trim().to_string(),
    }
}

#[derive(Clone)]
struct Socket {
    path: PathBuf,
    /// The last [`STALE_HEADER`] seen. Held only for an assignment, never across an await.
    stale: Arc<Mutex<Option<String>>>,
}

impl Socket {
    async fn send<B>(&self, mut request: Request<B>) -> std::io::Result<Response<Incoming>>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Over one socket there is no authority: the path alone is sent.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse();
        *request.uri_mut() = path.expect("a path of a URI is a URI");
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("flok"));
        let stream = connect(&self.path).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        // Ends with the connection, which ends when the answer has been read or dropped.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        if let Some(stale) = response.headers().get(STALE_HEADER).and_then(|value| value.to_str().ok()) {
            *self.stale.lock().expect("no holder of this lock panics") = Some(stale.to_string());
        }
        Ok(response)
    }
}

async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    match tokio::time::timeout(CONNECT_WITHIN, UnixStream::connect(path)).await {
        Ok(stream) => stream,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_path() {
        assert_eq!(escaped("web.1"), "web.1");
        assert_eq!(escaped("a/b c?ä"), "a%2Fb%20c%3F%C3%A4");
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let host = format!("unix://{}/none.sock", folder.path().display());
        let client = Client::new(&host).unwrap();
        let ours = client.get::<()>("/status").await.unwrap_err();
        let dockers = client.explain(client.docker().version().await.unwrap_err());
        for error in [ours, dockers] {
            let text = error.to_string();
            assert!(text.starts_with(&format!("cannot reach flok at {host}: is the daemon running?")), "{text}");
        }
    }

    #[test]
    fn any_name_fits_into_a_query() {
        assert_eq!(escaped("web.1"), "web.1");
        assert_eq!(escaped("a b&c=\u{e4}"), "a%20b%26c%3D%C3%A4");
    }

    #[test]
    fn hosts_other_than_sockets_are_refused() {
        for host in ["tcp://1.2.3.4:2375", "flok.sock", ""] {
            assert!(matches!(Client::new(host), Err(ClientError::Host(_))), "{host}");
        }
        assert_eq!(Client::new("/run/x.sock").unwrap().host(), "unix:///run/x.sock");
    }

    /// Answers every request on a socket with `answer`.
    async fn serve(answer: &'static str) -> (tempfile::TempDir, Client) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (folder, Client::new(path.to_str().unwrap()).unwrap())
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_daemons_words() {
        let answer =
            "HTTP/1.1 503 x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"message\":\"no two\"}";
        let (_folder, client) = serve(answer).await;
        assert_eq!(client.get::<()>("/status").await.unwrap_err().to_string(), "no two");
        assert_eq!(client.explain(client.docker().info().await.unwrap_err()).to_string(), "no two");
    }

    #[tokio::test]
    async fn stale_answers_are_noticed_through_both_interfaces() {
        let answer = "HTTP/1.1 200 OK\r\nFlok-Stale: 5ms; missing=b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]";
        let (_folder, client) = serve(answer).await;
        client.get::<Vec<u8>>("/status").await.unwrap();
        assert_eq!(client.take_stale().as_deref(), Some("5ms; missing=b"));
        assert_eq!(client.take_stale(), None);
        assert!(
            client.docker().list_nodes(None::<bollard::query_parameters::ListNodesOptions>).await.unwrap().is_empty()
        );
        assert!(client.take_stale().is_some());
    }
}
