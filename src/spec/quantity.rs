//! Quantities as users write them: sizes (`512m`, `1.5GiB`), CPUs (`0.5`), durations (`1h30m`), port ranges (`8000-8010`).
//! Each reader refuses what Docker refuses, and names what it expected.

use std::time::Duration;

/// A quantity that does not read; the message says what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("{0:?} is not a size: write a number and a unit, for example 512m or 1.5g")]
    Size(String),
    #[error("{0:?} is not a number of CPUs: write for example 0.5 or 2")]
    Cpus(String),
    #[error("{0:?} has more than nine decimals: the smallest share is 0.000000001 of a CPU")]
    CpusTooFine(String),
    #[error("{0:?} is not a duration: write numbers with units, for example 10s, 1m30s or 500ms")]
    Duration(String),
    #[error("{0:?} is not a port: a port is a number from 1 to 65535")]
    Port(String),
    #[error("{0:?} is not a port range: the first port is above the last")]
    PortRange(String),
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Bytes, in Docker's grammar: `k`, `m`, `g`, `t`, `p` with an optional `i` and `b`, always powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let invalid = || QuantityError::Size(shown(text));
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" | "ki" => 10,
        "m" | "mb" | "mib" | "mi" => 20,
        "g" | "gb" | "gib" | "gi" => 30,
        "t" | "tb" | "tib" | "ti" => 40,
        "p" | "pb" | "pib" | "pi" => 50,
        _ => return Err(invalid()),
    };
    // Tenths of a byte are dropped, as Docker does.
    let (units, scale) = parse_decimal(number, 9).ok_or_else(invalid)?;
    let bytes = units.checked_mul(1 << shift).and_then(|units| u64::try_from(units / scale).ok());
    bytes.filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(|| QuantityError::TooLarge(shown(text)))
}

/// Billionths of a CPU.
pub fn parse_nano_cpus(text: &str) -> Result<u64, QuantityError> {
    let invalid = || QuantityError::Cpus(shown(text));
    let trimmed = text.trim();
    if trimmed.split_once('.').is_some_and(|(_, decimals)| decimals.trim_end_matches('0').len() > 9) {
        return Err(QuantityError::CpusTooFine(shown(text)));
    }
    let (units, scale) = parse_decimal(trimmed, 9).ok_or_else(invalid)?;
    let nanos = units.checked_mul(1_000_000_000).and_then(|units| u64::try_from(units / scale).ok());
    nanos.ok_or_else(|| QuantityError::TooLarge(shown(text)))
}

/// `12.5` as (125, 10); at most `decimals` decimals count. At most 20 digits before the point.
fn parse_decimal(text: &str, decimals: usize) -> Option<(u128, u128)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) || whole.len() > 20 {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(decimals)];
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some((whole * scale + part, scale))
}

/// Go's grammar without a sign: `1h30m`, `1.5s`, `10us`, `0`.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let invalid = || QuantityError::Duration(shown(text));
    let too_large = || QuantityError::TooLarge(shown(text));
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(invalid()),
        };
        let (units, scale) = parse_decimal(number, 12).ok_or_else(invalid)?;
        let part = units.checked_mul(unit_nanos).ok_or_else(too_large)? / scale;
        nanos = nanos.checked_add(part).ok_or_else(too_large)?;
        rest = tail;
    }
    // Go's limit: 2^63 ns, about 292 years.
    match u64::try_from(nanos) {
        Ok(nanos) if nanos <= i64::MAX as u64 => Ok(Duration::from_nanos(nanos)),
        _ => Err(too_large()),
    }
}

/// Go's way to print a duration: `1h30m0s`, `1.5s`, `10ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let decimal = |unit: u128, name: &str| {
        let fraction = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{name}", nanos / unit)
    };
    match nanos {
        0 => "0s".to_string(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let minutes = duration.as_secs() / 60;
            let seconds = format_seconds(duration);
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    }
}

/// Seconds below a minute, with the decimals that matter.
fn format_seconds(duration: Duration) -> String {
    let fraction = format!("{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}s", duration.as_secs() % 60)
}

/// A port, or `first-last`, both ends included.
pub fn parse_port_range(text: &str) -> Result<(u16, u16), QuantityError> {
    let port = |part: &str| match part.trim().parse::<u16>() {
        Ok(port) if port > 0 && part.trim().bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(QuantityError::Port(shown(part))),
    };
    let Some((first, last)) = text.split_once('-') else { return port(text).map(|p| (p, p)) };
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(QuantityError::PortRange(shown(text))) } else { Ok((first, last)) }
}

/// Bytes for people, as `docker info` shows memory: `1.95GiB`, `512MiB`, `80B`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value >= 1000.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        let decimals = if value >= 100.0 {
            1
        } else if value >= 10.0 {
            2
        } else {
            3
        };
        format!("{value:.decimals$}").trim_end_matches('0').trim_end_matches('.').to_string()
    };
    format!("{digits}{}", UNITS[unit])
}

/// A user's text in a message, cut where it is absurd.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Seconds in Docker's words: `5 seconds`, `About a minute`.
pub fn for_people(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_docker_reads_them() {
        let cases = [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("1gb", 1 << 30),
            ("2 GB", 2 << 30),
            (".5k", 512),
            ("1t", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1.2.3m",
            "12x",
            "1 5",
            "five",
            "1e3",
            "9999999p",
            "99999999999999999999999999999",
            "90669436471097188102.963200000p",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_read_to_the_billionth() {
        assert_eq!(parse_nano_cpus("0.5"), Ok(500_000_000));
        assert_eq!(parse_nano_cpus("2"), Ok(2_000_000_000));
        assert_eq!(parse_nano_cpus("0.000000001"), Ok(1));
        assert_eq!(parse_nano_cpus("0.0000000001"), Err(QuantityError::CpusTooFine("0.0000000001".into())));
        for text in ["", "-1", "half", "1,5", "1.5.5"] {
            assert!(parse_nano_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_and_print_as_go_does() {
        let cases = [
            ("0", Duration::ZERO, "0s"),
            ("1h30m", Duration::from_secs(5400), "1h30m0s"),
            ("1.5s", Duration::from_millis(1500), "1.5s"),
            ("10us", Duration::from_micros(10), "10µs"),
            ("250ms", Duration::from_millis(250), "250ms"),
            ("90s", Duration::from_secs(90), "1m30s"),
            ("1m0.25s", Duration::from_millis(60_250), "1m0.25s"),
            ("3ns", Duration::from_nanos(3), "3ns"),
        ];
        for (text, duration, printed) in cases {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(format_duration(duration), printed, "{text}");
        }
        for text in ["", "10", "s", "-1s", "1d", "1.2.3s", "10 s", "9999999999h", "99999999999999999999.999999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn port_ranges_stay_in_range() {
        assert_eq!(parse_port_range("80"), Ok((80, 80)));
        assert_eq!(parse_port_range("8000-8010"), Ok((8000, 8010)));
        for text in ["", "0", "65536", "-1", "80-", "90-80", "http", "+80"] {
            assert!(parse_port_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_for_people() {
        for (bytes, text) in [(0, "0B"), (80, "80B"), (512 << 20, "512MiB"), (3 << 29, "1.5GiB")] {
            assert_eq!(format_size(bytes), text);
        }
    }
}
