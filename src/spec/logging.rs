//! Where the output of tasks goes: the log drivers there are, what each may be told, and what that means. Docker's names and
//! defaults. Pure: whoever writes a log connects and waits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::template::{Budget, Manner, Template};
use super::{Labels, LogDriver, short_id};

/// Of every driver but `none`: what is written may wait for a collector in memory, so many bytes, and is dropped beyond.
pub const DEFAULT_BUFFER_BYTES: u64 = 1 << 20;
/// Where none is named.
pub const DEFAULT_LOG_DRIVER: &str = "json-file";
const DEFAULT_TAG: &str = "{{.ID}}";
const MAX_TAG_BYTES: usize = 1024;
const SYSLOG_PORT: u16 = 514;
/// `daemon`.
const DEFAULT_FACILITY: u8 = 3;
pub const MAX_FILES: u32 = 1000;

const FILE_OPTIONS: &[&str] = &["max-size", "max-file", "compress", "mode", "max-buffer-size", "tag", "labels", "env"];
const LOCAL_OPTIONS: &[&str] = &["max-size", "max-file", "compress", "mode", "max-buffer-size"];
/// What is kept on the node beside, for `logs`.
const CACHE_OPTIONS: &[&str] = &[
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
    "mode",
    "max-buffer-size",
    "tag",
    "labels",
    "env",
];
const SYSLOG_OPTIONS: &[&str] = &[
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Who collects lines beside the node's own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Collector {
    Journald,
    Syslog {
        address: SyslogAddress,
        /// 0 to 23.
        facility: u8,
        format: SyslogFormat,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogAddress {
    /// The host's own, wherever its socket is.
    Local,
    /// `HOST:PORT`.
    Udp(String),
    Tcp(String),
    Tls(SyslogTls),
    /// A path.
    Unix(String),
    Unixgram(String),
}

/// `tcp+tls`. Files are of the node, in PEM, and are read when the collector is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyslogTls {
    /// `HOST:PORT`, where the collector's certificate names the host.
    pub address: String,
    /// Authorities that are trusted beside the node's own.
    pub ca_file: Option<String>,
    /// What the collector is shown: a certificate and its key.
    pub client_files: Option<(String, String)>,
    /// False: any certificate will do.
    pub is_verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogFormat {
    /// As programs of the same host write: without a hostname. What Docker sends unless it is told otherwise.
    Plain,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}

/// A log driver with its options read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// `None`: only files.
    pub collector: Option<Collector>,
    /// The node keeps lines in files of its own.
    pub kept: bool,
    /// Of one file; `None`: the node's default.
    pub max_bytes: Option<u64>,
    pub max_files: Option<u32>,
    pub buffer_bytes: u64,
    /// A template; `None`: the driver's default.
    tag: Option<String>,
    /// Labels and variables of the container that go with its lines.
    labels: Vec<String>,
    env: Vec<String>,
}

/// What is known of a container whose lines are tagged.
#[derive(Debug, Clone, Copy)]
pub struct LoggedContainer<'a> {
    /// 64 digits.
    pub id: &'a str,
    /// `web.1.<task id>`.
    pub name: &'a str,
    pub image_name: &'a str,
    /// With or without `sha256:`.
    pub image_id: &'a str,
    pub labels: &'a Labels,
    /// `KEY=value`.
    pub env: &'a [String],
}

const NO_CONTAINER: LoggedContainer<'_> =
    LoggedContainer { id: "", name: "", image_name: "", image_id: "", labels: &Labels::new(), env: &[] };

impl LogDriver {
    /// An error names the driver or the option, and lists those there are.
    pub fn read(&self) -> Result<Logging, String> {
        let known: Vec<&str> = match self.name.as_str() {
            "" | "json-file" => FILE_OPTIONS.to_vec(),
            "local" => LOCAL_OPTIONS.to_vec(),
            "none" => Vec::new(),
            "journald" => CACHE_OPTIONS.to_vec(),
            "syslog" => [SYSLOG_OPTIONS, CACHE_OPTIONS].concat(),
            other => {
                return Err(format!(
                    "log driver {other:?} is not there: there are json-file, local, journald, syslog and none"
                ));
            }
        };
        if let Some(unknown) = self.options.keys().find(|key| !known.contains(&key.as_str())) {
            let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("log driver {:?} has no option {unknown:?}: its options are {has}", self.name));
        }
        let mut logging = Logging {
            collector: self.collector()?,
            kept: self.name != "none",
            max_bytes: None,
            max_files: None,
            buffer_bytes: DEFAULT_BUFFER_BYTES,
            tag: None,
            labels: Vec::new(),
            env: Vec::new(),
        };
        for (key, value) in &self.options {
            logging.set(key, value).map_err(|why| format!("log option {key}={value}: {why}"))?;
        }
        Ok(logging)
    }

    fn collector(&self) -> Result<Option<Collector>, String> {
        let given = |key: &str| self.options.get(key).map(String::as_str).filter(|value| !value.is_empty());
        match self.name.as_str() {
            "journald" => Ok(Some(Collector::Journald)),
            "syslog" => Ok(Some(Collector::Syslog {
                address: SyslogAddress::read(given("syslog-address"), &self.options)?,
                facility: facility(given("syslog-facility"))?,
                format: format_of(given("syslog-format"))?,
            })),
            _ => Ok(None),
        }
    }

    /// Whether the node keeps what its tasks print, so that it can be read.
    pub fn is_readable(&self) -> bool {
        self.read().is_ok_and(|logging| logging.kept)
    }
}

