//! What finds services in a swarm, by its exact requests and the exact fields it reads: Traefik's swarm provider, Prometheus'
//! dockerswarm discovery, Portainer's agent. A field that is missing fails; where their code ends in an error or leaves
//! something out, so does this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::docker_command::{docker, ok};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};
use super::whole::IMAGE;

/// The answer to a request as Docker's Go client makes it, of one version.
struct Asker<'a> {
    host: &'a Host,
    version: &'static str,
}

impl Asker<'_> {
    fn get(&self, path: &str) -> Value {
        self.host.get(&format!("/v{}{path}", self.version)).unwrap()
    }

    fn list(&self, path: &str, filters: &[(&str, &str)]) -> Vec<Value> {
        let filters: BTreeMap<&str, BTreeMap<&str, bool>> =
            filters.iter().map(|(key, value)| (*key, [(*value, true)].into())).collect();
        let query = match filters.is_empty() {
            true => String::new(),
            false => format!("?filters={}", escaped(&serde_json::to_string(&filters).unwrap())),
        };
        let all = self.get(&format!("{path}{query}"));
        all.as_array().unwrap_or_else(|| panic!("{path}: {all}")).clone()
    }
}

fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// The value at a path of keys, which must be there.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| match &value[key] {
        Value::Null => panic!("no {key} of {path} in {value}"),
        found => found,
    })
}

