//! What is refused or warned of, and how it is said.

use super::*;

#[test]
fn every_problem_is_reported_with_its_place() {
    let text = "\
services:
  web:
    imge: nginx
    depends_on: [db]
    deploy:
      replicas: many
      resources: {limits: {memory: 5 apples}}
    stop_grace_period: 10
  db:
    image: UPPER
volumes:
  v: {driver: [nfs]}
";
    let expected = [
        "0.yml:3:5: services.web: unknown key \"imge\"; did you mean \"image\"?",
        "0.yml:6:17: services.web.deploy.replicas: must be a whole number, but it is \"many\"",
        "0.yml:7:36: services.web.deploy.resources.limits.memory: \"5 apples\" is not a size: write a number and a unit, for example 512m or 1.5g",
        "0.yml:8:24: services.web.stop_grace_period: \"10\" is not a duration: write numbers with units, for example 10s, 1m30s or 500ms",
        "0.yml:10:12: services.db.image: invalid image reference \"UPPER\": repository names are lowercase",
        "0.yml:12:15: volumes.v.driver: must be a string, but it is a list",
    ];
    assert_eq!(Case::new(text).problems(), expected);
}

/// One line for each: the keys below the service, and what the message must hold.
#[test]
fn what_is_not_supported_yet_is_refused_by_name() {
    let cases = [
        ("logging: {driver: gelf}", "services.web.logging: log driver \"gelf\" is not there"),
        ("logging: {options: {max-speed: 1m}}", "services.web.logging: log driver \"json-file\" has no option"),
        ("volumes: [{type: cluster, source: a, target: /a}]", "services.web.volumes[0]: cluster volumes"),
    ];
    for (keys, message) in cases {
        let problems = Case::new(&web(&format!("    {keys}\n"))).problems();
        assert!(problems[0].contains(message), "{keys}: {problems:?}");
        assert!(problems[0].starts_with("0.yml:4:"), "{problems:?}");
    }
    let volumes = "services: {a: {image: i, volumes: ['w:/w', 'x:/x']}}\n\
        volumes: {w: {driver_opts: {a: b}}, x: {driver_opts: {type: nfs}}}\n";
    let problems = Case::new(volumes).problems();
    let said = |path: &str, message: &str| problems.iter().any(|p| p.contains(path) && p.contains(message));
    assert!(said("volumes.w.driver_opts", "invalid option: \"a\""), "{problems:?}");
    assert!(said("volumes.x.driver_opts", "missing required option: \"device\""), "{problems:?}");
}

#[test]
fn what_has_no_meaning_in_a_swarm_is_refused_with_advice() {
    let cases = [
        ("mem_limit: 1g", "deploy.resources.limits"),
        ("cpus: 1", "deploy.resources.limits"),
        ("scale: 3", "deploy.replicas"),
        ("platform: linux/amd64", "placement constraint"),
        ("pull_policy: always", "remove it"),
        ("volumes_from: [a]", "named volume"),
        ("credential_spec: {file: a}", "Windows"),
    ];
    for (keys, message) in cases {
        let problems = Case::new(&web(&format!("    {keys}\n"))).problems();
        assert!(problems[0].contains(message), "{keys}: {problems:?}");
    }
}

#[test]
fn what_docker_ignores_with_a_warning_is_ignored_with_a_warning() {
    let keys = ["build: .", "container_name: a", "expose: [80]", "links: [a]", "cgroup_parent: a"];
    for keys in keys {
        let text = web(&format!("    {keys}\n"));
        let warnings = Case::new(&text).warnings();
        let name = keys.split(':').next().unwrap();
        assert_eq!(warnings, [format!("0.yml:4:5: services.web.{name}: ignored: it has no effect in a swarm")]);
    }
    let text =
        web("    volumes: [{type: volume, source: data, target: /data}, '/srv:inner']\n    networks: [hidden]\n");
    let text = text
        + "volumes: {data: {driver: rexray, driver_opts: {size: 1}}}\n\
                       networks: {hidden: {driver_opts: {encrypted: ''}}}\n";
    let tells = [
        "volumes.data.driver: volume driver \"rexray\" is not there",
        "services.web.volumes[1]: invalid mount target, must be an absolute path: \"inner\"",
        "networks.hidden.driver_opts.encrypted: network s_hidden: its option encrypted cannot be met yet",
    ];
    let mut warnings = Case::new(&text).warnings();
    warnings.retain(|warning| warning.ends_with("; tasks wait until it is changed"));
    assert_eq!(warnings.len(), tells.len(), "{warnings:?}");
    for tells in tells {
        assert!(warnings.iter().any(|warning| warning.contains(tells)), "{tells}: {warnings:?}");
    }
    let warnings = Case::new(&web("    hostname: a$UNSET\n")).warnings();
    assert!(warnings[0].contains("\"UNSET\" is not set"), "{warnings:?}");
}

