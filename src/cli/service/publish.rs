//! Published ports as `service create` and `service update` name them.

use std::fmt;

use bollard::models::*;

use crate::spec::publish::{ShortPorts, parse_protocol};
use crate::spec::quantity::parse_port_range;
use crate::spec::{Protocol, publish::InvalidPorts};

/// What one `--publish` stands for: a range is as many ports.
#[derive(Debug, Clone, PartialEq)]
pub struct Published(Vec<EndpointPortConfig>);

/// `mode=host,target=80,published=8080,protocol=tcp`, or the short form `8000-8010:80-90/tcp`, which means ingress.
pub fn published(text: &str) -> Result<Published, String> {
    let said = |error: InvalidPorts| error.to_string();
    if !text.contains('=') {
        let short = ShortPorts::parse(text).map_err(said)?;
        if let Some(address) = short.host_ip {
            return Err(format!("a service is published on every address: leave {address:?} out"));
        }
        let ports = short.ports.into_iter().map(|(published, target)| EndpointPortConfig {
            published_port: published.map(i64::from),
            ..port(i64::from(target), short.protocol)
        });
        return Ok(Published(ports.collect()));
    }
    let number = |text: &str| match parse_port_range(text) {
        Ok((first, last)) if first == last => Ok(i64::from(first)),
        Ok(_) => {
            Err(format!("{text:?} is a range, which only the short form takes: write for example 8000-8010:80-90"))
        }
        Err(error) => Err(error.to_string()),
    };
    let (mut target, mut found) = (None, port(0, Protocol::Tcp));
    for part in text.split(',') {
        match part.split_once('=').unwrap_or((part, "")) {
            ("mode", "host") => found.publish_mode = Some(EndpointPortConfigPublishModeEnum::HOST),
            ("mode", "ingress") => {}
            ("mode", other) => return Err(format!("{other:?} is neither host nor ingress")),
            ("target", value) => target = Some(number(value)?),
            ("published", "0") => {}
            ("published", value) => found.published_port = Some(number(value)?),
            ("protocol", value) => found.protocol = Some(in_model(parse_protocol(value).map_err(said)?)),
            (other, _) => return Err(format!("{other:?} is none of mode, target, published, protocol")),
        }
    }
    found.target_port = Some(target.ok_or("there is no target port")?);
    Ok(Published(vec![found]))
}

fn port(target: i64, protocol: Protocol) -> EndpointPortConfig {
    EndpointPortConfig {
        target_port: Some(target),
        protocol: Some(in_model(protocol)),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::INGRESS),
        ..EndpointPortConfig::default()
    }
}

fn in_model(protocol: Protocol) -> EndpointPortConfigProtocolEnum {
    match protocol {
        Protocol::Tcp => EndpointPortConfigProtocolEnum::TCP,
        Protocol::Udp => EndpointPortConfigProtocolEnum::UDP,
        Protocol::Sctp => EndpointPortConfigProtocolEnum::SCTP,
    }
}

pub fn all(published: Vec<Published>) -> Vec<EndpointPortConfig> {
    published.into_iter().flat_map(|some| some.0).collect()
}

/// Target ports that are published no more: `80`, `80-90`, `53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first, self.last);
        if first == last {
            write!(f, "{first}")?
        } else {
            write!(f, "{first}-{last}")?
        }
        write!(f, "/{}", in_model(self.protocol))
    }
}

/// Without a protocol TCP is meant, as in Docker.
pub fn targets(text: &str) -> Result<Targets, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if ports.contains(':') {
        return Err("a published port is removed by its target port alone, for example 80 or 53/udp".into());
    }
    let (first, last) = parse_port_range(ports).map_err(|error| error.to_string())?;
    let protocol = parse_protocol(protocol).map_err(|error| error.to_string())?;
    Ok(Targets { first, last, protocol })
}

/// What is there already is not added again.
pub fn edit(ports: &mut Vec<EndpointPortConfig>, removed: &[Targets], added: Vec<Published>) {
    ports.retain(|port| !removed.iter().any(|targets| targets.has(port)));
    for port in all(added) {
        if !ports.iter().any(|known| is_same(known, &port)) {
            ports.push(port);
        }
    }
}

/// As `--publish-rm` names it.
pub fn target(port: &EndpointPortConfig) -> String {
    let protocol = port.protocol.unwrap_or(EndpointPortConfigProtocolEnum::TCP);
    format!("{}/{protocol}", port.target_port.unwrap_or(0))
}

impl Targets {
    pub fn has(&self, port: &EndpointPortConfig) -> bool {
        let target = port.target_port.and_then(|port| u16::try_from(port).ok());
        let protocol = port.protocol.unwrap_or(EndpointPortConfigProtocolEnum::TCP);
        target.is_some_and(|target| (self.first..=self.last).contains(&target)) && protocol == in_model(self.protocol)
    }
}

fn is_same(one: &EndpointPortConfig, other: &EndpointPortConfig) -> bool {
    let known = |port: &EndpointPortConfig| {
        (port.target_port, port.published_port.filter(|port| *port != 0), port.protocol, port.publish_mode)
    };
    known(one) == known(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        crate::cli::tasks::ports(&published(text).unwrap().0)
    }

    #[test]
    fn ports_read_in_both_forms() {
        assert_eq!(shown("8080:80/tcp"), "*:8080->80/tcp");
        assert_eq!(shown("53:53/udp"), "*:53->53/udp");
        assert_eq!(shown("80"), "*:->80/tcp");
        assert_eq!(shown("8000-8010:80-90"), "*:8000-8010->80-90/tcp");
        assert_eq!(shown("8000-8002:80"), "*:8000->80/tcp,*:8001->80/tcp,*:8002->80/tcp");
        assert_eq!(shown("mode=host,target=80,published=8080,protocol=udp"), ":8080->80/udp");
        assert_eq!(shown("target=80,published=0"), "*:->80/tcp");
        for text in ["", "mode=host", "target=0", "mode=x,target=1", "80-82:80-81", "a=b", "80/icmp", "1.2.3.4:80:80"] {
            assert!(published(text).is_err(), "{text}");
        }
        let range = published("target=80-81").unwrap_err();
        assert!(range.contains("only the short form"), "{range}");
    }

    #[test]
    fn ports_are_removed_by_target_and_protocol_and_added_once() {
        let mut ports = all(vec![published("8000-8002:80-82").unwrap(), published("53:53/udp").unwrap()]);
        let added = vec![published("8000:80").unwrap(), published("54:53").unwrap()];
        edit(&mut ports, &[targets("81-82").unwrap(), targets("53").unwrap()], added);
        assert_eq!(crate::cli::tasks::ports(&ports), "*:8000->80/tcp,*:53->53/udp,*:54->53/tcp");
        edit(&mut ports, &[targets("53/udp").unwrap()], Vec::new());
        assert_eq!(ports.len(), 2);
        for text in ["", "8080:80", "80/x", "0"] {
            assert!(targets(text).is_err(), "{text}");
        }
    }
}
