//! Managers whose keys are locked on their disks.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use flok::node::keyring::Keyring;
use serde_json::Value;

use super::lab::{Host, Lab, eventually};
use super::swarm::{DAEMON, PATIENCE, Swarm};

fn state_of(host: &Host) -> String {
    host.get("/info").map_or_else(|error| error, |info| info["Swarm"]["LocalNodeState"].as_str().unwrap().to_owned())
}

fn is_locked(host: &Host) -> bool {
    Keyring::open(&host.data_dir().join("node.key")).unwrap().is_locked()
}

fn keys_are_locked(swarm: &Swarm, wanted: &[bool]) {
    eventually(&format!("keys locked: {wanted:?}"), PATIENCE, || {
        let found: Vec<bool> = swarm.hosts.iter().map(is_locked).collect();
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn unlock(host: &Host, key: &str) -> Output {
    let mut command = host.client();
    command.args(["swarm", "unlock"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut unlocking = command.spawn().unwrap();
    writeln!(unlocking.stdin.take().unwrap(), "{key}").unwrap();
    unlocking.wait_with_output().unwrap()
}

fn unlocks(host: &Host, key: &str) {
    let output = unlock(host, key);
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), host.log_tail());
    assert_eq!(state_of(host), "active");
}

fn does_not_unlock(host: &Host, key: &str, said: &str) {
    let output = unlock(host, key);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(said), "{errors}");
    assert!(!errors.contains(key), "a key is not repeated: {errors}");
}

fn key_of(host: &Host) -> String {
    host.ok(&["swarm", "unlock-key", "--quiet"]).trim().to_owned()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_locked_manager_comes_back_with_its_key_alone() {
    let mut lab = Lab::new(3);
    lab.hosts.iter_mut().for_each(|host| host.start_daemon(DAEMON));
    let mut swarm = Swarm::begin_with(lab, &["--autolock"]);
    let worker = swarm.add_host();
    swarm.host(worker).start_daemon(DAEMON);
    swarm.join(worker, "worker");
    swarm.nodes_are(0, 4, "ready");
    swarm.voters_are(0, 3);
    // A worker's key opens nothing of the swarm's.
    keys_are_locked(&swarm, &[true, true, true, false]);
    let key = key_of(&swarm.hosts[0]);
    assert!(key.starts_with("FLKKEY-1-"), "{key}");
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.deploy(0, "s", "services: { web: { image: 'flok/whoami:latest', deploy: { mode: global } } }");
    swarm.running(0, "s_web", 4);

    // One that restarts waits, and its containers go on.
    swarm.hosts[2].stop_daemon();
    swarm.hosts[2].start_daemon(DAEMON);
    assert_eq!(state_of(&swarm.hosts[2]), "locked");
    assert_eq!(swarm.hosts[2].running_containers().len(), 1);
    for args in
        [["node", "ls"].as_slice(), &["swarm", "init"], &["swarm", "join", "--token", "x", "y"], &["swarm", "leave"]]
    {
        let said = swarm.hosts[2].refused(args);
        assert!(said.contains("swarm unlock"), "{args:?}: {said}");
    }
    // It knows what its containers need.
    let pruned = swarm.hosts[2].ok(&["image", "prune", "--all", "--force"]);
    assert!(pruned.contains("flok/busybox") && !pruned.contains("flok/whoami"), "{pruned}");
    assert!(swarm.hosts[2].refused(&["image", "rm", "--force", "flok/whoami"]).contains("running container"));
    let other = "FLKKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    does_not_unlock(&swarm.hosts[2], other, "invalid key");
    does_not_unlock(&swarm.hosts[2], "password1", "an unlock key is");
    assert_eq!(state_of(&swarm.hosts[2]), "locked");
    unlocks(&swarm.hosts[2], &key);
    does_not_unlock(&swarm.hosts[2], &key, "not locked");
    swarm.nodes_are(0, 4, "ready");
    swarm.running(0, "s_web", 4);

    // A key that is rotated while a manager is down is not that manager's yet.
    swarm.hosts[2].stop_daemon();
    swarm.nodes_are(0, 3, "ready");
    let said = swarm.hosts[0].ok(&["swarm", "unlock-key", "--rotate"]);
    let second = key_of(&swarm.hosts[0]);
    assert!(second != key && said.contains(&second) && said.contains("Successfully rotated"), "{said}");
    swarm.hosts[2].start_daemon(DAEMON);
    does_not_unlock(&swarm.hosts[2], &second, "invalid key");
    unlocks(&swarm.hosts[2], &key);
    swarm.nodes_are(0, 4, "ready");
    // All of them at once: the swarm is back with the second one that is unlocked.
    eventually("the third manager to have the new key", PATIENCE, || {
        let keyring = Keyring::open(&swarm.hosts[2].data_dir().join("node.key")).unwrap();
        if keyring.unlock(&second.parse().unwrap()) { Ok(()) } else { Err("not yet".into()) }
    });
    swarm.hosts.iter_mut().take(3).for_each(Host::stop_daemon);
    swarm.hosts.iter_mut().take(3).for_each(|host| host.start_daemon(DAEMON));
    swarm.hosts.iter().take(2).for_each(|host| unlocks(host, &second));
    swarm.nodes_are(0, 3, "ready");

    // Who gives up a locked node loses it, and has a new one.
    let old = swarm.node_id(0, 2);
    let said = swarm.hosts[2].refused(&["swarm", "leave"]);
    assert!(said.contains("--force"), "{said}");
    swarm.hosts[2].ok(&["swarm", "leave", "--force"]);
    swarm.host(2).end_daemon_if_it_runs();
    swarm.host(2).start_daemon(DAEMON);
    assert_eq!(state_of(&swarm.hosts[2]), "inactive");
    eventually("its containers to end", PATIENCE, || match swarm.hosts[2].running_containers() {
        list if list.is_empty() => Ok(()),
        list => Err(list.join(" ")),
    });
    swarm.nodes_are(0, 1, "down");
    swarm.hosts[0].ok(&["node", "rm", &old]);
    swarm.join(2, "manager");
    swarm.nodes_are(0, 4, "ready");
    assert_ne!(swarm.node_id(0, 2), old);

    // Unlocked for good.
    keys_are_locked(&swarm, &[true, true, true, false]);
    swarm.hosts[1].ok(&["swarm", "update", "--autolock=false"]);
    keys_are_locked(&swarm, &[false; 4]);
    assert!(swarm.hosts[0].refused(&["swarm", "unlock-key"]).contains("no unlock key is set"));
    swarm.hosts[1].stop_daemon();
    swarm.hosts[1].start_daemon(DAEMON);
    assert_eq!(state_of(&swarm.hosts[1]), "active");
    for host in &swarm.hosts {
        let text = fs::read_to_string(host.log_path()).unwrap();
        assert!(!text.contains(&key) && !text.contains(&second), "no log has a key");
    }
    let shown: Value = swarm.hosts[0].json(&["swarm", "status"]);
    assert_eq!(shown["nodes"].as_array().unwrap().len(), 4);
}