impl Logging {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let list = || value.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let size = || parse_size(value).ok_or("it is no size: write for example 10m");
        match key {
            "max-size" | "cache-max-size" => self.max_bytes = Some(size()?),
            "max-buffer-size" => self.buffer_bytes = size()?,
            "max-file" | "cache-max-file" => {
                let files = value.parse().ok().filter(|n| (1..=MAX_FILES).contains(n));
                self.max_files = Some(files.ok_or_else(|| format!("it is no number from 1 to {MAX_FILES}"))?);
            }
            "cache-disabled" => {
                self.kept = !value.parse::<bool>().map_err(|_| "it is neither true nor false")?;
            }
            "mode" if !matches!(value, "blocking" | "non-blocking") => {
                return Err("write blocking or non-blocking".into());
            }
            "tag" => {
                if value.len() > MAX_TAG_BYTES {
                    return Err(format!("it has more than {MAX_TAG_BYTES} bytes"));
                }
                expand(value, NO_CONTAINER)?;
                self.tag = Some(value.to_owned());
            }
            "labels" => self.labels = list(),
            "env" => self.env = list(),
            // Files are written plain, what readers see is the same; no container waits for a collector in either mode;
            // and what is of the collector has been read.
            _ => {}
        }
        Ok(())
    }

    /// What a container's lines are marked with: the template filled in.
    pub fn tag(&self, container: LoggedContainer<'_>) -> Result<String, String> {
        expand(self.tag.as_deref().unwrap_or(DEFAULT_TAG), container)
    }

    /// Of the labels and variables that are asked for, those the container has; and the tag, for a file, where one is given.
    pub fn attributes(&self, container: LoggedContainer<'_>) -> Result<BTreeMap<String, String>, String> {
        let mut found = BTreeMap::new();
        for key in &self.labels {
            found.extend(container.labels.get(key).map(|value| (key.clone(), value.clone())));
        }
        for key in &self.env {
            let value =
                container.env.iter().find_map(|variable| variable.strip_prefix(key.as_str())?.strip_prefix('='));
            found.extend(value.map(|value| (key.clone(), value.to_owned())));
        }
        if self.collector.is_none() && self.tag.is_some() {
            found.insert("tag".to_owned(), self.tag(container)?);
        }
        Ok(found)
    }
}

impl LoggedContainer<'_> {
    pub fn short_id(&self) -> &str {
        short_id(self.id)
    }

    /// What a tag may ask for.
    fn fields(&self) -> serde_json::Value {
        let image = self.image_id.strip_prefix("sha256:").unwrap_or(self.image_id);
        json!({
            "ID": self.short_id(),
            "FullID": self.id,
            "Name": self.name,
            "ImageID": short_id(image),
            "ImageFullID": self.image_id,
            "ImageName": self.image_name,
            "DaemonName": "flok",
        })
    }
}

fn expand(tag: &str, container: LoggedContainer<'_>) -> Result<String, String> {
    let (template, fields) = (Template::parse(tag)?, container.fields());
    template.check(&fields, &fields, false)?;
    template.render(&fields, &Manner::of_task(None, &Budget::of_name()))
}

impl SyslogAddress {
    fn read(text: Option<&str>, options: &Labels) -> Result<SyslogAddress, String> {
        let Some(text) = text else { return Ok(SyslogAddress::Local) };
        let wrong = |why: &str| format!("log option syslog-address={text}: {why}");
        let (protocol, rest) = text.split_once("://").unwrap_or((text, ""));
        match protocol {
            "udp" => with_port(rest).map(SyslogAddress::Udp).ok_or_else(|| wrong("write udp://HOST[:PORT]")),
            "tcp" => with_port(rest).map(SyslogAddress::Tcp).ok_or_else(|| wrong("write tcp://HOST[:PORT]")),
            "unix" if rest.starts_with('/') => Ok(SyslogAddress::Unix(rest.to_owned())),
            "unixgram" if rest.starts_with('/') => Ok(SyslogAddress::Unixgram(rest.to_owned())),
            "unix" | "unixgram" => Err(wrong("the socket's path must be absolute: unix:///dev/log")),
            "tcp+tls" => {
                let address = with_port(rest).ok_or_else(|| wrong("write tcp+tls://HOST[:PORT]"))?;
                SyslogTls::read(address, options).map(SyslogAddress::Tls)
            }
            _ => Err(wrong("write udp://, tcp://, tcp+tls://, unix:// or unixgram:// first")),
        }
    }
}

