//! What makes a container's spec acceptable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Checked, InvalidSpec, is_resource_name, is_template, require};
use crate::spec::image::ImageReference;
use crate::spec::volume::check_driver;
use crate::spec::*;

const CAPABILITIES: &str = "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN \
    DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE \
    MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN \
    SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG \
    WAKE_ALARM";

const ULIMITS: &str = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack";

const SIGNALS: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP \
    SYS TERM TRAP TSTP TTIN TTOU UNUSED URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX";

impl ContainerSpec {
    pub(super) fn validate(&self) -> Checked {
        require(!self.image.is_empty(), || "ContainerSpec: image reference must be provided".into())?;
        let image = self.image.parse::<ImageReference>();
        image.map_err(|invalid| InvalidSpec(format!("ContainerSpec: {invalid}")))?;
        self.env.iter().try_for_each(|variable| check_env(variable))?;
        check_mounts(&self.mounts)?;
        self.check_files()?;
        self.check_process()?;
        self.check_names()?;
        self.check_rights()?;
        self.healthcheck.as_ref().map_or(Ok(()), check_health)
    }

    /// Two secrets, or two configs, cannot appear as one file.
    fn check_files(&self) -> Checked {
        let secrets = self.secrets.iter().map(|secret| (&secret.name, &secret.file));
        check_targets("secret", secrets)?;
        check_targets("config", self.configs.iter().map(|config| (&config.name, &config.file)))
    }

    fn check_process(&self) -> Checked {
        if let Some(signal) = &self.stop_signal {
            require(is_signal(signal), || format!("invalid stop signal {signal:?}: write for example SIGTERM or 15"))?;
        }
        let dir = self.dir.as_deref().filter(|dir| !dir.is_empty());
        require(dir.is_none_or(|dir| dir.starts_with('/')), || {
            format!("the working directory {:?} is invalid, it needs to be an absolute path", self.dir_text())
        })?;
        require((-1000..=1000).contains(&self.oom_score_adj), || {
            format!("invalid oom_score_adj {}: it goes from -1000 to 1000", self.oom_score_adj)
        })?;
        for ulimit in &self.ulimits {
            let known = ULIMITS.split(' ').any(|name| name == ulimit.name);
            require(known, || format!("invalid ulimit type: {}", ulimit.name))?;
            // -1 stands for no limit.
            require(ulimit.hard == -1 || (ulimit.soft != -1 && ulimit.soft <= ulimit.hard), || {
                format!(
                    "ulimit {}: the soft limit {} is above the hard limit {}",
                    ulimit.name, ulimit.soft, ulimit.hard
                )
            })?;
        }
        Ok(())
    }

    fn dir_text(&self) -> &str {
        self.dir.as_deref().unwrap_or_default()
    }

    fn check_names(&self) -> Checked {
        if let Some(hostname) = self.hostname.as_deref().filter(|name| !name.is_empty() && !is_template(name)) {
            require(is_hostname(hostname), || format!("invalid hostname {hostname:?}"))?;
        }
        for server in &self.dns.nameservers {
            require(server.parse::<IpAddr>().is_ok(), || format!("DNS server {server:?} is no IP address"))?;
        }
        for domain in &self.dns.search {
            require(is_dns_domain(domain), || format!("DNS search domain {domain:?} is no domain"))?;
        }
        for host in &self.hosts {
            let mut words = host.split_whitespace();
            let address = words.next().unwrap_or_default();
            require(words.next().is_some() && is_host_address(address), || {
                format!(
                    "invalid extra host {host:?}: write an address (or {HOST_GATEWAY}, for the node's own) and a name"
                )
            })?;
        }
        require(self.drain.is_none_or(|drain| drain <= MAX_DRAIN), || {
            format!("a drain of more than {} s would hold up every update", MAX_DRAIN.as_secs())
        })?;
        for name in self.sysctls.keys() {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
            require(!name.is_empty() && name.bytes().all(plain), || format!("invalid sysctl {name:?}"))?;
        }
        Ok(())
    }

    fn check_rights(&self) -> Checked {
        for capability in self.cap_add.iter().chain(&self.cap_drop) {
            let upper = capability.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            require(CAPABILITIES.split_whitespace().any(|known| known == name), || {
                format!("unknown capability: {capability:?}")
            })?;
        }
        for device in &self.devices {
            let paths = device.host_path.starts_with('/') && device.container_path.starts_with('/');
            require(paths, || format!("invalid device {:?}: its paths are absolute", device.host_path))?;
            let permissions = !device.permissions.is_empty() && device.permissions.chars().all(|c| "rwm".contains(c));
            require(permissions, || {
                format!("invalid device permissions {:?}: write some of r, w and m", device.permissions)
            })?;
        }
        Security::read(&self.security_opt).map_err(|option| {
            InvalidSpec(format!(
                "invalid security option {option:?}: use no-new-privileges, seccomp=unconfined or apparmor=unconfined"
            ))
        })?;
        for (kind, mode) in [("IPC", &self.ipc), ("PID", &self.pid)] {
            require(matches!(mode.as_deref(), None | Some("" | "private" | "host")), || {
                format!("invalid {kind} mode {:?}: use private or host", mode.as_deref().unwrap_or_default())
            })?;
        }
        require(self.shm_size != Some(0), || "invalid shm size 0: write for example 64m".into())
    }
}

