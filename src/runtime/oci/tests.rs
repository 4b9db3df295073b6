use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime::{LinuxNamespaceType, Mount as OciMount, Spec};

use super::*;
use crate::spec::{ContainerSpec, ResourceLimits, ResourceReservations, Resources, Ulimit};

/// Owns what [`ContainerInputs`] borrows.
struct Case {
    container: ContainerSpec,
    resources: Resources,
    image: ImageConfig,
    user: ResolvedUser,
    mounts: Vec<ResolvedMount>,
    devices: Vec<DeviceNode>,
    init: Option<PathBuf>,
    netns: Netns<'static>,
    cgroup: Cgroup,
}

impl Default for Case {
    fn default() -> Self {
        Case {
            container: ContainerSpec { command: words("serve"), ..Default::default() },
            resources: Resources::default(),
            image: ImageConfig::default(),
            user: ResolvedUser::default(),
            mounts: Vec::new(),
            devices: Vec::new(),
            init: None,
            netns: Netns::Made(Path::new("/run/flok/netns/t")),
            cgroup: Cgroup { version: CgroupVersion::V1, swap_limit: true },
        }
    }
}

impl Case {
    fn try_build(&self) -> Result<Spec, SpecError> {
        let etc =
            EtcFiles { hosts: "/h/hosts".into(), hostname: "/h/hostname".into(), resolv_conf: "/h/resolv".into() };
        build(&ContainerInputs {
            container: &self.container,
            resources: &self.resources,
            image: &self.image,
            user: &self.user,
            hostname: "web-1",
            mounts: &self.mounts,
            etc: &etc,
            devices: &self.devices,
            bounding: u64::MAX,
            init: self.init.as_deref(),
            netns: self.netns,
            cgroup: self.cgroup,
            cgroup_path: "/flok/t",
            architecture: "x86_64",
        })
    }

    fn build(&self) -> Spec {
        self.try_build().expect("the case is valid")
    }

    fn args(&self) -> Vec<String> {
        self.build().process().as_ref().unwrap().args().clone().unwrap()
    }

    fn env(&self) -> Vec<String> {
        self.build().process().as_ref().unwrap().env().clone().unwrap()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn mount_at<'a>(spec: &'a Spec, target: &str) -> &'a OciMount {
    let mounts = spec.mounts().as_ref().unwrap();
    mounts.iter().find(|mount| mount.destination() == Path::new(target)).unwrap_or_else(|| panic!("no {target}"))
}

fn options(mount: &OciMount) -> Vec<&str> {
    mount.options().iter().flatten().map(String::as_str).collect()
}

fn namespace_types(spec: &Spec) -> Vec<LinuxNamespaceType> {
    spec.linux().as_ref().unwrap().namespaces().iter().flatten().map(|namespace| namespace.typ()).collect()
}

fn bind(target: &str, propagation: Option<&str>) -> ResolvedMount {
    let source = MountSource::Path {
        path: "/data".into(),
        propagation: propagation.map(str::to_owned),
        recursive: true,
        submounts_stay: false,
    };
    ResolvedMount { target: target.into(), source, read_only: false }
}

#[test]
fn command_and_arguments_merge_with_the_images_as_docker_does() {
    let mut case = Case { container: ContainerSpec::default(), ..Default::default() };
    assert_eq!(case.try_build().unwrap_err(), SpecError::NoCommand);
    case.image.set_entrypoint(Some(words("/entry"))).set_cmd(Some(words("default args")));
    assert_eq!(case.args(), ["/entry", "default", "args"]);
    case.container.args = words("mine");
    assert_eq!(case.args(), ["/entry", "mine"]);
    case.container.command = words("/own");
    assert_eq!(case.args(), ["/own", "mine"]);
    case.container.args.clear();
    assert_eq!(case.args(), ["/own"], "the image's arguments belong to its entrypoint");
}

