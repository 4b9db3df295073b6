//! Logs of containers: files beside the container's other files, in the form of Docker's `json-file` driver, written by a
//! process of their own so that they outlive the daemon.

mod reader;
pub mod writer;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Result, RuntimeError};
use crate::spec::LogDriver;

pub use reader::{LogLine, LogQuery, LogStream};

/// The hidden first argument that makes flok's binary a log writer.
pub const WRITER_ARGUMENT: &str = "__log-writer";

const MAX_FILES: u32 = 1000;

pub const CURRENT: &str = "log.json";
/// Present while no writer is there: who follows the log has seen its end.
const CLOSED: &str = "log.closed";

/// For services that do not say. Docker's `json-file` never rotates by itself; a node that runs for years must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDefaults {
    /// Of one file.
    pub max_bytes: u64,
    pub max_files: u32,
}

impl Default for LogDefaults {
    fn default() -> Self {
        LogDefaults { max_bytes: 10 * 1024 * 1024, max_files: 3 }
    }
}

/// Where and how much one container may log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    pub dir: PathBuf,
    /// Of one file.
    pub max_bytes: u64,
    pub max_files: u32,
}

impl LogTarget {
    /// From a service's log driver; `None`: nothing is to be written.
    pub fn new(driver: Option<&LogDriver>, defaults: LogDefaults, dir: &Path) -> Result<Option<LogTarget>> {
        let LogDefaults { max_bytes, max_files } = defaults;
        let mut target = LogTarget { dir: dir.to_owned(), max_bytes, max_files };
        let Some(driver) = driver else {
            return Ok(Some(target));
        };
        match driver.name.as_str() {
            "none" => return Ok(None),
            "" | "json-file" | "local" => {}
            other => {
                return Err(RuntimeError::Unsupported(format!("log driver {other:?} (json-file, local and none are)")));
            }
        }
        for (name, value) in &driver.options {
            let invalid = || RuntimeError::Unsupported(format!("log option {name}={value}"));
            match name.as_str() {
                "max-size" => target.max_bytes = bytes(value).ok_or_else(invalid)?,
                "max-file" => {
                    target.max_files =
                        value.parse().ok().filter(|n| (1..=MAX_FILES).contains(n)).ok_or_else(invalid)?;
                }
                // Files are written plain; what readers see is the same.
                "compress" | "mode" | "max-buffer-size" => {}
                _ => return Err(invalid()),
            }
        }
        Ok(Some(target))
    }

    /// For containerd's `stdout` and `stderr`: it starts `program`, with the one key of the query and its value as arguments.
    pub fn uri(&self, program: &Path) -> String {
        let target = serde_json::to_string(self).expect("paths in the data directory are UTF-8");
        format!("binary://{}?{WRITER_ARGUMENT}={}", escaped(&program.to_string_lossy(), b"/"), escaped(&target, b""))
    }

    fn current(&self) -> PathBuf {
        self.dir.join(CURRENT)
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{CURRENT}.{number}"))
    }
}

/// `10m`, `512k`, `1g`, plain bytes; `-1` is no limit.
fn bytes(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(u64::MAX);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 1 << 10),
        b'm' => (&lower[..lower.len() - 1], 1 << 20),
        b'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    digits.trim().parse::<u64>().ok().filter(|n| *n > 0)?.checked_mul(unit)
}

/// RFC 3986 percent-encoding.
fn escaped(text: &str, also_plain: &[u8]) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also_plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(name: &str, options: &[(&str, &str)]) -> LogDriver {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogDriver { name: name.to_owned(), options }
    }

    #[test]
    fn dockers_options_bound_the_files() {
        let given = driver("json-file", &[("max-size", "10m"), ("max-file", "3")]);
        let target = LogTarget::new(Some(&given), LogDefaults::default(), Path::new("/d")).unwrap().unwrap();
        assert_eq!((target.max_bytes, target.max_files), (10 << 20, 3));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert!(
            LogTarget::new(Some(&driver("fluentd", &[])), LogDefaults::default(), Path::new("/d"))
                .unwrap_err()
                .to_string()
                .contains("fluentd")
        );
        let odd = driver("json-file", &[("max-size", "ten")]);
        assert!(
            LogTarget::new(Some(&odd), LogDefaults::default(), Path::new("/d"))
                .unwrap_err()
                .to_string()
                .contains("max-size=ten")
        );
        assert_eq!(LogTarget::new(Some(&driver("none", &[])), LogDefaults::default(), Path::new("/d")).unwrap(), None);
    }

    #[test]
    fn the_writers_uri_carries_its_target_in_one_argument() {
        let target = LogTarget::new(None, LogDefaults::default(), Path::new("/data dir/a&b")).unwrap().unwrap();
        let uri = target.uri(Path::new("/usr/bin/flok"));
        assert!(uri.starts_with("binary:///usr/bin/flok?__log-writer=%7B"), "{uri}");
        assert!(!uri.contains('&') && !uri.contains(' '));
    }
}
