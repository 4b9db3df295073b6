//! The whole specification, from a container spec, an image's configuration and what the caller found on the host.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Root, Spec};

use super::process::{capabilities, process, security};
use super::resources::resources;
use super::{
    Cgroup, CgroupVersion, DeviceNode, EtcFiles, ResolvedMount, ResolvedUser, SpecError, devices, mounts, seccomp,
};
use crate::spec::{Confinement, ContainerSpec, Resources};

/// Where the process finds its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Netns<'a> {
    /// In this namespace, which is there.
    Made(&'a Path),
    /// In one of its own with a loopback interface and nothing else.
    Empty,
    /// In that of the host.
    Host,
}

/// All that [`build`] needs. Paths are the host's.
#[derive(Debug, Clone, Copy)]
pub struct ContainerInputs<'a> {
    pub container: &'a ContainerSpec,
    pub resources: &'a Resources,
    /// `config` of the image's configuration.
    pub image: &'a ImageConfig,
    /// Of the spec's `user`, else the image's.
    pub user: &'a ResolvedUser,
    /// Templates filled in; never empty.
    pub hostname: &'a str,
    /// Of [`ContainerSpec::mounts`] and of files such as secrets, in order.
    pub mounts: &'a [ResolvedMount],
    pub etc: &'a EtcFiles,
    /// Of [`ContainerSpec::devices`]; for a privileged container, all of the host's.
    pub devices: &'a [DeviceNode],
    /// The capabilities that the daemon may pass on, a bit for each by its number.
    pub bounding: u64,
    /// A static init (docker-init or tini), where the node has one.
    pub init: Option<&'a Path>,
    pub netns: Netns<'a>,
    pub cgroup: Cgroup,
    /// For example `/flok/<task id>`.
    pub cgroup_path: &'a str,
    /// `std::env::consts::ARCH`, or the image's.
    pub architecture: &'a str,
}

/// Hidden from containers, as in Docker: they tell of the host, or leak through its side channels.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Docker's: any user may ping and listen below 1024, in a network namespace of its own.
const DEFAULT_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0")];

/// The specification for `runc`, with its root at `rootfs` in the bundle, where containerd mounts the snapshot.
pub fn build(inputs: &ContainerInputs<'_>) -> Result<Spec, SpecError> {
    let container = inputs.container;
    let caps = capabilities(container, inputs.bounding)?;
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(container.read_only));
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(inputs)?))
        .set_resources(Some(resources(inputs)?))
        .set_cgroups_path(Some(inputs.cgroup_path.into()))
        .set_devices(devices::nodes(inputs.devices))
        .set_sysctl(Some(sysctls(container, inputs.netns)))
        .set_masked_paths(Some(unless(container.privileged, &MASKED_PATHS)))
        .set_readonly_paths(Some(unless(container.privileged, &READONLY_PATHS)))
        .set_rootfs_propagation(rootfs_propagation(inputs.mounts));
    if !container.privileged && security(container)?.seccomp != Some(Confinement::Unconfined) {
        linux.set_seccomp(Some(seccomp::default_profile(&caps, inputs.architecture)));
    }
    let mut spec = Spec::default();
    spec.set_version("1.0.2".to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts::mounts(inputs)?))
        .set_process(Some(process(inputs, &caps)?))
        .set_hostname(Some(inputs.hostname.to_owned()))
        .set_annotations(None)
        .set_linux(Some(linux));
    Ok(spec)
}

fn unless(privileged: bool, paths: &[&str]) -> Vec<String> {
    if privileged { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
}

/// On v2 a container sees its own cgroup as the root; on v1 Docker shares the host's cgroup namespace, since programs
/// there expect to find their path under each hierarchy.
fn namespaces(inputs: &ContainerInputs<'_>) -> Result<Vec<LinuxNamespace>, SpecError> {
    let namespace = |typ| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ);
        namespace
    };
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount), namespace(LinuxNamespaceType::Uts)];
    match inputs.netns {
        Netns::Made(path) => {
            let mut network = namespace(LinuxNamespaceType::Network);
            network.set_path(Some(path.to_owned()));
            namespaces.push(network);
        }
        Netns::Empty => namespaces.push(namespace(LinuxNamespaceType::Network)),
        Netns::Host => {}
    }
    if is_private("pid", inputs.container.pid.as_deref())? {
        namespaces.push(namespace(LinuxNamespaceType::Pid));
    }
    if is_private("ipc", inputs.container.ipc.as_deref())? {
        namespaces.push(namespace(LinuxNamespaceType::Ipc));
    }
    if inputs.cgroup.version == CgroupVersion::V2 {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup));
    }
    Ok(namespaces)
}

fn is_private(kind: &'static str, mode: Option<&str>) -> Result<bool, SpecError> {
    match mode {
        None | Some("" | "private") => Ok(true),
        Some("host") => Ok(false),
        Some(value) => Err(SpecError::UnsupportedNamespace { kind, value: value.to_owned() }),
    }
}

/// Those of the network are the node's own where the task has no network namespace.
fn sysctls(container: &ContainerSpec, netns: Netns<'_>) -> HashMap<String, String> {
    let defaults = DEFAULT_SYSCTLS.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let defaults = defaults.into_iter().filter(|_| netns != Netns::Host);
    defaults.chain(container.sysctls.clone()).collect()
}

/// A bind that shares its mounts, or receives the host's, needs a root that does the same.
fn rootfs_propagation(mounts: &[ResolvedMount]) -> Option<String> {
    let wanted = |kinds: [&str; 2]| {
        mounts.iter().any(|mount| match &mount.source {
            super::MountSource::Path { propagation: Some(propagation), .. } => kinds.contains(&propagation.as_str()),
            _ => false,
        })
    };
    if wanted(["shared", "rshared"]) {
        Some("shared".to_owned())
    } else if wanted(["slave", "rslave"]) {
        Some("rslave".to_owned())
    } else {
        None
    }
}