/// `KEY=value`, or a bare `KEY`.
fn check_env(variable: &str) -> Checked {
    let name = variable.split_once('=').map_or(variable, |(name, _)| name);
    require(!name.is_empty() && !variable.contains('\0'), || format!("invalid environment variable: {variable:?}"))
}

fn check_mounts(mounts: &[Mount]) -> Checked {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        let target = &mount.target;
        if !is_template(target) {
            require(target.starts_with('/'), || format!("invalid mount target, must be an absolute path: {target:?}"))?;
            let path = components(target);
            require(!path.is_empty(), || "invalid mount target: a task's root cannot be mounted over".into())?;
            require(targets.insert(path), || format!("ContainerSpec: duplicate mount point: {target}"))?;
        }
        check_source(mount)?;
        check_volume(&mount.volume)?;
    }
    Ok(())
}

fn check_volume(volume: &VolumeOptions) -> Checked {
    check_driver(volume.driver.as_deref()).map_err(InvalidSpec)?;
    if volume.driver_options.values().any(|value| is_template(value)) {
        return Ok(());
    }
    VolumeMount::read(&volume.driver_options).map(drop).map_err(InvalidSpec)
}

fn check_source(mount: &Mount) -> Checked {
    let source = mount.source.as_deref().filter(|source| !source.is_empty());
    if source.is_some_and(is_template) {
        return Ok(());
    }
    match (mount.kind, source) {
        (MountKind::Bind, Some(path)) => {
            require(path.starts_with('/'), || format!("invalid bind mount source, must be an absolute path: {path:?}"))
        }
        (MountKind::Bind, None) => Err(InvalidSpec("invalid bind mount: its source is missing".into())),
        (MountKind::Volume, Some(name)) => require(is_resource_name(name), || {
            format!("invalid volume name {name:?}: use [a-zA-Z0-9_.-], beginning with a letter or digit")
        }),
        (MountKind::Cluster, _) => Err(InvalidSpec(format!(
            "mount {}: cluster volumes (CSI) are not there yet: use a volume with the driver local, which mounts NFS too",
            mount.target
        ))),
        (MountKind::Tmpfs, Some(_)) => Err(InvalidSpec("invalid tmpfs mount: it has no source".into())),
        (MountKind::NamedPipe, _) => Err(InvalidSpec("invalid mount type npipe: it exists on Windows only".into())),
        (MountKind::Volume | MountKind::Tmpfs, None) => Ok(()),
    }
}

/// The names a path goes through, so that `/a`, `/a/` and `/./a` are one place.
fn components(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names
}

fn check_targets<'a>(kind: &str, files: impl Iterator<Item = (&'a String, &'a FileTarget)>) -> Checked {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, file) in files {
        require(!file.name.is_empty(), || format!("{kind} {name:?} has no target"))?;
        require(!file.name.split('/').any(|part| part == ".."), || {
            format!("{kind} {name:?}: target {:?} leads out of its directory: write an absolute path", file.name)
        })?;
        for (what, id) in [("uid", &file.uid), ("gid", &file.gid)] {
            require(id.parse::<u32>().is_ok(), || format!("{kind} {name:?}: {what} {id:?} is no number"))?;
        }
        if let Some(other) = targets.insert(&file.name, name) {
            let target = &file.name;
            return Err(InvalidSpec(format!(
                "{kind} references '{other}' and '{name}' have a conflicting target: '{target}'"
            )));
        }
    }
    Ok(())
}

/// A name with or without `SIG`, a number, or a real-time signal such as `SIGRTMIN+3`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    match offset {
        Some(offset) => offset.parse::<u8>().is_ok_and(|n| n <= 30),
        None => SIGNALS.split_whitespace().any(|known| known == name),
    }
}

/// Dot-separated labels of RFC 1123.
fn is_hostname(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn check_health(check: &Healthcheck) -> Checked {
    match check.test.first().map(String::as_str) {
        None => {}
        Some("NONE") => require(check.test.len() == 1, || "healthcheck: NONE stands alone".into())?,
        Some("CMD" | "CMD-SHELL") => require(check.test.len() > 1, || "healthcheck: the command is missing".into())?,
        Some(other) => {
            return Err(InvalidSpec(format!("healthcheck: {other:?} is unknown: begin with NONE, CMD or CMD-SHELL")));
        }
    }
    let times = [check.interval, check.timeout, check.start_period, check.start_interval];
    let too_short = |time: &std::time::Duration| !time.is_zero() && time.as_millis() < 1;
    require(!times.iter().flatten().any(too_short), || "healthcheck: times are 0 or at least 1ms".into())
}
