//! What each construct becomes.

use std::time::Duration;

use super::*;

#[test]
fn names_and_labels_are_dockers() {
    let service = Case::new(&web("    labels: {a: 1}\n    deploy: {labels: [b=2, c]}\n")).service();
    assert_eq!(service.name, "s_web");
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Labels>();
    let expected = [("b", "2"), ("c", ""), (IMAGE_LABEL, "i"), (NAMESPACE_LABEL, "s")];
    assert_eq!(service.labels, labels(&expected));
    assert_eq!(service.task.container.labels, labels(&[("a", "1"), (NAMESPACE_LABEL, "s")]));
}

#[test]
fn commands_are_lists_or_split_as_by_a_shell() {
    let container = Case::new(&web("    command: sh -c 'a b'\n    entrypoint: [\"/e\", 1]\n")).service().task.container;
    assert_eq!(container.args, ["sh", "-c", "a b"]);
    assert_eq!(container.command, ["/e", "1"]);
}

#[test]
fn environment_is_resolved_and_sorted() {
    let text = web(
        "    env_file: [a.env, {path: none.env, required: false}]\n    environment:\n      Z: 1\n      B: 2\n      FROM_CLIENT:\n      GONE:\n      V: ${TAG}-$$x\n",
    );
    let case = Case::new(&text).file("/stack/a.env", "A=file\nB=file\nHOME\n");
    let expected = ["A=file", "B=2", "FROM_CLIENT=client", "GONE", "HOME=/home/u", "V=1.2-$x", "Z=1"];
    assert_eq!(case.service().task.container.env, expected);
    let list = web("    environment: [\"A=x=y\", FROM_CLIENT, \"E=\"]\n");
    assert_eq!(Case::new(&list).service().task.container.env, ["A=x=y", "E=", "FROM_CLIENT=client"]);
}

#[test]
fn interpolated_values_get_the_type_that_is_wanted() {
    let text = web("    image: i:${TAG}\n    tty: ${X:-true}\n    deploy: {replicas: \"${N:-3}\"}\n")
        .replace("    image: i\n", "");
    let service = Case::new(&text).service();
    assert_eq!(service.mode, ServiceMode::Replicated { replicas: 3 });
    assert!(service.task.container.tty);
    assert_eq!(service.task.container.image, "i:1.2");
}

#[test]
fn modes_are_read() {
    let mode = |deploy: &str| Case::new(&web(&format!("    deploy: {deploy}\n"))).service().mode;
    assert_eq!(mode("{}"), ServiceMode::Replicated { replicas: 1 });
    assert_eq!(mode("{replicas: 0}"), ServiceMode::Replicated { replicas: 0 });
    assert_eq!(mode("{mode: global}"), ServiceMode::Global);
    assert_eq!(mode("{mode: global-job}"), ServiceMode::GlobalJob);
    let job = ServiceMode::ReplicatedJob { max_concurrent: 4, total_completions: 4 };
    assert_eq!(mode("{mode: replicated-job, replicas: 4}"), job);
}

