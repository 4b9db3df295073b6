//! What is accepted, and what is refused with which words.

use std::time::Duration;

use super::*;

pub(in crate::spec) fn service() -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        labels: Labels::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        task: TaskSpec {
            container: ContainerSpec { image: "redis:7".into(), ..ContainerSpec::default() },
            resources: Resources::default(),
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            networks: Vec::new(),
            log_driver: None,
            force_update: 0,
            host_ports: Vec::new(),
            volume_policy: VolumePolicy::default(),
            ingress: false,
        },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
        depends_on: Vec::new(),
        schedule: None,
    }
}

/// What is said of the plain service after `spoil`.
fn refusal(spoil: impl FnOnce(&mut ServiceSpec)) -> String {
    let mut spec = service();
    spoil(&mut spec);
    spec.validate().expect_err("the spec is refused").to_string()
}

fn accepted(adjust: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = service();
    adjust(&mut spec);
    spec.validate().expect("the spec is accepted");
    spec
}

fn mount(kind: MountKind, source: Option<&str>, target: &str) -> Mount {
    Mount {
        kind,
        source: source.map(str::to_owned),
        target: target.into(),
        read_only: false,
        bind: BindOptions::default(),
        volume: VolumeOptions::default(),
        tmpfs: TmpfsOptions::default(),
    }
}

fn port(published: u16, mode: PublishMode) -> PortConfig {
    PortConfig { name: None, protocol: Protocol::Tcp, target: 80, published, mode }
}

fn secret_reference(id: u128, target: &str) -> SecretReference {
    let file = FileTarget { name: target.into(), uid: "0".into(), gid: "0".into(), mode: 0o444 };
    SecretReference { id: SecretId(id), name: format!("s{id}"), file, data_version: DataVersion(0) }
}

#[test]
fn service_names_are_dns_components() {
    for name in ["web", "my_stack-web", "A", "0a", &"a".repeat(63)] {
        accepted(|spec| spec.name = name.into());
    }
    for (name, words) in [
        ("", "name must be provided"),
        ("a.b", "DNS name component"),
        ("-a", "DNS name component"),
        ("a_", "DNS name component"),
        ("a b", "DNS name component"),
        ("é", "DNS name component"),
        (&"a".repeat(64), "63 characters"),
    ] {
        assert!(refusal(|spec| spec.name = name.into()).contains(words), "{name}");
    }
}

#[test]
fn an_image_must_be_a_reference() {
    assert!(refusal(|spec| spec.task.container.image.clear()).contains("image reference must be provided"));
    assert!(refusal(|spec| spec.task.container.image = "Not An Image".into()).contains("invalid image reference"));
}

#[test]
fn published_ports_do_not_conflict_within_a_service() {
    let twice = |a, b| move |spec: &mut ServiceSpec| spec.endpoint.ports = vec![a, b];
    let (ingress, host) = (port(80, PublishMode::Ingress), port(80, PublishMode::Host));
    assert!(refusal(twice(ingress.clone(), host.clone())).contains("duplicate published ports"));
    accepted(twice(host.clone(), PortConfig { protocol: Protocol::Udp, ..host.clone() }));
    accepted(twice(port(0, PublishMode::Host), port(0, PublishMode::Host)));
    let many = |count: u16| {
        move |spec: &mut ServiceSpec| spec.endpoint.ports = (1..=count).map(|at| port(at, PublishMode::Host)).collect()
    };
    accepted(many(1024));
    assert!(refusal(many(1025)).contains("1025 ports are published: a service has at most 1024"));
    assert!(refusal(|spec| spec.endpoint.ports = vec![PortConfig { target: 0, ..host }]).contains("container"));
    let dnsrr = refusal(|spec| spec.endpoint = EndpointSpec { mode: EndpointMode::Dnsrr, ports: vec![ingress] });
    assert!(dnsrr.contains("dnsrr mode"));
}

