//! Bad input and bad surroundings: each a clear message, an exit code, and nothing half done.

use super::lab::{Lab, flok};
use super::swarm::Swarm;

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_daemon_says_why_it_does_not_start() {
    let mut lab = Lab::new(1);
    lab.hosts[0].start_daemon(&[]);
    let host = &lab.hosts[0];
    let start = |args: &[&str]| {
        let output = host.command("timeout").arg("20").arg(flok()).arg("daemon").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{args:?} started: {text}");
        assert_ne!(output.status.code(), Some(124), "{args:?} ran on: {text}");
        text
    };
    let data = host.data_dir().display().to_string();
    let socket = host.socket().display().to_string();
    let other = host.dir.join("other").display().to_string();

    let taken = start(&["--data-dir", &data, "--socket", "/run/a.sock"]);
    assert!(taken.contains(&data), "the data directory is in use: {taken}");
    let taken = start(&["--data-dir", &other, "--socket", &socket]);
    assert!(taken.contains(&socket), "the socket is in use: {taken}");
    let wrong = start(&["--data-dir", &other, "--socket", "/run/a.sock", "--reserve-memory", "lots"]);
    assert!(wrong.contains("reserve-memory"), "{wrong}");
    let config = host.dir.join("flok.toml");
    std::fs::write(&config, "data-dri = \"/x\"\n").unwrap();
    let wrong = start(&["--config", config.to_str().unwrap()]);
    assert!(wrong.contains("data-dri"), "{wrong}");

    host.ok(&["version"]);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_refused_stack_leaves_nothing_behind() {
    let swarm = Swarm::of(1);
    let refused = |yaml: &str| {
        let file = swarm.stack_file("bad", yaml);
        swarm.hosts[0].refused(&["stack", "deploy", "-c", &file, "bad"])
    };
    let typo = refused("services:\n  web:\n    image: a\n    replica: 3\n");
    assert!(typo.contains("replica") && typo.contains("4:"), "{typo}");
    let secret = refused("services:\n  web:\n    image: a\n    secrets: [s]\nsecrets:\n  s: { external: true }\n");
    assert!(secret.contains("secrets"), "{secret}");
    let image = refused("services:\n  good: { image: a }\n  bad: { image: 'team/UPPER' }\n");
    assert!(image.contains("UPPER"), "{image}");
    let services = swarm.hosts[0].get("/services").unwrap();
    assert_eq!(services.as_array().unwrap().len(), 0, "{services}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn without_a_swarm_commands_say_how_to_begin_one() {
    let mut lab = Lab::new(1);
    lab.hosts[0].start_daemon(&[]);
    let refused = lab.hosts[0].refused(&["node", "ls"]);
    assert!(refused.contains("swarm init"), "{refused}");
    lab.hosts[0].ok(&["swarm", "init"]);
    let again = lab.hosts[0].refused(&["swarm", "init"]);
    assert!(again.contains("already"), "{again}");
}