#[test]
fn deploy_is_read_in_full() {
    let text = web(
        "    deploy:
      endpoint_mode: dnsrr
      placement:
        constraints: [node.role == manager, 'node.labels.zone!=b']
        preferences: [{spread: node.labels.rack}]
        max_replicas_per_node: 2
      resources:
        limits: {cpus: '0.50', memory: 50M, pids: 100}
        reservations:
          cpus: 0.25
          memory: 20mb
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}
      update_config: {parallelism: 2, delay: 10s, failure_action: rollback, monitor: 1m, max_failure_ratio: 0.3, order: start-first}
      rollback_config: {parallelism: 0}
",
    );
    let service = Case::new(&text).service();
    let task = &service.task;
    assert_eq!(service.endpoint.mode, EndpointMode::Dnsrr);
    assert_eq!(task.placement.constraints, ["node.role == manager", "node.labels.zone!=b"]);
    assert_eq!((task.placement.spread.as_slice(), task.placement.max_replicas), (&["node.labels.rack".into()][..], 2));
    let limits = ResourceLimits { nano_cpus: 500_000_000, memory_bytes: 50 << 20, pids: 100 };
    assert_eq!(task.resources.limits, limits);
    assert_eq!(
        (task.resources.reservations.nano_cpus, task.resources.reservations.memory_bytes),
        (250_000_000, 20 << 20)
    );
    assert_eq!(task.resources.reservations.generic, [GenericResource::Discrete { kind: "gpu".into(), value: 2 }]);
    let restart = RestartPolicy {
        condition: RestartCondition::OnFailure,
        delay: Some(Duration::from_secs(5)),
        max_attempts: Some(3),
        window: Some(Duration::from_secs(120)),
    };
    assert_eq!(task.restart, restart);
    let update = UpdateConfig {
        parallelism: 2,
        delay: Duration::from_secs(10),
        failure_action: FailureAction::Rollback,
        monitor: Some(Duration::from_secs(60)),
        max_failure_ratio: 0.3,
        order: UpdateOrder::StartFirst,
    };
    assert_eq!(service.update, update);
    assert_eq!(service.rollback, UpdateConfig { parallelism: 0, ..UpdateConfig::default() });
}

#[test]
fn the_old_restart_key_becomes_the_policy_with_a_warning() {
    let cases = [
        ("always", RestartCondition::Any, None),
        ("unless-stopped", RestartCondition::Any, None),
        ("on-failure:3", RestartCondition::OnFailure, Some(3)),
        ("\"no\"", RestartCondition::None, None),
        ("no", RestartCondition::None, None),
    ];
    for (restart, condition, max_attempts) in cases {
        let text = web(&format!("    restart: {restart}\n"));
        let case = Case::new(&text);
        let policy = case.service().task.restart;
        assert_eq!((policy.condition, policy.max_attempts), (condition, max_attempts), "{restart}");
        assert_eq!(case.warnings().len(), 1);
    }
}

#[test]
fn ports_of_the_nodes_own_are_read() {
    let text = web(
        "    ports:\n      - {target: 80, published: \"8080\", mode: host}\n      - target: 53\n        protocol: udp\n        mode: host\n",
    );
    let service = Case::new(&text).service();
    let port =
        |target, published, protocol| PortConfig { name: None, protocol, target, published, mode: PublishMode::Host };
    assert_eq!(service.endpoint.ports, [port(53, 0, Protocol::Udp), port(80, 8080, Protocol::Tcp)]);
    assert_eq!(service.task.host_ports, service.endpoint.ports);
}

#[test]
fn short_ports_are_read_in_every_form() {
    let text = web(
        "    ports: [3000, \"3001-3003\", \"8000:80\", \"9090-9091:8080-8081\", \"127.0.0.1:6060:6060/udp\", \"7000-7001:70\"]\n",
    );
    let case = Case::new(&text).all_features();
    let service = case.service();
    let ports: Vec<(u16, u16)> = service.endpoint.ports.iter().map(|port| (port.published, port.target)).collect();
    let expected = [
        (0, 3000),
        (0, 3001),
        (0, 3002),
        (0, 3003),
        (6060, 6060),
        (7000, 70),
        (7001, 70),
        (8000, 80),
        (9090, 8080),
        (9091, 8081),
    ];
    assert_eq!(ports, expected);
    assert!(service.task.host_ports.is_empty());
    assert!(case.warnings()[0].contains("127.0.0.1"));
}

