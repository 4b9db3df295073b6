//! Whole files: several as one, canonical YAML, and stacks from the wild.

use super::*;

#[test]
fn several_files_merge_as_docker_merges_them() {
    let base = "
services:
  a:
    image: one
    command: [x, y]
    environment: {A: 1, B: 1}
    cap_add: [SYS_TIME]
    volumes: ['/l:/x', '/l:/y']
    ports: [{target: 1, published: 80, mode: host}]
    logging: {driver: json-file, options: {max-size: 1m}}
    healthcheck: {test: [CMD, a], interval: 5s}
    deploy: {replicas: 1, placement: {constraints: [node.role==manager]}}
";
    let over = "
services:
  a:
    image: two
    command: z
    environment: [B=2, C=2]
    cap_add: [CHOWN]
    volumes: ['/m:/x']
    ports: [{target: 2, published: 80, mode: host}, {target: 3, mode: host}]
    logging: {driver: local, options: {max-file: 2}}
    healthcheck: {test: [CMD, b]}
    deploy: {replicas: 2, placement: {constraints: [node.id==x]}}
  b: {image: three}
";
    let stack = Case::new(base).over(over).all_features().stack();
    let (a, container) = (&stack.services[0], &stack.services[0].task.container);
    assert_eq!((container.image.as_str(), container.args.join(" ")), ("two:latest", "z".to_string()));
    assert_eq!(container.env, ["A=1", "B=2", "C=2"]);
    assert_eq!(container.cap_add, ["CAP_CHOWN", "CAP_SYS_TIME"]);
    let mounts: Vec<_> = container.mounts.iter().map(|m| (m.source.as_deref().unwrap(), m.target.as_str())).collect();
    assert_eq!(mounts, [("/m", "/x"), ("/l", "/y")]);
    let ports: Vec<_> = a.endpoint.ports.iter().map(|port| (port.published, port.target)).collect();
    assert_eq!(ports, [(0, 3), (80, 2)]);
    let log = a.task.log_driver.as_ref().unwrap();
    assert_eq!((log.name.as_str(), log.options.len()), ("local", 1));
    let check = container.healthcheck.as_ref().unwrap();
    assert_eq!((check.test.join(" "), check.interval.is_some()), ("CMD b".to_string(), true));
    assert_eq!(a.mode, ServiceMode::Replicated { replicas: 2 });
    assert_eq!(a.task.placement.constraints, ["node.role==manager", "node.id==x"]);
    assert_eq!(stack.services[1].name, "s_b");
}

#[test]
fn problems_name_the_file_they_stand_in() {
    let problems = Case::new("services: {a: {image: i}}\n").over("services:\n  a:\n    prots: []\n").problems();
    assert_eq!(problems, ["1.yml:3:5: services.a: unknown key \"prots\"; did you mean \"ports\"?"]);
}

#[test]
fn canonical_yaml_reads_back_as_itself() {
    let text = format!(
        "version: '3.8'\n{}volumes: {{d: }}\n",
        web(
            "    command: a 'b c'\n    ports: ['80-81:80-81/udp']\n    volumes: [./x:/x:ro, d:/d]\n    environment: [A=1, B, C=$$x]\n    deploy: {resources: {limits: {memory: 1g, cpus: 0.5}}}\n    stop_grace_period: 90s\n"
        )
    );
    let printed = Case::new(&text).all_features().config();
    let expected = r#"version: "3.8"
services:
  web:
    command:
    - a
    - b c
    deploy:
      resources:
        limits:
          cpus: "0.5"
          memory: "1073741824"
    environment:
      A: "1"
      B:
      C: "$$x"
    image: i
    ports:
    - mode: ingress
      protocol: udp
      published: 80
      target: 80
    - mode: ingress
      protocol: udp
      published: 81
      target: 81
    stop_grace_period: "1m30s"
    volumes:
    - read_only: true
      source: /stack/x
      target: /x
      type: bind
    - source: d
      target: /d
      type: volume
volumes:
  d:
"#;
    assert_eq!(printed, expected);
    assert_eq!(Case::new(&printed).all_features().config(), printed);
}

/// It shows every key and not what goes together: Docker's own CLI reads it, and its engine refuses it, too.
const NOT_DEPLOYABLE: &str = "docker-cli_full-example.yml";

/// Stacks from the wild, where they are at hand.
#[test]
fn stacks_from_the_wild_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/stacks");
    let Ok(folder) = std::fs::read_dir(folder) else {
        eprintln!("skipped: no {folder}");
        return;
    };
    let variables: Variables = ["HOME", "DOMAIN", "EMAIL", "USERNAME", "HASHED_PASSWORD", "ADMIN_USER", "PASSWORD"]
        .into_iter()
        .chain(["TRAEFIK_PUBLIC_NETWORK", "TRAEFIK_PUBLIC_TAG", "NODE_ID"])
        .map(|name| (name.to_string(), "x".to_string()))
        .collect();
    let paths = folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "yml"));
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let sources = [Source { name: name.clone(), text: std::fs::read_to_string(&path).unwrap() }];
        let read_file = |_: &str| Ok(b"A=1".to_vec());
        let around = Surroundings {
            features: Features::supported(),
            variables: &variables,
            working_dir: "/s",
            read_file: &read_file,
            profiles: &[],
        };
        let file = StackFile::read(&sources, &around);
        if name == NOT_DEPLOYABLE {
            let file = StackFile::read(&sources, &Surroundings { features: Features::all(), ..around });
            assert!(file.unwrap_or_else(|error| panic!("{error}")).convert("s", &around).is_err());
            continue;
        }
        let file = file.unwrap_or_else(|error| panic!("{error}"));
        assert!(yaml::parse(0, &file.print()).is_ok(), "{name}\n{}", file.print());
        let (stack, _) = file.convert("s", &around).unwrap_or_else(|error| panic!("{error}"));
        assert!(!stack.services.is_empty(), "{name}");
    }
}
