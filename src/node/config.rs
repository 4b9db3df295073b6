//! The daemon's configuration: one set of keys, each a line in `flok.toml`, a flag of `flok daemon`, and a `FLOK_...`
//! variable of the same name. A flag wins over a variable, that over the file, and that over the default.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::network;
use crate::spec::{GenericResource, Labels, quantity};

/// Read where no `--config` is given, if it exists.
pub const DEFAULT_FILE: &str = "/etc/flok/flok.toml";
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has {bytes} bytes: that is no configuration file", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    /// The message holds line and column.
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("{key}: {why}")]
    Value { key: &'static str, why: String },
}

/// The keys as given in one place; what is not given is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Where this node keeps its identity, log, images and volumes [default: /var/lib/flok]
    #[arg(long, env = "FLOK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Unix socket of the API [default: /run/flok/flok.sock]
    #[arg(long, env = "FLOK_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// A second socket of the API, for programs that look for Docker's: /run/docker.sock [default: none]
    #[arg(long, env = "FLOK_DOCKER_SOCKET", value_name = "PATH")]
    pub docker_socket: Option<PathBuf>,
    /// Address on which other nodes reach this one, TCP and UDP [default: 0.0.0.0:2377]
    #[arg(long, env = "FLOK_LISTEN_ADDR", value_name = "IP[:PORT]")]
    pub listen_addr: Option<String>,
    /// Address told to other nodes [default: that of the route to them]
    #[arg(long, env = "FLOK_ADVERTISE_ADDR", value_name = "IP[:PORT]")]
    pub advertise_addr: Option<String>,
    /// Socket of a containerd to use [default: one of flok's own below the data directory]
    #[arg(long, env = "FLOK_CONTAINERD", value_name = "SOCKET")]
    pub containerd: Option<PathBuf>,
    /// Block that this node's tasks have their host-local addresses from; no other host needs to know it [default: 198.19.0.0/17]
    #[arg(long, env = "FLOK_LOCAL_SUBNET", value_name = "CIDR")]
    pub local_subnet: Option<String>,
    /// Label of this node for constraints on engine.labels; repeat it
    #[arg(long, env = "FLOK_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub label: Vec<String>,
    /// Name of this node in the swarm [default: the host's name]
    #[arg(long, env = "FLOK_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
    /// CPUs kept for the system, not given to tasks [default: 0]
    #[arg(long, env = "FLOK_RESERVE_CPUS", value_name = "CPUS")]
    pub reserve_cpus: Option<String>,
    /// Memory kept for the system, not given to tasks [default: 256m]
    #[arg(long, env = "FLOK_RESERVE_MEMORY", value_name = "SIZE")]
    pub reserve_memory: Option<String>,
    /// Resource that services may reserve, as kind=count or kind=name; repeat it
    #[arg(long, env = "FLOK_GENERIC_RESOURCE", value_name = "KIND=VALUE", value_delimiter = ',')]
    pub generic_resource: Vec<String>,
    /// Registry that is spoken to over plain HTTP; repeat it
    #[arg(long, env = "FLOK_INSECURE_REGISTRY", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
    /// Certificate of a private CA for a registry; repeat it
    #[arg(long, env = "FLOK_REGISTRY_CA", value_name = "HOST[:PORT]=FILE", value_delimiter = ',')]
    pub registry_ca: Vec<String>,
    /// Size at which a task's log file is rotated [default: 10m]
    #[arg(long, env = "FLOK_TASK_LOG_MAX_SIZE", value_name = "SIZE")]
    pub task_log_max_size: Option<String>,
    /// Log files kept for a task [default: 3]
    #[arg(long, env = "FLOK_TASK_LOG_MAX_FILES", value_name = "COUNT")]
    pub task_log_max_files: Option<u32>,
    /// What the daemon logs: error, warn, info, debug, trace, or a filter such as info,flok::api=debug [default: info]
    #[arg(long, env = "FLOK_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Form of the daemon's log: text or json [default: text]
    #[arg(long, env = "FLOK_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// What the daemon runs with: every key has its value, and every value has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub socket: PathBuf,
    /// A second one, where Docker's is looked for.
    pub docker_socket: Option<PathBuf>,
    pub listen_addr: SocketAddr,
    pub advertise_addr: Option<Advertise>,
    pub containerd: Option<PathBuf>,
    pub local_subnet: network::Subnet,
    pub labels: Labels,
    pub hostname: Option<String>,
    pub reserve_nano_cpus: u64,
    pub reserve_memory_bytes: u64,
    pub generic_resources: Vec<GenericResource>,
    pub insecure_registries: Vec<String>,
    /// Certificate files by registry.
    pub registry_cas: BTreeMap<String, PathBuf>,
    pub task_log_max_bytes: u64,
    pub task_log_max_files: u32,
    pub log_level: String,
    pub log_format: LogFormat,
}

