//! Files that build on others, and services that are only sometimes there.

use super::*;

#[test]
fn a_service_has_what_its_base_has_and_goes_before_it() {
    let text = "\
services:
  base:
    image: i:1
    environment: {A: base, B: base}
    volumes: ['./data:/data']
    deploy: {replicas: 3}
  middle: {extends: base, environment: {B: middle, C: middle}}
  web:
    extends: {service: middle}
    image: i:2
    volumes: ['logs:/logs']
volumes: {logs: }
";
    let stack = Case::new(text).stack();
    let web = stack.services.iter().find(|spec| spec.name == "s_web").unwrap();
    assert_eq!(web.task.container.image, "i:2");
    assert_eq!(web.task.container.env, ["A=base", "B=middle", "C=middle"]);
    assert_eq!(web.mode, ServiceMode::Replicated { replicas: 3 });
    let targets: Vec<_> = web.task.container.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/data", "/logs"]);
}

#[test]
fn a_base_of_another_file_keeps_that_files_paths() {
    let text = "services:\n  web: {extends: {file: common/base.yml, service: app}, command: serve}\n";
    let common = "\
services:
  app: {extends: {file: ../deep.yml, service: root}, env_file: app.env, volumes: ['./here:/here']}
  broken: {imge: x, extends: nobody}
";
    let stack = Case::new(text)
        .file("/stack/common/base.yml", common)
        .file("/stack/common/app.env", "FROM_FILE=1")
        .file("/stack/deep.yml", "services: {root: {image: 'deep:${TAG}', volumes: ['./there:/there']}}")
        .stack();
    let container = &stack.services[0].task.container;
    assert_eq!((container.image.as_str(), container.args.as_slice()), ("deep:1.2", &["serve".to_owned()][..]));
    assert_eq!(container.env, ["FROM_FILE=1"]);
    let sources: Vec<_> = container.mounts.iter().filter_map(|mount| mount.source.as_deref()).collect();
    assert_eq!(sources, ["/stack/there", "/stack/common/here"]);
}