#[test]
fn the_services_variables_win_and_a_bare_name_removes_one() {
    let mut case = Case::default();
    case.image.set_env(Some(words("PATH=/image LANG=C SECRET=x")));
    case.container.env = words("LANG=de SECRET NEW=1");
    assert_eq!(case.env(), ["PATH=/image", "HOSTNAME=web-1", "LANG=de", "NEW=1"]);
    case.container.tty = true;
    assert!(case.env().contains(&"TERM=xterm".to_owned()));
}

#[test]
fn no_default_of_the_crate_slips_in() {
    let spec = Case::default().build();
    assert_eq!(spec.hostname().as_deref(), Some("web-1"));
    assert_eq!(spec.annotations(), &None);
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.rlimits(), &None);
    assert_eq!(process.no_new_privileges(), Some(false));
    assert_eq!(process.cwd(), Path::new("/"));
    assert_eq!(process.oom_score_adj(), None);
}

#[test]
fn root_gets_dockers_fourteen_capabilities_and_no_ambient_ones() {
    let spec = Case::default().build();
    let caps = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
    for held in [caps.bounding(), caps.effective(), caps.permitted()] {
        assert_eq!(held.as_ref().unwrap().len(), 14);
    }
    assert!(caps.ambient().as_ref().unwrap().is_empty());
    assert!(caps.inheritable().as_ref().unwrap().is_empty());
}

#[test]
fn another_user_is_bounded_by_capabilities_but_holds_none() {
    let user = ResolvedUser { uid: 1000, gid: 1000, additional_gids: vec![27] };
    let spec = Case { user, ..Default::default() }.build();
    let process = spec.process().as_ref().unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (1000, 1000));
    assert_eq!(process.user().additional_gids(), &Some(vec![27]));
    let caps = process.capabilities().as_ref().unwrap();
    assert_eq!(caps.bounding().as_ref().unwrap().len(), 14);
    assert!(caps.effective().as_ref().unwrap().is_empty());
    assert!(caps.permitted().as_ref().unwrap().is_empty());
}

#[test]
fn capabilities_are_added_and_dropped_by_any_spelling() {
    let caps = |add: &str, drop: &str| {
        capabilities(&ContainerSpec { cap_add: words(add), cap_drop: words(drop), ..Default::default() }, u64::MAX)
    };
    let defaults: BTreeSet<String> = DEFAULT_CAPABILITIES.map(str::to_owned).into();
    assert_eq!(caps("", ""), Ok(defaults));
    assert!(caps("net_admin", "").unwrap().contains("CAP_NET_ADMIN"));
    assert!(!caps("", "CAP_CHOWN").unwrap().contains("CAP_CHOWN"));
    assert_eq!(caps("KILL", "ALL").unwrap(), BTreeSet::from(["CAP_KILL".to_owned()]));
    assert_eq!(caps("", "all").unwrap().len(), 0);
    assert_eq!(caps("ALL", "").unwrap().len(), 41);
    assert_eq!(caps("ALL", "SYS_ADMIN").unwrap().len(), 40);
    assert!(caps("CHOWN", "CHOWN").unwrap().contains("CAP_CHOWN"), "as in Docker");
    assert_eq!(caps("SWIM", ""), Err(SpecError::UnknownCapability("SWIM".into())));
}

#[test]
fn all_capabilities_are_those_that_the_host_may_give() {
    // Of the kernel's numbers, CHOWN is 0 and SYS_RESOURCE 24.
    let bounding = !(1 << 24);
    let privileged = ContainerSpec { privileged: true, ..Default::default() };
    let all = ContainerSpec { cap_add: words("ALL"), ..Default::default() };
    for container in [privileged, all] {
        let caps = capabilities(&container, bounding).unwrap();
        assert!(caps.contains("CAP_CHOWN") && !caps.contains("CAP_SYS_RESOURCE") && caps.len() == 40, "{caps:?}");
    }
}

