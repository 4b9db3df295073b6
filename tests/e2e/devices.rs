//! Devices that are described on nodes, asked for by services.

use serde_json::Value;

use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm, Task, containers_of, nodes_of};

/// Describes `names` as devices of a kind, each a null device under another name; a host's `/run` is its own.
fn describe(host: &Host, names: &[&str]) {
    let device = |name: &&str| {
        let node = serde_json::json!({ "path": format!("/dev/acme{name}"), "hostPath": "/dev/null" });
        serde_json::json!({ "name": name, "containerEdits": { "deviceNodes": [node] } })
    };
    let devices: Vec<Value> = names.iter().map(device).collect();
    let description = serde_json::json!({ "cdiVersion": "0.6.0", "kind": "acme.com/accel", "devices": devices });
    let script = "mkdir -p /run/cdi && printf %s \"$1\" > /run/cdi/new && mv /run/cdi/new /run/cdi/acme.json";
    let status = host.command("sh").args(["-c", script, "sh", &description.to_string()]).status().unwrap();
    assert!(status.success());
}

fn waits_for_devices(swarm: &Swarm, service: &str) {
    eventually(&format!("{service} to wait for devices"), PATIENCE, || {
        match swarm.hosts[0].ok(&["service", "explain", service]) {
            text if text.contains("insufficient acme.com/accel") => Ok(()),
            text => Err(text),
        }
    });
}

/// The devices in the containers of tasks, with what the swarm says of them.
fn devices_in(swarm: &Swarm, tasks: &[Task]) -> Vec<String> {
    let script = "echo $DOCKER_RESOURCE_ACME_COM_ACCEL $(ls /dev | grep acme)";
    let mut found: Vec<String> = containers_of(tasks)
        .iter()
        .map(|container| swarm.hosts[0].ok(&["exec", container, "sh", "-c", script]).trim().to_owned())
        .collect();
    found.sort();
    found
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn tasks_run_where_devices_are_described_and_each_has_its_own() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let one = "services: { one: { image: 'flok/busybox:latest', command: sleep 1000000, stop_grace_period: 0s, \
        deploy: { replicas: 3, resources: { reservations: { devices: [{ driver: acme.com/accel, count: 1, \
        capabilities: [gpu] }] } } } } }";
    swarm.hosts[0].ok(&["stack", "deploy", "--detach", "-c", &swarm.stack_file("s", one), "s"]);
    waits_for_devices(&swarm, "s_one");

    // They come while the daemon runs.
    describe(&swarm.hosts[1], &["0", "1"]);
    let tasks = eventually("two of three tasks to have a device each", PATIENCE, || {
        let tasks = swarm.tasks(0, "s_one")?;
        let running: Vec<Task> = tasks.iter().filter(|task| task.state == "running").cloned().collect();
        if running.len() == 2 { Ok(running) } else { Err(format!("{tasks:?}")) }
    });
    assert_eq!(nodes_of(&tasks), [swarm.node_id(0, 1)].into());
    assert_eq!(devices_in(&swarm, &tasks), ["0 acme0", "1 acme1"]);
    waits_for_devices(&swarm, "s_one");

    // All of them wait until nobody has one.
    let create = ["service", "create", "--detach", "--name", "all", "--generic-resource", "acme.com/accel=all"];
    swarm.hosts[0].ok(&[create.as_slice(), &["flok/busybox:latest", "sleep", "1000000"]].concat());
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_one=1"]);
    swarm.running(0, "s_one", 1);
    waits_for_devices(&swarm, "all");
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_one=0"]);
    let tasks = swarm.running(0, "all", 1);
    assert_eq!(devices_in(&swarm, &tasks), ["0,1 acme0 acme1"]);
    let stored = swarm.hosts[0].get("/services/all").unwrap();
    let resources = &stored["Spec"]["TaskTemplate"]["Resources"]["Reservations"]["GenericResources"];
    assert_eq!(resources[0]["DiscreteResourceSpec"]["Value"], -1);
}
