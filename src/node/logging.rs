//! The daemon's own log, on standard error; its end is kept in memory too, for whoever asks what went on.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use super::config::{Config, LogFormat};

/// Of the log's end that is kept.
const MAX_RECENT_BYTES: usize = 512 << 10;

static RECENT: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());

pub fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_level)
        .with_context(|| format!("log-level: {:?} is no level and no filter", config.log_level))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Tee)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.log_format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    started.map_err(|error| anyhow!("the log cannot be started: {error}"))
}

/// The end of the log since the daemon started.
pub fn recent() -> String {
    let mut kept = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
    drop(kept);
    // The first line may have lost its beginning.
    if text.len() < MAX_RECENT_BYTES {
        text
    } else {
        text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned())
    }
}

/// One event's way out.
struct Tee;

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        keep(&mut RECENT.lock().unwrap_or_else(PoisonError::into_inner), bytes);
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn keep(kept: &mut VecDeque<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(MAX_RECENT_BYTES)..];
    let too_many = (kept.len() + bytes.len()).saturating_sub(MAX_RECENT_BYTES);
    kept.drain(..too_many);
    kept.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_kept_and_no_more() {
        let mut kept = VecDeque::new();
        keep(&mut kept, b"first\n");
        keep(&mut kept, &vec![b'x'; MAX_RECENT_BYTES - 3]);
        assert_eq!(kept.len(), MAX_RECENT_BYTES);
        assert_eq!(kept.iter().take(4).copied().collect::<Vec<u8>>(), b"st\nx");
        keep(&mut kept, &vec![b'y'; MAX_RECENT_BYTES * 2]);
        assert!(kept.len() == MAX_RECENT_BYTES && kept.iter().all(|byte| *byte == b'y'));
    }
}