#[test]
fn mounts_are_read_in_every_form() {
    let text = format!(
        "{}volumes:\n  data: {{labels: {{l: 1}}}}\n  ext: {{external: true}}\n  old: {{external: {{name: real}}}}\n  own: {{name: mine}}\n",
        web("    tmpfs: [/run, '/t:size=64m,mode=1777']
    volumes:
      - /anonymous
      - /opt/x/:/bind:ro
      - ./rel/../rel2:/rel
      - ~/home:/home
      - data:/data:nocopy
      - ext:/ext
      - old:/old
      - {type: volume, source: own, target: /own, read_only: true}
      - {type: bind, source: ., target: /here, bind: {propagation: rslave, create_host_path: true}}
      - {type: tmpfs, target: /tm, tmpfs: {size: 10000, mode: 0700}}
      - {type: bind, source: /c, target: /c1, bind: {recursive: disabled}}
      - {type: bind, source: /c, target: /c2, read_only: true, bind: {recursive: writable}}
      - {type: bind, source: /c, target: /c3, read_only: true, bind: {recursive: readonly}}
      - {type: bind, source: /c, target: /c4, bind: {recursive: enabled}}
")
    );
    let mounts = Case::new(&text).service().task.container.mounts;
    let summary: Vec<(MountKind, Option<&str>, &str, bool)> =
        mounts.iter().map(|m| (m.kind, m.source.as_deref(), m.target.as_str(), m.read_only)).collect();
    use MountKind::{Bind, Tmpfs, Volume};
    let expected = [
        (Volume, None, "/anonymous", false),
        (Bind, Some("/opt/x/"), "/bind", true),
        (Bind, Some("/stack/rel2"), "/rel", false),
        (Bind, Some("/home/u/home"), "/home", false),
        (Volume, Some("s_data"), "/data", false),
        (Volume, Some("ext"), "/ext", false),
        (Volume, Some("real"), "/old", false),
        (Volume, Some("mine"), "/own", true),
        (Bind, Some("/stack"), "/here", false),
        (Tmpfs, None, "/tm", false),
        (Bind, Some("/c"), "/c1", false),
        (Bind, Some("/c"), "/c2", true),
        (Bind, Some("/c"), "/c3", true),
        (Bind, Some("/c"), "/c4", false),
        (Tmpfs, None, "/run", false),
        (Tmpfs, None, "/t", false),
    ];
    assert_eq!(summary, expected);
    // As Docker does it: the directory is the user's to make, where the file does not say otherwise.
    assert!(!mounts[1].bind.create_host_path && mounts[8].bind.create_host_path);
    assert!(mounts[4].volume.no_copy);
    assert_eq!(mounts[4].volume.labels.get("l").map(String::as_str), Some("1"));
    assert_eq!(mounts[4].volume.labels.get(NAMESPACE_LABEL).map(String::as_str), Some("s"));
    assert!(mounts[5].volume.labels.is_empty());
    assert_eq!(mounts[8].bind.propagation.as_deref(), Some("rslave"));
    assert_eq!(mounts[9].tmpfs, TmpfsOptions { size_bytes: Some(10000), mode: Some(0o700), exec: None });
    assert_eq!(mounts[15].tmpfs, TmpfsOptions { size_bytes: Some(64 << 20), mode: Some(0o1777), exec: None });
    let recursive = |mount: &Mount| {
        let bind = &mount.bind;
        (bind.non_recursive, bind.read_only_non_recursive, bind.read_only_force_recursive)
    };
    let expected = [(true, false, false), (false, true, false), (false, false, true), (false, false, false)];
    assert_eq!(mounts[10..14].iter().map(recursive).collect::<Vec<_>>(), expected);
}

#[test]
fn the_container_is_read_in_full() {
    let text = web("    hostname: '{{.Node.Hostname}}'
    user: 1000
    working_dir: /w
    cap_add: [sys_time, NET_ADMIN, CAP_SYS_TIME]
    cap_drop: [ALL]
    read_only: true
    init: true
    tty: true
    stdin_open: true
    stop_signal: SIGUSR1
    stop_grace_period: 1m30s
    sysctls: {net.core.somaxconn: 1024}
    ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}}
    extra_hosts: ['a:10.0.0.1', 'b=::1']
    dns: 8.8.8.8
    dns_search: [a.example, b.example]
    dns_opt: [use-vc]
    oom_score_adj: -100
    logging: {driver: json-file, options: {max-size: 10m}}
    x-volume-policy: start-empty
    x-anything: [1]
");
    let task = Case::new(&text).service().task;
    let container = &task.container;
    assert_eq!(container.hostname.as_deref(), Some("{{.Node.Hostname}}"));
    assert_eq!((container.user.as_deref(), container.dir.as_deref()), (Some("1000"), Some("/w")));
    assert_eq!(container.cap_add, ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
    assert_eq!(container.cap_drop, ["ALL"]);
    assert!(container.read_only && container.tty && container.stdin_open && container.init == Some(true));
    assert_eq!(container.stop_signal.as_deref(), Some("SIGUSR1"));
    assert_eq!(container.stop_grace, Some(Duration::from_secs(90)));
    assert_eq!(container.sysctls.get("net.core.somaxconn").map(String::as_str), Some("1024"));
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    assert_eq!(container.ulimits, [ulimit("nofile", 20000, 40000), ulimit("nproc", 65535, 65535)]);
    assert_eq!(container.hosts, ["10.0.0.1 a", "::1 b"]);
    assert_eq!(container.dns.nameservers, ["8.8.8.8"]);
    assert_eq!(container.dns.search, ["a.example", "b.example"]);
    assert_eq!(container.oom_score_adj, -100);
    let log = task.log_driver.unwrap();
    assert_eq!((log.name.as_str(), log.options.get("max-size").map(String::as_str)), ("json-file", Some("10m")));
    assert_eq!(task.volume_policy, VolumePolicy::StartEmpty);
}

#[test]
fn healthchecks_are_read_in_every_form() {
    let check = |keys: &str| {
        Case::new(&web(&format!("    healthcheck: {keys}\n")))
            .all_features()
            .service()
            .task
            .container
            .healthcheck
            .unwrap()
    };
    assert_eq!(check("{test: curl -f x}").test, ["CMD-SHELL", "curl -f x"]);
    assert_eq!(check("{test: [CMD, curl, x]}").test, ["CMD", "curl", "x"]);
    assert_eq!(check("{test: [NONE]}").test, ["NONE"]);
    assert_eq!(check("{disable: true}").test, ["NONE"]);
    let full = check("{test: x, interval: 10s, timeout: 1.5s, retries: 5, start_period: 15s, start_interval: 500ms}");
    assert_eq!((full.interval, full.timeout), (Some(Duration::from_secs(10)), Some(Duration::from_millis(1500))));
    assert_eq!((full.retries, full.start_interval), (Some(5), Some(Duration::from_millis(500))));
}

#[test]
fn anchors_merge_keys_and_extensions_work() {
    let text = "
x-common: &common
  image: i:${TAG}
  environment: &env {A: 1, B: 2}
  deploy: &deploy {replicas: 2}
services:
  a:
    <<: *common
    environment: {<<: *env, B: 3}
  b:
    <<: [*common]
    deploy: {<<: *deploy, mode: global, replicas: null}
";
    let stack = Case::new(text).stack();
    assert_eq!(stack.services[0].task.container.env, ["A=1", "B=3"]);
    assert_eq!(stack.services[0].task.container.image, "i:1.2");
    assert_eq!(stack.services[0].mode, ServiceMode::Replicated { replicas: 2 });
    assert_eq!(stack.services[1].mode, ServiceMode::Global);
}

#[test]
fn networks_secrets_and_configs_are_read_once_they_are_on() {
    let text = "
services:
  a:
    image: i
    networks: {front: {aliases: [x]}, out: }
    secrets: [one, {source: two, target: /t, uid: '5', gid: '6', mode: 0440}]
    configs: [c]
  b: {image: i}
networks:
  front: {driver: overlay, internal: true, attachable: true, ipam: {config: [{subnet: 10.9.0.0/24}]}}
  out: {external: true, name: outside}
secrets:
  one: {file: ./one}
  two: {external: true}
configs:
  c: {content: 'x ${TAG}'}
";
    let stack = Case::new(text).all_features().file("/stack/one", "secret").stack();
    let task = &stack.services[0].task;
    let targets: Vec<_> = task.networks.iter().map(|n| (n.target.clone(), n.aliases.join(","))).collect();
    let name = |name: &str| NetworkTarget::Name(name.into());
    assert_eq!(targets, [(name("s_front"), "x,a".into()), (name("outside"), "a".into())]);
    assert_eq!(stack.services[1].task.networks[0].target, name("s_default"));
    assert_eq!(stack.networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["s_front", "s_default"]);
    assert_eq!(stack.networks[0].subnets[0].subnet, "10.9.0.0/24");
    assert_eq!(stack.external_networks, ["outside"]);
    assert_eq!(stack.secrets[0].data, SecretBytes(b"secret".to_vec()));
    let secrets = &task.container.secrets;
    assert_eq!(
        (secrets[0].name.as_str(), secrets[0].file.name.as_str(), secrets[0].file.mode),
        ("s_one", "one", 0o444)
    );
    assert_eq!((secrets[1].name.as_str(), secrets[1].file.uid.as_str(), secrets[1].file.mode), ("two", "5", 0o440));
    assert_eq!(stack.configs[0].data, b"x 1.2");
    assert_eq!(task.container.configs[0].file.name, "c");
    assert_eq!(stack.external_secrets, ["two"]);
}

#[test]
fn networks_are_read_with_all_their_settings() {
    let text = "
services:
  a:
    image: i
    ports: ['8080:80', '53:53/udp', {target: 81, published: 8081, mode: host}]
    networks:
      back: {aliases: [db, db.internal], driver_opts: {k: v}}
    x-drain: 2s
    deploy: {endpoint_mode: vip}
  b:
    image: i
    networks: [back, default]
    deploy: {endpoint_mode: dnsrr, labels: {flok.drain: 0s}}
networks:
  back:
    driver_opts: {com.docker.network.driver.mtu: '1400'}
    labels: {tier: data}
    enable_ipv6: true
    ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.9, ip_range: 10.9.0.128/25}, {subnet: 'fd00:9::/64'}]}
