//! Docker's Python client, by `docker_py.py` beside this file: on one node, and on three.

use std::process::Command;

use super::images;
use super::swarm::Swarm;

/// The interpreter that has the client (`requirements.txt` says which), as `scripts/test.sh` makes it.
fn python() -> String {
    std::env::var("FLOK_E2E_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn drives(swarm: &Swarm) {
    let hosts = swarm.hosts.iter().map(|host| format!("{}={}", host.socket().display(), host.addr()));
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docker_api/docker_py.py"))
        .arg(images::archive("busybox"))
        .args(hosts)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} (see requirements.txt): {said}", python());
    let checks: u32 = String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().parse().unwrap();
    assert!(checks > 30, "{checks} checks");
}

#[test]
#[ignore = "needs root, containerd, network namespaces and Docker's Python client"]
fn dockers_python_client_drives_a_node() {
    drives(&Swarm::apart(1));
}

#[test]
#[ignore = "needs root, containerd, network namespaces and Docker's Python client"]
fn dockers_python_client_drives_three_nodes() {
    drives(&Swarm::apart(3));
}
