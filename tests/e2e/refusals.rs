//! Bad input and bad surroundings: each a clear message, an exit code, and nothing half done.

use std::fs;
use std::path::Path;

use flok::consensus::SealingKey;
use flok::node::keyring::Keyring;

use super::lab::{Host, Lab, eventually, flok, run};
use super::swarm::{PATIENCE, Swarm};

/// What a daemon that does not start says. It ends by itself, and with a code that says so.
pub fn refused_start(host: &Host, path: Option<&Path>, args: &[&str]) -> String {
    let mut command = host.command("timeout");
    command.arg("20").arg(flok()).arg("daemon").args(args);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    text
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_daemon_says_why_it_does_not_start() {
    let mut lab = Lab::new(1);
    lab.hosts[0].start_daemon(&[]);
    let host = &lab.hosts[0];
    let start = |args: &[&str]| refused_start(host, None, args);
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
    assert!(secret.contains("secret not found: s"), "{secret}");
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
    // No registry is there, and none is asked first.
    let refused = lab.hosts[0].refused(&["service", "create", "redis"]);
    assert!(refused.contains("swarm init") && !refused.contains("Warning"), "{refused}");
    lab.hosts[0].ok(&["swarm", "init", "--availability", "drain", "--task-history-limit", "2"]);
    assert_eq!(lab.hosts[0].ok(&["node", "inspect", "-f", "{{.Spec.Availability}}", "self"]), "drain\n");
    let kept = "{{.Swarm.Cluster.Spec.Orchestration.TaskHistoryRetentionLimit}}";
    assert_eq!(lab.hosts[0].ok(&["info", "-f", kept]), "2\n");
    let again = lab.hosts[0].refused(&["swarm", "init"]);
    assert!(again.contains("already"), "{again}");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_host_that_lacks_something_is_told_all_of_it_before_anything_starts() {
    let lab = Lab::new(1);
    let host = &lab.hosts[0];
    let data = host.data_dir();
    let args = ["--data-dir", data.to_str().unwrap(), "--socket", "/run/a.sock"];
    // These two are found by that PATH, too.
    let bin = host.dir.join("bin");
    fs::create_dir(&bin).unwrap();
    let program = |name: &str| {
        let found = run("bash", &["-c", &format!("PATH=$PATH:/usr/sbin:/sbin; command -v {name}")]);
        std::os::unix::fs::symlink(found.trim(), bin.join(name)).unwrap();
    };
    program("nsenter");
    program("timeout");
    let said = refused_start(host, Some(&bin), &args);
    for missing in ["nft is not on the PATH: install nftables", "install runc", "install containerd"] {
        assert!(said.contains(missing), "{said}");
    }
    program("runc");
    program("containerd");
    let nft = bin.join("nft");
    fs::write(&nft, "#!/bin/sh\necho 'Error: Could not process rule: Operation not supported' >&2; exit 1\n").unwrap();
    run("chmod", &["755", nft.to_str().unwrap()]);
    let said = refused_start(host, Some(&bin), &args);
    assert!(said.contains("nftables with NAT (CONFIG_NF_TABLES") && said.contains("Operation not supported"), "{said}");
    assert!(!said.contains("install"), "{said}");

    // What overlayfs cannot be put on: itself.
    let script = format!(
        "mkdir -p {0}/l {0}/u {0}/w {0}/m && mount -t overlay overlay -o lowerdir={0}/l,upperdir={0}/u,workdir={0}/w {0}/m",
        host.dir.join("o").display()
    );
    assert!(host.command("bash").args(["-c", &script]).status().unwrap().success());
    let on_overlay = host.dir.join("o/m/data").display().to_string();
    let said = refused_start(host, None, &["--data-dir", &on_overlay, "--socket", "/run/a.sock"]);
    assert!(said.contains("overlayfs") && said.contains(&on_overlay) && said.contains("ext4"), "{said}");

    assert!(!data.join("containerd").exists(), "nothing was started");
    let socket = host.command("test").args(["-e", "/run/a.sock"]).status().unwrap();
    assert!(!socket.success(), "no socket is left");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_data_directory_that_is_newer_damaged_or_of_another_node_is_refused_and_left_as_it_is() {
    let mut lab = Lab::new(2);
    for host in &mut lab.hosts {
        host.start_daemon(&[]);
        host.ok(&["swarm", "init"]);
        host.stop_daemon();
    }
    let host = &lab.hosts[0];
    let (data, other) = (host.data_dir(), lab.hosts[1].data_dir());
    let addr = host.addr();
    let args = ["--data-dir", data.to_str().unwrap(), "--socket", "/run/a.sock", "--listen-addr", addr.as_str()];
    let refused = || refused_start(host, None, &args);
    // Puts something in place of a file, sees the daemon refuse it and leave it alone, and puts the file back.
    let with = |file: &str, content: &[u8], words: &[&str]| {
        let path = data.join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let said = refused();
        assert!(words.iter().all(|word| said.contains(word)), "{file}: {said}");
        let left = fs::read(&path).unwrap();
        // A log that is whole notes that it was opened.
        assert!(left == content || file == "swarm/log", "{file} was changed");
        fs::write(&path, whole).unwrap();
        left
    };
    with("format", b"2\n", &["has format 2, this flok knows 1", "newer"]);
    with("format", b"what?\n", &["format is damaged"]);
    with("incarnation", b"x", &["incarnation is damaged"]);
    with("swarm/standing", b"{}", &["standing is damaged", "join the swarm again"]);
    with("swarm/log.key", b"short", &["log.key is damaged", "join it again"]);
    with("swarm/log.key", &fs::read(other.join("swarm/log.key")).unwrap(), &["damaged, or another node's"]);
    let wrong = Keyring::open(&data.join("node.key")).unwrap().seal_log_key(&SealingKey::new([7; 32])).unwrap();
    with("swarm/log.key", &wrong, &["cannot be read with this key"]);
    let others =
        with("swarm/log", &fs::read(other.join("swarm/log")).unwrap(), &["the log belongs to", "data directory"]);
    fs::write(other.join("swarm/log"), others).unwrap();

    // A tail that is cut off or overwritten, with the snapshot in it.
    let log = fs::read(data.join("swarm/log")).unwrap();
    with("swarm/log", &log[..log.len() / 2], &["damaged", "join the swarm again"]);
    with("swarm/log", b"", &["damaged", "join the swarm again"]);
    let mut torn = log.clone();
    let from = torn.len() / 8;
    torn[from..].fill(0x55);
    with("swarm/log", &torn, &["damaged", "join the swarm again"]);

    for host in &mut lab.hosts {
        host.start_daemon(&[]);
        eventually("its swarm", PATIENCE, || match host.flok(&["node", "ls"]) {
            output if output.status.success() => Ok(()),
            output => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        });
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn what_docker_would_refuse_is_refused_by_the_swarm_and_changes_nothing() {
    let swarm = Swarm::of(1);
    let host = &swarm.hosts[0];
    let create =
        |args: &[&str]| host.refused(&[&["service", "create", "--detach", "--resolve-image", "never"], args].concat());
    for (args, words) in [
        (&["--name", "a b", "i"][..], "a b"),
        (&["--name", "-x", "i"], "-x"),
        (&["--constraint", "node.rol==manager", "i"], "node.rol"),
        (&["--constraint", "node.role=manager", "i"], "node.role=manager"),
        (&["--reserve-memory", "2g", "--limit-memory", "1g", "i"], "memory"),
        (&["--mode", "global", "--replicas", "3", "i"], "replicas"),
        (&["--network", "nowhere", "i"], "nowhere"),
        (&["-p", "80:80", "-p", "80:81", "i"], "80"),
        (&["-p", "mode=host,target=80,published=80", "-p", "mode=host,target=81,published=80", "i"], "80"),
        (&["--mount", "type=bind,source=relative,target=/x", "i"], "relative"),
        (&["--mount", "type=volume,source=v,target=x", "i"], "x"),
        (&["--stop-signal", "SIGNOPE", "i"], "SIGNOPE"),
    ] {
        let said = create(args);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let file = |yaml: &str| swarm.stack_file("s", yaml);
    host.ok(&["service", "create", "--detach", "--resolve-image", "never", "--name", "s_web", "--replicas", "0", "i"]);
    let taken =
        host.refused(&["stack", "deploy", "-c", &file("services: { other: { image: i }, web: { image: i } }"), "s"]);
    assert!(taken.contains("s_web") && taken.contains("is not part of stack s"), "{taken}");
    let services = host.get("/services").unwrap();
    assert_eq!(services.as_array().unwrap().len(), 1, "{services}");
    let node = host.refused(&["node", "update", "--label-add", "=x", "self"]);
    assert!(node.contains("no name before"), "{node}");
}
