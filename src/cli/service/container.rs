//! What `service create` and `service update` can say of the containers beyond the common: rights, names, limits, logs.
//! What Docker has no word for goes as a label, which the daemon reads.

use std::collections::HashMap;

use anyhow::Context;
use bollard::models::*;
use clap::Args;

use super::edit::set;
use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::removal::Missing;
use crate::spec::quantity::parse_size;
use crate::spec::{DEPENDS_ON_LABEL, DependsOn, HOST_GATEWAY, is_host_address};

/// Flags that set one value.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Container options")]
pub struct ContainerArgs {
    /// Run a small init in the container, which reaps processes and passes signals on
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    init: Option<bool>,
    /// Isolation of the container: default is all that Linux has
    #[arg(long, value_parser = ["default"])]
    isolation: Option<String>,
    /// Keep the container's input open, for who attaches
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    interactive: Option<bool>,
    /// Give the container a terminal
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    tty: Option<bool>,
    /// Most processes of a task; 0: no limit
    #[arg(long, value_name = "COUNT")]
    limit_pids: Option<u32>,
    /// How soon the kernel kills the container when memory runs out: -1000 (never) to 1000 (first)
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    oom_score_adj: Option<i64>,
    /// Where the output goes: json-file, local, journald, syslog or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Option of the log driver, for example max-size=10m; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    log_opt: Vec<(String, String)>,
    /// Give the container all rights and devices of the host
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    privileged: Option<bool>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shm_size: Option<String>,
    /// Shared memory and semaphores: the container's own, or the host's
    #[arg(long, value_parser = ["private", "host"])]
    ipc: Option<String>,
    /// Processes the container sees: its own, or the host's
    #[arg(long, value_parser = ["private", "host"])]
    pid: Option<String>,
    /// Service that tasks wait for before they start: NAME[:started|healthy|completed][:optional][:restart]; repeat it.
    /// In an update, those given take the place of all others; none: --depends-on ""
    #[arg(long, value_name = "SERVICE[:CONDITION]", value_parser = depends_on)]
    depends_on: Vec<String>,
}

/// Checked here, and read by the daemon.
fn depends_on(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { DependsOn::parse(text).map(|_| text.to_owned()) }
}

/// Checked here, and read by the daemon.
fn size(text: &str) -> Result<String, String> {
    parse_size(text).map(|_| text.to_owned()).map_err(|why| why.to_string())
}

impl ContainerArgs {
    /// Nothing is to wait for a service that there is not, unless it says that it may be missing.
    pub async fn check(&self, client: &Client) -> anyhow::Result<()> {
        for text in self.depends_on.iter().filter(|text| !text.is_empty()) {
            let one = DependsOn::parse(text).map_err(anyhow::Error::msg)?;
            if one.required {
                super::fetch(client, &one.service).await.with_context(|| format!("--depends-on {text}"))?;
            }
        }
        Ok(())
    }

    pub fn apply(self, spec: &mut ServiceSpec) {
        let labels = spec.labels.get_or_insert_default();
        let additions = [
            ("flok.privileged", self.privileged.map(|privileged| privileged.to_string())),
            ("flok.shm-size", self.shm_size),
            ("flok.ipc", self.ipc),
            ("flok.pid", self.pid),
            (DEPENDS_ON_LABEL, (!self.depends_on.is_empty()).then(|| self.depends_on.join(","))),
        ];
        labels.extend(additions.into_iter().filter_map(|(label, value)| Some((label.to_owned(), value?))));
        let task = spec.task_template.get_or_insert_default();
        if let Some(most) = self.limit_pids {
            task.resources.get_or_insert_default().limits.get_or_insert_default().pids = Some(i64::from(most));
        }
        if self.log_driver.is_some() || !self.log_opt.is_empty() {
            let driver = task.log_driver.get_or_insert_default();
            // Another driver knows other options.
            if self.log_driver.as_ref().is_some_and(|name| driver.name.as_ref() != Some(name)) {
                driver.options = None;
            }
            set(&mut driver.name, self.log_driver);
            driver.name.get_or_insert_with(|| "json-file".into());
            driver.options.get_or_insert_default().extend(self.log_opt);
        }
        let container = task.container_spec.get_or_insert_default();
        set(&mut container.init, self.init);
        set(&mut container.tty, self.tty);
        set(&mut container.open_stdin, self.interactive);
        set(&mut container.oom_score_adj, self.oom_score_adj);
        let isolation = self.isolation.map(|_| TaskSpecContainerSpecIsolationEnum::DEFAULT);
        set(&mut container.isolation, isolation);
    }
}

