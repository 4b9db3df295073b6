//! Short forms: whatever stands where a duration, a port, an image or a constraint is wanted, it is read or refused, in
//! bounded memory; what is read is written as something that reads as the same.

use std::fmt::Display;
use std::str::FromStr;

use bolero::generator::produce;
use bolero::{TypeGenerator, check};
use flok::runtime::images::registry::parse_auth;
use flok::spec::publish::{MAX_PUBLISHED_PORTS, ShortPorts};
use flok::spec::*;
use flok::transport::JoinToken;

use super::memory::spent;

/// More than a template may make, several times over.
const MOST_BYTES: i64 = 16 << 20;
const ALL_BYTES: i64 = 128 << 20;
const MAX_EXPANDED_BYTES: usize = 4 << 20;

fn written_again<T: FromStr + Display>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let written = read.to_string();
        let again = written.parse::<T>().ok().map(|again| again.to_string());
        assert_eq!(again.as_deref(), Some(written.as_str()), "{text:?}");
    }
}

fn quantities(text: &str) {
    if let Ok(duration) = quantity::parse_duration(text) {
        assert_eq!(quantity::parse_duration(&quantity::format_duration(duration)), Ok(duration), "{text:?}");
    }
    if let Ok(bytes) = quantity::parse_size(text) {
        assert!(!quantity::format_size(bytes).is_empty());
    }
    let _ = quantity::parse_nano_cpus(text);
    if let Ok((first, last)) = quantity::parse_port_range(text) {
        assert!(0 < first && first <= last, "{text:?}");
    }
    if let Ok(read) = ShortPorts::parse(text) {
        assert!((1..=MAX_PUBLISHED_PORTS).contains(&read.ports.len()), "{text:?}");
    }
}

fn references(text: &str) {
    written_again::<Constraint>(text);
    written_again::<Subnet>(text);
    written_again::<image::ImageReference>(text);
    if let Ok(read) = text.parse::<image::ImageReference>() {
        let familiar = read.familiar().parse::<image::ImageReference>().map(|read| read.to_string());
        assert_eq!(familiar, Ok(read.to_string()), "{text:?}");
    }
    written_again::<JoinToken>(text);
    let _ = parse_auth(&SecretBytes(text.as_bytes().to_vec()));
}

fn words(text: &str) {
    let _ = stack::split_words(text);
    let _ = StartCondition::parse(text);
    if let Ok(read) = DependsOn::parse(text) {
        assert!(!read.service.is_empty());
    }
    let _ = Security::read(&[text.to_owned()]);
    let device = DeviceMapping::parse(text);
    assert!(text.starts_with(&device.host_path));
    let options =
        Labels::from([("type", "nfs"), ("device", text), ("o", text)].map(|(k, v)| (k.to_owned(), v.to_owned())));
    let _ = VolumeMount::read(&options);
    for (key, value) in volume::shown(&options) {
        assert!(key != "o" || value.split(',').count() == text.split(',').count());
    }
}

fn schedules(text: &str) {
    let mut schedule = Schedule::new(text);
    for field in ["time_zone", "window", "concurrency", "history", "suspend", text] {
        let _ = Schedule::new("@daily").set(field, text);
    }
    schedule.window = std::time::Duration::from_secs(60);
    if let Ok(rule) = schedule.rule() {
        assert_eq!(Schedule::read_labels(&schedule.labels()), Ok(Some(schedule)));
        let mut last = UnixMs(1_700_000_000_000);
        for _ in 0..3 {
            let Some(next) = rule.next_after(last) else { break };
            assert!(next > last, "{text:?}");
            last = next;
        }
    }
}

fn log_drivers(text: &str) {
    let options = [
        "max-size",
        "max-file",
        "mode",
        "max-buffer-size",
        "tag",
        "labels",
        "env",
        "cache-disabled",
        "compress",
        "syslog-address",
        "syslog-facility",
        "syslog-format",
        "syslog-tls-ca-cert",
        "syslog-tls-skip-verify",
        text,
    ];
    for name in ["json-file", "local", "syslog", "journald", "none", text] {
        for option in options {
            let driver =
                LogDriver { name: name.to_owned(), options: Labels::from([(option.to_owned(), text.to_owned())]) };
            if let Ok(read) = driver.read() {
                let (labels, env) = (Labels::from([(text.to_owned(), "v".to_owned())]), [format!("{text}=v")]);
                let container = logging::LoggedContainer {
                    id: text,
                    name: "web.1",
                    image_name: "a",
                    image_id: text,
                    labels: &labels,
                    env: &env,
                };
                let told = (read.tag(container), read.attributes(container));
                assert!(told.0.is_ok() && told.1.is_ok(), "{name} {option}={text:?}: {told:?}");
            }
        }
    }
}