impl SyslogTls {
    fn read(address: String, options: &Labels) -> Result<SyslogTls, String> {
        let file = |key: &str| match options.get(key).filter(|path| !path.is_empty()) {
            Some(path) if !path.starts_with('/') => Err(format!("log option {key}={path}: the path must be absolute")),
            path => Ok(path.cloned()),
        };
        let client_files = match (file("syslog-tls-cert")?, file("syslog-tls-key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("log options syslog-tls-cert and syslog-tls-key go together: write both".into()),
        };
        let is_skipped = match options.get("syslog-tls-skip-verify").map(String::as_str) {
            None | Some("false" | "0") => false,
            Some("" | "true" | "1") => true,
            Some(other) => return Err(format!("log option syslog-tls-skip-verify={other}: write true or false")),
        };
        Ok(SyslogTls { address, ca_file: file("syslog-tls-ca-cert")?, client_files, is_verified: !is_skipped })
    }
}

/// `HOST:PORT`, syslog's port where none is given.
fn with_port(text: &str) -> Option<String> {
    let has_port = match text.rsplit_once(':') {
        _ if text.ends_with(']') => false,
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            port.parse::<u16>().ok().filter(|_| !host.is_empty())?;
            true
        }
        Some(_) => return None,
        None => false,
    };
    if text.is_empty() || text.contains('/') {
        return None;
    }
    Some(if has_port { text.to_owned() } else { format!("{text}:{SYSLOG_PORT}") })
}

fn facility(text: Option<&str>) -> Result<u8, String> {
    let Some(text) = text else { return Ok(DEFAULT_FACILITY) };
    let named = FACILITIES.iter().position(|name| *name == text);
    let number = text.parse::<usize>().ok().filter(|number| *number < FACILITIES.len());
    let found = named.or(number).and_then(|number| u8::try_from(number).ok());
    found.ok_or_else(|| format!("log option syslog-facility={text}: write one of {}", FACILITIES.join(", ")))
}

fn format_of(text: Option<&str>) -> Result<SyslogFormat, String> {
    match text {
        None => Ok(SyslogFormat::Plain),
        Some("rfc3164") => Ok(SyslogFormat::Rfc3164),
        Some("rfc5424") => Ok(SyslogFormat::Rfc5424),
        Some("rfc5424micro") => Ok(SyslogFormat::Rfc5424Micro),
        Some(other) => Err(format!("log option syslog-format={other}: write rfc3164, rfc5424 or rfc5424micro")),
    }
}

