//! A netlink socket, spoken to in turns: requests, dumps and nf_tables transactions. Blocking, with a bound on each wait.
//!
//! The kernel's word on a task's start is worth waiting for; a process of `nft` for each change is not (measured: 5 ms of
//! CPU with 1,000 services in the table, against a tenth of that).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Of the receive buffer, and of one batch.
const BUFFER: usize = 8 << 20;
const ANSWER_WITHIN_S: i64 = 10;
/// Then whoever listens looks whether it still should.
const LISTEN_S: i64 = 2;
/// Requests sent before their answers are read; an answer is far smaller than a request may be.
const IN_FLIGHT: usize = 128;
/// A dump that the kernel says was disturbed is begun again so often.
const DUMP_TRIES: usize = 8;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const HEADER: usize = 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

pub struct Netlink {
    socket: OwnedFd,
    port: u32,
    sequence: u32,
}

/// One request: `body` begins with the family's own header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub kind: u16,
    pub flags: u16,
    pub body: Vec<u8>,
}

/// What the kernel sent, without netlink's header.
pub struct Reply {
    pub kind: u16,
    /// Who caused it: a socket's port, 0 for the kernel itself.
    pub port: u32,
    pub body: Vec<u8>,
}

impl Netlink {
    pub fn open(protocol: SockProtocol) -> io::Result<Netlink> {
        Netlink::listening(protocol, 0)
    }

    /// With notifications of `groups`, a bit for each group, the lowest for group 1.
    pub fn listening(protocol: SockProtocol, groups: u32) -> io::Result<Netlink> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
        let patience = if groups == 0 { ANSWER_WITHIN_S } else { LISTEN_S };
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(patience, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let port = getsockname::<NetlinkAddr>(socket.as_raw_fd())?.pid();
        Ok(Netlink { socket, port, sequence: 0 })
    }

    pub fn port(&self) -> u32 {
        self.port
    }

