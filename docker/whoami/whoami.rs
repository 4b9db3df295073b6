//! Answers HTTP requests and datagrams with who it is: hostname, task and node (from its environment), and the client's
//! address.
//! Built with `rustc` alone, linked statically, so that its image is this one file.
//!
//! Listens on `$PORT` of TCP and UDP, 80 by default, by IPv4 and IPv6. `GET /health` answers 200, `GET /slow` after a second; SIGTERM ends it at once.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

// What std has no word for. pid 1 of a container gets no signal that it does not handle.
unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(code: i32) -> !;
}

const SIGTERM: i32 = 15;

extern "C" fn stop(_: i32) {
    // SAFETY: _exit may be called from a signal handler.
    unsafe { _exit(0) }
}

fn main() {
    // SAFETY: the handler only calls _exit.
    unsafe { signal(SIGTERM, stop) };
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(80u16);
    let (listener, socket) = match listen(port) {
        Ok(both) => both,
        Err(error) => {
            eprintln!("whoami: cannot listen on port {port}: {error}");
            std::process::exit(1);
        }
    };
    thread::spawn(move || answer(&socket));
    println!("whoami: listening on port {port}");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("whoami: {error}");
            }
        });
    }
}

fn listen(port: u16) -> std::io::Result<(TcpListener, UdpSocket)> {
    // Where there is no IPv6, by IPv4 alone.
    let at = |address: &str| Ok((TcpListener::bind((address, port))?, UdpSocket::bind((address, port))?));
    at("::").or_else(|_: std::io::Error| at("0.0.0.0"))
}

fn answer(socket: &UdpSocket) {
    let mut question = [0; 2048];
    loop {
        let answered =
            socket.recv_from(&mut question).and_then(|(_, client)| socket.send_to(who(client).as_bytes(), client));
        if let Err(error) = answered {
            eprintln!("whoami: {error}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let client = stream.peer_addr()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = false;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            close |= header.to_ascii_lowercase().starts_with("connection: close");
            if header.trim().is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        if path == "/slow" {
            thread::sleep(Duration::from_secs(1));
        }
        let body = if path == "/health" { "ok\n".to_owned() } else { who(client) };
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")?;
        if close || request.trim_end().ends_with("HTTP/1.0") {
            return Ok(());
        }
    }
}

fn who(client: SocketAddr) -> String {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut text = format!("Hostname: {}\nRemoteAddr: {client}\n", hostname.trim());
    for (name, value) in env::vars() {
        if name != "PATH" && name != "HOME" {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    text
}