fn templates(text: &str) {
    let labels = Labels::from([("a".to_owned(), "b".repeat(100))]);
    let context = template::Context {
        service_id: "1",
        service_name: "web",
        service_labels: &labels,
        node_id: "2",
        node_hostname: "n1",
        node_os: "linux",
        node_architecture: "x86_64",
        task_id: "3",
        task_name: "web.1",
        task_slot: "1",
    };
    let lookup = |_: &str, name: &str| Ok(name.repeat(2));
    for lookup in [None, Some(&lookup as template::Lookup<'_>)] {
        if let Ok(made) = template::expand(text, &context.words(), lookup, &template::Budget::of_task()) {
            assert!(made.len() <= MAX_EXPANDED_BYTES.max(text.len()), "{text:?}");
        }
    }
}

/// All that may stand in one word, each for itself.
fn read_as_everything(text: &str) {
    let readers: [fn(&str); 6] = [quantities, references, words, schedules, log_drivers, templates];
    for reader in readers {
        let ((), spent) = spent(|| reader(text));
        assert!(spent.most_bytes < MOST_BYTES && spent.all_bytes < ALL_BYTES, "{spent:?}: {text:?}");
    }
}

#[derive(Debug, Clone, TypeGenerator)]
enum Piece {
    Listed(u8),
    Listed2(u8),
    Char(char),
    Number(u64),
    /// The piece before, so many times more.
    Again(#[generator(1usize..40)] usize),
}

const PIECES: [&str; 77] = [
    "h",
    "m",
    "s",
    "ms",
    "µs",
    "ns",
    "g",
    "kb",
    "MiB",
    ".",
    ":",
    "-",
    "/",
    "==",
    "!=",
    "=",
    ",",
    " ",
    "node.role",
    "node.labels.",
    "node.ip",
    "engine.labels.",
    "manager",
    "{{",
    "}}",
    ".Node.Hostname",
    ".Task.Slot",
    "index ",
    " .Service.Labels ",
    "\"a\"",
    "|",
    "upper ",
    "join ",
    "env ",
    "(",
    ")",
    "@",
    "@every ",
    "@daily",
    "sha256:",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "docker.io/",
    "localhost:5000/",
    "library/",
    ":latest",
    "tcp",
    "udp",
    "sctp",
    "[::1]",
    "fd00::/64",
    "10.0.0.0",
    "/24",
    "*",
    "*/5",
    "MON-FRI",
    "L",
    "#",
    "W",
    "?",
    "FLKTKN-1-",
    "SWMTKN-1-",
    "healthy",
    "optional",
    "udp://",
    "tcp://",
    "tcp+tls://",
    "unix:///",
    "local7",
    "rfc5424",
    "\\",
    "$",
    "é",
    "\0",
    "99999999999999999999",
    ".999999999999",
    "password=",
    "seccomp=",
];

fn text(pieces: &[Piece]) -> String {
    let (mut text, mut last) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            Piece::Listed(index) | Piece::Listed2(index) => {
                PIECES[usize::from(*index) % PIECES.len()].clone_into(&mut last)
            }
            Piece::Char(char) => last = char.to_string(),
            Piece::Number(number) => last = number.to_string(),
            Piece::Again(times) => {
                text.push_str(&last.repeat(*times));
                continue;
            }
        }
        text.push_str(&last);
    }
    text
}

#[test]
fn words_that_are_nearly_right_are_read_or_refused() {
    let pieces = produce::<Vec<Piece>>().with().len(1usize..12);
    check!().with_iterations(3000).with_generator(pieces).for_each(|pieces| read_as_everything(&text(pieces)));
}

#[test]
fn words_of_any_bytes_are_read_or_refused() {
    check!().with_iterations(500).for_each(|bytes: &[u8]| read_as_everything(&String::from_utf8_lossy(bytes)));
}