#[test]
fn mounts_have_absolute_and_distinct_targets() {
    let with = |mounts: Vec<Mount>| move |spec: &mut ServiceSpec| spec.task.container.mounts = mounts;
    let volume = |target| mount(MountKind::Volume, Some("data"), target);
    accepted(with(vec![volume("/a"), volume("/a/b"), mount(MountKind::Tmpfs, None, "/tmp")]));
    accepted(with(vec![mount(MountKind::Volume, Some("{{.Service.Name}}"), "/{{.Task.Slot}}")]));
    assert!(refusal(with(vec![volume("/")])).contains("root"));
    assert!(refusal(with(vec![volume("/a"), volume("/x/../a/")])).contains("duplicate mount point"));
    assert!(refusal(with(vec![mount(MountKind::Bind, Some("data"), "/a")])).contains("absolute path"));
    assert!(refusal(with(vec![mount(MountKind::Bind, None, "/a")])).contains("source is missing"));
    assert!(refusal(with(vec![mount(MountKind::Volume, Some("../x"), "/a")])).contains("volume name"));
    assert!(refusal(with(vec![mount(MountKind::Tmpfs, Some("x"), "/a")])).contains("no source"));
    let part = |path: &str| {
        let volume = VolumeOptions { subpath: Some(path.into()), ..VolumeOptions::default() };
        vec![Mount { volume, ..mount(MountKind::Volume, Some("data"), "/a") }]
    };
    accepted(with(part("a/../b")));
    accepted(with(part("./a")));
    for out in ["../x", "a/../../x", "..", "/x"] {
        assert!(refusal(with(part(out))).contains("stay in the volume"), "{out}");
    }
}

#[test]
fn what_no_node_can_do_is_told_apart_from_what_is_wrong() {
    let mut spec = accepted(|spec| {
        let volume = |driver: Option<&str>, options: &[(&str, &str)]| VolumeOptions {
            driver: driver.map(str::to_owned),
            driver_options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..VolumeOptions::default()
        };
        let on = |target, volume| Mount { volume, ..mount(MountKind::Volume, Some("data"), target) };
        spec.task.container.mounts = vec![
            on("/driver", volume(Some("rexray"), &[("size", "1"), ("mountpoint", "/x")])),
            on("/size", volume(Some("local"), &[("size", "10m")])),
            on("relative", volume(None, &[])),
            on("{{.Task.Slot}}", volume(None, &[])),
            mount(MountKind::Tmpfs, None, "tmp"),
        ];
    });
    let unmet = spec.unmet();
    let at: Vec<String> = unmet.iter().map(|fault| fault.at.join(".")).collect();
    assert_eq!(at, ["volumes./driver.driver", "volumes./size.driver_opts", "volumes.relative", "volumes.tmp"]);
    assert!(unmet.iter().all(|fault| fault.why.chars().count() < 120), "a scheduler's reason is short: {unmet:?}");
    spec.task.container.mounts[1].volume.driver_options.insert("quota".into(), "1".into());
    assert!(spec.validate().unwrap_err().to_string().starts_with("invalid option: \"quota\""));
}

