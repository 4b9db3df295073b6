//! What makes a container's spec acceptable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Checked, Faults, InvalidSpec, is_resource_name, is_template, require};
use crate::spec::image::ImageReference;
use crate::spec::stack::nearest;
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
    pub(super) fn note_faults(&self, faults: &mut Faults) {
        faults.check(&["image"], self.check_image());
        for variable in &self.env {
            faults.check(&["environment", variable_name(variable)], check_env(variable));
        }
        note_mounts(&self.mounts, faults);
        // Two secrets, or two configs, cannot appear as one file.
        note_targets("secret", self.secrets.iter().map(|secret| (&secret.name, &secret.file)), faults);
        note_targets("config", self.configs.iter().map(|config| (&config.name, &config.file)), faults);
        self.note_bad_process(faults);
        self.note_bad_names(faults);
        self.note_bad_rights(faults);
        if let Some(check) = &self.healthcheck {
            faults.check(&["healthcheck"], check_health(check));
        }
    }

    fn check_image(&self) -> Checked {
        require(!self.image.is_empty(), || "ContainerSpec: image reference must be provided".into())?;
        let image = self.image.parse::<ImageReference>().map(drop);
        image.map_err(|invalid| InvalidSpec(format!("ContainerSpec: {invalid}")))
    }

    fn note_bad_process(&self, faults: &mut Faults) {
        if let Some(signal) = &self.stop_signal {
            faults.require(&["stop_signal"], is_signal(signal), || {
                format!("invalid stop signal {signal:?}: write for example SIGTERM or 15")
            });
        }
        let dir = self.dir.as_deref().unwrap_or_default();
        faults.require(&["working_dir"], dir.is_empty() || dir.starts_with('/'), || {
            format!("the working directory {dir:?} is invalid, it needs to be an absolute path")
        });
        faults.require(&["oom_score_adj"], (-1000..=1000).contains(&self.oom_score_adj), || {
            format!("invalid oom_score_adj {}: it goes from -1000 to 1000", self.oom_score_adj)
        });
        for Ulimit { name, soft, hard } in &self.ulimits {
            faults.require(&["ulimits", name], ULIMITS.split(' ').any(|known| known == name), || {
                let hint = nearest(name, ULIMITS.split(' ')).map(|near| format!("; did you mean {near:?}?"));
                format!("invalid ulimit type: {name}{}", hint.unwrap_or_default())
            });
            // -1 stands for no limit.
            faults.require(&["ulimits", name], *hard == -1 || (*soft != -1 && soft <= hard), || {
                format!("ulimit {name}: the soft limit {soft} is above the hard limit {hard}")
            });
        }
    }

    fn note_bad_names(&self, faults: &mut Faults) {
        if let Some(hostname) = self.hostname.as_deref().filter(|name| !name.is_empty() && !is_template(name)) {
            faults.require(&["hostname"], is_hostname(hostname), || format!("invalid hostname {hostname:?}"));
        }
        for server in &self.dns.nameservers {
            faults.require(&["dns", server], server.parse::<IpAddr>().is_ok(), || {
                format!("DNS server {server:?} is no IP address")
            });
        }
        for domain in &self.dns.search {
            faults.require(&["dns_search", domain], is_dns_domain(domain), || {
                format!("DNS search domain {domain:?} is no domain")
            });
        }
        for option in &self.dns.options {
            let plain = !option.is_empty() && option.bytes().all(|b| b.is_ascii_graphic());
            faults.require(&["dns_opt", option], plain, || {
                format!("DNS option {option:?} is none: write for example ndots:2, each as an item of its own")
            });
        }
        for host in &self.hosts {
            let mut words = host.split_whitespace();
            let (address, name) = (words.next().unwrap_or_default(), words.next());
            faults.require(
                &["extra_hosts", name.unwrap_or_default()],
                name.is_some() && is_host_address(address),
                || {
                    format!(
                        "invalid extra host {host:?}: write an address (or {HOST_GATEWAY}, for the node's own) and a name"
                    )
                },
            );
        }
        faults.require(&["x-drain"], self.drain.is_none_or(|drain| drain <= MAX_DRAIN), || {
            format!("a drain of more than {} s would hold up every update", MAX_DRAIN.as_secs())
        });
        for name in self.sysctls.keys() {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
            faults.require(&["sysctls", name], !name.is_empty() && name.bytes().all(plain), || {
                format!("invalid sysctl {name:?}")
            });
        }
    }

    fn note_bad_rights(&self, faults: &mut Faults) {
        for (key, capabilities) in [("cap_add", &self.cap_add), ("cap_drop", &self.cap_drop)] {
            for capability in capabilities {
                let upper = capability.to_ascii_uppercase();
                let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
                faults.require(&[key, capability], CAPABILITIES.split_whitespace().any(|known| known == name), || {
                    format!("unknown capability: {capability:?}")
                });
            }
        }
        for device in &self.devices {
            let at = ["devices", &device.host_path];
            let paths = device.host_path.starts_with('/') && device.container_path.starts_with('/');
            faults.require(&at, paths, || format!("invalid device {:?}: its paths are absolute", device.host_path));
            let permissions = !device.permissions.is_empty() && device.permissions.chars().all(|c| "rwm".contains(c));
            faults.require(&at, permissions, || {
                format!("invalid device permissions {:?}: write some of r, w and m", device.permissions)
            });
        }
        if let Err(option) = Security::read(&self.security_opt) {
            let why = format!(
                "invalid security option {option:?}: use no-new-privileges, seccomp=unconfined, seccomp=builtin or apparmor=unconfined"
            );
            faults.check(&["security_opt", &option], Err(InvalidSpec(why)));
        }
        for (kind, key, mode) in [("IPC", "ipc", &self.ipc), ("PID", "pid", &self.pid)] {
            faults.require(&[key], matches!(mode.as_deref(), None | Some("" | "private" | "host")), || {
                format!("invalid {kind} mode {:?}: use private or host", mode.as_deref().unwrap_or_default())
            });
        }
        faults.require(&["shm_size"], self.shm_size != Some(0), || "invalid shm size 0: write for example 64m".into());
    }
}