";
    let stack = Case::new(text).all_features().stack();
    let [a, b] = stack.services.as_slice() else { panic!("two services") };
    assert_eq!(a.task.networks[0].aliases, ["db", "db.internal", "a"]);
    assert_eq!(a.task.networks[0].driver_options["k"], "v");
    assert_eq!((a.task.container.drain, b.task.container.drain), (Some(Duration::from_secs(2)), Some(Duration::ZERO)));
    assert_eq!((a.endpoint.mode, b.endpoint.mode), (EndpointMode::Vip, EndpointMode::Dnsrr));
    assert_eq!((a.task.ingress, b.task.ingress), (true, false));
    assert_eq!(a.task.host_ports.iter().map(|port| port.published).collect::<Vec<_>>(), [8081]);
    let [back, default] = stack.networks.as_slice() else { panic!("two networks") };
    assert_eq!((back.name.as_str(), default.name.as_str()), ("s_back", "s_default"));
    let subnet = |subnet: &str, gateway: Option<&str>, range: Option<&str>| SubnetSpec {
        subnet: subnet.into(),
        gateway: gateway.map(str::to_owned),
        ip_range: range.map(str::to_owned),
    };
    let subnets = [subnet("10.9.0.0/24", Some("10.9.0.9"), Some("10.9.0.128/25")), subnet("fd00:9::/64", None, None)];
    assert_eq!(back.subnets, subnets);
    assert!(back.ipv6 && back.labels["tier"] == "data" && back.labels[NAMESPACE_LABEL] == "s");
    assert_eq!(back.driver_options["com.docker.network.driver.mtu"], "1400");
    assert!(stack.networks.iter().all(|network| network.validate().is_ok()));
    assert!(stack.services.iter().all(|service| service.validate().is_ok()));
}

