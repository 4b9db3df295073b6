//! The ordinary `docker` command against flok's socket: what it prints is what a user of Docker Swarm expects.

pub use super::docker_command::{docker, ok, refused, rows, shows};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};

const NODES: &str = "{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}";
const TASKS: &str = "{{.Name}}\t{{.Image}}\t{{.DesiredState}}";

/// A manager that `docker swarm init` made, a manager and a worker that `docker swarm join` added.
fn swarm_by_docker() -> Swarm {
    let swarm = Swarm::apart(3);
    let [first, manager, worker] = swarm.hosts.as_slice() else { unreachable!("three hosts") };
    let printed = ok(first, &["swarm", "init", "--advertise-addr", &first.addr()]);
    assert!(printed.starts_with("Swarm initialized: current node ("), "{printed}");
    let line =
        printed.lines().find(|line| line.trim().starts_with("docker swarm join --token ")).expect("a line to copy");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[5], format!("{}:2377", first.addr()), "{printed}");
    assert_eq!(ok(first, &["swarm", "join-token", "--quiet", "worker"]).trim(), words[4]);
    assert_eq!(ok(worker, &words[1..]).trim(), "This node joined a swarm as a worker.");

    let printed = ok(first, &["swarm", "join-token", "manager"]);
    assert!(printed.contains("To add a manager to this swarm, run the following command:"), "{printed}");
    let line = printed.lines().find(|line| line.trim().starts_with("docker swarm join")).expect("a line to copy");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(ok(manager, &words[1..]).trim(), "This node joined a swarm as a manager.");
    shows(
        first,
        &["node", "ls"],
        NODES,
        &[
            &["n1", "Ready", "Active", "Leader"],
            &["n2", "Ready", "Active", "Reachable"],
            &["n3", "Ready", "Active", ""],
        ],
    );
    swarm
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn docker_makes_a_swarm_runs_services_in_it_and_takes_it_apart() {
    let swarm = swarm_by_docker();
    swarm.load("whoami");
    let [first, manager, worker] = swarm.hosts.as_slice() else { unreachable!("three hosts") };
    let info =
        ok(manager, &["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.Nodes}}"]);
    assert_eq!(info.trim(), "active true 3");

    // Without --detach it waits until the service has converged, and says so.
    let image = "flok/whoami:latest";
    let made = ok(manager, &["service", "create", "--name", "web", "--replicas", "3", "--env", "MORE=0", image]);
    assert!(made.contains("converged"), "{made}");
    let services = "{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}";
    shows(first, &["service", "ls"], services, &[&["web", "replicated", "3/3", image]]);
    let tasks = rows(first, &["service", "ps", "web"], TASKS);
    let names: Vec<&str> = tasks.iter().map(|task| task[0].as_str()).collect();
    assert_eq!(names, ["web.1", "web.2", "web.3"]);
    assert!(tasks.iter().all(|task| task[1] == image && task[2] == "Running"), "{tasks:?}");
    let nodes = rows(first, &["service", "ps", "web"], "{{.Node}}\t{{.CurrentState}}");
    let on: Vec<&str> = nodes.iter().map(|task| task[0].as_str()).collect();
    assert_eq!(on, ["n1", "n2", "n3"]);
    assert!(nodes.iter().all(|task| task[1].starts_with("Running ")), "{nodes:?}");

    let scaled = ok(first, &["service", "scale", "web=5"]);
    assert!(scaled.contains("web scaled to 5") && scaled.contains("converged"), "{scaled}");
    shows(manager, &["service", "ls"], services, &[&["web", "replicated", "5/5", image]]);

    let updated = ok(first, &["service", "update", "--env-add", "MORE=1", "--label-add", "team=a", "web"]);
    assert!(updated.contains("converged"), "{updated}");
    let inspected = ok(manager, &["service", "inspect", "--pretty", "web"]);
    for part in ["Name:\t\tweb", "MORE=1", "team=a", "Replicas:\t5"] {
        assert!(inspected.contains(part), "{part} in {inspected}");
    }
    assert_eq!(ok(first, &["service", "rm", "web"]).trim(), "web");
    shows(manager, &["service", "ls"], services, &[]);

    // The worker goes.
    assert_eq!(ok(worker, &["swarm", "leave"]).trim(), "Node left the swarm.");
    let left: &[&[&str]] =
        &[&["n1", "Ready", "Active", "Leader"], &["n2", "Ready", "Active", "Reachable"], &["n3", "Down", "Active", ""]];
    shows(first, &["node", "ls"], NODES, left);
    assert_eq!(ok(first, &["node", "rm", "n3"]).trim(), "n3");
    shows(manager, &["node", "ls"], NODES, &left[..2]);
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn docker_reads_the_logs_of_services_on_every_node() {
    let swarm = swarm_by_docker();
    swarm.load("busybox");
    let [first, manager, _] = swarm.hosts.as_slice() else { unreachable!("three hosts") };
    let create = ["service", "create", "--name", "talk", "--mode", "global", "flok/busybox:latest", "sh", "-c"];
    ok(first, &[create.as_slice(), &["echo said; echo cried >&2; sleep 1000"]].concat());
    let lines = eventually("six lines", PATIENCE, || {
        let output = docker(manager, &["service", "logs", "talk"]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        if out.lines().count() == 3 && err.lines().count() == 3 { Ok((out, err)) } else { Err(out + &err) }
    });
    for node in ["n1", "n2", "n3"] {
        for (text, what) in [(&lines.0, "said"), (&lines.1, "cried")] {
            let line = text.lines().find(|line| line.contains(&format!("@{node} "))).expect("a line of every node");
            assert!(line.starts_with("talk.0."), "{line}");
            assert!(line.ends_with(&format!("| {what}")), "{line}");
        }
    }
    let last = docker(manager, &["service", "logs", "--raw", "--tail", "1", "talk"]);
    let lines =
        String::from_utf8_lossy(&last.stdout).lines().count() + String::from_utf8_lossy(&last.stderr).lines().count();
    assert_eq!(lines, 3, "one of each task: {last:?}");
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn docker_changes_roles_and_availability() {
    let swarm = swarm_by_docker();
    swarm.load("whoami");
    let [first, manager, worker] = swarm.hosts.as_slice() else { unreachable!("three hosts") };
    ok(first, &["service", "create", "--name", "web", "--replicas", "3", "flok/whoami:latest"]);
    ok(first, &["node", "update", "--availability", "drain", "--label-add", "zone=a", "n2"]);
    eventually("the tasks to leave n2", PATIENCE, || {
        let running = ["service", "ps", "--filter", "desired-state=running", "web"];
        let found = rows(first, &running, "{{.Node}}\t{{.CurrentState}}");
        let away = found.len() == 3 && found.iter().all(|task| task[0] != "n2" && task[1].starts_with("Running"));
        if away { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let labels = ok(manager, &["node", "inspect", "--format", "{{.Spec.Labels.zone}} {{.Spec.Availability}}", "n2"]);
    assert_eq!(labels.trim(), "a drain");
    assert!(ok(first, &["node", "inspect", "--pretty", "self"]).contains("Leader:\t\tYes"));
    assert_eq!(ok(first, &["node", "promote", "n3"]).trim(), "Node n3 promoted to a manager in the swarm.");
    let promoted: &[&[&str]] = &[
        &["n1", "Ready", "Active", "Leader"],
        &["n2", "Ready", "Drain", "Reachable"],
        &["n3", "Ready", "Active", "Reachable"],
    ];
    shows(worker, &["node", "ls"], NODES, promoted);
    assert_eq!(ok(first, &["node", "demote", "n3"]).trim(), "Manager n3 demoted in the swarm.");
    let tasks = rows(first, &["node", "ps", "n3", "--filter", "desired-state=running"], "{{.Node}}");
    assert!(!tasks.is_empty() && tasks.iter().all(|task| task[0] == "n3"), "{tasks:?}");
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn docker_is_told_why_something_is_refused() {
    let swarm = swarm_by_docker();
    let [first, manager, worker] = swarm.hosts.as_slice() else { unreachable!("three hosts") };
    let says = |host: &Host, args: &[&str], words: &str| {
        let said = refused(host, args);
        assert!(said.contains(words), "docker {args:?}: {words:?} in {said}");
    };
    says(first, &["swarm", "init"], "This node is already part of a swarm");
    says(manager, &["swarm", "leave"], "--force");
    says(worker, &["node", "ls"], "This node is not a swarm manager");
    says(worker, &["service", "ls"], "This node is not a swarm manager");
    says(first, &["service", "ps", "nothing"], "no such service: nothing");
    says(first, &["service", "inspect", "nothing"], "no such service: nothing");
    says(first, &["service", "rm", "nothing"], "nothing not found");
    says(first, &["node", "rm", "n3"], "n3");
    says(first, &["node", "inspect", "nobody"], "nobody");
    let create = ["service", "create", "--detach", "--name", "twice", "--replicas", "0"];
    ok(first, &[create.as_slice(), &["flok/whoami:latest"]].concat());
    says(first, &[create.as_slice(), &["flok/whoami:latest"]].concat(), "twice");
    says(first, &["service", "create", "--detach", "--name", "-bad-", "flok/whoami:latest"], "name");
    says(first, &["service", "create", "--detach", "--network", "nowhere", "flok/whoami:latest"], "nowhere");
    says(
        first,
        &["service", "create", "--detach", "--constraint", "node.hostnam==n1", "flok/whoami:latest"],
        "node.hostnam",
    );
    // A name is made up where none is given.
    let unnamed = ok(first, &["service", "create", "--detach", "--replicas", "0", "flok/whoami:latest"]);
    let name = ok(first, &["service", "inspect", "--format", "{{.Spec.Name}}", unnamed.trim()]);
    assert!(name.trim().contains('_'), "{name}");
    ok(first, &["service", "rm", name.trim()]);
    ok(worker, &["swarm", "leave"]);
    says(worker, &["swarm", "join", "--token", "SWMTKN-1-nonsense", &first.addr()], "token");
    // None of it left anything behind.
    shows(first, &["service", "ls"], "{{.Name}}", &[&["twice"]]);
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn docker_makes_shows_and_removes_networks() {
    let swarm = Swarm::of(1);
    let host = &swarm.hosts[0];
    let networks = "{{.Name}}\t{{.Driver}}\t{{.Scope}}";
    let of_every_swarm: [&[&str]; 4] = [
        &["bridge", "bridge", "local"],
        &["host", "host", "local"],
        &["ingress", "overlay", "swarm"],
        &["none", "null", "local"],
    ];
    shows(host, &["network", "ls"], networks, &of_every_swarm);
    let asked = ["--subnet", "10.50.0.0/24", "--gateway", "10.50.0.254", "--ip-range", "10.50.0.128/25"];
    let create = ["network", "create", "--driver", "overlay"];
    let options = ["--internal", "--attachable", "--label", "tier=data", "--opt", "com.docker.network.driver.mtu=1400"];
    let id = ok(host, &[create.as_slice(), &asked, &options, &["given"]].concat());
    ok(host, &[create.as_slice(), &["--ipv6", "allocated"]].concat());

    let config = "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}} {{.IPRange}};{{end}}";
    let inspect =
        |name: &str, template: &str| ok(host, &["network", "inspect", "--format", template, name]).trim().to_owned();
    assert_eq!(inspect("given", "{{.Id}}"), id.trim());
    assert_eq!(inspect("given", config), "10.50.0.0/24 10.50.0.254 10.50.0.128/25;");
    assert_eq!(inspect("given", "{{.Scope}} {{.Internal}} {{.Attachable}} {{.Ingress}}"), "swarm true true false");
    assert_eq!(inspect("given", "{{json .Labels}}"), r#"{"tier":"data"}"#);
    // The leader gives subnets of both families to those that name none.
    for name in ["ingress", "allocated"] {
        eventually(&format!("subnets of {name}"), PATIENCE, || {
            let found = inspect(name, config);
            let both = found.starts_with("10.") && found.contains("; fd") | found.contains(";fd");
            if both { Ok(()) } else { Err(found) }
        });
    }
    assert!(ok(host, &["network", "inspect", "--verbose", "given"]).contains("\"Services\": {}"));
    assert_eq!(ok(host, &["network", "ls", "--quiet", "--no-trunc", "--filter", "label=tier=data"]), id);
    assert_eq!(host.ok(&["network", "ls", "--quiet", "--no-trunc", "--filter", "name=given"]), id);

    let says = |args: &[&str], words: &str| {
        let said = refused(host, args);
        assert!(said.contains(words), "docker {args:?}: {words:?} in {said}");
    };
    says(&[create.as_slice(), &["given"]].concat(), "network with name given already exists");
    let overlapping = [create.as_slice(), &["--subnet", "10.50.0.0/16", "wide"]].concat();
    says(&overlapping, "subnet 10.50.0.0/16 overlaps with 10.50.0.0/24 of network given");
    says(&[create.as_slice(), &["--subnet", "10.51.0.7/24", "bits"]].concat(), "10.51.0.7/24");
    says(&[create.as_slice(), &["--subnet", "10.99.0.0/16", "nodes"]].concat(), "reaches outside of the swarm");
    says(&["network", "create", "--driver", "macvlan", "other"], "use overlay");
    says(&[create.as_slice(), &["--ingress", "second"]].concat(), "already present");
    says(&["network", "inspect", "nothing"], "network nothing not found");
    says(&["network", "rm", "nothing"], "network nothing not found");

    assert_eq!(ok(host, &["network", "rm", "given"]).trim(), "given");
    let made = host.ok(&["network", "create", "--subnet", "10.50.0.0/24", "again"]);
    assert_eq!(inspect("again", "{{.Id}}"), made.trim(), "what is gone left nothing behind");
    let pruned = ok(host, &["network", "prune", "--force"]);
    assert!(pruned.contains("allocated") && pruned.contains("again"), "{pruned}");
    shows(host, &["network", "ls"], networks, &of_every_swarm);

    assert!(host.refused(&["network", "rm", "ingress"]).contains("say --force to remove it"));
    shows(host, &["network", "ls"], networks, &of_every_swarm);
    assert_eq!(host.ok(&["network", "rm", "-f", "nothing", "ingress"]), "ingress\n", "what is not there is no failure");
    assert!(!host.ok(&["network", "ls", "--format", "{{.Name}}"]).contains("ingress"));
}

/// The last test's stack, of a service on each of the node's own networks.
const OF_THE_NODE: &str = "
services:
  agent:
    image: flok/busybox:latest
    command: [sh, -c, 'ip -o -4 addr; hostname; exec sleep 1000000']
    stop_signal: SIGKILL
    networks: [node]
  alone:
    image: flok/busybox:latest
    command: [sh, -c, 'ip -o link; exec sleep 1000000']
    stop_signal: SIGKILL
    networks: [nothing]
networks:
  node: { external: true, name: host }
  nothing: { external: true, name: none }
";

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn services_are_on_the_networks_of_their_nodes_own() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let file = swarm.dir().join("own.yml");
    std::fs::write(&file, OF_THE_NODE).unwrap();
    let file = file.to_str().unwrap();
    ok(host, &["stack", "deploy", "--detach", "-c", file, "s"]);
    let tasks = [swarm.running(0, "s_agent", 1), swarm.running(0, "s_alone", 1)];
    let printed = |service: &str, what: &str| {
        eventually(&format!("{service} to say {what}"), PATIENCE, || {
            let log = host.ok(&["service", "logs", "--raw", service]);
            if log.contains(what) { Ok(log) } else { Err(log) }
        })
    };
    let said = printed("s_agent", "n1");
    assert!(said.contains(&format!("inet {}/", host.addr())), "{said}");
    let said = printed("s_alone", "lo:");
    assert!(said.contains("LOOPBACK,UP") && said.lines().count() == 1, "{said}");
    // By either command the same is stored, so nothing is replaced.
    let told = host.ok(&["stack", "deploy", "-c", file, "s"]);
    assert!(told.contains("Unchanged service s_agent") && told.contains("Unchanged service s_alone"), "{told}");
    for (task, network) in tasks.iter().flatten().zip(["host", "none"]) {
        let shown = ok(host, &["inspect", "--format", "{{.HostConfig.NetworkMode}}", &task.container]);
        assert_eq!(shown.trim(), network);
    }

    ok(
        host,
        &["service", "create", "--detach", "--name", "by-option", "--network", "host", "flok/busybox:latest", "true"],
    );
    let target = "{{(index .Spec.TaskTemplate.Networks 0).Target}}";
    assert_eq!(ok(host, &["service", "inspect", "--format", target, "by-option"]).trim(), "host");
    let create = ["service", "create", "--detach", "--network", "host", "--publish", "80:80", "flok/busybox:latest"];
    let told = refused(host, &create);
    assert!(told.contains("is on network host and publishes ports, though its ports are the node's own"), "{told}");
    let told = refused(host, &["network", "rm", "host"]);
    assert!(told.contains("host is a pre-defined network and cannot be removed"), "{told}");
    let told = refused(host, &["network", "create", "--driver", "overlay", "host"]);
    assert!(told.contains("predefined"), "{told}");
}