#[test]
fn a_bind_that_is_read_only_all_the_way_down_can_be_so() {
    let bound = |adjust: fn(&mut Mount)| {
        let mut bind = mount(MountKind::Bind, Some("/data"), "/a");
        bind.read_only = true;
        bind.bind.read_only_force_recursive = true;
        adjust(&mut bind);
        move |spec: &mut ServiceSpec| spec.task.container.mounts = vec![bind]
    };
    accepted(bound(|_| {}));
    accepted(bound(|mount| mount.bind.propagation = Some("rprivate".into())));
    for (adjust, word) in [
        ((|mount| mount.read_only = false) as fn(&mut Mount), "needs ReadOnly"),
        (|mount| mount.bind.non_recursive = true, "conflicts with NonRecursive"),
        (|mount| mount.bind.read_only_non_recursive = true, "conflicts with ReadOnlyNonRecursive"),
        (|mount| mount.bind.propagation = Some("rslave".into()), "rprivate"),
    ] {
        let said = refusal(bound(adjust));
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn files_of_two_secrets_do_not_share_a_target() {
    let words = refusal(|spec| {
        spec.task.container.secrets = vec![secret_reference(1, "key"), secret_reference(2, "key")];
    });
    assert_eq!(words, "secret references 's1' and 's2' have a conflicting target: 'key'");
}

#[test]
fn the_process_is_described_in_known_words() {
    for signal in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-1", "64"] {
        accepted(|spec| spec.task.container.stop_signal = Some(signal.into()));
    }
    for signal in ["", "SIGFOO", "0", "65", "RTMIN+x", "-9"] {
        assert!(refusal(|spec| spec.task.container.stop_signal = Some(signal.into())).contains("stop signal"));
    }
    for env in ["A=b", "A=", "A", "A=b=c"] {
        accepted(|spec| spec.task.container.env = vec![env.into()]);
    }
    for env in ["", "=b", "A=\0"] {
        assert!(refusal(|spec| spec.task.container.env = vec![env.into()]).contains("environment"));
    }
    accepted(|spec| spec.task.container.cap_add = vec!["NET_ADMIN".into(), "cap_chown".into(), "ALL".into()]);
    assert!(refusal(|spec| spec.task.container.cap_drop = vec!["FLY".into()]).contains("unknown capability"));
    assert!(refusal(|spec| spec.task.container.dir = Some("a".into())).contains("working directory"));
    assert!(refusal(|spec| spec.task.container.oom_score_adj = 1001).contains("oom_score_adj"));
    assert!(refusal(|spec| spec.task.container.hostname = Some("a b".into())).contains("hostname"));
    assert!(refusal(|spec| spec.task.container.dns.nameservers = vec!["dns".into()]).contains("IP address"));
}

#[test]
fn a_soft_ulimit_is_not_above_the_hard_one() {
    let with = |soft, hard| {
        move |spec: &mut ServiceSpec| {
            spec.task.container.ulimits = vec![Ulimit { name: "nofile".into(), soft, hard }];
        }
    };
    accepted(with(1, 2));
    accepted(with(-1, -1));
    accepted(with(5, -1));
    assert!(refusal(with(3, 2)).contains("above the hard limit"));
    assert!(refusal(with(-1, 2)).contains("above the hard limit"));
}

#[test]
fn health_checks_are_commands_or_none() {
    let with = |test: &[&str]| {
        let test = test.iter().map(|word| (*word).to_owned()).collect();
        move |spec: &mut ServiceSpec| {
            spec.task.container.healthcheck = Some(Healthcheck { test, ..Healthcheck::default() });
        }
    };
    accepted(with(&[]));
    accepted(with(&["NONE"]));
    accepted(with(&["CMD-SHELL", "true"]));
    assert!(refusal(with(&["CMD"])).contains("command is missing"));
    assert!(refusal(with(&["true"])).contains("unknown"));
    let short = Healthcheck { interval: Some(Duration::from_micros(5)), ..Healthcheck::default() };
    assert!(refusal(|spec| spec.task.container.healthcheck = Some(short)).contains("1ms"));
}

#[test]
fn reservations_fit_under_limits() {
    let with = |limit, reserved| {
        move |spec: &mut ServiceSpec| {
            spec.task.resources.limits.memory_bytes = limit;
            spec.task.resources.reservations.memory_bytes = reserved;
        }
    };
    accepted(with(0, 64 << 20));
    accepted(with(64 << 20, 64 << 20));
    assert!(refusal(with(32 << 20, 64 << 20)).contains("above the limit"));
    assert!(refusal(with(1 << 20, 0)).contains("4MiB"));
    assert!(refusal(|spec| spec.task.resources.limits.nano_cpus = 999_999).contains("0.001"));
}

#[test]
fn generic_resources_are_asked_for_once() {
    let count = |value| GenericResource::Discrete { kind: "gpu".into(), value };
    let named = |value: &str| GenericResource::Named { kind: "gpu".into(), value: value.into() };
    let with = |generic| move |spec: &mut ServiceSpec| spec.task.resources.reservations.generic = generic;
    accepted(with(vec![count(2)]));
    accepted(with(vec![named("a"), named("b")]));
    for generic in [vec![count(0)], vec![count(1), count(2)], vec![count(1), named("a")], vec![named("a"), named("a")]]
    {
        assert!(refusal(with(generic)).contains("generic resource"));
    }
}

#[test]
fn placement_and_updates_are_in_range() {
    accepted(|spec| spec.task.placement.spread = vec!["node.labels.zone".into()]);
    assert!(refusal(|spec| spec.task.placement.spread = vec!["zone".into()]).contains("preference"));
    assert!(refusal(|spec| spec.task.placement.constraints = vec!["zone".into()]).contains("==, !="));
    for ratio in [-0.1, 1.1, f32::NAN] {
        assert!(refusal(|spec| spec.rollback.max_failure_ratio = ratio).contains("RollbackConfig"));
    }
    let job = ServiceMode::ReplicatedJob { max_concurrent: 0, total_completions: 3 };
    assert!(refusal(|spec| spec.mode = job).contains("never completes"));
}

#[test]
fn aliases_are_dns_names() {
    let with = |aliases: &[&str]| {
        let attachment = NetworkAttachment {
            target: NetworkTarget::Name("back".into()),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            driver_options: Labels::new(),
        };
        move |spec: &mut ServiceSpec| spec.task.networks = vec![attachment]
    };
    accepted(with(&["db", "db.internal", "my_db-1"]));
    let long = "a".repeat(64);
    for alias in ["", ".", "db.", "-db", "d b", "db..internal", "dä", &long, &["a"; 127].join(".").repeat(2)] {
        let refused = refusal(with(&[alias]));
        assert!(refused.contains("is no DNS name"), "{alias}: {refused}");
    }
}

#[test]
fn secrets_and_configs_have_names_and_bounded_data() {
    let secret = |name: &str, bytes| SecretSpec {
        name: name.into(),
        labels: Labels::new(),
        data: SecretBytes(vec![0; bytes]),
        templating: None,
    };
    assert!(secret("db.password-1", MAX_SECRET_BYTES).validate().is_ok());
    assert!(secret("a", 0).validate().is_err());
    assert!(secret("a", MAX_SECRET_BYTES + 1).validate().is_err());
    assert!(secret(".a", 1).validate().unwrap_err().to_string().contains("start and end character"));
    assert!(secret(&"a".repeat(65), 1).validate().is_err());
    let config = ConfigSpec { name: "c".into(), labels: Labels::new(), data: vec![1], templating: Some("x".into()) };
    assert!(config.validate().unwrap_err().to_string().contains("golang"));
}

#[test]
fn subnets_of_networks_and_pools_make_sense() {
    let subnet = |subnet: &str, gateway: Option<&str>, range: Option<&str>| SubnetSpec {
        subnet: subnet.into(),
        gateway: gateway.map(str::to_owned),
        ip_range: range.map(str::to_owned),
    };
    let network = |subnets| NetworkSpec {
        name: "stack_default".into(),
        labels: Labels::new(),
        driver: "overlay".into(),
        driver_options: Labels::new(),
        internal: false,
        attachable: true,
        ingress: false,
        ipv6: false,
        subnets,
    };
    let good = subnet("10.5.0.0/16", Some("10.5.0.1"), Some("10.5.9.0/24"));
    assert!(network(vec![good.clone()]).validate().is_ok());
    for bad in [
        vec![subnet("10.5.0.0/16", Some("10.6.0.1"), None)],
        vec![subnet("10.5.0.0/16", None, Some("10.0.0.0/8"))],
        vec![subnet("10.5.0.0/31", None, None)],
        vec![subnet("10.5.0.1/16", None, None)],
        vec![good.clone(), subnet("10.0.0.0/8", None, None)],
        vec![subnet("10.5.0.0/16", Some("10.5.255.255"), None)],
        vec![subnet("10.5.0.0/16", None, Some("10.5.0.1/32"))],
        vec![subnet("fd00::/64", None, None)],
    ] {
        assert!(network(bad).validate().is_err());
    }
    let twice = network(vec![good, subnet("10.5.9.0/24", None, None)]).validate().unwrap_err().to_string();
    assert_eq!(twice, "subnet 10.5.9.0/24 overlaps with 10.5.0.0/16 of the same network stack_default");
    let both = vec![subnet("fd00::/64", Some("fd00::1"), None), subnet("10.5.0.0/16", None, None)];
    assert!(NetworkSpec { ipv6: true, ..network(both) }.validate().is_ok());
    let encrypted = Labels::from([("encrypted".to_owned(), String::new())]);
    let encrypted = NetworkSpec { driver_options: encrypted, ..network(vec![]) };
    assert_eq!(encrypted.validate(), Ok(()));
    let ingress = NetworkSpec { ingress: true, ..encrypted }.validate().unwrap_err();
    assert!(ingress.to_string().contains("no network for ingress can be encrypted yet"));
    for (special, part) in [
        ("127.0.0.0/24", "loopback"),
        ("169.254.7.0/24", "link-local"),
        ("224.0.0.0/16", "multicast"),
        ("0.0.0.0/0", "this host"),
        ("fe80::/64", "link-local"),
        ("fd66:6c6f:6b::/64", "host-local addresses of tasks"),
    ] {
        let spec = NetworkSpec { ipv6: true, ..network(vec![subnet(special, None, None)]) };
        let said = spec.validate().unwrap_err().to_string();
        assert!(said.contains(part), "{special}: {said}");
    }
    let option = |key: &str, value: &str, ipv6| {
        let driver_options = Labels::from([(key.to_owned(), value.to_owned())]);
        NetworkSpec { driver_options, ipv6, ..network(vec![]) }.validate().map_err(|error| error.to_string())
    };
    let unknown = option("com.example.speed", "fast", false).unwrap_err();
    assert!(
        unknown.contains("knows no option \"com.example.speed\", only \"com.docker.network.driver.mtu\""),
        "{unknown}"
    );
    assert_eq!(option(MTU_OPTION, "1400", true), Ok(()));
    assert_eq!(option(MTU_OPTION, "576", false), Ok(()));
    for (mtu, ipv6) in [("575", false), ("1279", true), ("65536", false), ("", false), ("-1", false), ("big", false)] {
        let said = option(MTU_OPTION, mtu, ipv6).unwrap_err();
        assert!(said.contains(&format!("is {mtu:?}: give a number from")), "{said}");
    }
    assert!(NetworkSpec { driver: "macvlan".into(), ..network(vec![]) }.validate().is_err());
    assert!(NetworkSpec { name: "host".into(), ..network(vec![]) }.validate().is_err());

    assert!(SwarmSpec::default().validate().is_ok());
    let pools = |pools: &[&str], subnet_size| SwarmSpec {
        address_pools: pools.iter().map(|pool| (*pool).to_owned()).collect(),
        subnet_size,
        ..SwarmSpec::default()
    };
    assert!(pools(&["10.0.0.0/16"], 8).validate().is_err());
    assert!(pools(&["10.0.0.0/16", "10.0.1.0/24"], 24).validate().is_err());
    assert!(pools(&[], 24).validate().is_err());
    assert!(SwarmSpec { data_path_port: 80, ..SwarmSpec::default() }.validate().is_err());
    assert!(SwarmSpec { cert_expiry: Duration::from_secs(60), ..SwarmSpec::default() }.validate().is_err());
}

#[test]
fn a_task_is_on_a_network_of_its_nodes_own_alone_and_publishes_nothing_where_it_has_no_address() {
    let on = |names: &[&str]| -> Vec<NetworkAttachment> {
        let target = |name: &&str| NetworkTarget::Name((*name).into());
        let place = |target| NetworkAttachment { target, aliases: Vec::new(), driver_options: Labels::new() };
        names.iter().map(target).map(place).collect()
    };
    for name in ["host", "none", "bridge"] {
        accepted(|spec| spec.task.networks = on(&[name]));
    }
    let both = refusal(|spec| spec.task.networks = on(&["front", "host"]));
    assert_eq!(both, "network host is the node's own: a task is on it alone, or on networks of the swarm");
    let publishes = |spec: &mut ServiceSpec, network| {
        spec.task.networks = on(&[network]);
        spec.endpoint.ports = vec![port(80, PublishMode::Host)];
    };
    let told = refusal(|spec| publishes(spec, "host"));
    let why = "its ports are the node's own there: leave one out";
    assert_eq!(told, format!("service web is on network host and publishes ports, though {why}"));
    assert!(refusal(|spec| publishes(spec, "none")).contains("nobody reaches it there"));
    accepted(|spec| publishes(spec, "bridge"));
    let told = refusal(|spec| {
        spec.task.networks = on(&["host"]);
        spec.task.networks[0].aliases = vec!["a".into()];
    });
    assert_eq!(told, "network host is the node's own and has no aliases");
    let tuned = |spec: &mut ServiceSpec, network| {
        spec.task.networks = on(&[network]);
        spec.task.container.sysctls = Labels::from([("net.core.somaxconn".into(), "9".into())]);
    };
    assert!(refusal(|spec| tuned(spec, "host")).contains("net.core.somaxconn would be set for the whole node"));
    accepted(|spec| tuned(spec, "none"));
}

#[test]
fn more_tasks_than_any_swarm_runs_are_a_slip_of_the_hand() {
    accepted(|spec| spec.mode = ServiceMode::Replicated { replicas: MAX_REPLICAS });
    let told = refusal(|spec| spec.mode = ServiceMode::Replicated { replicas: u64::from(u32::MAX) });
    assert_eq!(told, "service web: 4294967295 replicas are more than a swarm runs: 100000 at most");
    let job = ServiceMode::ReplicatedJob { max_concurrent: u64::MAX, total_completions: 1 };
    assert!(refusal(|spec| spec.mode = job).contains("tasks at a time"));
}

#[test]
fn an_extra_host_has_an_address_or_is_the_node() {
    let host = |text: &str| refusal(|spec| spec.task.container.hosts = vec![text.to_owned()]);
    assert!(host("nope a").contains("write an address (or host-gateway"));
    assert!(host("10.0.0.1").contains("and a name"));
    for text in ["host-gateway a", "10.0.0.1 a b", "fd00::1 a"] {
        accepted(|spec| spec.task.container.hosts = vec![text.to_owned()]);
    }
}

#[test]
fn a_secret_stays_in_its_directory() {
    let reference = |target: &str| {
        let file = FileTarget { name: target.into(), uid: "0".into(), gid: "0".into(), mode: 0o444 };
        vec![SecretReference { id: SecretId(1), name: "key".into(), file, data_version: DataVersion(0) }]
    };
    let told = refusal(|spec| spec.task.container.secrets = reference("../../x"));
    assert!(told.contains("leads out of its directory"), "{told}");
    accepted(|spec| spec.task.container.secrets = reference("a/..b"));
}

#[test]
fn every_fault_is_told_with_its_place_and_the_first_is_the_refusal() {
    let mut spec = service();
    spec.task.container.dns.nameservers = vec!["1.1.1.1".into(), "nope".into()];
    spec.task.container.oom_score_adj = 2000;
    spec.endpoint.ports = vec![port(80, PublishMode::Host), port(80, PublishMode::Host)];
    let faults = spec.faults();
    let at: Vec<String> = faults.iter().map(|fault| fault.at.join(".")).collect();
    assert_eq!(at, ["oom_score_adj", "dns.nope", "ports.80"]);
    assert_eq!(spec.validate().unwrap_err().to_string(), faults[0].why);
    spec.task.container.env = vec!["=x".into(); 10_000];
    assert!(spec.faults().len() < 1_000);
}

#[test]
fn what_a_mode_would_not_heed_is_refused() {
    let job = |spec: &mut ServiceSpec| spec.mode = ServiceMode::GlobalJob;
    let updates = [
        UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() },
        UpdateConfig { delay: Duration::from_secs(1), ..UpdateConfig::default() },
        UpdateConfig { monitor: Some(Duration::from_secs(9)), ..UpdateConfig::default() },
    ];
    for update in updates {
        let of_update = refusal(|spec| (job(spec), spec.update = update.clone()).1);
        let of_rollback = refusal(|spec| (job(spec), spec.rollback = update.clone()).1);
        assert!(of_update.contains("Jobs may not have an update config"), "{of_update}");
        assert!(of_rollback.contains("leave its rollback config out"), "{of_rollback}");
        accepted(|spec| spec.update = update.clone());
    }
    // As a client sends it back that was shown the defaults.
    let defaults = UpdateConfig { monitor: Some(UpdateConfig::DEFAULT_MONITOR), ..UpdateConfig::default() };
    accepted(|spec| (job(spec), spec.update = defaults).1);
    for mode in [ServiceMode::Global, ServiceMode::GlobalJob] {
        let crowded = refusal(|spec| (spec.mode = mode, spec.task.placement.max_replicas = 2).1);
        assert!(crowded.contains("can only be used with replicated or replicated-job mode"), "{crowded}");
    }
    accepted(|spec| spec.task.placement.max_replicas = 2);
}

#[test]
fn names_to_be_searched_for_are_domains_and_options_words() {
    for domain in ["example.com", "example.com.", "_tcp.example.com", "."] {
        accepted(|spec| spec.task.container.dns.search = vec![domain.into()]);
    }
    for domain in ["", "a b", "a\nnameserver 1.1.1.1", "a..b", ".."] {
        let why = refusal(|spec| spec.task.container.dns.search = vec![domain.into()]);
        assert!(why.contains("is no domain"), "{why}");
    }
    accepted(|spec| spec.task.container.dns.options = vec!["ndots:2".into()]);
    assert!(refusal(|spec| spec.task.container.dns.options = vec!["ndots:2 rotate".into()]).contains("DNS option"));
}
