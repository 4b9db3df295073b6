//! What a container may be given of its host, by flok's flags, by a stack file's keys, and by labels for Docker's clients.

use super::docker::ok;
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm};

/// Tells what it finds, then stays. A process of its own is the first it sees, unless it sees the host's.
const LOOK: &str = "df -k /dev/shm | tail -n 1; ls -l /dev/fuse /dev/spare; grep CapEff /proc/self/status; \
    grep Seccomp: /proc/self/status; echo first: $(cat /proc/1/comm); ulimit -n; cat /etc/hosts; sleep 1000";

const STACK: &str = "
services:
  keys:
    image: flok/busybox:latest
    command: [sh, -c, \"$LOOK\"]
    shm_size: 32m
    devices: [/dev/fuse, '/dev/fuse:/dev/spare:r']
    security_opt: ['seccomp=unconfined']
    pid: host
  labels:
    image: flok/busybox:latest
    command: [sh, -c, \"$LOOK\"]
    deploy:
      labels: {flok.privileged: 'true', flok.shm-size: 16m, flok.devices: '/dev/null:/dev/spare'}
";

fn told(swarm: &Swarm, service: &str, lines: &[&str]) {
    eventually(&format!("what {service} finds"), PATIENCE, || {
        let logs = swarm.hosts[0].ok(&["service", "logs", "--raw", service]);
        match lines.iter().find(|line| !logs.contains(**line)) {
            None => Ok(()),
            Some(line) => Err(format!("{line:?} is not in:\n{logs}")),
        }
    });
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn a_container_gets_of_its_host_what_it_is_given() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let file = swarm.stack_file("s", &STACK.replace("$LOOK", &LOOK.replace('$', "$$")));
    host.ok(&["stack", "deploy", "-c", &file, "s"]);
    told(&swarm, "s_keys", &["32768", "/dev/fuse", "/dev/spare", "Seccomp:\t0"]);
    // All rights are those of whoever runs the daemon.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    told(&swarm, "s_labels", &["16384", &format!("CapEff:{bounding}"), "/dev/fuse", "/dev/spare"]);
    let own = host.ok(&["service", "logs", "--raw", "s_labels"]);
    assert!(own.contains("first: sh"), "{own}");
    assert!(!host.ok(&["service", "logs", "--raw", "s_keys"]).contains("first: sh"));

    // The docker command has no word for them but a label's.
    ok(
        host,
        &[
            "service",
            "create",
            "--detach",
            "--name",
            "docked",
            "--label",
            "flok.shm-size=8m",
            "flok/busybox",
            "sh",
            "-c",
            LOOK,
        ],
    );
    told(&swarm, "docked", &["8192", "first: sh", "Seccomp:\t2"]);
    let refused = host.refused(&["service", "create", "--label", "flok.privileged=perhaps", "flok/busybox"]);
    assert!(refused.contains("label flok.privileged=perhaps: it is neither true nor false"), "{refused}");
    let refused = host.refused(&["service", "create", "--security-opt", "label=x", "flok/busybox"]);
    assert!(refused.contains("\"label=x\" is none of no-new-privileges"), "{refused}");

    let flags = [
        "--shm-size",
        "4m",
        "--device",
        "/dev/fuse",
        "--cap-drop",
        "ALL",
        "--ulimit",
        "nofile=77",
        "--add-host",
        "far:192.0.2.7",
    ];
    host.ok(&[&["service", "create", "--name", "flags"], &flags[..], &["flok/busybox", "sh", "-c", LOOK]].concat());
    told(&swarm, "flags", &["4096", "CapEff:\t0000000000000000", "\n77\n", "192.0.2.7\tfar"]);
    host.ok(&["service", "update", "--shm-size", "2m", "--host-rm", "far", "--device-rm", "/dev/fuse", "flags"]);
    told(&swarm, "flags", &["2048"]);
    let task = swarm.running(0, "flags", 1).remove(0);
    let logs = host.ok(&["service", "logs", "--raw", &task.id]);
    assert!(!logs.contains("192.0.2.7") && !logs.contains("10, 229"), "{logs}");
}