/// One list of a container: what is added, and what is taken away. Docker's `--dns`, or `--dns-add` and `--dns-rm`.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    pub add: Vec<String>,
    pub remove: Vec<String>,
}

impl Edit {
    pub fn adding(add: Vec<String>) -> Edit {
        Edit { add, remove: Vec::new() }
    }

    /// What is added takes the place of what has the same key.
    fn apply(self, list: &mut Option<Vec<String>>, key: fn(&str) -> &str) {
        if self.add.is_empty() && self.remove.is_empty() {
            return;
        }
        let known = list.get_or_insert_default();
        let goes = |entry: &String| self.remove.iter().chain(&self.add).any(|gone| key(gone) == key(entry));
        known.retain(|entry| !goes(entry));
        known.extend(self.add);
    }
}

/// The lists of a container, whichever command edits them.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub group: Edit,
    pub dns: Edit,
    pub dns_option: Edit,
    pub dns_search: Edit,
    /// `NAME:ADDRESS`.
    pub host: Edit,
    /// `KEY=VALUE`.
    pub sysctl: Edit,
    /// `NAME=SOFT[:HARD]`.
    pub ulimit: Edit,
    /// `KIND=COUNT` or `KIND=NAME`.
    pub generic_resource: Edit,
    /// `spread=node.labels.zone`.
    pub placement_pref: Edit,
    pub container_label: Edit,
    pub device: Edit,
    pub security_opt: Edit,
}

fn whole(text: &str) -> &str {
    text
}

fn before_equals(text: &str) -> &str {
    text.split_once('=').map_or(text, |(key, _)| key)
}

fn before_colon(text: &str) -> &str {
    text.split_once(':').map_or(text, |(key, _)| key)
}

impl Lists {
    /// An error names what it cannot read.
    pub fn apply(self, spec: &mut ServiceSpec) -> Result<(), String> {
        for (label, edit, key) in [
            ("flok.devices", self.device, before_colon as fn(&str) -> &str),
            ("flok.security-opt", self.security_opt, whole),
        ] {
            edit_label(spec.labels.get_or_insert_default(), label, edit, key);
        }
        let task = spec.task_template.get_or_insert_default();
        preferences(task, self.placement_pref)?;
        generic_resources(task, self.generic_resource)?;
        let container = task.container_spec.get_or_insert_default();
        capabilities(container, self.cap_add, self.cap_drop);
        self.group.apply(&mut container.groups, whole);
        let dns = container.dns_config.get_or_insert_default();
        self.dns.apply(&mut dns.nameservers, whole);
        self.dns_option.apply(&mut dns.options, whole);
        self.dns_search.apply(&mut dns.search, whole);
        hosts(container, self.host)?;
        edit_map(container.sysctls.get_or_insert_default(), self.sysctl)?;
        edit_map(container.labels.get_or_insert_default(), self.container_label)?;
        ulimits(container, self.ulimit)
    }
}

