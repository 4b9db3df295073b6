//! The container's first process: what runs, as whom, with which rights.

use std::collections::BTreeSet;

use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User,
};

use super::mounts::init_path;
use super::{ContainerInputs, SpecError};
use crate::spec::{ContainerSpec, Security, Ulimit};

/// Docker's default capabilities.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability Linux has; runc leaves out those the running kernel does not know.
const ALL_CAPABILITIES: &str = "
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user a container runs as, looked up in the image's passwd and group files by the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// Groups of the user in the image, and those of [`ContainerSpec::groups`].
    pub additional_gids: Vec<u32>,
}

pub(super) fn process(inputs: &ContainerInputs<'_>, caps: &BTreeSet<String>) -> Result<Process, SpecError> {
    let container = inputs.container;
    let mut user = User::default();
    user.set_uid(inputs.user.uid).set_gid(inputs.user.gid);
    if !inputs.user.additional_gids.is_empty() {
        user.set_additional_gids(Some(inputs.user.additional_gids.clone()));
    }
    let mut process = Process::default();
    process
        .set_terminal(Some(container.tty))
        .set_user(user)
        .set_args(Some(args(inputs)?))
        .set_env(Some(env(container, inputs.image, inputs.hostname)))
        .set_cwd(directory(container, inputs.image)?.into())
        .set_capabilities(Some(granted(caps, inputs.user.uid)))
        .set_rlimits(rlimits(&container.ulimits)?)
        .set_no_new_privileges(Some(security(container)?.no_new_privileges))
        .set_oom_score_adj(oom_score(container.oom_score_adj));
    Ok(process)
}

/// Entrypoint and arguments, as Docker merges them: a command of the service's own drops the image's arguments too.
fn args(inputs: &ContainerInputs<'_>) -> Result<Vec<String>, SpecError> {
    let container = inputs.container;
    let mut args = if container.command.is_empty() {
        let arguments = if container.args.is_empty() {
            inputs.image.cmd().clone().unwrap_or_default()
        } else {
            container.args.clone()
        };
        [inputs.image.entrypoint().clone().unwrap_or_default(), arguments].concat()
    } else {
        [container.command.clone(), container.args.clone()].concat()
    };
    if args.is_empty() {
        return Err(SpecError::NoCommand);
    }
    if container.init == Some(true) {
        args.splice(0..0, [init_path().to_owned(), "--".to_owned()]);
    }
    Ok(args)
}

/// Docker's own variables, then the image's, then the service's; a later one replaces an earlier one in its place.
/// `HOME` is left to runc, which reads it from the image's passwd file where nobody set it.
fn env(container: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if container.tty {
        env.push("TERM=xterm".to_owned());
    }
    for variable in image.env().iter().flatten().chain(&container.env) {
        let (name, value) =
            variable.split_once('=').map_or((variable.as_str(), None), |(name, value)| (name, Some(value)));
        let place = env.iter().position(|other| other.split_once('=').is_some_and(|(existing, _)| existing == name));
        match (place, value) {
            (Some(place), Some(_)) => env[place] = variable.clone(),
            (None, Some(_)) => env.push(variable.clone()),
            (Some(place), None) => drop(env.remove(place)),
            (None, None) => {}
        }
    }
    env
}

fn directory(container: &ContainerSpec, image: &ImageConfig) -> Result<String, SpecError> {
    let wished = container.dir.as_deref().or(image.working_dir().as_deref()).filter(|dir| !dir.is_empty());
    match wished.unwrap_or("/") {
        dir if dir.starts_with('/') => Ok(dir.to_owned()),
        dir => Err(SpecError::InvalidDirectory(dir.to_owned())),
    }
}