#[test]
fn bad_networks_are_refused_where_they_stand() {
    let problems = |text: &str| Case::new(text).all_features().problems().join("\n");
    let alias = problems(&web("    networks: {default: {aliases: ['a b']}}\n"));
    assert!(
        alias.starts_with("0.yml:4:36: services.web.networks.default.aliases[0]: alias \"a b\" is no DNS name"),
        "{alias}"
    );
    let undefined = problems(&web("    networks: [nowhere]\n"));
    assert!(undefined.contains("undefined network \"nowhere\""), "{undefined}");
    let drain = problems(&web("    x-drain: soon\n"));
    assert!(drain.contains("services.web.x-drain"), "{drain}");
    let mode = problems(&web("    ports: ['80:80']\n    deploy: {endpoint_mode: dnsrr}\n"));
    assert!(mode.starts_with("0.yml:5:29: services.web.deploy.endpoint_mode: "), "{mode}");
    assert!(mode.contains("ingress mode can't be used with dnsrr mode"), "{mode}");
}

#[test]
fn devices_by_request_are_resources_of_their_vendors_kind() {
    let of = |keys: &str| {
        let service = Case::new(&web(&format!("    {keys}\n"))).service();
        service.task.resources.reservations.generic
    };
    let reserved = |request: &str| of(&format!("deploy: {{resources: {{reservations: {{devices: [{request}]}}}}}}"));
    let named = |kind: &str, value: &str| GenericResource::Named { kind: kind.into(), value: value.into() };
    let counted = |kind: &str, value: u64| GenericResource::Discrete { kind: kind.into(), value };
    assert_eq!(reserved("{capabilities: [gpu], count: 2}"), [counted("nvidia.com/gpu", 2)]);
    assert_eq!(
        reserved("{driver: amd, device_ids: ['0', '3'], capabilities: [gpu]}"),
        [named("amd.com/gpu", "0"), named("amd.com/gpu", "3")]
    );
    assert_eq!(reserved("{driver: cdi, device_ids: ['acme.com/x=y']}"), [named("acme.com/x", "y")]);
    assert_eq!(of("gpus: [{driver: acme.com/x, count: 1}]"), [counted("acme.com/x", 1)]);
    let all = |kind: &str| GenericResource::All { kind: kind.into() };
    for request in ["{capabilities: [gpu]}", "{capabilities: [gpu], count: all}"] {
        assert_eq!(reserved(request), [all("nvidia.com/gpu")], "{request}");
    }
    assert_eq!((of("gpus: all"), of("gpus: [{driver: amd}]")), (vec![all("nvidia.com/gpu")], vec![all("amd.com/gpu")]));
    for (keys, message) in [
        ("gpus: none", "services.web.gpus: count \"none\""),
        ("gpus: [{count: 0}]", "count \"0\": a number of devices is wanted, or all"),
        ("gpus: [{driver: tpu, count: 1}]", "driver \"tpu\" is not known"),
        ("gpus: [{count: 1, device_ids: ['0']}]", "cannot both"),
        ("gpus: [{driver: cdi, device_ids: ['0']}]", "vendor.com/class=name"),
    ] {
        let problems = Case::new(&web(&format!("    {keys}\n"))).problems();
        assert!(problems[0].contains(message), "{keys}: {problems:?}");
    }
}