impl Lists {
    /// Tells what is to be removed and is not there.
    pub fn look(&self, spec: &ServiceSpec, missing: &mut Missing) {
        let of_label = |label: &str| -> Vec<String> {
            let value = spec.labels.as_ref().and_then(|labels| labels.get(label));
            value.iter().flat_map(|value| value.split(',')).map(str::to_owned).collect()
        };
        let by_start = |asked: &str, known: &str| before_colon(asked) == before_colon(known);
        missing.look_for("device-rm", &self.device.remove, &of_label("flok.devices"), by_start);
        missing.look("security-opt-rm", &self.security_opt.remove, &of_label("flok.security-opt"));
        let task = spec.task_template.clone().unwrap_or_default();
        let preferences = task.placement.and_then(|placement| placement.preferences).unwrap_or_default();
        let preferences: Vec<String> = preferences.iter().map(|it| format!("spread={}", descriptor(it))).collect();
        missing.look("placement-pref-rm", &self.placement_pref.remove, &preferences);
        let reservations = task.resources.and_then(|resources| resources.reservations).unwrap_or_default();
        let kinds: Vec<String> = reservations.generic_resources.iter().flatten().map(kind).collect();
        let of_kind = |asked: &str, known: &str| before_equals(asked) == known;
        missing.look_for("generic-resource-rm", &self.generic_resource.remove, &kinds, of_kind);
        let container = task.container_spec.unwrap_or_default();
        missing.look("group-rm", &self.group.remove, &container.groups.unwrap_or_default());
        let dns = container.dns_config.unwrap_or_default();
        missing.look("dns-rm", &self.dns.remove, &dns.nameservers.unwrap_or_default());
        missing.look("dns-option-rm", &self.dns_option.remove, &dns.options.unwrap_or_default());
        missing.look("dns-search-rm", &self.dns_search.remove, &dns.search.unwrap_or_default());
        let hosts: Vec<String> = container.hosts.iter().flatten().map(|line| as_written(line)).collect();
        let is_host = |asked: &str, known: &str| asked == known || asked == before_colon(known);
        missing.look_for("host-rm", &self.host.remove, &hosts, is_host);
        missing.look("sysctl-rm", &self.sysctl.remove, &keys(container.sysctls.as_ref()));
        missing.look("container-label-rm", &self.container_label.remove, &keys(container.labels.as_ref()));
        let limits = container.ulimits.iter().flatten().filter_map(|limit| limit.name.clone());
        missing.look("ulimit-rm", &self.ulimit.remove, &limits.collect::<Vec<_>>());
    }
}

/// In their order.
pub fn keys(map: Option<&HashMap<String, String>>) -> Vec<String> {
    let mut keys: Vec<String> = map.into_iter().flat_map(HashMap::keys).cloned().collect();
    keys.sort();
    keys
}

/// `NAME:ADDRESS`, of a line of `/etc/hosts`.
fn as_written(line: &str) -> String {
    let mut words = line.split_whitespace();
    let (address, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    format!("{name}:{address}")
}

/// A list in one label, separated by commas.
fn edit_label(labels: &mut HashMap<String, String>, label: &str, edit: Edit, key: fn(&str) -> &str) {
    let known = labels.remove(label).unwrap_or_default();
    let mut list = Some(known.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect());
    edit.apply(&mut list, key);
    let list = list.unwrap_or_default();
    if !list.is_empty() {
        labels.insert(label.to_owned(), list.join(","));
    }
}

fn edit_map(map: &mut HashMap<String, String>, edit: Edit) -> Result<(), String> {
    map.retain(|key, _| !edit.remove.contains(key));
    for pair in edit.add {
        let (key, value) = key_value(&pair)?;
        map.insert(key, value);
    }
    Ok(())
}

/// To add one takes it out of those that are dropped, and the other way round, as in Docker.
fn capabilities(container: &mut TaskSpecContainerSpec, add: Vec<String>, drop: Vec<String>) {
    let plain = |name: &str| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
    };
    let mut put = |names: Vec<String>, adds: bool| {
        for name in names {
            let (to, from) = match adds {
                true => (&mut container.capability_add, &mut container.capability_drop),
                false => (&mut container.capability_drop, &mut container.capability_add),
            };
            let same = |known: &String| plain(known) == plain(&name);
            from.get_or_insert_default().retain(|known| !same(known));
            let to = to.get_or_insert_default();
            if !to.iter().any(same) {
                to.push(name);
            }
        }
    };
    put(add, true);
    put(drop, false);
}

/// Written `NAME:ADDRESS`, stored as in `/etc/hosts`.
fn hosts(container: &mut TaskSpecContainerSpec, edit: Edit) -> Result<(), String> {
    let known = container.hosts.get_or_insert_default();
    for gone in &edit.remove {
        let (name, address) = gone.split_once(':').map_or((gone.as_str(), None), |(name, ip)| (name, Some(ip)));
        known.retain(|line| {
            let mut words = line.split_whitespace();
            let same_address = address.is_none_or(|address| words.next() == Some(address));
            let names = line.split_whitespace().skip(1);
            !(same_address && names.into_iter().any(|known| known == name))
        });
    }
    for text in &edit.add {
        known.push(host(text)?);
    }
    Ok(())
}

/// `NAME:ADDRESS`, as a line of `/etc/hosts`.
pub fn host(text: &str) -> Result<String, String> {
    let (name, address) = text.split_once(':').ok_or_else(|| format!("{text:?} is no host: write NAME:ADDRESS"))?;
    let address = address.trim_matches(['[', ']']);
    match is_host_address(address) {
        true => Ok(format!("{address} {name}")),
        false => Err(format!("{text:?}: {address:?} is neither an address nor {HOST_GATEWAY}")),
    }
}