#[test]
fn limits_are_the_same_on_both_cgroup_versions_save_protection_of_memory() {
    let resources = Resources {
        limits: ResourceLimits { nano_cpus: 500_000_000, memory_bytes: 64 << 20, pids: 100 },
        reservations: ResourceReservations { nano_cpus: 250_000_000, memory_bytes: 32 << 20, generic: Vec::new() },
    };
    for (version, reservation) in [(CgroupVersion::V1, None), (CgroupVersion::V2, Some(32 << 20))] {
        let cgroup = Cgroup { version, swap_limit: true };
        let spec = Case { resources: resources.clone(), cgroup, ..Default::default() }.build();
        let got = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        let cpu = got.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(50_000), Some(100_000), Some(256)));
        let memory = got.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        assert_eq!(memory.reservation(), reservation);
        assert_eq!(got.pids().unwrap().limit(), 100);
    }
}

#[test]
fn without_limits_nothing_is_written_and_without_swap_accounting_no_swap() {
    let mut case = Case::default();
    let spec = case.build();
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert_eq!((resources.cpu(), resources.memory(), resources.pids()), (&None, &None, &None));
    case.cgroup.swap_limit = false;
    case.resources.limits.memory_bytes = 64 << 20;
    let spec = case.build();
    let memory = spec.linux().as_ref().unwrap().resources().as_ref().unwrap().memory().unwrap();
    assert_eq!(memory.swap(), None);
    case.resources.limits.memory_bytes = 1 << 20;
    assert_eq!(case.try_build().unwrap_err(), SpecError::MemoryLimitTooSmall(1 << 20));
}

#[test]
fn only_version_two_gets_a_cgroup_namespace() {
    let mut case = Case::default();
    assert!(!namespace_types(&case.build()).contains(&LinuxNamespaceType::Cgroup));
    case.cgroup.version = CgroupVersion::V2;
    let spec = case.build();
    assert!(namespace_types(&spec).contains(&LinuxNamespaceType::Cgroup));
    assert_eq!(mount_at(&spec, "/sys/fs/cgroup").typ().as_deref(), Some("cgroup"));
    assert_eq!(spec.linux().as_ref().unwrap().cgroups_path().as_deref(), Some(Path::new("/flok/t")));
}

#[test]
fn the_network_namespace_is_joined_and_host_namespaces_are_left_out() {
    let mut case = Case::default();
    let spec = case.build();
    let namespaces = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
    let network = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network).unwrap();
    assert_eq!(network.path().as_deref(), Some(Path::new("/run/flok/netns/t")));
    case.container.pid = Some("host".into());
    case.container.ipc = Some("host".into());
    let spec = case.build();
    assert!(!namespace_types(&spec).contains(&LinuxNamespaceType::Pid));
    assert_eq!(mount_at(&spec, "/dev/shm").source().as_deref(), Some(Path::new("/dev/shm")));
    case.container.pid = Some("container:x".into());
    assert!(matches!(case.try_build(), Err(SpecError::UnsupportedNamespace { kind: "pid", .. })));
}

#[test]
fn parents_are_mounted_before_what_lies_in_them() {
    let mounts = vec![bind("/srv/data/deep", None), bind("/srv", None)];
    let spec = Case { mounts, ..Default::default() }.build();
    let depths: Vec<usize> =
        spec.mounts().iter().flatten().map(|mount| mount.destination().components().count()).collect();
    assert!(depths.is_sorted(), "{depths:?}");
}