#[test]
fn a_base_that_cannot_be_had_is_named() {
    let text = "\
services:
  a: {image: i, extends: bases}
  base: {image: i}
  b: {image: i, extends: {file: gone.yml, service: x}}
  c: {image: i, extends: {file: other.yml, service: wb}}
  d: {image: i, extends: {file: 'https://example.org/x.yml', service: x}}
  e: {extends: f}
  f: {extends: e}
  g: {extends: {file: round.yml, service: h}}
  h: {extends: {}}
";
    let other = ("/stack/other.yml", "services: {web: {image: i}}");
    let round = ("/stack/round.yml", "services: {h: {extends: {file: round.yml, service: h}}}");
    let problems = |text: &str| Case::new(text).file(other.0, other.1).file(round.0, round.1).problems();
    let all = problems(text);
    assert!(all.iter().any(|problem| problem.ends_with("services.h.extends: names no service")), "{all:#?}");
    let problems = problems(&text.replace("  h: {extends: {}}\n", ""));
    let expected = [
        "services.a.extends: there is no service \"bases\" to extend; did you mean \"base\"?",
        "services.b.extends: gone.yml: no such file",
        "services.c.extends: there is no service \"wb\" to extend; did you mean \"web\"?",
        "services.d.extends: \"https://example.org/x.yml\" is not a file of this machine: get it first, and name it by its path",
        "services.e.extends: services extend one another in a circle: e -> f -> e",
        "services.f.extends: services extend one another in a circle: f -> e -> f",
        "services.h.extends: files build on one another in a circle: h of /stack/round.yml -> h of /stack/round.yml",
    ];
    for message in expected {
        assert!(problems.iter().any(|problem| problem.contains(message)), "{message}: {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn an_included_file_brings_what_it_has_with_its_own_directory_and_variables() {
    let text = "\
include:
  - db/compose.yml
  - path: [log/a.yml, log/b.yml]
    project_directory: other
    env_file: log.env
services:
  web: {image: i, depends_on: [db], networks: [back]}
networks: {back: }
";
    let db = "\
services:
  db:
    image: db:${DB_TAG}
    volumes: ['./data:/data']
    networks: [back]
    environment: {FROM: '${FROM_CLIENT}'}
networks: {back: }
configs: {settings: {file: settings.conf}}
";
    let stack = Case::new(text)
        .file("/stack/db/compose.yml", db)
        .file("/stack/db/.env", "DB_TAG=\"16\"\nFROM_CLIENT=file\n")
        .file("/stack/db/settings.conf", "x=1")
        .file("/stack/log/a.yml", "services: {log: {image: 'log:${TAG}', command: '${WORD}'}}")
        .file("/stack/log/b.yml", "services: {log: {volumes: ['./l:/l']}}")
        .file("/stack/log.env", "WORD=from-file\nTAG=9\n")
        .stack();
    let of = |name: &str| &stack.services.iter().find(|spec| spec.name == name).unwrap().task.container;
    assert_eq!(of("s_db").image, "db:16");
    assert_eq!(of("s_db").env, ["FROM=client"]);
    assert_eq!(of("s_db").mounts[0].source.as_deref(), Some("/stack/db/data"));
    // What the client has goes before a file.
    assert_eq!((of("s_log").image.as_str(), of("s_log").args[0].as_str()), ("log:1.2", "from-file"));
    assert_eq!(of("s_log").mounts[0].source.as_deref(), Some("/stack/other/l"));
    let networks: Vec<_> = stack.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(networks.iter().filter(|name| **name == "s_back").count(), 1, "{networks:?}");
    assert_eq!(stack.configs[0].data, b"x=1");
}

#[test]
fn an_included_file_that_cannot_be_had_or_says_something_else_is_named() {
    let read = |text: &str, other: &str| Case::new(text).file("/stack/other.yml", other).problems();
    let web = "services: {web: {image: i}}\n";
    let include = format!("include: [other.yml]\n{web}");
    assert_eq!(read(&format!("include: [gone.yml]\n{web}"), ""), ["0.yml:1:11: include: gone.yml: no such file"]);
    let circle = read(&include, "include: [other.yml]\nservices: {}\n");
    let message =
        "/stack/other.yml:1:11: include: files build on one another in a circle: /stack/other.yml -> /stack/other.yml";
    assert_eq!(circle, [message]);
    let remote = read(&format!("include: ['oci://example.org/x']\n{web}"), "");
    assert!(remote[0].contains("\"oci://example.org/x\" is not a file of this machine"), "{remote:?}");
    let differs = read(&include, "services: {web: {image: other}}");
    let message = "0.yml:2:12: services.web: is another one in /stack/other.yml, which is included";
    assert!(differs[0].starts_with(message), "{differs:?}");
    let wrong = read(&include, "services: {db: {imge: x}}");
    assert!(wrong[0].starts_with("/stack/other.yml:1:"), "{wrong:?}");
    // A further file may change what the first one includes.
    let over = "services: {db: {command: x}}";
    let stack = Case::new(&include).file("/stack/other.yml", "services: {db: {image: d}}").over(over).stack();
    assert!(stack.services.iter().any(|spec| spec.task.container.args == ["x"]), "{stack:?}");
}

#[test]
fn services_of_a_profile_are_there_where_it_is_asked_for() {
    let text = "\
services:
  web: {image: i}
  debug: {image: i, profiles: [debug, all]}
  seed: {image: i, profiles: [seed], depends_on: [web]}
";
    let names = |case: Case<'_>| -> Vec<String> { case.stack().services.into_iter().map(|spec| spec.name).collect() };
    assert_eq!(names(Case::new(text)), ["s_web"]);
    assert_eq!(names(Case::new(text).profile("all").profile("seed")), ["s_web", "s_debug", "s_seed"]);
    assert_eq!(names(Case::new(text).profile("*")), ["s_web", "s_debug", "s_seed"]);
    let warnings = Case::new(text).profile("sed").warnings();
    assert_eq!(warnings, ["0.yml: no service is of the profile \"sed\"; did you mean \"seed\"?"]);
    // What is printed is what is deployed.
    assert!(!Case::new(text).profile("seed").config().contains("profiles"));
}

#[test]
fn to_wait_for_a_service_whose_profile_is_not_asked_for_is_refused_unless_it_may_be_missing() {
    let text = "\
services:
  web: {image: i, depends_on: {db: {required: false}}}
  db: {image: i, profiles: [db]}
";
    assert_eq!(Case::new(text).service().depends_on, []);
    assert_eq!(Case::new(text).profile("db").service().depends_on.len(), 1);
    let strict = text.replace("{required: false}", "{}");
    let problems = Case::new(&strict).problems();
    let message = "service \"db\" is only there with the profile db: give it with --profile, or write required: false";
    assert!(problems[0].contains(message), "{problems:?}");
}