fn ulimits(container: &mut TaskSpecContainerSpec, edit: Edit) -> Result<(), String> {
    let known = container.ulimits.get_or_insert_default();
    let added: Vec<ResourcesUlimits> = edit.add.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?;
    known.retain(|limit| {
        let name = limit.name.as_deref().unwrap_or_default();
        !edit.remove.iter().any(|gone| gone == name) && !added.iter().any(|new| new.name.as_deref() == Some(name))
    });
    known.extend(added);
    Ok(())
}

/// `NAME=SOFT[:HARD]`.
pub fn ulimit(text: &str) -> Result<ResourcesUlimits, String> {
    let wrong = || format!("{text:?} is not NAME=SOFT[:HARD], for example nofile=1024:2048");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(number(soft)?), hard: Some(number(hard)?) })
}

/// `spread=node.labels.NAME`; gives what stands behind the equals sign.
pub fn spread(text: &str) -> Result<String, String> {
    let descriptor = text.strip_prefix("spread=").filter(|descriptor| !descriptor.is_empty());
    descriptor.map(str::to_owned).ok_or_else(|| format!("{text:?} is not spread=node.labels.NAME"))
}

pub fn descriptor(preference: &TaskSpecPlacementPreferences) -> String {
    preference.spread.as_ref().and_then(|spread| spread.spread_descriptor.clone()).unwrap_or_default()
}

fn preferences(task: &mut TaskSpec, edit: Edit) -> Result<(), String> {
    let gone: Vec<String> = edit.remove.iter().map(|text| spread(text)).collect::<Result<_, _>>()?;
    let known = task.placement.get_or_insert_default().preferences.get_or_insert_default();
    known.retain(|preference| !gone.contains(&descriptor(preference)));
    for text in &edit.add {
        let spread_descriptor = Some(spread(text)?);
        let spread = Some(TaskSpecPlacementSpread { spread_descriptor });
        known.push(TaskSpecPlacementPreferences { spread });
    }
    Ok(())
}

/// `KIND=COUNT`; all of them are -1, as in the API.
pub fn generic_resource(text: &str) -> Result<(String, i64), String> {
    let wrong = || format!("{text:?} is not KIND=COUNT, for example gpu=2, or gpu=all");
    let (kind, count) = text.split_once('=').filter(|(kind, _)| !kind.is_empty()).ok_or_else(wrong)?;
    let count = match count {
        "all" => -1,
        number => number.parse::<u32>().map_err(|_| wrong())?.into(),
    };
    Ok((kind.to_owned(), count))
}

pub fn kind(resource: &GenericResourcesInner) -> String {
    let counted = resource.discrete_resource_spec.as_ref().and_then(|spec| spec.kind.clone());
    let named = || resource.named_resource_spec.as_ref().and_then(|spec| spec.kind.clone());
    counted.or_else(named).unwrap_or_default()
}

