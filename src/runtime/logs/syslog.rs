//! What is written to a collector for one line: syslog's message in Docker's formats, the journal's fields. Pure.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::Forward;
use crate::spec::logging::SyslogFormat;
use crate::spec::short_id;

const INFO: u8 = 6;
const ERROR: u8 = 3;

/// A line on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub stderr: bool,
    pub time: Timestamp,
    /// Without its line end.
    pub text: Vec<u8>,
    /// The rest of what the container wrote as one line follows.
    pub partial: bool,
}

impl Line {
    fn severity(&self) -> u8 {
        if self.stderr { ERROR } else { INFO }
    }
}

/// One message with its line end, as Docker's driver writes it; `pid`: the writer's.
pub fn syslog_message(line: &Line, forward: &Forward, facility: u8, format: SyslogFormat, pid: u32) -> Vec<u8> {
    let priority = facility * 8 + line.severity();
    let (tag, host) = (&forward.tag, &forward.hostname);
    let at: Zoned = line.time.to_zoned(TimeZone::system());
    let stamp = |at: &Zoned| at.strftime("%b %e %H:%M:%S").to_string();
    let head = match format {
        SyslogFormat::Plain => format!("<{priority}>{} {tag}[{pid}]: ", stamp(&at)),
        SyslogFormat::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", stamp(&at)),
        SyslogFormat::Rfc5424 => {
            format!("<{priority}>1 {} {host} {tag} {pid} {tag} - ", at.strftime("%Y-%m-%dT%H:%M:%S%:z"))
        }
        SyslogFormat::Rfc5424Micro => {
            format!("<{priority}>1 {} {host} {tag} {pid} {tag} - ", at.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z"))
        }
    };
    [head.as_bytes(), &line.text, b"\n"].concat()
}

/// `message` with its length before it (RFC 5425, "Sending data"), as Docker's driver frames those of RFC 5424 over TLS.
pub fn framed(message: Vec<u8>, format: SyslogFormat) -> Vec<u8> {
    match format {
        SyslogFormat::Plain | SyslogFormat::Rfc3164 => message,
        SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
            [format!("{} ", message.len()).as_bytes(), &message].concat()
        }
    }
}

/// One datagram of the journal's native protocol (systemd's "Native Journal Protocol"), with Docker's fields.
pub fn journal_entry(line: &Line, forward: &Forward, attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut entry = Vec::with_capacity(line.text.len() + 512);
    let mut field = |name: &str, value: &[u8]| {
        entry.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value);
        entry.push(b'\n');
    };
    for (key, value) in attributes {
        if let Some(name) = field_name(key) {
            field(&name, value.as_bytes());
        }
    }
    let id = &forward.container_id;
    field("PRIORITY", line.severity().to_string().as_bytes());
    field("CONTAINER_ID", short_id(id).as_bytes());
    field("CONTAINER_ID_FULL", id.as_bytes());
    field("CONTAINER_NAME", forward.container_name.as_bytes());
    field("CONTAINER_TAG", forward.tag.as_bytes());
    field("IMAGE_NAME", forward.image_name.as_bytes());
    field("SYSLOG_IDENTIFIER", forward.tag.as_bytes());
    field("SYSLOG_TIMESTAMP", line.time.to_string().as_bytes());
    if line.partial {
        field("CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    field("MESSAGE", &line.text);
    entry
}

/// Capital letters, digits and underscores, none of these first: what the journal takes from others.
fn field_name(key: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = key.chars().map(plain).collect();
    let name = name.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit());
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::logging::Collector;

    fn forward() -> Forward {
        Forward {
            collector: Collector::Journald,
            tag: "web".into(),
            hostname: "n1".into(),
            buffer_bytes: 1,
            container_id: "0123456789abcdef".into(),
            container_name: "web.1.t".into(),
            image_name: "redis:7".into(),
        }
    }

    fn line(text: &str) -> Line {
        let time = "2026-03-04T05:06:07.123456Z".parse().unwrap();
        Line { stderr: false, time, text: text.into(), partial: false }
    }

    fn message(line: &Line, format: SyslogFormat) -> String {
        String::from_utf8(syslog_message(line, &forward(), 3, format, 9)).unwrap()
    }

    #[test]
    fn messages_are_as_dockers_driver_writes_them() {
        let here = line("hi").time.to_zoned(TimeZone::system());
        let stamp = here.strftime("%b %e %H:%M:%S").to_string();
        assert_eq!(message(&line("hi"), SyslogFormat::Plain), format!("<30>{stamp} web[9]: hi\n"));
        assert_eq!(message(&line("hi"), SyslogFormat::Rfc3164), format!("<30>{stamp} n1 web[9]: hi\n"));
        let bad = Line { stderr: true, ..line("oh") };
        let zone = here.strftime("%:z").to_string();
        let date = here.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        assert_eq!(message(&bad, SyslogFormat::Rfc5424), format!("<27>1 {date}{zone} n1 web 9 web - oh\n"));
        assert_eq!(message(&bad, SyslogFormat::Rfc5424Micro), format!("<27>1 {date}.123456{zone} n1 web 9 web - oh\n"));
    }

    #[test]
    fn the_journal_gets_dockers_fields() {
        let attributes =
            [("com.example.team", "a"), ("__", "x"), ("two", "1\n2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let entry = journal_entry(&line("hi"), &forward(), &attributes.into());
        let text = String::from_utf8_lossy(&entry);
        for field in [
            "COM_EXAMPLE_TEAM=a\n",
            "TWO\n\u{3}\0\0\0\0\0\0\u{0}1\n2\n",
            "PRIORITY=6\n",
            "CONTAINER_ID=0123456789ab\n",
            "CONTAINER_ID_FULL=0123456789abcdef\n",
            "CONTAINER_NAME=web.1.t\n",
            "CONTAINER_TAG=web\n",
            "IMAGE_NAME=redis:7\n",
            "SYSLOG_IDENTIFIER=web\n",
            "MESSAGE=hi\n",
        ] {
            assert!(text.contains(field), "{field:?} is not in {text:?}");
        }
        assert!(!text.contains("PARTIAL") && !text.contains("=x"));
        let cut = Line { partial: true, ..line("a") };
        assert!(
            String::from_utf8_lossy(&journal_entry(&cut, &forward(), &BTreeMap::new()))
                .contains("CONTAINER_PARTIAL_MESSAGE=true\n")
        );
    }
}
