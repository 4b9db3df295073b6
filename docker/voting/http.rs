//! HTTP/1.1, as much as two small servers need: one thread a connection, keep-alive, bounded sizes and times.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

// What std has no word for. pid 1 of a container gets no signal that it does not handle.
unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(code: i32) -> !;
}

const SIGTERM: i32 = 15;
const MAX_HEADER_BYTES: u64 = 16 << 10;
const MAX_BODY_BYTES: usize = 4 << 10;
const IDLE: Duration = Duration::from_secs(60);
/// For requests under way once SIGTERM has come.
const GOODBYE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

static STOPPING: AtomicBool = AtomicBool::new(false);
/// Requests being answered.
static BUSY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_stop(_: i32) {
    STOPPING.store(true, Ordering::SeqCst);
}

extern "C" fn stop_now(_: i32) {
    // SAFETY: _exit may be called from a signal handler.
    unsafe { _exit(0) }
}

pub fn end_at_once_on_sigterm() {
    // SAFETY: the handler only calls _exit.
    unsafe { signal(SIGTERM, stop_now) };
}

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: String,
}

pub struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Answer {
    pub fn text(status: u16, body: &str) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body: body.to_owned() }
    }

    pub fn html(status: u16, body: String) -> Answer {
        Answer { status, kind: "text/html; charset=utf-8", body }
    }

    pub fn json(status: u16, body: String) -> Answer {
        Answer { status, kind: "application/json", body }
    }
}

/// Serves until SIGTERM. Returns an error where the port cannot be had.
pub fn serve(port: u16, handler: fn(&Request) -> Answer) -> io::Result<()> {
    // SAFETY: the handler only stores an atomic.
    unsafe { signal(SIGTERM, note_stop) };
    // Of both address families; without IPv6, of one.
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    println!("voting: listening on port {port}");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // A client that goes away is its own affair.
                let _ = converse(stream, handler);
            });
        }
    });
    while !STOPPING.load(Ordering::SeqCst) {
        thread::sleep(LOOK);
    }
    let mut left = GOODBYE;
    // Once more after the last one was seen to end: a request may have been read just then.
    while !left.is_zero() {
        thread::sleep(LOOK);
        if BUSY.load(Ordering::SeqCst) == 0 {
            break;
        }
        left = left.saturating_sub(LOOK);
    }
    Ok(())
}

fn converse(mut stream: TcpStream, handler: fn(&Request) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((request, keep)) = read(&mut reader)? {
        BUSY.fetch_add(1, Ordering::SeqCst);
        let answer = handler(&request);
        let keep = keep && !STOPPING.load(Ordering::SeqCst);
        let connection = if keep { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {} -\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            answer.status,
            answer.kind,
            answer.body.len()
        );
        let written = stream.write_all((head + &answer.body).as_bytes());
        BUSY.fetch_sub(1, Ordering::SeqCst);
        written?;
        if !keep {
            break;
        }
    }
    Ok(())
}

/// The next request, and whether the connection goes on after it; `None` at its end.
fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<(Request, bool)>> {
    let mut head = reader.by_ref().take(MAX_HEADER_BYTES);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or("/").to_owned());
    let (mut length, mut keep) = (0, !line.trim_end().ends_with("HTTP/1.0"));
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let header = header.trim().to_ascii_lowercase();
        match header.split_once(':') {
            _ if header.is_empty() => break,
            Some(("content-length", value)) => length = value.trim().parse().unwrap_or(usize::MAX),
            Some(("connection", value)) => keep &= value.trim() != "close",
            _ => {}
        }
    }
    if length > MAX_BODY_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some((Request { method, path, body }, keep)))
}

/// A field of a form; what would need decoding is nothing this application takes.
pub fn field<'a>(form: &'a str, name: &str) -> Option<&'a str> {
    form.trim().split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}
