//! Mounts: the file systems every container has, the files that say who it is, and what its spec mounts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as OciMount;

use super::{ContainerInputs, SpecError};

/// Docker's default for `/dev/shm`.
const DEFAULT_SHM_BYTES: u64 = 64 * 1024 * 1024;

/// Where the init process is mounted, as in Docker's containers.
pub fn init_path() -> &'static str {
    "/sbin/docker-init"
}

/// Files the network room writes for each task, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcFiles {
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
}

/// A mount of the spec, its source found (and made, where it had to be) on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedMount {
    /// Absolute path in the container.
    pub target: String,
    pub source: MountSource,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A directory or file of the host: a bind, or a volume's data.
    Path {
        path: PathBuf,
        propagation: Option<String>,
        /// With what is mounted below it.
        recursive: bool,
        /// What is mounted below it stays writable where the mount itself is read-only.
        submounts_stay: bool,
    },
    Tmpfs {
        size_bytes: Option<u64>,
        mode: Option<u32>,
        exec: bool,
    },
}

/// All mounts, parents before what lies in them. A mount of the spec takes the place of a default one.
pub(super) fn mounts(inputs: &ContainerInputs<'_>) -> Result<Vec<OciMount>, SpecError> {
    let own = inputs.mounts.iter().map(resolved).collect::<Result<Vec<_>, _>>()?;
    let targets: BTreeSet<PathBuf> = own.iter().map(|mount| mount.destination().clone()).collect();
    let replaced =
        |target: &Path| targets.contains(target) || (target.starts_with("/dev") && targets.contains(Path::new("/dev")));
    let mut mounts = default_mounts(inputs);
    mounts.extend(etc_files(inputs.etc));
    if inputs.container.init == Some(true) {
        let init = inputs.init.ok_or(SpecError::NoInit)?;
        mounts.push(mount(init_path(), "bind", init, &["bind", "ro", "rprivate"]));
    }
    mounts.retain(|mount| !replaced(mount.destination()));
    if inputs.container.read_only {
        mounts.iter_mut().for_each(make_read_only);
    }
    mounts.extend(own);
    // Stable: the spec's order decides among siblings.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn default_mounts(inputs: &ContainerInputs<'_>) -> Vec<OciMount> {
    let container = inputs.container;
    let shm = format!("size={}", container.shm_size.unwrap_or(DEFAULT_SHM_BYTES));
    let host_ipc = container.ipc.as_deref() == Some("host");
    // A privileged container may change the kernel's settings.
    let kernel = if container.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", kernel]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", kernel]),
    ];
    if host_ipc {
        // Hosts without POSIX message queues have none.
        if Path::new("/dev/mqueue").exists() {
            mounts.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"]));
        }
        mounts.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]));
    } else {
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]));
    }
    mounts
}

fn etc_files(etc: &EtcFiles) -> [OciMount; 3] {
    let bind = |target: &str, file: &Path| mount(target, "bind", file, &["bind", "rprivate"]);
    [bind("/etc/hosts", &etc.hosts), bind("/etc/hostname", &etc.hostname), bind("/etc/resolv.conf", &etc.resolv_conf)]
}

fn resolved(wished: &ResolvedMount) -> Result<OciMount, SpecError> {
    let target = Path::new(&wished.target);
    if !target.is_absolute() || target.parent().is_none() {
        return Err(SpecError::InvalidTarget(wished.target.clone()));
    }
    let access = if wished.read_only { "ro" } else { "rw" };
    Ok(match &wished.source {
        MountSource::Path { path, propagation, recursive, submounts_stay } => {
            let bind = if *recursive { "rbind" } else { "bind" };
            let mut options = vec![bind, access];
            if wished.read_only && *recursive && !submounts_stay {
                // Beside "ro": a runtime that does not know the word makes the mount itself read-only at least.
                options.push("rro");
            }
            options.push(checked_propagation(propagation.as_deref())?);
            mount(&wished.target, "bind", path, &options)
        }
        MountSource::Tmpfs { size_bytes, mode, exec } => {
            let size = size_bytes.map(|bytes| format!("size={bytes}"));
            let mode = mode.map(|mode| format!("mode={mode:o}"));
            let mut options = vec!["nosuid", "nodev", if *exec { "exec" } else { "noexec" }, access];
            options.extend(size.as_deref());
            options.extend(mode.as_deref());
            mount(&wished.target, "tmpfs", "tmpfs", &options)
        }
    })
}

fn checked_propagation(written: Option<&str>) -> Result<&str, SpecError> {
    match written {
        None | Some("") => Ok("rprivate"),
        Some(known @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave")) => Ok(known),
        Some(other) => Err(SpecError::UnknownPropagation(other.to_owned())),
    }
}

/// A read-only container may still write to the file systems that are its own and hold no image.
fn make_read_only(mount: &mut OciMount) {
    const WRITABLE: [&str; 5] = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];
    let stays = WRITABLE.iter().any(|path| mount.destination() == Path::new(path));
    let options = mount.options_mut().get_or_insert_default();
    if !stays && !options.iter().any(|option| option == "ro" || option == "rw") {
        options.push("ro".to_owned());
    }
}

fn mount(target: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> OciMount {
    let mut mount = OciMount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.as_ref().to_owned()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}