    /// All that the kernel lists in answer. What it lists while it is changing is listed again.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Reply>> {
        self.ask(&Request { kind, flags: NLM_F_DUMP, body: body.to_vec() })
    }

    /// The one thing that is asked for.
    pub fn get(&mut self, kind: u16, body: &[u8]) -> io::Result<Reply> {
        let replies = self.ask(&Request { kind, flags: NLM_F_ACK, body: body.to_vec() })?;
        replies.into_iter().next().ok_or_else(|| io::Error::other("the kernel's answer is empty"))
    }

    /// Up to the answer's end.
    fn ask(&mut self, request: &Request) -> io::Result<Vec<Reply>> {
        for _ in 0..DUMP_TRIES {
            let sequence = self.send_all(std::slice::from_ref(request))?;
            let (mut replies, mut disturbed) = (Vec::new(), false);
            'answer: loop {
                for message in self.receive()? {
                    if message.sequence != sequence {
                        continue;
                    }
                    disturbed |= message.flags & NLM_F_DUMP_INTR != 0;
                    match message.reply.kind {
                        NLMSG_DONE => break 'answer,
                        NLMSG_ERROR => {
                            error_of(&message.reply.body)?;
                            break 'answer;
                        }
                        _ => replies.push(message.reply),
                    }
                }
            }
            if !disturbed {
                return Ok(replies);
            }
        }
        Err(io::Error::other("the kernel's tables change faster than they can be read"))
    }

    /// Carries out each; where some fail the others are carried out all the same. Answers with the errors, by place.
    pub fn each(&mut self, requests: &[Request]) -> io::Result<Vec<(usize, io::Error)>> {
        let mut failed = Vec::new();
        for (at, some) in requests.chunks(IN_FLIGHT).enumerate() {
            let acked: Vec<Request> =
                some.iter().map(|request| Request { flags: request.flags | NLM_F_ACK, ..request.clone() }).collect();
            let last = self.send_all(&acked)?;
            let first = last.wrapping_sub(acked.len() as u32 - 1);
            let mut open = acked.len();
            while open > 0 {
                for message in self.receive()? {
                    let place = message.sequence.wrapping_sub(first) as usize;
                    if message.reply.kind != NLMSG_ERROR || place >= acked.len() {
                        continue;
                    }
                    open -= 1;
                    if let Err(error) = error_of(&message.reply.body) {
                        failed.push((at * IN_FLIGHT + place, error));
                    }
                }
            }
        }
        Ok(failed)
    }

    /// All or none of them, as one transaction of netfilter's `subsystem`.
    pub fn transaction(&mut self, subsystem: u8, requests: &[Request]) -> Result<(), (Option<usize>, io::Error)> {
        if requests.is_empty() {
            return Ok(());
        }
        let marker = |kind| Request { kind, flags: NLM_F_REQUEST, body: vec![0, 0, 0, subsystem] };
        let mut batch = Vec::with_capacity(requests.len() + 2);
        batch.push(marker(BATCH_BEGIN));
        batch.extend_from_slice(requests);
        // Errors are told unasked, all of them before this.
        batch[requests.len()].flags |= NLM_F_ACK;
        batch.push(marker(BATCH_END));
        let whole = |error| (None, error);
        let end = self.send_all(&batch).map_err(whole)?;
        let (acked, first) = (end.wrapping_sub(1), end.wrapping_sub(batch.len() as u32 - 2));
        let mut refused = None;
        loop {
            for message in self.receive().map_err(whole)? {
                let place = message.sequence.wrapping_sub(first) as usize;
                if message.reply.kind != NLMSG_ERROR || (place >= requests.len() && message.sequence != end) {
                    // An error of the batch as a whole carries the number of its beginning.
                    if message.reply.kind == NLMSG_ERROR && message.sequence == first.wrapping_sub(1) {
                        error_of(&message.reply.body).map_err(whole)?;
                    }
                    continue;
                }
                if let Err(error) = error_of(&message.reply.body) {
                    refused.get_or_insert((Some(place), error));
                }
                if message.sequence == acked {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Waits for notifications for a while.
    pub fn listen(&mut self) -> io::Result<Vec<Reply>> {
        Ok(self.receive()?.into_iter().map(|message| message.reply).collect())
    }

    /// The number of the last one.
    fn send_all(&mut self, requests: &[Request]) -> io::Result<u32> {
        let mut bytes = Vec::with_capacity(requests.iter().map(|request| request.body.len() + HEADER + 4).sum());
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend_from_slice(&((request.body.len() + HEADER) as u32).to_ne_bytes());
            bytes.extend_from_slice(&request.kind.to_ne_bytes());
            bytes.extend_from_slice(&(request.flags | NLM_F_REQUEST).to_ne_bytes());
            bytes.extend_from_slice(&self.sequence.to_ne_bytes());
            bytes.extend_from_slice(&self.port.to_ne_bytes());
            bytes.extend_from_slice(&request.body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    fn receive(&mut self) -> io::Result<Vec<Message>> {
        let mut buffer = vec![0; 64 << 10];
        let length = receive(&self.socket, &mut buffer)?;
        Ok(messages(&buffer[..length]))
    }
}

/// One datagram. A signal, or a process that is stopped and goes on, ends no wait.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        return match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(length),
            Err(nix::Error::EINTR) => continue,
            Err(nix::Error::EAGAIN) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer in time"))
            }
            Err(error) => Err(error.into()),
        };
    }
}

struct Message {
    flags: u16,
    sequence: u32,
    reply: Reply,
}

fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some(header) = bytes.get(..HEADER) {
        let length = word(header, 0) as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push(Message {
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: word(header, 8),
            reply: Reply {
                kind: u16::from_ne_bytes([header[4], header[5]]),
                port: word(header, 12),
                body: body.to_vec(),
            },
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Of an NLMSG_ERROR; 0 is an acknowledgement.
fn error_of(body: &[u8]) -> io::Result<()> {
    match body.get(..4).map_or(-libc::EPROTO, |code| word(code, 0).cast_signed()) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// The native 32-bit word at `at`, 0 past the end.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A message's body under construction: a fixed header, then attributes.
pub struct Body(Vec<u8>);

const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

impl Body {
    pub fn new(header: &[u8]) -> Body {
        Body(header.to_vec())
    }

    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Body {
        self.0.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A text with its final zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Body {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Netfilter's numbers are in network order.
    pub fn big(&mut self, kind: u16, value: u32) -> &mut Body {
        self.put(kind, &value.to_be_bytes())
    }

    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Body) -> &mut Body) -> &mut Body {
        let start = self.0.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    pub fn done(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// The attributes in `bytes`: kind and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of one of them.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text's bytes up to its zero.
pub fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::socket::socketpair;

    use super::*;

    #[test]
    fn a_signal_ends_no_wait_for_the_kernel() {
        static SEEN: AtomicBool = AtomicBool::new(false);
        extern "C" fn see(_: libc::c_int) {
            SEEN.store(true, Ordering::SeqCst);
        }
        let action = SigAction::new(SigHandler::Handler(see), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing but store a flag.
        unsafe { sigaction(Signal::SIGUSR2, &action) }.unwrap();
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
        setsockopt(&theirs, sockopt::ReceiveTimeout, &TimeVal::new(600, 0)).unwrap();
        let (tell, told) = mpsc::channel();
        let waiting = thread::spawn(move || {
            tell.send(nix::unistd::gettid()).unwrap();
            receive(&theirs, &mut [0; 8])
        });
        let thread = told.recv().unwrap();
        let call = format!("{} ", libc::SYS_recvfrom);
        while !std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap().starts_with(&call) {
            thread::yield_now();
        }
        // SAFETY: the thread is of this process and waits.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.as_raw(), libc::SIGUSR2) };
        assert_eq!(sent, 0);
        while !SEEN.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        send(ours.as_raw_fd(), b"there", MsgFlags::empty()).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), 5);
    }

    #[test]
    fn attributes_read_back_as_they_were_written() {
        let body =
            Body::new(&[]).put(1, &[1, 2, 3]).nest(2, |inner| inner.text(7, "flok").big(8, 5)).put(3, &[]).done();
        assert_eq!(body.len() % 4, 0);
        assert_eq!(attributes(&body).map(|(kind, _)| kind).collect::<Vec<_>>(), [1, 2, 3]);
        let inner = attribute(&body, 2).unwrap();
        assert_eq!(text(attribute(inner, 7).unwrap()), "flok");
        assert_eq!(attribute(inner, 8).unwrap(), [0, 0, 0, 5]);
    }

    #[test]
    fn bytes_that_are_cut_short_end_the_reading() {
        assert_eq!(attributes(&[9, 0, 1]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert!(messages(&[200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_empty());
    }
}