/// The port is the one listened on where none is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertise {
    pub addr: IpAddr,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Docker Swarm's port.
const DEFAULT_PORT: u16 = 2377;

/// Of the block that is set aside for measuring network devices (RFC 2544), which no network is made of: LANs, clouds,
/// providers' translation (and the VPNs that borrow it) and Docker's bridges are elsewhere. Of that block, the quarter
/// that desktop proxies and virtual machine managers are not known to use.
const DEFAULT_LOCAL_SUBNET: &str = "198.19.0.0/17";

impl Config {
    /// Flags (with variables, which clap puts in their place) over the file: `file`, or the default one where it exists.
    pub fn load(flags: Settings, file: Option<&Path>) -> Result<Config, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let settings = match file {
            Some(path) => read(path)?,
            None if default.exists() => read(default)?,
            None => Settings::default(),
        };
        Config::check(flags.or(settings))
    }

    fn check(settings: Settings) -> Result<Config, ConfigError> {
        let listen = settings.listen_addr.as_deref().unwrap_or("0.0.0.0");
        let (addr, port) = address("listen-addr", listen)?;
        let listen_addr = SocketAddr::new(addr, port.unwrap_or(DEFAULT_PORT));
        let advertise_addr = match settings.advertise_addr.as_deref().map(|text| address("advertise-addr", text)) {
            None => None,
            Some(Ok((addr, _))) if addr.is_unspecified() => {
                let why = format!("{addr} is no address that others could reach: name one of this machine's own");
                return Err(ConfigError::Value { key: "advertise-addr", why });
            }
            Some(address) => {
                let (addr, port) = address?;
                Some(Advertise { addr, port: port.unwrap_or(listen_addr.port()) })
            }
        };
        let size = |key, text: &Option<String>, default: &str| {
            quantity::parse_size(text.as_deref().unwrap_or(default))
                .map_err(|e| ConfigError::Value { key, why: e.to_string() })
        };
        let cpus = quantity::parse_nano_cpus(settings.reserve_cpus.as_deref().unwrap_or("0"));
        let task_log_max_files = settings.task_log_max_files.unwrap_or(3);
        if task_log_max_files == 0 {
            return Err(ConfigError::Value { key: "task-log-max-files", why: "at least one file is needed".into() });
        }
        Ok(Config {
            data_dir: absolute("data-dir", settings.data_dir, "/var/lib/flok")?,
            socket: absolute("socket", settings.socket, "/run/flok/flok.sock")?,
            docker_socket: settings.docker_socket.map(|path| absolute("docker-socket", Some(path), "")).transpose()?,
            listen_addr,
            advertise_addr,
            containerd: settings.containerd.map(|path| absolute("containerd", Some(path), "")).transpose()?,
            local_subnet: local_subnet(settings.local_subnet.as_deref().unwrap_or(DEFAULT_LOCAL_SUBNET))?,
            labels: pairs("label", &settings.label)?.into_iter().collect(),
            hostname: settings.hostname.map(hostname).transpose()?,
            reserve_nano_cpus: cpus.map_err(|e| ConfigError::Value { key: "reserve-cpus", why: e.to_string() })?,
            reserve_memory_bytes: size("reserve-memory", &settings.reserve_memory, "256m")?,
            generic_resources: generic_resources(&settings.generic_resource)?,
            insecure_registries: settings.insecure_registry,
            registry_cas: pairs("registry-ca", &settings.registry_ca)?
                .into_iter()
                .map(|(k, v)| (k, v.into()))
                .collect(),
            task_log_max_bytes: size("task-log-max-size", &settings.task_log_max_size, "10m")?,
            task_log_max_files,
            log_level: settings.log_level.unwrap_or_else(|| "info".into()),
            log_format: match settings.log_format.as_deref() {
                None | Some("text") => LogFormat::Text,
                Some("json") => LogFormat::Json,
                Some(other) => {
                    return Err(ConfigError::Value {
                        key: "log-format",
                        why: format!("{other:?} is neither text nor json"),
                    });
                }
            },
        })
    }
}

impl Config {
    /// All that the API is served on.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.socket), self.docker_socket.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }
}

