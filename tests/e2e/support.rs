//! The support bundle: what has to be in it is, and what was entrusted to the swarm is not, with a quorum and without one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::lab::{Host, eventually, run};
use super::swarm::{PATIENCE, Swarm};

const STACK: &str = "
services:
  web:
    image: flok/whoami:latest
    environment: { PASSWORD: s3cret-environment }
    labels: { basicauth: s3cret-label }
    secrets: [key]
    configs: [setting]
    networks: [a]
    deploy: { mode: global, labels: { token: s3cret-deploy-label } }
  once:
    image: flok/busybox:latest
    command: [sh, '-c', 'echo s3cret-argument; sleep 1000000']
    stop_signal: SIGKILL
    healthcheck: { test: [CMD, 'true', s3cret-check] }
networks: { a: {} }
secrets: { key: { environment: FLOK_E2E_SECRET } }
configs: { setting: { content: s3cret-config } }
";

/// What a bundle of `node` has, by path; also as it was asked for on a host.
fn bundle(swarm: &Swarm, host: &Host, node: &str) -> BTreeMap<String, String> {
    let folder = swarm.dir().join(format!("bundle-{}-{node}", host.name()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let archive = folder.join("bundle.tar.gz");
    host.ok(&["node", "support-bundle", "-o", archive.to_str().unwrap(), node]);
    run("tar", &["-xzf", archive.to_str().unwrap(), "-C", folder.to_str().unwrap()]);
    let mut files = BTreeMap::new();
    gather(&folder.join("flok-support"), "", &mut files);
    files
}

fn gather(folder: &Path, beginning: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{beginning}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            gather(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned());
        }
    }
}

/// All that no bundle may hold.
fn entrusted(swarm: &Swarm) -> Vec<String> {
    let mut all: Vec<String> = ["environment", "label", "deploy-label", "argument", "check", "config", "secret"]
        .iter()
        .map(|what| format!("s3cret-{what}"))
        .collect();
    for role in ["manager", "worker"] {
        let token = swarm.token(role);
        // Its last part is the secret; the one before is the hash of a public key.
        all.push(token.rsplit('-').next().unwrap().to_owned());
        all.push(token);
    }
    for key in ["node.key", "swarm/log.key"] {
        let bytes = fs::read(swarm.hosts[0].data_dir().join(key)).unwrap();
        all.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        all.push(format!("{:?}", &bytes[..8]).trim_matches(['[', ']']).to_owned());
    }
    all
}

fn holds_nothing_of(files: &BTreeMap<String, String>, entrusted: &[String]) {
    for (path, text) in files {
        // As it is pretty-printed, too.
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = entrusted.iter().find(|secret| text.contains(*secret) || joined.contains(*secret));
        assert_eq!(found, None, "in {path}");
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_support_bundle_has_what_helps_and_nothing_that_was_entrusted() {
    let mut swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.voters_are(0, 3);
    let file = swarm.stack_file("s", STACK);
    let mut deploy = swarm.hosts[0].client();
    let deployed = deploy
        .args(["stack", "deploy", "--detach", "-c", &file, "s"])
        .env("FLOK_E2E_SECRET", "s3cret-secret")
        .output()
        .unwrap();
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));
    swarm.running(0, "s_web", 3);
    let entrusted = entrusted(&swarm);

    let own = bundle(&swarm, &swarm.hosts[0], "self");
    let other = bundle(&swarm, &swarm.hosts[0], "n2");
    for (files, name) in [(&own, "n1"), (&other, "n2")] {
        for (path, part) in [
            ("contents.txt", "confirmed by a quorum"),
            ("swarm/status.json", "\"health\": \"up\""),
            ("swarm/nodes.json", "\"Hostname\": \"n3\""),
            ("swarm/services.json", "PASSWORD=(redacted)"),
            ("swarm/tasks.json", "running"),
            ("swarm/networks.json", "s_a"),
            ("swarm/secrets.json", "s_key"),
            ("swarm/configs.json", "s_setting"),
            ("node/version.txt", "containerd_version"),
            ("node/settings.txt", &format!("data_dir: \"{}", swarm.dir().join(name).display())),
            ("node/members.txt", "data_path_port: 4789"),
            ("node/records.txt", "hostname: \"n3\""),
            ("node/daemon.log", "ready"),
            ("node/containerd/containerd.log", "containerd"),
            ("node/network/doctor.txt", "overlay device"),
            ("node/network/nft.txt", "table inet flok"),
            ("node/network/routes4.txt", "flok0"),
            ("node/network/neighbours.txt", "PERMANENT"),
            ("node/network/links.txt", "vxlan"),
            ("node/network/conntrack-count.txt", ""),
        ] {
            let text = files.get(path).unwrap_or_else(|| panic!("{path} in {}", files["contents.txt"]));
            assert!(text.contains(part), "{name}: {part} in {path}:\n{text}");
        }
        holds_nothing_of(files, &entrusted);
    }
    assert!(own["node/version.txt"].contains("\"n1\"") && other["node/version.txt"].contains("\"n2\""));

    // A node that does not answer, and then no quorum: what is left is had.
    swarm.host(1).die();
    let without = bundle(&swarm, &swarm.hosts[0], "n2");
    assert!(without.contains_key("swarm/status.json") && !without.contains_key("node/version.txt"));
    assert!(without["contents.txt"].contains("could not be had"), "{}", without["contents.txt"]);
    swarm.host(2).die();
    eventually("the quorum to be missed", PATIENCE, || {
        let files = bundle(&swarm, &swarm.hosts[0], "self");
        holds_nothing_of(&files, &entrusted);
        let contents = &files["contents.txt"];
        let whole = files.contains_key("node/network/nft.txt") && files.contains_key("swarm/services.json");
        if whole && contents.contains("No quorum") { Ok(()) } else { Err(contents.clone()) }
    });
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_worker_and_a_node_in_no_swarm_have_a_support_bundle_of_their_own() {
    let swarm = Swarm::apart(2);
    let alone = bundle(&swarm, &swarm.hosts[1], "self");
    assert!(
        alone["contents.txt"].contains("Of the swarm nothing could be had") && alone.contains_key("node/daemon.log")
    );
    swarm.hosts[0].ok(&["swarm", "init"]);
    swarm.join(1, "worker");
    swarm.nodes_are(0, 2, "ready");
    let own = bundle(&swarm, &swarm.hosts[1], "self");
    assert!(own.contains_key("node/members.txt") && !own.contains_key("swarm/services.json"));
    holds_nothing_of(&own, &entrusted(&swarm));
    let said = swarm.hosts[1].refused(&["node", "support-bundle", "-o", "/dev/null", "n1"]);
    assert!(said.contains("of n1 nothing can be had here"), "{said}");
    // A manager gathers of a worker.
    assert!(bundle(&swarm, &swarm.hosts[0], "n2").contains_key("node/daemon.log"));
}