#[test]
fn what_a_service_waits_for_is_named_as_it_is_called_in_the_swarm() {
    let text = "\
services:
  web:
    image: i
    depends_on:
      db: {condition: service_healthy, restart: true}
      migrate: {condition: service_completed_successfully}
      cache: {required: false}
  api: {image: i, depends_on: [web, db]}
  db: {image: i}
  migrate: {image: i, deploy: {mode: replicated-job}}
  cache: {image: i}
";
    let one = |service: &str, condition, required, restart| DependsOn {
        service: service.into(),
        condition,
        required,
        restart,
    };
    let stack = Case::new(text).stack();
    let of = |name: &str| stack.services.iter().find(|spec| spec.name == name).unwrap().depends_on.clone();
    use StartCondition::*;
    let web = [
        one("s_db", Healthy, true, true),
        one("s_migrate", Completed, true, false),
        one("s_cache", Started, false, false),
    ];
    assert_eq!(of("s_web"), web);
    assert_eq!(of("s_api"), [one("s_web", Started, true, false), one("s_db", Started, true, false)]);
    let config = Case::new(text).config();
    assert!(
        config.contains("    depends_on:\n      db:\n        condition: service_started\n        required: true\n"),
        "{config}"
    );
}

#[test]
fn a_later_file_adds_to_what_a_service_waits_for() {
    let over = "services:\n  web: {depends_on: {db: {condition: service_healthy}, cache: {}}}\n";
    let base = "services:\n  web: {image: i, depends_on: [db]}\n  db: {image: i}\n  cache: {image: i}\n";
    let web = Case::new(base).over(over).service();
    let read: Vec<String> = web.depends_on.iter().map(ToString::to_string).collect();
    assert_eq!(read, ["s_db to be healthy", "s_cache to have started"]);
}

