//! The redis protocol (RESP 2), as much as a list needs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than `BLPOP` waits.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_BULK_BYTES: usize = 64 << 10;

pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    pub fn connect(address: &str) -> io::Result<Redis> {
        let stream =
            TcpStream::connect(address).map_err(|error| io::Error::other(format!("redis at {address}: {error}")))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Redis { stream: BufReader::new(stream) })
    }

    /// The last string of the reply; `None` for nil.
    pub fn command(&mut self, words: &[&str]) -> io::Result<Option<String>> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::other("redis closed the connection"));
        }
        let invalid = || io::Error::other(format!("redis said {line:?}"));
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or_else(invalid)?;
        match kind {
            "+" | ":" => Ok(Some(rest.to_owned())),
            "$" | "*" if rest.starts_with('-') => Ok(None),
            "$" => {
                let length: usize = rest.parse().ok().filter(|length| *length <= MAX_BULK_BYTES).ok_or_else(invalid)?;
                let mut bulk = vec![0; length + 2];
                self.stream.read_exact(&mut bulk)?;
                bulk.truncate(length);
                String::from_utf8(bulk).map(Some).map_err(|_| invalid())
            }
            "*" => {
                let count: usize = rest.parse().ok().filter(|count| *count <= 16).ok_or_else(invalid)?;
                (0..count).try_fold(None, |_, _| self.reply())
            }
            _ => Err(invalid()),
        }
    }
}