#[test]
fn a_mount_of_the_spec_takes_the_place_of_a_default_one() {
    let tmpfs = MountSource::Tmpfs { size_bytes: Some(4096), mode: Some(0o1770), exec: false };
    let mounts = vec![
        ResolvedMount { target: "/dev/shm".into(), source: tmpfs, read_only: false },
        bind("/etc/hosts", Some("rslave")),
    ];
    let spec = Case { mounts, ..Default::default() }.build();
    let all: Vec<_> = spec.mounts().iter().flatten().map(OciMount::destination).collect();
    assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "each target once");
    assert_eq!(options(mount_at(&spec, "/dev/shm")), ["nosuid", "nodev", "noexec", "rw", "size=4096", "mode=1770"]);
    assert_eq!(options(mount_at(&spec, "/etc/hosts")), ["rbind", "rw", "rslave"]);
    assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some("rslave"));
}

#[test]
fn what_is_mounted_below_a_read_only_bind_is_read_only_too() {
    let bound = |recursive, submounts_stay| {
        let source = MountSource::Path { path: "/data".into(), propagation: None, recursive, submounts_stay };
        let mounts = vec![ResolvedMount { target: "/srv".into(), source, read_only: true }];
        let spec = Case { mounts, ..Default::default() }.build();
        options(mount_at(&spec, "/srv")).join(",")
    };
    assert_eq!(bound(true, false), "rbind,ro,rro,rprivate");
    assert_eq!(bound(true, true), "rbind,ro,rprivate");
    assert_eq!(bound(false, false), "bind,ro,rprivate");
}

#[test]
fn programs_run_in_a_tmpfs_that_says_so() {
    let source = MountSource::Tmpfs { size_bytes: None, mode: None, exec: true };
    let mounts = vec![ResolvedMount { target: "/t".into(), source, read_only: false }];
    let spec = Case { mounts, ..Default::default() }.build();
    assert_eq!(options(mount_at(&spec, "/t")), ["nosuid", "nodev", "exec", "rw"]);
}

#[test]
fn bad_mounts_are_refused_by_name() {
    for (mount, error) in [
        (bind("data", None), SpecError::InvalidTarget("data".into())),
        (bind("/", None), SpecError::InvalidTarget("/".into())),
        (bind("/x", Some("sideways")), SpecError::UnknownPropagation("sideways".into())),
    ] {
        assert_eq!(Case { mounts: vec![mount], ..Default::default() }.try_build().unwrap_err(), error);
    }
}

#[test]
fn shm_has_the_asked_size() {
    let mut case = Case::default();
    assert!(options(mount_at(&case.build(), "/dev/shm")).contains(&"size=67108864"));
    case.container.shm_size = Some(1 << 20);
    assert!(options(mount_at(&case.build(), "/dev/shm")).contains(&"size=1048576"));
}

#[test]
fn a_read_only_container_can_still_write_to_its_own_file_systems_and_volumes() {
    let mut case = Case { mounts: vec![bind("/srv", None)], ..Default::default() };
    case.container.read_only = true;
    let spec = case.build();
    assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
    for (target, read_only) in [("/etc/hosts", true), ("/sys", true), ("/dev/shm", false), ("/srv", false)] {
        assert_eq!(options(mount_at(&spec, target)).contains(&"ro"), read_only, "{target}");
    }
}

