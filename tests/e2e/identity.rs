//! Who is a member, for how long, and what lies readable on the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flok::consensus::{FIRST_RAFT_ID, LogIdentity, LogStore};
use flok::node::keyring::Keyring;
use flok::state::{Command, Entry};
use flok::transport::JoinToken;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::lab::{Host, Lab, eventually};
use super::swarm::{PATIENCE, Swarm, nodes_of};

/// Files below a directory that hold these bytes, but for what containerd keeps.
fn files_with(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() && entry.file_name() != "containerd" {
            found.extend(files_with(&path, bytes));
        } else if kind.is_file() && fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes) {
            found.push(path);
        }
    }
    found
}

/// The secret half of the swarm's CA key, from the log of the stopped daemon that founded it, opened with the log's key.
fn ca_key(data: &Path, swarm: &str, node: &str) -> Vec<u8> {
    let identity = LogIdentity { swarm: swarm.parse().unwrap(), node: node.parse().unwrap(), raft_id: FIRST_RAFT_ID };
    let sealed = fs::read(data.join("swarm/log.key")).unwrap();
    let key = Keyring::open(&data.join("node.key")).unwrap().open_log_key(&sealed).unwrap().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("log");
    fs::copy(data.join("swarm/log"), &path).unwrap();
    let mut log = LogStore::open(&path, &key, &identity, Box::new(StdRng::seed_from_u64(1))).unwrap();
    let entries = log.recover().unwrap().entries;
    let commands = entries.iter().filter_map(|entry| Some(Entry::from_bytes(&entry.data).ok()?.command));
    let key = commands.filter_map(|command| match command {
        Command::InitSwarm { swarm, .. } => Some(swarm.ca_secret_key.0),
        _ => None,
    });
    let keys: Vec<Vec<u8>> = key.collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].len(), 32);
    keys[0].clone()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn nothing_of_the_swarms_secrets_is_readable_on_the_disk() {
    let mut swarm = Swarm::of(2);
    swarm.voters_are(0, 2);
    let password = "PASSWORD=correct-horse-battery-staple";
    let create = ["service", "create", "--detach", "--name", "s", "--replicas", "0", "--env", password];
    swarm.hosts[0].ok(&[create.as_slice(), &["flok/whoami:latest"]].concat());
    let token: JoinToken = swarm.token("manager").parse().unwrap();
    let secret = token.secret().to_bytes().0;
    let text = swarm.token("manager");
    let (id, founder) = (swarm.status(0).unwrap()["swarm"].as_str().unwrap().to_owned(), swarm.node_id(0, 0));
    for index in 0..2 {
        eventually("the service to be in every log", PATIENCE, || swarm.hosts[index].get("/services/s"));
    }
    swarm.hosts.iter_mut().for_each(Host::stop_daemon);
    let ca = ca_key(&swarm.hosts[0].data_dir(), &id, &founder);
    for index in 0..2 {
        let data = swarm.hosts[index].data_dir();
        let token = text.rsplit('-').next().unwrap();
        for bytes in [password.as_bytes(), &secret, text.as_bytes(), token.as_bytes(), &ca] {
            assert_eq!(files_with(&data, bytes), Vec::<PathBuf>::new());
        }
        let log = data.join("swarm/log");
        assert!(fs::metadata(&log).unwrap().len() > 4096, "that is where they are");
        for path in ["swarm", "node.key", "swarm/log.key", "swarm/log", "swarm/standing"] {
            let mode = fs::metadata(data.join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{path} is open to others: {mode:o}");
        }
        // The search itself finds what there is.
        let canary = data.join("swarm/canary");
        fs::write(&canary, [b"\0\xff".as_slice(), &secret, b"x"].concat()).unwrap();
        assert_eq!(files_with(&data, &secret), [canary]);
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_node_that_was_removed_while_it_was_away_is_cut_off_and_stops() {
    for role in ["manager", "worker"] {
        let mut swarm = Swarm::of(3);
        let removed = swarm.add_host();
        swarm.host(removed).start_daemon(&[]);
        swarm.join(removed, role);
        swarm.nodes_are(0, 4, "ready");
        swarm.load("whoami");
        swarm.deploy(0, "s", "services: { web: { image: 'flok/whoami:latest', deploy: { replicas: 4 } } }");
        assert!(nodes_of(&swarm.running(0, "s_web", 4)).contains(&swarm.node_id(0, removed)));

        swarm.hosts[removed].cut();
        swarm.nodes_are(0, 1, "down");
        swarm.hosts[0].ok(&["node", "rm", "--force", "n4"]);
        // Longer than its name would be listened to by those who know of the removal already.
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert_eq!(swarm.hosts[removed].running_containers().len(), 1, "it does not know yet");
        swarm.hosts[removed].heal();
        eventually("the removed node to learn of it", PATIENCE, || {
            let said = swarm.hosts[removed].get("/info")?;
            let state = said["Swarm"]["LocalNodeState"].to_string();
            if state == "\"inactive\"" { Ok(()) } else { Err(format!("{state}\n{}", swarm.hosts[removed].log_tail())) }
        });
        eventually("its containers to stop", PATIENCE, || match swarm.hosts[removed].running_containers() {
            list if list.is_empty() => Ok(()),
            list => Err(list.join(" ")),
        });
        assert_eq!(swarm.running(0, "s_web", 4).len(), 4);
        assert_eq!(swarm.hosts[0].get("/nodes").unwrap().as_array().unwrap().len(), 3);
    }
}

#[test]
#[ignore = "needs root, containerd, network namespaces and libfaketime"]
fn a_swarm_that_was_off_beyond_the_life_of_its_certificates_comes_back() {
    let mut swarm = Swarm::of(2);
    let worker = swarm.add_host();
    swarm.host(worker).start_daemon(&[]);
    swarm.join(worker, "worker");
    swarm.nodes_are(0, 3, "ready");
    swarm.load("whoami");
    swarm.deploy(0, "s", "services: { web: { image: 'flok/whoami:latest', deploy: { mode: global } } }");
    swarm.running(0, "s_web", 3);
    swarm.hosts.iter_mut().for_each(Host::stop_daemon);

    // Certificates live for ninety days.
    for index in 0..3 {
        swarm.host(index).start_daemon_at("+400d", &[]);
    }
    swarm.nodes_are(0, 3, "ready");
    swarm.hosts[1].ok(&["service", "update", "--detach", "--env-add", "A=b", "s_web"]);
    eventually("the worker to be given new work", PATIENCE, || {
        let id = swarm.node_id(0, worker);
        let tasks = swarm.tasks(0, "s_web")?;
        let there = tasks.iter().filter(|task| task.node == id);
        let (old, new): (Vec<_>, Vec<_>) = there.partition(|task| task.wanted == "shutdown");
        let renewed = new.iter().any(|task| task.state == "running") && old.iter().any(|task| task.state == "shutdown");
        if renewed { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    for index in 0..3 {
        eventually("a new certificate", PATIENCE, || match swarm.hosts[index].log() {
            log if log.contains("a new membership certificate") => Ok(()),
            _ => Err(swarm.hosts[index].log_tail()),
        });
    }
}

#[test]
#[ignore = "needs root, containerd, network namespaces and libfaketime"]
fn certificates_are_renewed_in_running_daemons() {
    let mut lab = Lab::new(2);
    lab.hosts.iter_mut().for_each(|host| host.start_daemon_at("+0d", &[]));
    let mut swarm = Swarm::begin(lab);
    let worker = swarm.add_host();
    swarm.host(worker).start_daemon_at("+0d", &[]);
    swarm.join(worker, "worker");
    swarm.nodes_are(0, 3, "ready");
    swarm.voters_are(0, 2);
    let count = |swarm: &Swarm, index: usize, what: &[&str]| {
        swarm.hosts[index].log().lines().filter(|line| what.iter().any(|what| line.contains(what))).count()
    };
    let certificate = ["a new membership certificate"];
    // A stream begins with a certificate too.
    let streams = ["a manager closed its stream", "a manager's stream broke off", "a manager has fallen silent"];
    let before: Vec<usize> = (0..3).map(|index| count(&swarm, index, &certificate)).collect();
    let broken = count(&swarm, worker, &streams);

    // Two thirds of ninety days have passed, and not yet ninety.
    swarm.hosts.iter().for_each(|host| host.set_clock("+80d"));
    for (index, before) in before.into_iter().enumerate() {
        eventually("the next certificate", PATIENCE, || match count(&swarm, index, &certificate) {
            now if now > before => Ok(()),
            _ => Err(swarm.hosts[index].log_tail()),
        });
    }
    assert_eq!(count(&swarm, worker, &streams), broken, "it came on the stream that was there");
    swarm.nodes_are(0, 3, "ready");
}

#[test]
#[ignore = "needs root, containerd, network namespaces and libfaketime"]
fn a_join_with_a_clock_that_is_off_says_so() {
    let mut swarm = Swarm::of(1);
    for offset in ["-3d", "+400d"] {
        let late = swarm.add_host();
        swarm.host(late).start_daemon_at(offset, &[]);
        let addr = swarm.hosts[0].addr();
        let said = swarm.hosts[late].refused(&["swarm", "join", "--token", &swarm.token("worker"), &addr]);
        assert!(said.contains("the clocks of this machine and of 10.99.0.1:2377 differ by"), "{offset}: {said}");
    }
    swarm.nodes_are(0, 1, "ready");
}