fn text(value: &Value, path: &str) -> String {
    at(value, path).as_str().unwrap_or_else(|| panic!("{path} is no text in {value}")).to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Go's `net.ParseCIDR`.
fn cidr(text: &str) -> IpAddr {
    let (address, prefix) = text.split_once('/').unwrap_or_else(|| panic!("{text} is no CIDR"));
    assert!(prefix.parse::<u8>().is_ok_and(|prefix| prefix <= 128), "{text}");
    address.parse().unwrap()
}

/// What one balances to: the name, and by network the address.
type Backends = BTreeMap<String, BTreeMap<String, IpAddr>>;

/// Traefik's `listServices`: of services with the label `traefik.swarm.lbswarm` the virtual address, of others the tasks'.
fn traefik(asker: &Asker) -> Backends {
    let services = asker.list("/services", &[]);
    let version = asker.get("/version");
    assert!(text(&version, "ApiVersion").split_once('.').unwrap().1.parse::<u32>().unwrap() >= 29);
    let networks: BTreeMap<String, String> = asker
        .list("/networks", &[("scope", "swarm")])
        .iter()
        .map(|network| (text(network, "Id"), text(network, "Name")))
        .collect();
    let mut found = Backends::new();
    for service in &services {
        let (id, name) = (text(service, "ID"), text(service, "Spec.Name"));
        let labels = at(service, "Spec.Labels");
        if labels["traefik.swarm.lbswarm"] == "true" {
            assert_eq!(text(service, "Spec.EndpointSpec.Mode"), "vip");
            let vips = items(at(service, "Endpoint.VirtualIPs")).iter();
            let known =
                vips.filter_map(|vip| Some((networks.get(&text(vip, "NetworkID"))?.clone(), text(vip, "Addr"))));
            let backend = known.map(|(network, address)| (network, cidr(&address))).collect();
            found.insert(name, backend);
            continue;
        }
        let is_global = !at(service, "Spec.Mode")["Global"].is_null();
        for task in asker.list("/tasks", &[("service", &id), ("desired-state", "running")]) {
            if text(&task, "Status.State") != "running" {
                continue;
            }
            let slot = if is_global { text(&task, "ID") } else { at(&task, "Slot").to_string() };
            let mut backend = BTreeMap::new();
            for place in items(&task["NetworksAttachments"]) {
                let Some(network) = networks.get(&text(place, "Network.ID")) else { continue };
                // The last one counts.
                for address in items(at(place, "Addresses")) {
                    backend.insert(network.clone(), cidr(address.as_str().unwrap()));
                }
            }
            if !backend.is_empty() {
                found.insert(format!("{name}.{slot}"), backend);
            }
        }
    }
    found
}

/// A target and some of its labels.
type Targets = BTreeSet<(String, BTreeMap<&'static str, String>)>;

fn target(address: impl std::fmt::Display, port: &str) -> String {
    let address = address.to_string();
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The ports of TCP that something publishes.
fn tcp_ports(ports: &Value) -> Vec<String> {
    let tcp = items(ports).iter().filter(|port| text(port, "Protocol") == "tcp");
    tcp.map(|port| {
        assert!(["ingress", "host"].contains(&text(port, "PublishMode").as_str()));
        at(port, "PublishedPort").to_string()
    })
    .collect()
}

/// Its role `services`: each virtual address with each published port, or the default one.
fn prometheus_services(asker: &Asker) -> Targets {
    let services = asker.list("/services", &[]);
    let networks = prometheus_networks(asker);
    let mut found = Targets::new();
    for service in &services {
        // Its code reads both without asking whether they are there.
        let container = at(service, "Spec.TaskTemplate.ContainerSpec");
        let mode = at(service, "Spec.Mode");
        let mode = if mode["Replicated"].is_null() { "global" } else { "replicated" };
        let labels = BTreeMap::from([
            ("name", text(service, "Spec.Name")),
            ("image", text(container, "Image")),
            ("mode", mode.to_owned()),
        ]);
        for vip in items(&at(service, "Endpoint")["VirtualIPs"]) {
            let address = cidr(&text(vip, "Addr"));
            let network = networks[&text(vip, "NetworkID")].clone();
            let labels = labels.clone().into_iter().chain([("network", network)]).collect::<BTreeMap<_, _>>();
            let ports = tcp_ports(&at(service, "Endpoint")["Ports"]);
            let ports = if ports.is_empty() { vec!["80".to_owned()] } else { ports };
            found.extend(ports.iter().map(|port| (target(address, port), labels.clone())));
        }
    }
    found
}

fn prometheus_networks(asker: &Asker) -> BTreeMap<String, String> {
    let network = |network: &Value| {
        // Those of the node's own are listed too.
        assert!(["swarm", "local"].contains(&text(network, "Scope").as_str()));
        assert!(
            at(network, "Internal").is_boolean()
                && at(network, "Ingress").is_boolean()
                && at(network, "Labels").is_object()
        );
        (text(network, "Id"), text(network, "Name"))
    };
    asker.list("/networks", &[]).iter().map(network).collect()
}

/// Its role `nodes`.
fn prometheus_nodes(asker: &Asker) -> Targets {
    let node = |node: &Value| {
        let mut labels = BTreeMap::from([
            ("hostname", text(node, "Description.Hostname")),
            ("role", text(node, "Spec.Role")),
            ("availability", text(node, "Spec.Availability")),
            ("status", text(node, "Status.State")),
        ]);
        for field in
            ["Description.Engine.EngineVersion", "Description.Platform.Architecture", "Description.Platform.OS"]
        {
            text(node, field);
        }
        if let Some(manager) = node.get("ManagerStatus") {
            labels.insert("reachability", text(manager, "Reachability"));
            text(manager, "Addr");
        }
        (target(text(node, "Status.Addr"), "80"), labels)
    };
    asker.list("/nodes", &[]).iter().map(node).collect()
}

/// Its role `tasks`: host ports at the node's address, and each address on a network with each published port.
fn prometheus_tasks(asker: &Asker) -> Targets {
    let tasks = asker.list("/tasks", &[]);
    let by_id = |kind: &str| {
        let all = asker.list(kind, &[]);
        all.into_iter().map(|one| (text(&one, "ID"), one)).collect::<BTreeMap<_, _>>()
    };
    let (services, nodes, networks) = (by_id("/services"), by_id("/nodes"), prometheus_networks(asker));
    let mut found = Targets::new();
    for task in &tasks {
        // Of tasks that have just been removed with their service there is no more to tell.
        let Some(service) = services.get(&text(task, "ServiceID")) else { continue };
        let labels = BTreeMap::from([
            ("service", text(service, "Spec.Name")),
            ("state", text(task, "Status.State")),
            ("desired", text(task, "DesiredState")),
        ]);
        at(task, "Spec.ContainerSpec");
        let node = task["NodeID"].as_str().map(|id| &nodes[id]);
        for port in tcp_ports(&at(task, "Status")["PortStatus"]["Ports"]) {
            let node = node.expect("a port is open on some node");
            found.insert((target(text(node, "Status.Addr"), &port), labels.clone()));
        }
        for place in items(&task["NetworksAttachments"]) {
            let network = networks[&text(place, "Network.ID")].clone();
            let labels = labels.clone().into_iter().chain([("network", network)]).collect::<BTreeMap<_, _>>();
            let ports = tcp_ports(&at(service, "Endpoint")["Ports"]);
            let ports = if ports.is_empty() { vec!["80".to_owned()] } else { ports };
            for address in items(at(place, "Addresses")).iter().map(|address| cidr(address.as_str().unwrap())) {
                found.extend(ports.iter().map(|port| (target(address, port), labels.clone())));
            }
        }
    }
    found
}

/// The addresses at which a task's own processes listen on a network's device.
fn own_addresses(host: &Host, container: &str) -> String {
    ok(host, &["exec", container, "ip", "-o", "addr"])
}

/// Portainer's agent in a container: who it is, of what service, and where the others are.
fn portainer(swarm: &Swarm, host: usize, container: &str) -> BTreeSet<IpAddr> {
    let asker = Asker { host: &swarm.hosts[host], version: "1.41" };
    let info = asker.get("/info");
    assert_eq!(
        (text(&info, "Name"), at(&info, "Swarm.ControlAvailable")),
        (swarm.hosts[host].name(), &Value::Bool(true))
    );
    let node = asker.get(&format!("/nodes/{}", text(&info, "Swarm.NodeID")));
    assert!(at(&node, "ManagerStatus").is_object());
    // By the name that it finds itself under.
    let hostname = ok(&swarm.hosts[host], &["exec", container, "hostname"]);
    let own = asker.get(&format!("/containers/{}/json", hostname.trim()));
    let service = own["Config"]["Labels"]["com.docker.swarm.service.name"].as_str().unwrap();
    let found = ok(&swarm.hosts[host], &["exec", container, "nslookup", &format!("tasks.{service}")]);
    found.lines().filter_map(|line| line.strip_prefix("Address: ")?.trim().parse().ok()).collect()
}

pub fn finds_what_runs(swarm: &Swarm, host: usize) {
    let at_host = &swarm.hosts[host];
    let create = ["service", "create", "--detach", "--network", "found"];
    ok(at_host, &["network", "create", "--driver", "overlay", "--attachable", "found"]);
    for (name, more) in [
        ("web", ["--replicas", "2", "--label", "traefik.enable=true", "--publish", "30180:80"].as_slice()),
        (
            "vip",
            &[
                "--replicas",
                "1",
                "--label",
                "traefik.swarm.lbswarm=true",
                "--publish",
                "mode=host,published=30181,target=81",
            ],
        ),
        ("agent", &["--mode", "global"]),
    ] {
        ok(at_host, &[create.as_slice(), &["--name", name], more, &[IMAGE, "sleep", "1000"]].concat());
    }
    let web = swarm.running(host, "web", 2);
    let vip = swarm.running(host, "vip", 1).remove(0);
    let agents = swarm.running(host, "agent", swarm.hosts.len());

    for version in ["1.24", "1.50"] {
        let backends = traefik(&Asker { host: at_host, version });
        let names: Vec<&String> = backends.keys().collect();
        assert_eq!(names.len(), 3 + agents.len(), "{names:?}");
        for task in &web {
            let address = backends[&format!("web.{}", task.slot)]["found"];
            assert!(own_addresses(at_host, &task.container).contains(&address.to_string()));
        }
        let balanced = backends["vip"]["found"].to_string();
        assert!(ok(at_host, &["exec", &web[0].container, "nslookup", "vip"]).contains(&balanced));
        assert!(!own_addresses(at_host, &vip.container).contains(&format!("{balanced}/")));
    }

    let asker = Asker { host: at_host, version: "1.50" };
    let (services, tasks, nodes) = (prometheus_services(&asker), prometheus_tasks(&asker), prometheus_nodes(&asker));
    let of = |targets: &Targets, key: &str, value: &str| {
        targets.iter().filter(|(_, labels)| labels.get(key).is_some_and(|found| found == value)).count()
    };
    assert_eq!((of(&services, "name", "agent"), of(&nodes, "status", "ready")), (1, swarm.hosts.len()));
    assert!(
        services.iter().any(|(target, labels)| labels["name"] == "web"
            && labels["network"] == "found"
            && target.ends_with(":30180"))
    );
    let found = |service: &str| {
        let on_network = tasks
            .iter()
            .filter(|(_, labels)| labels["service"] == service && labels.get("network").is_some_and(|n| n == "found"));
        on_network.count()
    };
    assert_eq!((found("web"), found("agent")), (2, agents.len()));
    let home = swarm.hosts.iter().enumerate().find(|(index, _)| swarm.node_id(host, *index) == vip.node).unwrap().1;
    assert!(
        tasks.iter().any(|(target, labels)| *target == format!("{}:30181", home.addr()) && labels["service"] == "vip")
    );

    let here = agents.iter().find(|task| task.node == swarm.node_id(host, host)).unwrap();
    assert_eq!(portainer(swarm, host, &here.container).len(), agents.len());
    ok(at_host, &["service", "rm", "web", "vip", "agent"]);
    eventually("the network to be free", PATIENCE, || {
        let output = docker(at_host, &["network", "rm", "found"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
}