impl Settings {
    /// Each key from here, or where it is not given from `lower`.
    fn or(self, lower: Settings) -> Settings {
        let list = |upper: Vec<String>, lower| if upper.is_empty() { lower } else { upper };
        Settings {
            data_dir: self.data_dir.or(lower.data_dir),
            socket: self.socket.or(lower.socket),
            docker_socket: self.docker_socket.or(lower.docker_socket),
            listen_addr: self.listen_addr.or(lower.listen_addr),
            advertise_addr: self.advertise_addr.or(lower.advertise_addr),
            containerd: self.containerd.or(lower.containerd),
            local_subnet: self.local_subnet.or(lower.local_subnet),
            label: list(self.label, lower.label),
            hostname: self.hostname.or(lower.hostname),
            reserve_cpus: self.reserve_cpus.or(lower.reserve_cpus),
            reserve_memory: self.reserve_memory.or(lower.reserve_memory),
            generic_resource: list(self.generic_resource, lower.generic_resource),
            insecure_registry: list(self.insecure_registry, lower.insecure_registry),
            registry_ca: list(self.registry_ca, lower.registry_ca),
            task_log_max_size: self.task_log_max_size.or(lower.task_log_max_size),
            task_log_max_files: self.task_log_max_files.or(lower.task_log_max_files),
            log_level: self.log_level.or(lower.log_level),
            log_format: self.log_format.or(lower.log_format),
        }
    }
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.into(), bytes });
    }
    parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
}

fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| {
            let before = &text[..span.start.min(text.len())];
            let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
            format!("line {}, column {column}: ", before.matches('\n').count() + 1)
        });
        let message = format!("{}{}", place.unwrap_or_default(), error.message());
        ConfigError::File { path: path.into(), message }
    })
}

fn absolute(key: &'static str, path: Option<PathBuf>, default: &str) -> Result<PathBuf, ConfigError> {
    let path = path.unwrap_or_else(|| default.into());
    std::path::absolute(&path).map_err(|error| ConfigError::Value { key, why: format!("{path:?}: {error}") })
}

/// `IP` or `IP:PORT`; an IPv6 address with a port stands in brackets.
fn address(key: &'static str, text: &str) -> Result<(IpAddr, Option<u16>), ConfigError> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok((addr.ip(), Some(addr.port())));
    }
    let addr = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let why = format!("{text:?} is not an address: write for example 192.0.2.1 or 192.0.2.1:{DEFAULT_PORT}");
    addr.map(|addr| (addr, None)).map_err(|_| ConfigError::Value { key, why })
}

/// Not what every host has already; flok's own gateways are link-local.
fn local_subnet(text: &str) -> Result<network::Subnet, ConfigError> {
    let invalid = |why: String| ConfigError::Value { key: "local-subnet", why };
    let subnet: network::Subnet = text.parse().map_err(|error: network::NetworkError| invalid(error.to_string()))?;
    let base = subnet.base();
    if base.is_loopback() || base.is_link_local() || base.is_multicast() || base.octets()[0] == 0 {
        return Err(invalid(format!("{subnet} has a meaning of its own on every host: choose a private block")));
    }
    Ok(subnet)
}

fn pairs(key: &'static str, items: &[String]) -> Result<Vec<(String, String)>, ConfigError> {
    let pair = |item: &String| match item.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(ConfigError::Value { key, why: format!("{item:?} is not NAME=VALUE") }),
    };
    items.iter().map(pair).collect()
}

fn generic_resources(items: &[String]) -> Result<Vec<GenericResource>, ConfigError> {
    let resource = |(kind, value): (String, String)| match value.parse() {
        Ok(value) => GenericResource::Discrete { kind, value },
        Err(_) => GenericResource::Named { kind, value },
    };
    Ok(pairs("generic-resource", items)?.into_iter().map(resource).collect())
}