#[test]
fn a_privileged_container_sees_and_may_do_everything() {
    let mut case = Case::default();
    let linux = case.build().linux().clone().unwrap();
    assert!(linux.seccomp().is_some());
    assert!(linux.masked_paths().as_ref().unwrap().iter().any(|path| path == "/proc/kcore"));
    case.container.privileged = true;
    let spec = case.build();
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    assert!(linux.masked_paths().as_ref().unwrap().is_empty());
    assert!(linux.readonly_paths().as_ref().unwrap().is_empty());
    assert!(options(mount_at(&spec, "/sys")).contains(&"rw"));
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert_eq!(rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a *:* rwm"]);
}

#[test]
fn a_device_gets_its_node_and_its_rule() {
    let mut device = DeviceNode {
        path: "/dev/kvm".into(),
        block: false,
        major: 10,
        minor: 232,
        mode: 0o20660,
        uid: 0,
        gid: 108,
        permissions: "rw".into(),
    };
    let spec = Case { devices: vec![device.clone()], ..Default::default() }.build();
    let linux = spec.linux().as_ref().unwrap();
    let node = &linux.devices().as_ref().unwrap()[0];
    assert_eq!((node.major(), node.minor(), node.file_mode(), node.gid()), (10, 232, Some(0o660), Some(108)));
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert_eq!(rules.first().unwrap().to_string(), "a *:* rwm");
    assert!(!rules.first().unwrap().allow());
    assert_eq!(rules.last().unwrap().to_string(), "c 10:232 rw");
    device.permissions = "rx".into();
    let refused = Case { devices: vec![device], ..Default::default() }.try_build();
    assert_eq!(refused.unwrap_err(), SpecError::InvalidDevicePermissions("rx".into()));
}

#[test]
fn ulimits_become_rlimits() {
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    let mut case = Case::default();
    case.container.ulimits = vec![ulimit("nofile", 1024, 2048), ulimit("memlock", -1, -1)];
    let process = case.build().process().clone().unwrap();
    let rlimits = process.rlimits().as_ref().unwrap();
    assert_eq!((rlimits[0].soft(), rlimits[0].hard()), (1024, 2048));
    assert_eq!(rlimits[1].hard(), u64::MAX);
    case.container.ulimits = vec![ulimit("nofile", -1, 10)];
    assert!(matches!(case.try_build(), Err(SpecError::UlimitOrder { .. })));
    case.container.ulimits = vec![ulimit("wings", 1, 1)];
    assert_eq!(case.try_build().unwrap_err(), SpecError::UnknownUlimit("wings".into()));
}

#[test]
fn security_options_are_taken_or_refused_by_name() {
    let mut case = Case::default();
    case.container.security_opt = words("no-new-privileges:true seccomp=unconfined");
    let spec = case.build();
    assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(true));
    assert!(spec.linux().as_ref().unwrap().seccomp().is_none());
    case.container.security_opt = words("label=disable");
    assert_eq!(case.try_build().unwrap_err(), SpecError::UnsupportedSecurityOption("label=disable".into()));
}

#[test]
fn an_init_process_is_mounted_and_runs_first() {
    let mut case = Case::default();
    case.container.init = Some(true);
    assert_eq!(case.try_build().unwrap_err(), SpecError::NoInit);
    case.init = Some("/usr/libexec/docker-init".into());
    assert_eq!(case.args(), ["/sbin/docker-init", "--", "serve"]);
    assert_eq!(options(mount_at(&case.build(), "/sbin/docker-init")), ["bind", "ro", "rprivate"]);
}

#[test]
fn sysctls_of_the_spec_win_over_dockers() {
    let mut case = Case::default();
    case.container.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "1024".into());
    let spec = case.build();
    let sysctls = spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap();
    assert_eq!(sysctls["net.ipv4.ip_unprivileged_port_start"], "1024");
    assert_eq!(sysctls["net.ipv4.ping_group_range"], "0 2147483647");
}

#[test]
fn on_the_hosts_network_there_is_no_namespace_and_no_setting_of_it() {
    let mut case = Case::default();
    case.container.sysctls.insert("kernel.msgmax".into(), "1024".into());
    let mut build = |netns| {
        case.netns = netns;
        let spec = case.build();
        let linux = spec.linux().clone().unwrap();
        let network = linux.namespaces().clone().unwrap().into_iter().find(|n| n.typ() == LinuxNamespaceType::Network);
        (network.map(|network| network.path().clone()), linux.sysctl().clone().unwrap())
    };
    let (network, sysctls) = build(Netns::Host);
    assert_eq!((network, sysctls.into_keys().collect::<Vec<_>>()), (None, vec!["kernel.msgmax".to_owned()]));
    let (network, sysctls) = build(Netns::Empty);
    assert_eq!((network, sysctls.len()), (Some(None), 3));
}