/// `10m`, `512k`, `1g`, plain bytes; `-1` is no limit.
fn parse_size(text: &str) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(name: &str, options: &[(&str, &str)]) -> LogDriver {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogDriver { name: name.to_owned(), options }
    }

    fn refused(name: &str, options: &[(&str, &str)]) -> String {
        driver(name, options).read().unwrap_err()
    }

    #[test]
    fn dockers_options_bound_the_files() {
        let read = driver("json-file", &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")]).read().unwrap();
        assert_eq!((read.max_bytes, read.max_files, read.kept), (Some(10 << 20), Some(3), true));
        let read = driver("syslog", &[("cache-max-size", "1k"), ("max-buffer-size", "2k")]).read().unwrap();
        assert_eq!((read.max_bytes, read.buffer_bytes), (Some(1024), 2048));
        assert!(!driver("none", &[]).is_readable() && !driver("journald", &[("cache-disabled", "true")]).is_readable());
        assert!(driver("journald", &[]).is_readable() && driver("", &[]).is_readable());
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        assert_eq!(
            refused("fluentd", &[]),
            "log driver \"fluentd\" is not there: there are json-file, local, journald, syslog and none"
        );
        let unknown = refused("journald", &[("syslog-address", "udp://x")]);
        assert!(
            unknown.starts_with("log driver \"journald\" has no option \"syslog-address\": its options are"),
            "{unknown}"
        );
        assert!(refused("json-file", &[("max-size", "ten")]).starts_with("log option max-size=ten: it is no size"));
        assert!(refused("json-file", &[("max-file", "0")]).contains("max-file=0"));
        assert!(refused("syslog", &[("mode", "fast")]).contains("blocking or non-blocking"));
        assert!(refused("none", &[("max-size", "1m")]).contains("its options are none"));
    }

    #[test]
    fn syslogs_addresses_facilities_and_formats_are_dockers() {
        let address = |text: &str| match driver("syslog", &[("syslog-address", text)]).read()?.collector {
            Some(Collector::Syslog { address, .. }) => Ok(address),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(address("udp://logs:1514"), Ok(SyslogAddress::Udp("logs:1514".into())));
        assert_eq!(address("tcp://10.0.0.1"), Ok(SyslogAddress::Tcp("10.0.0.1:514".into())));
        assert_eq!(address("udp://[fd00::1]"), Ok(SyslogAddress::Udp("[fd00::1]:514".into())));
        assert_eq!(address("unix:///dev/log"), Ok(SyslogAddress::Unix("/dev/log".into())));
        assert_eq!(address("unixgram:///dev/log"), Ok(SyslogAddress::Unixgram("/dev/log".into())));
        for text in ["udp://", "udp://a:b", "udp://fd00::1", "unix://log", "tcp+tls://", "http://a", "a:1"] {
            assert!(address(text).unwrap_err().starts_with("log option syslog-address="), "{text}");
        }
        let read = driver("syslog", &[("syslog-facility", "local7"), ("syslog-format", "rfc5424")]).read().unwrap();
        let wanted = Collector::Syslog { address: SyslogAddress::Local, facility: 23, format: SyslogFormat::Rfc5424 };
        assert_eq!(read.collector, Some(wanted));
        assert_eq!(facility(Some("4")), Ok(4));
        assert!(refused("syslog", &[("syslog-facility", "24")]).contains("local7"));
        assert!(refused("syslog", &[("syslog-format", "json")]).contains("rfc3164"));
    }

    #[test]
    fn tls_has_its_files_and_verifies_unless_it_is_told_not_to() {
        let read = |options: &[(&str, &str)]| {
            let options = [&[("syslog-address", "tcp+tls://logs:6514")], options].concat();
            match driver("syslog", &options).read()?.collector {
                Some(Collector::Syslog { address: SyslogAddress::Tls(tls), .. }) => Ok(tls),
                other => Err(format!("{other:?}")),
            }
        };
        let plain = SyslogTls { address: "logs:6514".into(), ca_file: None, client_files: None, is_verified: true };
        assert_eq!(read(&[]), Ok(plain.clone()));
        assert_eq!(read(&[("syslog-tls-skip-verify", "false")]), Ok(plain.clone()));
        assert!(!read(&[("syslog-tls-skip-verify", "true")]).unwrap().is_verified);
        let files = [("syslog-tls-ca-cert", "/ca"), ("syslog-tls-cert", "/cert"), ("syslog-tls-key", "/key")];
        let given =
            SyslogTls { ca_file: Some("/ca".into()), client_files: Some(("/cert".into(), "/key".into())), ..plain };
        assert_eq!(read(&files), Ok(given));
        for (options, part) in [
            (vec![("syslog-tls-ca-cert", "ca.pem")], "the path must be absolute"),
            (vec![("syslog-tls-cert", "/cert")], "go together"),
            (vec![("syslog-tls-skip-verify", "maybe")], "write true or false"),
        ] {
            let error = read(&options).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn tags_and_attributes_are_the_containers() {
        let labels: Labels = [("team".to_owned(), "a".to_owned())].into();
        let id = "0123456789abcdef".repeat(4);
        let env = ["LEVEL=info=x".to_owned(), "LEVELS=2".to_owned()];
        let container = LoggedContainer {
            id: &id,
            name: "web.1.t",
            image_name: "redis:7",
            image_id: "sha256:fedcba9876543210",
            labels: &labels,
            env: &env,
        };
        let tag = |text: &str| driver("syslog", &[("tag", text)]).read()?.tag(container);
        assert_eq!(driver("syslog", &[]).read().unwrap().tag(container).as_deref(), Ok("0123456789ab"));
        let whole = tag("{{.ImageName}}/{{ .Name | upper }}/{{lower .ImageID}}/{{.DaemonName}}");
        assert_eq!(whole.as_deref(), Ok("redis:7/WEB.1.T/fedcba987654/flok"));
        assert_eq!(tag("{{if eq .Name `web.1.t`}}{{index (split .Name `.`) 0}}{{end}}").as_deref(), Ok("web"));
        for (text, part) in [
            ("{{.Nope}}", "there is no field .Nope"),
            ("{{.Name", "not closed"),
            ("{{split .Name}}", "split does not take 1"),
            ("{{env `HOME`}}", "data of secrets and configs"),
            ("{{}}", "nothing to print"),
        ] {
            let error = tag(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        let read = driver("journald", &[("labels", "team, none"), ("env", "LEVEL")]).read().unwrap();
        let wanted = [("LEVEL", "info=x"), ("team", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(read.attributes(container), Ok(wanted.into()));
        let read = driver("json-file", &[("tag", "{{.Name}}")]).read().unwrap();
        assert_eq!(read.attributes(container).unwrap()["tag"], "web.1.t");
    }
}