/// The capabilities a container holds, by their full names: Docker's, with the spec's added and dropped. All are those in
/// `bounding`, a bit for each by its number: what this host itself may not do, its containers cannot be given.
pub fn capabilities(container: &ContainerSpec, bounding: u64) -> Result<BTreeSet<String>, SpecError> {
    let numbered = || ALL_CAPABILITIES.split_whitespace().enumerate();
    let all = || {
        let held = numbered().filter(|(number, _)| bounding >> number & 1 == 1);
        held.map(|(_, name)| format!("CAP_{name}")).collect::<BTreeSet<_>>()
    };
    if container.privileged {
        return Ok(all());
    }
    let add = named(&container.cap_add)?;
    let drop = named(&container.cap_drop)?;
    // Docker's order: ALL first; among names, one that is both dropped and added is held.
    Ok(if add.contains("ALL") {
        all().difference(&drop).cloned().collect()
    } else if drop.contains("ALL") {
        add
    } else {
        let kept = DEFAULT_CAPABILITIES.into_iter().map(str::to_owned).filter(|cap| !drop.contains(cap));
        kept.chain(add).collect()
    })
}

/// Full names of `caps`, which users write in any case, with or without the prefix; `ALL` stays.
fn named(caps: &[String]) -> Result<BTreeSet<String>, SpecError> {
    caps.iter()
        .map(|written| {
            let upper = written.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match name {
                "ALL" => Ok(name.to_owned()),
                _ if ALL_CAPABILITIES.split_whitespace().any(|known| known == name) => Ok(format!("CAP_{name}")),
                _ => Err(SpecError::UnknownCapability(written.clone())),
            }
        })
        .collect()
}

/// The sets runc shall give. Ambient and inheritable stay empty, or a process that is not root would keep them; it also
/// gets no effective ones, which is what `execve` would leave it.
fn granted(caps: &BTreeSet<String>, uid: u32) -> LinuxCapabilities {
    held_by(uid, caps.iter().map(|cap| known(cap)).collect())
}

/// The same from a bounding set.
pub fn held_by(uid: u32, bounding: Capabilities) -> LinuxCapabilities {
    let held = if uid == 0 { bounding.clone() } else { Capabilities::default() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding))
        .set_effective(Some(held.clone()))
        .set_permitted(Some(held))
        .set_inheritable(Some(Capabilities::default()))
        .set_ambient(Some(Capabilities::default()));
    sets
}

/// Every capability that Linux has and that is in `bounding`, a bit for each by its number.
pub fn all_capabilities(bounding: u64) -> Capabilities {
    let numbered = ALL_CAPABILITIES.split_whitespace().enumerate();
    numbered.filter(|(number, _)| bounding >> number & 1 == 1).map(|(_, name)| known(name)).collect()
}

fn known(cap: &str) -> Capability {
    cap.trim_start_matches("CAP_").parse().expect("capabilities() gives only names that Linux has")
}

fn rlimits(ulimits: &[Ulimit]) -> Result<Option<Vec<PosixRlimit>>, SpecError> {
    // -1 is how users write "no limit".
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let rlimits = ulimits
        .iter()
        .map(|ulimit| {
            let typ = rlimit_type(&ulimit.name).ok_or_else(|| SpecError::UnknownUlimit(ulimit.name.clone()))?;
            if value(ulimit.soft) > value(ulimit.hard) {
                let Ulimit { name, soft, hard } = ulimit.clone();
                return Err(SpecError::UlimitOrder { name, soft, hard });
            }
            let rlimit = PosixRlimitBuilder::default().typ(typ).soft(value(ulimit.soft)).hard(value(ulimit.hard));
            Ok(rlimit.build().expect("every field of the builder has a default"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    // None, not an empty list: then the process inherits containerd's, not the crate's default of 1024 files.
    Ok(Some(rlimits).filter(|rlimits| !rlimits.is_empty()))
}

fn rlimit_type(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "as" => PosixRlimitType::RlimitAs,
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}

/// The kernel's range is -1000 to 1000; 0 leaves the score as it is inherited.
fn oom_score(adjustment: i64) -> Option<i32> {
    (adjustment != 0).then(|| adjustment.clamp(-1000, 1000) as i32)
}

pub(super) fn security(container: &ContainerSpec) -> Result<Security, SpecError> {
    Security::read(&container.security_opt).map_err(SpecError::UnsupportedSecurityOption)
}