fn generic_resources(task: &mut TaskSpec, edit: Edit) -> Result<(), String> {
    if edit.add.is_empty() && edit.remove.is_empty() {
        return Ok(());
    }
    let reservations = task.resources.get_or_insert_default().reservations.get_or_insert_default();
    let known = reservations.generic_resources.get_or_insert_default();
    known.retain(|resource| !edit.remove.iter().chain(&edit.add).any(|text| before_equals(text) == kind(resource)));
    for text in &edit.add {
        let (kind, count) = generic_resource(text)?;
        let spec = GenericResourcesInnerDiscreteResourceSpec { kind: Some(kind), value: Some(count) };
        known.push(GenericResourcesInner { discrete_resource_spec: Some(spec), named_resource_spec: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(add: &[&str], remove: &[&str]) -> Edit {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Edit { add: owned(add), remove: owned(remove) }
    }

    fn container(spec: &ServiceSpec) -> &TaskSpecContainerSpec {
        spec.task_template.as_ref().and_then(|task| task.container_spec.as_ref()).unwrap()
    }

    #[test]
    fn lists_grow_shrink_and_change_by_their_keys() {
        let mut spec = ServiceSpec::default();
        let first = Lists {
            cap_add: vec!["NET_ADMIN".into()],
            dns: edit(&["10.0.0.1", "10.0.0.2"], &[]),
            host: edit(&["db:10.0.0.9", "six:[fd00::1]"], &[]),
            ulimit: edit(&["nofile=1:2"], &[]),
            sysctl: edit(&["a.b=1"], &[]),
            device: edit(&["/dev/fuse", "/dev/sda:/dev/xvda:r"], &[]),
            placement_pref: edit(&["spread=node.labels.zone"], &[]),
            generic_resource: edit(&["gpu=1"], &[]),
            ..Lists::default()
        };
        first.apply(&mut spec).unwrap();
        assert_eq!(container(&spec).hosts.as_deref().unwrap(), ["10.0.0.9 db", "fd00::1 six"]);
        assert_eq!(spec.labels.as_ref().unwrap()["flok.devices"], "/dev/fuse,/dev/sda:/dev/xvda:r");
        let second = Lists {
            cap_drop: vec!["cap_net_admin".into()],
            dns: edit(&["10.0.0.3"], &["10.0.0.1"]),
            host: edit(&[], &["db"]),
            ulimit: edit(&["nofile=5"], &[]),
            sysctl: edit(&[], &["a.b"]),
            device: edit(&["/dev/sda"], &["/dev/fuse"]),
            placement_pref: edit(&[], &["spread=node.labels.zone"]),
            generic_resource: edit(&["gpu=3"], &[]),
            ..Lists::default()
        };
        second.apply(&mut spec).unwrap();
        let changed = container(&spec);
        assert_eq!(changed.capability_add.as_deref(), Some(&[][..]));
        assert_eq!(changed.capability_drop.as_deref().unwrap(), ["cap_net_admin"]);
        assert_eq!(changed.dns_config.as_ref().unwrap().nameservers.as_deref().unwrap(), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(changed.hosts.as_deref().unwrap(), ["fd00::1 six"]);
        let limits = changed.ulimits.as_deref().unwrap();
        assert_eq!(limits.iter().map(|limit| (limit.soft, limit.hard)).collect::<Vec<_>>(), [(Some(5), Some(5))]);
        assert!(changed.sysctls.as_ref().unwrap().is_empty());
        assert_eq!(spec.labels.as_ref().unwrap()["flok.devices"], "/dev/sda");
        let task = spec.task_template.as_ref().unwrap();
        assert_eq!(task.placement.as_ref().unwrap().preferences.as_deref(), Some(&[][..]));
        let generic = task.resources.as_ref().unwrap().reservations.as_ref().unwrap().generic_resources.as_ref();
        let counts = generic.unwrap().iter().map(|one| one.discrete_resource_spec.as_ref().unwrap().value);
        assert_eq!(counts.collect::<Vec<_>>(), [Some(3)]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let refused = |lists: Lists| lists.apply(&mut ServiceSpec::default()).unwrap_err();
        assert!(refused(Lists { ulimit: edit(&["nofile"], &[]), ..Lists::default() }).starts_with("\"nofile\" is not"));
        assert!(refused(Lists { host: edit(&["db"], &[]), ..Lists::default() }).starts_with("\"db\" is no host"));
        assert!(
            refused(Lists { placement_pref: edit(&["zone"], &[]), ..Lists::default() }).starts_with("\"zone\" is not")
        );
        assert!(
            refused(Lists { generic_resource: edit(&["gpu=x"], &[]), ..Lists::default() })
                .starts_with("\"gpu=x\" is not")
        );
    }

    #[test]
    fn another_log_driver_begins_without_the_options_of_the_last() {
        let mut spec = ServiceSpec::default();
        let args = |driver: Option<&str>, key: &str| ContainerArgs {
            log_driver: driver.map(str::to_owned),
            log_opt: vec![(key.into(), "1".into())],
            ..ContainerArgs::default()
        };
        let options = |spec: &ServiceSpec| {
            let driver = spec.task_template.as_ref().unwrap().log_driver.clone().unwrap();
            let mut keys: Vec<String> = driver.options.unwrap_or_default().into_keys().collect();
            keys.sort();
            (driver.name.unwrap_or_default(), keys.join(","))
        };
        args(None, "max-size").apply(&mut spec);
        assert_eq!(options(&spec), ("json-file".into(), "max-size".into()));
        args(None, "max-file").apply(&mut spec);
        assert_eq!(options(&spec), ("json-file".into(), "max-file,max-size".into()));
        args(Some("local"), "max-file").apply(&mut spec);
        assert_eq!(options(&spec), ("local".into(), "max-file".into()));
    }
}