#[test]
fn contradictions_and_malformed_values_are_refused() {
    let cases = [
        ("deploy: {mode: global, replicas: 2}", "replicas can only be used"),
        ("deploy: {mode: globl}", "did you mean \"global\""),
        ("deploy: {replicas: -1}", "must not be negative"),
        ("deploy: {replicas: 1.5}", "whole number"),
        ("deploy: {placement: {constraints: [node.role = manager]}}", "expected one operator from ==, !="),
        ("deploy: {placement: {constraints: [node.rol == manager]}}", "is not a field of a node"),
        ("deploy: {placement: {constraints: ['node.role ==']}}", "value \"\" is invalid"),
        ("deploy: {update_config: {max_failure_ratio: 2}}", "0.0 to 1.0"),
        ("deploy: {update_config: {order: sideways}}", "none of"),
        ("deploy: {resources: {limits: {cpus: fast}}}", "number of CPUs"),
        ("deploy: {resources: {limits: {memory: 10m}, reservations: {memory: 20m}}}", "memory reservation is above"),
        ("deploy: []", "must be a mapping, but it is a list"),
        ("healthcheck: {test: x, disable: true}", "cannot both"),
        ("healthcheck: {test: [curl]}", "begins with NONE, CMD or CMD-SHELL"),
        ("ports: [{target: 70000, mode: host}]", "from 1 to 65535"),
        ("ports: [{published: 80, mode: host}]", "no target"),
        (
            "ports: [{target: 1, published: 80, mode: host}, {target: 2, published: 80, mode: host}]",
            "duplicate published ports",
        ),
        ("environment: {A: true}", "put it in quotes"),
        ("environment: ['=x']", "no name before"),
        ("env_file: gone.env", "gone.env: no such file"),
        ("volumes: ['data:/data']", "undefined volume \"data\""),
        ("volumes: ['a:b:c:d']", "is not [source:]target"),
        ("volumes: ['/a:/']", "root"),
        ("volumes: ['/a:/b:rx']", "unknown option \"rx\""),
        ("volumes: ['/a', '/a/']", "duplicate mount point"),
        ("volumes: [{type: tmpfs, source: a, target: /b}]", "no source"),
        ("volumes: [{target: /b}]", "has no type"),
        ("volumes: [{type: bind, target: /b}]", "needs a source"),
        ("volumes: [{type: volume, target: /b, tmpfs: {size: 1}}]", "do not fit"),
        ("command: sh -c 'x", "not closed"),
        ("extra_hosts: [a]", "is not host:address"),
        ("ulimits: {nofile: {soft: 1}}", "both soft and hard"),
        ("hostname: ${X", "invalid variable"),
        ("hostname: ${X:?set it}", "required variable X is missing a value: set it"),
        ("restart: sometimes", "none of no, always"),
        ("tty: maybe", "must be true or false"),
        ("x-volume-policy: maybe", "none of wait, start-empty"),
        ("init: []", "must be true or false, but it is a list"),
    ];
    for (keys, message) in cases {
        let problems = Case::new(&web(&format!("    {keys}\n"))).problems();
        assert!(problems.iter().any(|problem| problem.contains(message)), "{keys}: {problems:?}");
    }
}

