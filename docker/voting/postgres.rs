//! The postgres protocol (version 3), as much as simple queries of a server that trusts its network need.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const PROTOCOL: u32 = 3 << 16;
const MAX_MESSAGE_BYTES: usize = 1 << 20;

pub struct Postgres {
    stream: TcpStream,
}

/// A row's columns as text; null is empty.
pub type Row = Vec<String>;

impl Postgres {
    pub fn connect(address: &str, user: &str) -> io::Result<Postgres> {
        let stream =
            TcpStream::connect(address).map_err(|error| io::Error::other(format!("postgres at {address}: {error}")))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut postgres = Postgres { stream };
        let mut hello = PROTOCOL.to_be_bytes().to_vec();
        hello.extend(format!("user\0{user}\0\0").bytes());
        let length = u32::try_from(hello.len() + 4).map_err(io::Error::other)?;
        postgres.stream.write_all(&[&length.to_be_bytes()[..], &hello].concat())?;
        postgres.until_ready()?;
        Ok(postgres)
    }

    pub fn query(&mut self, text: &str) -> io::Result<Vec<Row>> {
        let length = u32::try_from(text.len() + 5).map_err(io::Error::other)?;
        self.stream.write_all(&[&b"Q"[..], &length.to_be_bytes(), text.as_bytes(), b"\0"].concat())?;
        self.until_ready()
    }

    /// Reads what comes until the server takes the next query.
    fn until_ready(&mut self) -> io::Result<Vec<Row>> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'Z' => return error.map_or(Ok(rows), Err),
                b'R' if body != [0; 4] => {
                    return Err(io::Error::other("postgres asks for a password, which is not supported"));
                }
                b'D' => rows.push(row(&body).ok_or_else(|| io::Error::other("postgres sent half a row"))?),
                b'E' => {
                    let said = message_of(&body);
                    // After one to the greeting the server hangs up.
                    let failed = io::Error::other(format!("postgres: {said}"));
                    if body.starts_with(b"SFATAL") {
                        return Err(failed);
                    }
                    error = Some(failed);
                }
                _ => {}
            }
        }
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(length) = length.checked_sub(4).filter(|length| *length <= MAX_MESSAGE_BYTES) else {
            return Err(io::Error::other("this is not postgres"));
        };
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }
}

fn row(mut body: &[u8]) -> Option<Row> {
    let mut take = |count: usize| {
        let (taken, left) = body.split_at_checked(count)?;
        body = left;
        Some(taken)
    };
    let columns = u16::from_be_bytes(take(2)?.try_into().ok()?);
    let mut row = Row::new();
    for _ in 0..columns {
        let length = i32::from_be_bytes(take(4)?.try_into().ok()?);
        let value = usize::try_from(length).map_or(Some(&[][..]), &mut take)?;
        row.push(String::from_utf8_lossy(value).into_owned());
    }
    Some(row)
}

/// The human's part of an error.
fn message_of(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let message = fields.filter_map(|field| field.strip_prefix(b"M")).next();
    String::from_utf8_lossy(message.unwrap_or(b"an error without a message")).into_owned()
}
