//! From the resolver that runs to the one that takes over: the state, and the very sockets in the tasks' namespaces with
//! whatever waits in them. Both may read from them meanwhile, so no question is lost and none answered twice.
//!
//! Synchronous, on a thread of its own, each step within a bound.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::control::{self, FORMAT, Request, Response, State};
use super::listener::Sockets;

/// A resolver that takes longer to answer has failed.
const STEP_WITHIN: Duration = Duration::from_secs(5);
/// For the successor to start serving.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Descriptors in one message; the kernel's bound is 253.
const DESCRIPTORS: usize = 128;

/// What a predecessor gave.
pub struct Taken {
    pub state: State,
    pub sockets: Vec<Sockets>,
    predecessor: UnixStream,
}

impl Taken {
    /// Asks the resolver that listens at `socket`; `None`: there is none. An error names what it did; it is of no use
    /// then, and what it serves has to be served anew.
    pub fn from(socket: &Path) -> io::Result<Option<Taken>> {
        let mut stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(STEP_WITHIN))?;
        stream.set_write_timeout(Some(STEP_WITHIN))?;
        stream.write_all(&control::encode(&Request::Hello { format: FORMAT })?)?;
        match read(&mut stream)? {
            Response::Hello { format: FORMAT, .. } => {}
            other => return Err(unexpected(&other)),
        }
        stream.write_all(&control::encode(&Request::TakeOver)?)?;
        let state = match read(&mut stream)? {
            Response::State(state) => state,
            other => return Err(unexpected(&other)),
        };
        let mut sockets = Vec::new();
        while sockets.len() < state.tasks.len() {
            sockets.extend(receive_sockets(&stream)?);
        }
        Ok(Some(Taken { state, sockets, predecessor: stream }))
    }

    /// Everything is served here now: the predecessor may go.
    pub fn confirm(mut self) -> io::Result<()> {
        self.predecessor.write_all(&[1])
    }
}

/// Gives all to the successor at the other end of `stream`; returns once it serves.
pub fn give(mut stream: UnixStream, state: State, descriptors: &[RawFd]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(STEP_WITHIN))?;
    stream.set_read_timeout(Some(TAKEN_WITHIN))?;
    stream.write_all(&control::encode(&Response::State(state))?)?;
    for part in descriptors.chunks(DESCRIPTORS) {
        let rights = [ControlMessage::ScmRights(part)];
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::empty(), None)?;
    }
    stream.read_exact(&mut [0])
}

fn read(stream: &mut UnixStream) -> io::Result<Response> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut text = Vec::new();
    stream.take(control::length(header)? as u64).read_to_end(&mut text)?;
    control::decode(&text)
}

fn receive_sockets(stream: &UnixStream) -> io::Result<Vec<Sockets>> {
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS]);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let received = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else owns them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if descriptors.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    let mut descriptors = descriptors.into_iter();
    while let (Some(udp), Some(tcp)) = (descriptors.next(), descriptors.next()) {
        sockets.push(Sockets { udp: udp.into(), tcp: tcp.into() });
    }
    Ok(sockets)
}

fn unexpected(response: &Response) -> io::Error {
    let what = match response {
        Response::Hello { format, version } => format!("it is of version {version}, format {format}"),
        _ => "it answers something else".to_owned(),
    };
    io::Error::new(io::ErrorKind::InvalidData, what)
}