#[test]
fn files_that_are_no_stacks_are_refused() {
    let cases = [
        ("", "the file is empty"),
        ("[]", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("services:\n", "no services"),
        ("services: {a: {}}\n", "has no image"),
        ("services: {'a b': {image: i}}\n", "invalid name"),
        ("services: {a: null}\n", "must be a mapping"),
        ("services: {a.b: {image: i}}\n", "DNS name component"),
        ("service: {}\n", "did you mean \"services\""),
        ("services: [\n", "invalid YAML"),
        ("services: {a: {image: i}}\n---\nservices: {}\n", "in one document"),
        ("volumes: {v: {external: true, labels: {a: b}}}\nservices: {a: {image: i}}\n", "labels cannot be given"),
    ];
    for (text, message) in cases {
        let problems = Case::new(text).problems();
        assert!(problems.iter().any(|problem| problem.contains(message)), "{text:?}: {problems:?}");
    }
    assert!(check_stack_name("a_b-1").is_ok());
    for name in ["", "-a", "a b", "a.b", "é", &"a".repeat(64)] {
        assert!(check_stack_name(name).is_err(), "{name}");
    }
}

#[test]
fn services_that_wait_for_nobody_or_for_one_another_are_named() {
    let text = "\
services:
  web:
    image: i
    depends_on: [dbb, api]
  api:
    image: i
    depends_on: {cache: {condition: service_ready}, db: {}}
  db: {image: i, depends_on: [web]}
  cache: {image: i, depends_on: [db, db]}
  solo: {image: i, depends_on: [solo]}
";
    let read = Case::new(text).problems();
    assert_eq!(
        read,
        [
            "0.yml:4:17: services.web.depends_on: services that wait for one another would never start: web -> api -> db -> web",
            "0.yml:4:18: services.web.depends_on: there is no service \"dbb\" in the stack; did you mean \"db\"?",
            "0.yml:7:37: services.api.depends_on.cache.condition: \"service_ready\" is none of service_started, service_healthy, service_completed_successfully",
            "0.yml:9:33: services.cache.depends_on: services that wait for one another would never start: cache -> db -> web -> api -> cache",
            "0.yml:9:38: services.cache.depends_on: \"db\" stands here a second time",
            "0.yml:10:20: services.solo.depends_on: service s_solo depends on itself",
        ]
    );
    let text = text.replace("service_ready", "service_started").replace("[db, db]", "[db]");
    assert_eq!(
        Case::new(&text).problems(),
        [
            "0.yml:4:17: services.web.depends_on: services that wait for one another would never start: web -> api -> db -> web",
            "0.yml:4:18: services.web.depends_on: there is no service \"dbb\" in the stack; did you mean \"db\"?",
            "0.yml:9:33: services.cache.depends_on: services that wait for one another would never start: cache -> db -> web -> api -> cache",
            "0.yml:10:20: services.solo.depends_on: service s_solo depends on itself",
        ]
    );
}

/// What only a spec's validation knows, in one file: of two services, in short forms and long, by anchors, and of what the
/// stack owns beside them.
#[test]
fn whatever_makes_no_acceptable_spec_is_told_at_once_where_it_stands() {
    let text = "\
x-base: &base
  stop_signal: FOO
  environment: {HOST: '{{.Node.Nme}}', PLAIN: a}
services:
  web:
    <<: *base
    image: i
    ulimits: {nofle: 10, nproc: {soft: 9, hard: 5}}
    dns: [1.1.1.1, nope]
    dns_search: [example.com, 'a b']
    cap_add:
      - CHOWN
      - FLY
    devices: ['/dev/null', 'dev/fuse:/dev/fuse']
    extra_hosts: ['db:10.0.0.1', 'mail:nowhere']
    sysctls:
      'net ipv4': 1
    secrets:
      - source: key
        target: ../key
        uid: root
    volumes:
      - data:/data
      - type: volume
        source: data
        target: /data/
  job:
    image: i
    working_dir: here
    hostname: '{{.Bad'
    deploy:
      mode: global-job
      update_config: {order: start-first}
      placement: {max_replicas_per_node: 2, preferences: [{spread: rack}]}
networks:
  back: {driver: bridge, ipam: {config: [{subnet: 10.0.0.0/8}, {subnet: nonsense}]}}
secrets:
  key: {content: a, template_driver: mustache}
volumes:
  data: {driver_opts: {size: 1g, type: none}}
";
    let expected = [
        "0.yml:2:16: services.web.stop_signal: invalid stop signal \"FOO\"",
        "0.yml:3:23: services.web.environment.HOST: expanding env failed: ",
        "0.yml:8:15: services.web.ulimits.nofle: invalid ulimit type: nofle; did you mean \"nofile\"?",
        "0.yml:8:26: services.web.ulimits.nproc: ulimit nproc: the soft limit 9 is above the hard limit 5",
        "0.yml:9:20: services.web.dns[1]: DNS server \"nope\" is no IP address",
        "0.yml:10:31: services.web.dns_search[1]: DNS search domain \"a b\" is no domain",
        "0.yml:13:9: services.web.cap_add[1]: unknown capability: \"CAP_FLY\"",
        "0.yml:14:28: services.web.devices[1]: invalid device \"dev/fuse\": its paths are absolute",
        "0.yml:15:34: services.web.extra_hosts[1]: invalid extra host \"nowhere mail\"",
        "0.yml:17:19: services.web.sysctls.net ipv4: invalid sysctl \"net ipv4\"",
        "0.yml:19:9: services.web.secrets[0]: secret \"s_key\": target \"../key\" leads out of its directory",
        "0.yml:21:14: services.web.secrets[0].uid: secret \"s_key\": uid \"root\" is no number",
        "0.yml:24:9: services.web.volumes[1]: ContainerSpec: duplicate mount point: /data/",
        "0.yml:29:18: services.job.working_dir: the working directory \"here\" is invalid",
        "0.yml:30:15: services.job.hostname: expanding hostname failed: ",
        "0.yml:33:7: services.job.deploy.update_config: Jobs may not have an update config",
        "0.yml:34:42: services.job.deploy.placement.max_replicas_per_node: replicas-max-per-node can only be used with",
        "0.yml:34:59: services.job.deploy.placement.preferences[0]: invalid placement preference \"rack\"",
        "0.yml:36:18: networks.back.driver: network driver \"bridge\" cannot span a swarm",
        "0.yml:36:64: networks.back.ipam.config[1]: ",
        "0.yml:38:38: secrets.key.template_driver: templating driver \"mustache\" is not supported",
        "0.yml:40:10: volumes.data.driver_opts: ",
    ];
    let check = |problems: Vec<String>| {
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{problem}\n{expected}");
        }
        assert_eq!(problems.len(), expected.len(), "{}", problems.join("\n"));
    };
    check(Case::new(text).problems());
    // `flok stack config` has no name for the stack.
    let checked = Case::new(text).with(|file, around| file.unwrap().checked(around).map(drop));
    check(checked.unwrap_err().problems.iter().map(ToString::to_string).collect());
    // Beside what cannot be read at all; what that takes away is not missed.
    let unread = format!("{text}nonsense: true\n").replace("content: a,", "contend: a,");
    let problems = Case::new(&unread).problems();
    assert_eq!(problems.len(), expected.len() - 1 + 2, "{}", problems.join("\n"));
}