#[test]
fn a_schedule_makes_a_job_of_what_has_no_mode() {
    let short = Case::new(&web("    x-schedule: \"@daily\"\n    deploy: {replicas: 2}\n")).service();
    assert_eq!(short.schedule, Some(Schedule::new("@daily")));
    assert_eq!(short.mode, ServiceMode::ReplicatedJob { max_concurrent: 2, total_completions: 2 });
    assert_eq!(short.labels.get("flok.schedule").map(String::as_str), Some("@daily"));
    let long = web(
        "    x-schedule: {cron: '*/5 * * * *', time_zone: Europe/Berlin, window: 90s, concurrency: allow, history: 2, suspend: true}
    deploy: {mode: global-job}\n",
    );
    let service = Case::new(&long).service();
    let expected = Schedule {
        cron: "*/5 * * * *".into(),
        time_zone: "Europe/Berlin".into(),
        window: Duration::from_secs(90),
        concurrency: Concurrency::Allow,
        history: 2,
        suspend: true,
    };
    assert_eq!((service.schedule, service.mode), (Some(expected), ServiceMode::GlobalJob));
}

#[test]
fn what_a_schedule_cannot_be_is_told() {
    let told = |keys: &str| Case::new(&web(keys)).problems().join("\n");
    for (keys, parts) in [
        ("    x-schedule: '61 * * * *'\n", ["services.web.x-schedule", "no cron expression"]),
        ("    x-schedule: {cron: '@daily', time_zone: Europe/Berln}\n", ["x-schedule", "did you mean Europe/Berlin?"]),
        ("    x-schedule: {window: 1m}\n", ["x-schedule", "has no cron"]),
        ("    x-schedule: {cron: '@daily', tz: UTC}\n", ["x-schedule", "unknown key \"tz\""]),
        ("    x-schedule: {cron: '@daily', history: 101}\n", ["x-schedule", "longer than 100 runs"]),
        ("    x-schedule: '@daily'\n    deploy: {mode: replicated}\n", ["deploy.mode", "only jobs have runs"]),
        ("    deploy: {labels: {flok.schedule: '@daily'}}\n", ["deploy.mode", "replicated-job or global-job"]),
        ("    deploy: {labels: {flok.schedule: never}}\n", ["services.web", "label flok.schedule=never"]),
    ] {
        let told = told(keys);
        assert!(parts.iter().all(|part| told.contains(part)), "{parts:?} in {told}");
    }
}

#[test]
fn networks_of_the_nodes_own_are_named_as_docker_names_them_and_by_network_mode() {
    let text = "
services:
  a: {image: i, networks: [node]}
  b: {image: i, network_mode: none}
networks:
  node: {external: true, name: host}
";
    let stack = Case::new(text).all_features().stack();
    let on: Vec<_> = stack.services.iter().map(|service| service.task.networks.clone()).collect();
    let named = |name: &str| NetworkAttachment {
        target: NetworkTarget::Name(name.into()),
        aliases: Vec::new(),
        driver_options: Labels::new(),
    };
    assert_eq!(on, [[named("host")], [named("none")]]);
    assert!(stack.networks.is_empty() && stack.external_networks.is_empty());
    let warnings = Case::new("services: {a: {image: i, network_mode: 'service:b'}}").all_features().warnings();
    assert!(warnings[0].contains("only host, none and bridge have an effect"), "{warnings:?}");
    let both = "services: {a: {image: i, network_mode: host, networks: [default]}}";
    assert!(Case::new(both).all_features().problems()[0].contains("stands beside networks"));
}
