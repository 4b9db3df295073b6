//! The short form of published ports, as `docker service create --publish` and stack files have it.

use super::Protocol;
use super::quantity::{QuantityError, parse_port_range};

/// Of one service, ranges counted out. Each is an entry in the tables of every node.
pub const MAX_PUBLISHED_PORTS: usize = 1024;

/// `[host-ip:][published:]target[/protocol]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortPorts {
    /// A swarm publishes on every address.
    pub host_ip: Option<String>,
    pub protocol: Protocol,
    /// Published and target; `None` leaves the published port to the swarm.
    pub ports: Vec<(Option<u16>, u16)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPorts {
    #[error(transparent)]
    Port(#[from] QuantityError),
    #[error("{0:?} is none of tcp, udp, sctp")]
    Protocol(String),
    #[error("the published range {published} and the target range {target} have different lengths")]
    Lengths { published: String, target: String },
    #[error("{0} is more than {MAX_PUBLISHED_PORTS} ports: publish fewer in one service")]
    TooMany(String),
}

impl ShortPorts {
    pub fn parse(text: &str) -> Result<ShortPorts, InvalidPorts> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = parse_protocol(protocol)?;
        let (rest, target) = ports.rsplit_once(':').map_or(("", ports), |(rest, target)| (rest, target));
        let (host_ip, published) = rest.rsplit_once(':').map_or((None, rest), |(ip, port)| (Some(ip.to_owned()), port));
        let (first, last) = parse_port_range(target)?;
        let published = match published {
            "" | "0" => None,
            range => Some((range, parse_port_range(range)?)),
        };
        if let Some((range, (low, high))) = published
            && first != last
            && high - low != last - first
        {
            return Err(InvalidPorts::Lengths { published: range.to_owned(), target: target.to_owned() });
        }
        // Several published ports for one target: each leads there.
        let most = published.map_or(last - first, |(_, (low, high))| high - low);
        if usize::from(most) >= MAX_PUBLISHED_PORTS {
            return Err(InvalidPorts::TooMany(published.map_or(target, |(range, _)| range).to_owned()));
        }
        let port = |offset: u16| {
            let target = if first == last { first } else { first + offset };
            (published.map(|(_, (low, _))| low + offset), target)
        };
        Ok(ShortPorts { host_ip, protocol, ports: (0..=most).map(port).collect() })
    }
}

pub fn parse_protocol(text: &str) -> Result<Protocol, InvalidPorts> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(InvalidPorts::Protocol(text.chars().take(32).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<(Option<u16>, u16)> {
        ShortPorts::parse(text).unwrap().ports
    }

    #[test]
    fn ranges_are_counted_out() {
        assert_eq!(ports("8080:80"), [(Some(8080), 80)]);
        assert_eq!(ports("8000-8002:80-82"), [(Some(8000), 80), (Some(8001), 81), (Some(8002), 82)]);
        assert_eq!(ports("8000-8001:80"), [(Some(8000), 80), (Some(8001), 80)], "all to one");
        assert_eq!(ports("80-81"), [(None, 80), (None, 81)], "left to the swarm");
        assert_eq!(ports("0:80"), [(None, 80)]);
        assert_eq!(ports("65535:65535"), [(Some(65535), 65535)]);
        assert_eq!(ports("1-1024:1-1024").len(), MAX_PUBLISHED_PORTS);
    }

    #[test]
    fn an_address_and_a_protocol_may_stand_at_the_ends() {
        let read = ShortPorts::parse("127.0.0.1:53:53/UDP").unwrap();
        assert_eq!((read.host_ip.as_deref(), read.protocol), (Some("127.0.0.1"), Protocol::Udp));
        assert_eq!(ShortPorts::parse("[::1]::80/sctp").unwrap().ports, [(None, 80)]);
    }

    #[test]
    fn what_is_no_port_is_refused_with_its_reason() {
        for (text, part) in [
            ("", "port"),
            ("8080:", "port"),
            ("a:80", "\"a\""),
            ("80/icmp", "\"icmp\" is none of tcp, udp, sctp"),
            ("8000-8010:80-81", "8000-8010 and the target range 80-81 have different lengths"),
            ("8080:80-81", "different lengths"),
            ("8010-8000:80", "8010-8000"),
            ("1-1025:80", "1-1025 is more than 1024 ports"),
            ("1-65535:1-65535", "more than 1024 ports"),
            ("70000:80", "70000"),
        ] {
            let error = ShortPorts::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