#[test]
fn a_check_without_deploying_looks_for_nothing_outside_the_file() {
    let text = "services: {a: {image: i, secrets: [k]}}\nsecrets: {k: {file: gone}}\n";
    assert!(Case::new(text).problems()[0].contains("no such file"));
    let file = Case::new(text).with(|file, around| file.unwrap().checked(around));
    assert!(file.unwrap().print().contains("file: /stack/gone"));
}

#[test]
fn what_is_not_defined_is_told_without_deploying_and_beside_what_cannot_be_read() {
    let text =
        "services: {a: {image: i, secrets: [k], configs: [c], networks: [n], volumes: ['v:/v'], depends_on: [z]}}\n";
    let undefined = [
        "undefined name \"k\"",
        "undefined name \"c\"",
        "undefined network \"n\"",
        "undefined volume \"v\"",
        "no service \"z\"",
    ];
    let tells = |problems: &[String], count: usize| {
        assert_eq!(problems.len(), count, "{}", problems.join("\n"));
        for part in undefined {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
    };
    let checked = Case::new(text).with(|file, around| file.unwrap().checked(around).map(drop)).unwrap_err();
    tells(&checked.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), undefined.len());
    tells(&Case::new(&text.replace("image: i", "image: i, enviroment: {}")).problems(), undefined.len() + 1);
    // What is wrong where it would be defined is why it is not there.
    let wrong = format!("{text}volumes: {{v: [x]}}\nnetworks: 5\n");
    let problems = Case::new(&wrong).problems();
    assert!(
        problems.iter().all(|problem| !problem.contains("undefined volume") && !problem.contains("undefined network"))
    );
    assert_eq!(problems.len(), undefined.len(), "{}", problems.join("\n"));
    let kind = Case::new(&web("    volumes: [{type: bnd, target: /z}]\n")).problems();
    assert!(kind.len() == 1 && kind[0].contains("\"bnd\" is none of"), "{kind:?}");
}

#[test]
fn any_as_the_restart_condition_of_a_job_is_warned_of_and_as_the_default_it_is_not() {
    let job = |policy: &str| web(&format!("    deploy: {{mode: replicated-job, restart_policy: {policy}}}\n"));
    let warnings = Case::new(&job("{condition: any}")).warnings();
    assert_eq!(
        warnings,
        [
            "0.yml:4:64: services.web.deploy.restart_policy.condition: a job's task that has completed is not run again: any means on-failure here"
        ]
    );
    assert_eq!(Case::new(&job("{max_attempts: 2}")).warnings(), [""; 0]);
    assert_eq!(Case::new(&web("    deploy: {restart_policy: {condition: any}}\n")).warnings(), [""; 0]);
}