fn hostname(name: String) -> Result<String, ConfigError> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !name.is_empty() && name.len() <= 253 && name.chars().all(ok) {
        return Ok(name);
    }
    Err(ConfigError::Value { key: "hostname", why: format!("{name:?} is not a host's name") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args, Command};

    use super::*;

    const EXAMPLE: &str = include_str!("../../config/flok.toml");

    fn file(text: &str) -> Result<Settings, ConfigError> {
        parse(Path::new("f.toml"), text)
    }

    /// Keys of the example file: lines `key = value`, commented out or not.
    fn example_settings() -> String {
        let is_setting = |line: &&str| {
            line.starts_with("# ") && line[2..].split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
        };
        EXAMPLE.lines().filter(is_setting).map(|line| format!("{}\n", &line[2..])).collect()
    }

    #[test]
    fn file_flags_and_variables_have_the_same_keys() {
        let table: toml::Table = example_settings().parse().unwrap();
        let in_file: BTreeSet<String> = table.keys().cloned().collect();
        let command = Settings::augment_args(Command::new("daemon"));
        let mut in_flags = BTreeSet::new();
        for arg in command.get_arguments() {
            let flag = arg.get_long().unwrap().to_string();
            let variable = arg.get_env().unwrap().to_string_lossy().into_owned();
            assert_eq!(variable, format!("FLOK_{}", flag.to_uppercase().replace('-', "_")));
            assert!(arg.get_help().is_some(), "{flag}");
            in_flags.insert(flag);
        }
        assert_eq!(in_file, in_flags);
    }

    #[test]
    fn the_example_file_holds_the_defaults() {
        let defaults = Config::check(Settings::default()).unwrap();
        assert_eq!(Config::check(file(EXAMPLE).unwrap()).unwrap(), defaults, "as it is shipped");
        let all = Config::check(file(&example_settings()).unwrap()).unwrap();
        let named = (all.data_dir, all.socket, all.listen_addr, all.reserve_memory_bytes, all.log_format);
        let expected = (
            defaults.data_dir,
            defaults.socket,
            defaults.listen_addr,
            defaults.reserve_memory_bytes,
            defaults.log_format,
        );
        assert_eq!(named, expected, "with its lines made active");
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let flags = Settings { socket: Some("/flag.sock".into()), label: vec!["a=1".into()], ..Settings::default() };
        let file = file("socket = '/file.sock'\ndata-dir = '/file'\nlabel = ['b=2', 'c=3']\n").unwrap();
        let config = Config::check(flags.or(file)).unwrap();
        assert_eq!((config.socket, config.data_dir), ("/flag.sock".into(), "/file".into()));
        assert_eq!(config.labels.into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(config.listen_addr, "0.0.0.0:2377".parse().unwrap());
    }

    #[test]
    fn a_variable_stands_in_for_its_flag() {
        let read = |args: &[&str]| {
            let command = Settings::augment_args(Command::new("daemon"));
            let matches = command.try_get_matches_from(args).unwrap();
            <Settings as clap::FromArgMatches>::from_arg_matches(&matches).unwrap()
        };
        assert_eq!(read(&["daemon", "--label", "a=1", "--label=b=2,c=3"]).label, ["a=1", "b=2", "c=3"]);
        assert_eq!(read(&["daemon", "--listen-addr", "::1"]).listen_addr.as_deref(), Some("::1"));
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        let error = file("socket = '/a'\ndata_dir = '/b'\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("data_dir"), "{error}");
        let error = file("label = 'a'\n").unwrap_err().to_string();
        assert!(error.starts_with("f.toml: line 1"), "{error}");
    }

    #[test]
    fn bad_values_name_their_key() {
        let bad = |settings| Config::check(settings).unwrap_err().to_string();
        let text = |text: &str| Some(text.to_string());
        assert!(bad(Settings { listen_addr: text("here"), ..Default::default() }).starts_with("listen-addr: "));
        assert!(
            bad(Settings { advertise_addr: text("0.0.0.0"), ..Default::default() }).starts_with("advertise-addr: ")
        );
        assert!(bad(Settings { reserve_memory: text("much"), ..Default::default() }).starts_with("reserve-memory: "));
        assert!(bad(Settings { reserve_cpus: text("-1"), ..Default::default() }).starts_with("reserve-cpus: "));
        assert!(bad(Settings { label: vec!["x".into()], ..Default::default() }).starts_with("label: "));
        assert!(bad(Settings { log_format: text("xml"), ..Default::default() }).starts_with("log-format: "));
        assert!(bad(Settings { hostname: text("a b"), ..Default::default() }).starts_with("hostname: "));
        for subnet in
            ["10.0.0.0", "10.0.0.1/16", "10.0.0.0/31", "127.0.0.0/16", "169.254.0.0/16", "224.0.0.0/16", "fd00::/64"]
        {
            let said = bad(Settings { local_subnet: text(subnet), ..Default::default() });
            assert!(said.starts_with("local-subnet: "), "{subnet}: {said}");
        }
        assert!(
            bad(Settings { task_log_max_files: Some(0), ..Default::default() }).starts_with("task-log-max-files: ")
        );
    }

    #[test]
    fn addresses_may_carry_a_port() {
        let config = |listen: &str, advertise: &str| {
            let settings = Settings {
                listen_addr: Some(listen.into()),
                advertise_addr: Some(advertise.into()),
                ..Settings::default()
            };
            let config = Config::check(settings).unwrap();
            (config.listen_addr.to_string(), config.advertise_addr.unwrap())
        };
        let advertise = |addr: &str, port| Advertise { addr: addr.parse().unwrap(), port };
        assert_eq!(config("10.0.0.1:99", "10.0.0.2"), ("10.0.0.1:99".into(), advertise("10.0.0.2", 99)));
        assert_eq!(config("[::]", "[fd00::1]:5"), ("[::]:2377".into(), advertise("fd00::1", 5)));
    }
}
