//! The files of one task on the host: its `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, beside its logs.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::error::{Result, RuntimeError};
use super::oci::EtcFiles;
use crate::spec::ContainerSpec;

/// Where a host with a local caching resolver keeps the servers behind it: the cache's own loopback address is out of a
/// container's reach.
const BEHIND_LOCAL_CACHE: &str = "/run/systemd/resolve/resolv.conf";

/// What the files say of the task's network.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// The task's own, which its hostname means.
    pub addresses: &'a [IpAddr],
    /// The only server the task asks, where it has one of the swarm's: that one asks the others.
    pub resolver: Option<IpAddr>,
    /// It is the host's own, with the servers on its loopback and the names that the host knows.
    pub on_host: bool,
}

/// Writes the three files into `dir`, which exists.
pub fn write(dir: &Path, container: &ContainerSpec, hostname: &str, network: Network<'_>) -> Result<EtcFiles> {
    let etc =
        EtcFiles { hosts: dir.join("hosts"), hostname: dir.join("hostname"), resolv_conf: dir.join("resolv.conf") };
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolv = match network.resolver {
        Some(resolver) => behind_resolver(container, &host, resolver),
        None if network.on_host => on_host(container, &host),
        None => resolv_conf(container, &host, || fs::read_to_string(BEHIND_LOCAL_CACHE).unwrap_or_default()),
    };
    let texts = [
        (&etc.hosts, hosts(container, hostname, network)),
        (&etc.hostname, format!("{hostname}\n")),
        (&etc.resolv_conf, resolv),
    ];
    for (path, text) in texts {
        fs::write(path, text).map_err(RuntimeError::io("writing", path))?;
    }
    Ok(etc)
}

/// Names of every host.
const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

fn hosts(container: &ContainerSpec, hostname: &str, network: Network<'_>) -> String {
    let own = network.on_host.then(|| fs::read_to_string("/etc/hosts").ok()).flatten();
    let mut text = own.unwrap_or_else(|| LOCAL_NAMES.to_owned());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in &container.hosts {
        text.push_str(&hosts_line(entry));
    }
    for address in network.addresses {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

/// The API has `address name...`, the CLI's form is `name:address`.
fn hosts_line(entry: &str) -> String {
    let mut words = entry.split_whitespace();
    match (words.next(), words.next()) {
        (Some(address), Some(name)) if address.parse::<IpAddr>().is_ok() => {
            let more: Vec<&str> = std::iter::once(name).chain(words).collect();
            format!("{address}\t{}\n", more.join(" "))
        }
        _ => match entry.split_once(':') {
            Some((name, address)) => format!("{address}\t{name}\n"),
            None => String::new(),
        },
    }
}

/// The spec's servers, else the host's own, all of them.
fn on_host(container: &ContainerSpec, host: &str) -> String {
    let mut kept: Vec<String> = host.lines().map(str::to_owned).collect();
    replace(&mut kept, "nameserver", container.dns.nameservers.clone());
    with_search_and_options(kept, container)
}

/// The spec's servers, else the host's own, without those on its loopback.
fn resolv_conf(container: &ContainerSpec, host: &str, behind_cache: impl FnOnce() -> String) -> String {
    let is_loopback = |line: &&str| {
        let server = line.strip_prefix("nameserver").map(str::trim);
        server.and_then(|server| server.parse::<IpAddr>().ok()).is_some_and(|server| server.is_loopback())
    };
    let is_server = |line: &&str| line.starts_with("nameserver");
    let mut kept: Vec<String> = host.lines().filter(|line| !is_loopback(line)).map(str::to_owned).collect();
    if !kept.iter().any(|line| is_server(&line.as_str())) {
        kept.extend(behind_cache().lines().filter(is_server).filter(|line| !is_loopback(line)).map(str::to_owned));
    }
    replace(&mut kept, "nameserver", container.dns.nameservers.clone());
    with_search_and_options(kept, container)
}

/// The swarm's resolver alone, with the search domains and options of the spec, else of the host. A name without a dot is
/// tried as it is before any search domain (as in Docker, unless an option says otherwise): a service's name must not
/// depend on a server outside.
fn behind_resolver(container: &ContainerSpec, host: &str, resolver: IpAddr) -> String {
    let kept = host.lines().filter(|line| !line.starts_with("nameserver")).map(str::to_owned);
    let kept: Vec<String> = std::iter::once(format!("nameserver {resolver}")).chain(kept).collect();
    let mut text = with_search_and_options(kept, container);
    let mut options = text.lines().filter(|line| line.starts_with("options")).flat_map(str::split_whitespace);
    if !options.any(|option| option.starts_with("ndots:")) {
        text.push_str("options ndots:0\n");
    }
    text
}

fn with_search_and_options(mut kept: Vec<String>, container: &ContainerSpec) -> String {
    let dns = &container.dns;
    let joined = |words: &[String]| if words.is_empty() { Vec::new() } else { vec![words.join(" ")] };
    replace(&mut kept, "search", joined(&dns.search));
    replace(&mut kept, "options", joined(&dns.options));
    kept.iter().map(|line| format!("{line}\n")).collect()
}

/// Lines of `key` become these, unless there are none.
fn replace(lines: &mut Vec<String>, key: &str, values: Vec<String>) {
    if !values.is_empty() {
        lines.retain(|line| !line.starts_with(key));
        lines.extend(values.into_iter().map(|value| format!("{key} {value}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::DnsConfig;

    fn container(dns: DnsConfig) -> ContainerSpec {
        ContainerSpec { dns, ..Default::default() }
    }

    #[test]
    fn a_local_caches_servers_take_its_place() {
        let text = resolv_conf(&container(DnsConfig::default()), "nameserver 127.0.0.53\nsearch lan\n", || {
            "nameserver 192.0.2.1\nsearch other\n".into()
        });
        assert_eq!(text, "search lan\nnameserver 192.0.2.1\n");
    }

    #[test]
    fn the_specs_servers_replace_the_hosts() {
        let dns = DnsConfig { nameservers: vec!["192.0.2.9".into()], ..Default::default() };
        let text = resolv_conf(&container(dns), "nameserver 192.0.2.1\noptions ndots:2\n", String::new);
        assert_eq!(text, "options ndots:2\nnameserver 192.0.2.9\n");
    }

    #[test]
    fn behind_the_swarms_resolver_no_other_server_is_named() {
        let host = "nameserver 127.0.0.53\nsearch lan\noptions edns0 trust-ad\n";
        let resolver = "127.0.0.11".parse().unwrap();
        let own = DnsConfig { nameservers: vec!["192.0.2.9".into()], ..Default::default() };
        let text = behind_resolver(&container(own), host, resolver);
        assert_eq!(text, "nameserver 127.0.0.11\nsearch lan\noptions edns0 trust-ad\noptions ndots:0\n");
        let own = DnsConfig { search: vec!["corp".into()], options: vec!["ndots:2".into()], ..Default::default() };
        let text = behind_resolver(&container(own), host, resolver);
        assert_eq!(text, "nameserver 127.0.0.11\nsearch corp\noptions ndots:2\n");
    }

    #[test]
    fn extra_hosts_are_taken_in_both_forms() {
        assert_eq!(hosts_line("192.0.2.1 db db.lan"), "192.0.2.1\tdb db.lan\n");
        assert_eq!(hosts_line("db:192.0.2.1"), "192.0.2.1\tdb\n");
        assert_eq!(hosts_line("db:2001:db8::1"), "2001:db8::1\tdb\n");
    }
}