fn variable_name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// `KEY=value`, or a bare `KEY`.
fn check_env(variable: &str) -> Checked {
    require(!variable_name(variable).is_empty() && !variable.contains('\0'), || {
        format!("invalid environment variable: {variable:?}")
    })
}

fn note_mounts(mounts: &[Mount], faults: &mut Faults) {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        let target = &mount.target;
        let at = ["volumes", target];
        faults.check(&at, check_target(target));
        let known = is_template(target) || targets.insert(components(target));
        faults.require(&at, known, || format!("ContainerSpec: duplicate mount point: {target}"));
        faults.check(&at, check_source(mount));
        faults.check(&at, check_recursion(mount));
        let subpath = mount.volume.subpath.as_deref().unwrap_or_default();
        faults.require(&at, stays_within(subpath), || {
            format!("mount {target}: the volume subpath {subpath:?} must be relative, and stay in the volume")
        });
        note_volume(target, &mount.volume, faults);
    }
}

/// A bind that is to be read-only all the way down can be so.
fn check_recursion(mount: &Mount) -> Checked {
    let bind = &mount.bind;
    if !bind.read_only_force_recursive {
        return Ok(());
    }
    let conflict =
        |with: &str| format!("mount {}: ReadOnlyForceRecursive (bind-recursive=readonly) {with}", mount.target);
    require(mount.read_only, || conflict("needs ReadOnly"))?;
    require(!bind.non_recursive, || conflict("conflicts with NonRecursive: leave one out"))?;
    require(!bind.read_only_non_recursive, || conflict("conflicts with ReadOnlyNonRecursive: leave one out"))?;
    let propagation = bind.propagation.as_deref().unwrap_or_default();
    require(["", "rprivate"].contains(&propagation), || conflict("needs the propagation rprivate"))
}

/// Relative, and nowhere above where it begins.
fn stays_within(path: &str) -> bool {
    let mut depth = 0;
    let mut steps = path.split('/').map(|name| match name {
        "" | "." => 0,
        ".." => -1,
        _ => 1,
    });
    !path.starts_with('/')
        && steps.all(|step| {
            depth += step;
            depth >= 0
        })
}

fn check_target(target: &str) -> Checked {
    if is_template(target) {
        return Ok(());
    }
    require(!components(target).is_empty(), || "invalid mount target: a task's root cannot be mounted over".into())
}

fn note_volume(target: &str, volume: &VolumeOptions, faults: &mut Faults) {
    // The options of another driver are its own.
    let is_local = check_driver(volume.driver.as_deref()).is_ok();
    if is_local && !volume.driver_options.values().any(|value| is_template(value)) {
        let read = VolumeMount::read_unbounded(&volume.driver_options).map(drop);
        faults.check(&["volumes", target, "driver_opts"], read.map_err(InvalidSpec));
    }
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

fn note_targets<'a>(kind: &str, files: impl Iterator<Item = (&'a String, &'a FileTarget)>, faults: &mut Faults) {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, file) in files {
        let target = &file.name;
        let at = [&format!("{kind}s"), target.as_str()];
        faults.require(&at, !target.is_empty(), || format!("{kind} {name:?} has no target"));
        faults.require(&at, !target.split('/').any(|part| part == ".."), || {
            format!("{kind} {name:?}: target {target:?} leads out of its directory: write an absolute path")
        });
        for (what, id) in [("uid", &file.uid), ("gid", &file.gid)] {
            faults.require(&[at[0], at[1], what], id.parse::<u32>().is_ok(), || {
                format!("{kind} {name:?}: {what} {id:?} is no number")
            });
        }
        if let Some(other) = targets.insert(target, name) {
            let why = format!("{kind} references '{other}' and '{name}' have a conflicting target: '{target}'");
            faults.check(&at, Err(InvalidSpec(why)));
        }
    }
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

/// What a resolver can search in, with the dot at its end or without; `.` alone stands for nothing.
pub fn is_dns_domain(text: &str) -> bool {
    text == "." || is_hostname(text.strip_suffix('.').unwrap_or(text))
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
