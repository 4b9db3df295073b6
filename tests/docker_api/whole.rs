//! One swarm for all that is asked of a swarm that stays as it is: to make one takes longer than to ask.

use super::docker_command::ok;
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};
use super::{commands, containers, copying, discovery, exec, flok, routes, stacks, store, typed};

/// A task on some node, asked for on another.
pub struct Asked<'a> {
    pub host: &'a Host,
    /// The other hosts' docker sees it too.
    pub container: String,
    pub name: String,
}

pub const IMAGE: &str = "flok/busybox:latest";

/// A service of one task on a node, and its container, as asked for on `host`.
pub fn start<'a>(swarm: &'a Swarm, host: usize, on: &str, name: &str, more: &[&str], run: &[&str]) -> Asked<'a> {
    let at = &swarm.hosts[host];
    let place = format!("node.hostname=={on}");
    let create = ["service", "create", "--detach", "--name", name, "--constraint", &place];
    ok(at, &[create.as_slice(), more, &[IMAGE], run].concat());
    let task = swarm.running(host, name, 1).remove(0);
    Asked { host: at, container: task.container, name: format!("{name}.{}.{}", task.slot, task.id) }
}

fn everything(swarm: &Swarm, host: usize, on: &str) {
    containers::are_listed_and_looked_at(swarm, host, on);
    containers::tell_what_they_print(swarm, host, on);
    containers::hold_their_input(swarm, host, on);
    containers::show_what_runs_and_what_it_uses(swarm, host, on);
    exec::runs_commands_with_their_streams(swarm, host, on);
    copying::goes_both_ways(swarm, host, on);
    flok::does_the_same(swarm, host, on);
    containers::end(swarm, host, on);
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn containers_images_and_volumes_answer_and_every_route_is_asked_for() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    everything(&swarm, 0, "n1");
    store::holds_images(&swarm, 0);
    store::holds_volumes(&swarm, 0);
    store::tells_what_happens(&swarm, 0);
    typed::fits_its_models(&swarm);
    commands::print_what_dockers_do(&swarm);
    stacks::are_stored_alike(&swarm);
    routes::are_all_asked_for(&swarm);
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn containers_answer_from_every_other_node() {
    let swarm = Swarm::apart(3);
    swarm.hosts[0].ok(&["swarm", "init"]);
    swarm.join(1, "manager");
    swarm.join(2, "worker");
    swarm.nodes_are(0, 3, "ready");
    swarm.load("busybox");
    // Of a worker by a manager that does not lead, of a manager by another.
    everything(&swarm, 1, "n3");
    discovery::finds_what_runs(&swarm, 1);
    let task = start(&swarm, 0, "n2", "other", &[], &["sleep", "1000"]);
    assert_eq!(ok(task.host, &["exec", &task.container, "hostname"]).trim(), &task.container[..12]);
    // A worker shows its own, and no others.
    let own = start(&swarm, 0, "n3", "own", &[], &["sh", "-c", "echo told; exec sleep 1000"]);
    let worker = &swarm.hosts[2];
    let slot = own.name.rsplit_once('.').unwrap().0;
    eventually("its own task's log", PATIENCE, || match worker.ok(&["logs", slot]) {
        log if log == "own.1    | told\n" => Ok(()),
        log => Err(log),
    });
    assert!(worker.refused(&["logs", "other.1"]).contains("manager"));
    assert_eq!(ok(worker, &["exec", &own.container, "hostname"]).trim(), &own.container[..12]);
    let refused = super::docker_command::refused(worker, &["exec", &task.container, "hostname"]);
    let tells_why = commands::has(worker, "the daemon's words for a container that is not there", 23);
    assert!(refused.contains("No such container") && (!tells_why || refused.contains("worker")), "{refused}");
    let networks = ok(worker, &["network", "ls", "--format", "{{.Name}}"]);
    assert!(networks.lines().any(|name| name == "bridge"), "{networks}");
    store::holds_images(&swarm, 1);
    store::holds_volumes(&swarm, 1);
    store::tells_what_happens(&swarm, 1);
    typed::fits_its_models(&swarm);
    commands::print_what_dockers_do(&swarm);
}
