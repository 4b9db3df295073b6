//! Logs of containers: files beside the container's other files, in the form of Docker's `json-file` driver, written by a
//! process of their own so that they outlive the daemon. The same process passes lines on to a collector, where the service
//! has one; the files are then what `logs` reads.

pub mod forward;
pub mod live;
mod reader;
mod syslog;
mod tls;
pub mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Result, RuntimeError};
use crate::spec::LogDriver;
use crate::spec::logging::{Collector, LoggedContainer};

pub use reader::{LogLine, LogQuery, LogStream};

/// The hidden first argument that makes flok's binary a log writer.
pub const WRITER_ARGUMENT: &str = "__log-writer";
/// The same, for a container whose output goes through named pipes beside its log.
pub const PIPES_ARGUMENT: &str = "__log-writer-pipes";

pub const CURRENT: &str = "log.json";
/// Present while no writer is there: who follows the log has seen its end.
pub const CLOSED: &str = "log.closed";
/// What the writer is told of the container; values of its environment may be in it.
const CONTEXT: &str = "log.context";

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
    /// There is a [`LogContext`] beside the log.
    pub has_context: bool,
    /// False: what is printed goes to those who are attached, and nowhere else.
    pub is_kept: bool,
}

/// What else a writer is to do with lines; in a file, as arguments are everybody's to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogContext {
    /// The node keeps files, too.
    kept: bool,
    /// Go with each line: as `attrs` of a file's, as fields of the journal's.
    attributes: BTreeMap<String, String>,
    forward: Option<Forward>,
}

/// A collector, and how it is told whose lines they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub collector: Collector,
    pub tag: String,
    pub hostname: String,
    /// Of lines that wait.
    pub buffer_bytes: u64,
    pub container_id: String,
    pub container_name: String,
    pub image_name: String,
}

impl LogTarget {
    /// From a service's log driver; `None`: nothing is to be written.
    pub fn new(driver: Option<&LogDriver>, defaults: LogDefaults, dir: &Path) -> Result<Option<LogTarget>> {
        let LogDefaults { max_bytes, max_files } = defaults;
        let has_context = dir.join(CONTEXT).exists();
        let mut target = LogTarget { dir: dir.to_owned(), max_bytes, max_files, has_context, is_kept: true };
        let Some(driver) = driver else {
            return Ok(Some(target));
        };
        let logging = driver.read().map_err(RuntimeError::LogDriver)?;
        if !logging.kept && logging.collector.is_none() {
            return Ok(None);
        }
        target.max_bytes = logging.max_bytes.unwrap_or(max_bytes);
        target.max_files = logging.max_files.unwrap_or(max_files);
        Ok(Some(target))
    }

    /// For a container that logs nothing, and still has an input that is to stay open.
    pub fn nowhere(dir: &Path) -> LogTarget {
        LogTarget { dir: dir.to_owned(), max_bytes: u64::MAX, max_files: 1, has_context: false, is_kept: false }
    }

    /// What a log writer is started with.
    pub fn argument(&self) -> String {
        serde_json::to_string(self).expect("paths in the data directory are UTF-8")
    }

    /// For containerd's `stdout` and `stderr`: it starts `program`, with the one key of the query and its value as arguments.
    pub fn uri(&self, program: &Path) -> String {
        let (program, target) = (program.to_string_lossy(), self.argument());
        format!("binary://{}?{WRITER_ARGUMENT}={}", escaped(&program, b"/"), escaped(&target, b""))
    }

    fn current(&self) -> PathBuf {
        self.dir.join(CURRENT)
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{CURRENT}.{number}"))
    }

    fn context(&self) -> std::io::Result<LogContext> {
        if !self.has_context {
            return Ok(LogContext { kept: self.is_kept, attributes: BTreeMap::new(), forward: None });
        }
        serde_json::from_slice(&fs::read(self.dir.join(CONTEXT))?).map_err(std::io::Error::other)
    }
}

/// Leaves for the writer of a container's log what it needs beside its target.
pub fn write_context(
    driver: Option<&LogDriver>,
    container: LoggedContainer<'_>,
    hostname: &str,
    dir: &Path,
) -> Result<()> {
    let Some(driver) = driver else { return Ok(()) };
    let logging = driver.read().map_err(RuntimeError::LogDriver)?;
    let attributes = logging.attributes(container).map_err(RuntimeError::LogDriver)?;
    let tag = logging.tag(container).map_err(RuntimeError::LogDriver)?;
    let (kept, buffer_bytes) = (logging.kept, logging.buffer_bytes);
    let forward = logging.collector.map(|collector| Forward {
        collector,
        tag,
        hostname: hostname.to_owned(),
        buffer_bytes,
        container_id: container.id.to_owned(),
        container_name: container.name.to_owned(),
        image_name: container.image_name.to_owned(),
    });
    if forward.is_none() && attributes.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_vec(&LogContext { kept, attributes, forward }).expect("texts are JSON");
    let path = dir.join(CONTEXT);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(&text)).map_err(RuntimeError::io("writing", path))
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
    fn a_driver_bounds_the_files_and_none_writes_none() {
        let target = |given: &LogDriver| LogTarget::new(Some(given), LogDefaults::default(), Path::new("/d"));
        let read = target(&driver("json-file", &[("max-size", "1m"), ("max-file", "7")])).unwrap().unwrap();
        assert_eq!((read.max_bytes, read.max_files), (1 << 20, 7));
        assert_eq!(target(&driver("none", &[])).unwrap(), None);
        assert!(target(&driver("journald", &[("cache-disabled", "true")])).unwrap().is_some());
        assert!(target(&driver("fluentd", &[])).unwrap_err().to_string().contains("fluentd"));
    }

    #[test]
    fn what_a_writer_is_told_is_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let labels = crate::spec::Labels::new();
        let env = ["TOKEN=hush".to_owned()];
        let container = LoggedContainer {
            id: "0123456789abcdef",
            name: "web.1",
            image_name: "i",
            image_id: "",
            labels: &labels,
            env: &env,
        };
        let given = driver("syslog", &[("env", "TOKEN"), ("tag", "{{.Name}}")]);
        write_context(Some(&given), container, "host", dir.path()).unwrap();
        let target = LogTarget::new(Some(&given), LogDefaults::default(), dir.path()).unwrap().unwrap();
        assert!(target.has_context && !target.uri(Path::new("/flok")).contains("hush"));
        let context = target.context().unwrap();
        assert_eq!((context.attributes["TOKEN"].as_str(), context.forward.unwrap().tag.as_str()), ("hush", "web.1"));
        let mode = fs::metadata(dir.path().join(CONTEXT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_writers_uri_carries_its_target_in_one_argument() {
        let target = LogTarget::new(None, LogDefaults::default(), Path::new("/data dir/a&b")).unwrap().unwrap();
        let uri = target.uri(Path::new("/usr/bin/flok"));
        assert!(uri.starts_with("binary:///usr/bin/flok?__log-writer=%7B"), "{uri}");
        assert!(!uri.contains('&') && !uri.contains(' '));
    }
}
