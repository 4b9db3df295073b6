//! What a stack file says of networks, and what its tasks find by name: by `flok stack deploy` and by the docker command.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Output;

use serde_json::{Value, json};

use super::client::{from_beside, get, home, in_task, said, within, works};
use super::dns::{A, AAAA, FOUND, NO_SUCH_NAME, NameServer, Over, PTR, Reply, ask_resolver, reversed};
use super::docker;
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm, Task};

/// `NN` stands for a number of its own.
const STACK: &str = "
services:
  web:
    image: flok/whoami:latest
    hostname: 'web-{{.Task.Slot}}'
    networks:
      front: { aliases: [shop, shop.example] }
      back: { aliases: [api] }
    deploy: { replicas: 2 }
  rotated:
    image: flok/whoami:latest
    networks: [front]
    deploy: { replicas: 2, endpoint_mode: dnsrr }
  vault:
    image: flok/whoami:latest
    networks: [closed]
  common:
    image: flok/whoami:latest
    networks: [lan]
  nobody:
    image: flok/none:latest
    networks: [front]
  own:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    networks: [front]
    dns_search: [own.example]
    dns_opt: [timeout:7]
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    networks: [front, back, closed, lan]
    deploy: { mode: global }
networks:
  front:
    enable_ipv6: true
    ipam: { config: [ { subnet: 10.NN.0.0/24 }, { subnet: 'fdNN::/64' } ] }
    labels: { tier: front }
  back:
    attachable: true
    driver_opts: { com.docker.network.driver.mtu: '1400' }
  closed: { internal: true }
  lan: { external: true }
";

/// What the docker command's own schema of stack files has no word for.
const DOCKER_HAS_NO: [&str; 3] = ["    dns_opt: [timeout:7]\n", "    enable_ipv6: true\n", ", { subnet: 'fd72::/64' }"];

const SERVICES: [(&str, usize); 6] =
    [("web", 2), ("rotated", 2), ("vault", 1), ("common", 1), ("own", 1), ("client", 2)];

/// A stack, and what the API says of it.
struct Stack<'a> {
    swarm: &'a Swarm,
    name: &'a str,
    by_docker: bool,
}

type Addresses = BTreeSet<IpAddr>;

impl Stack<'_> {
    /// How many the network `front` has.
    fn families(&self) -> usize {
        if self.by_docker { 1 } else { 2 }
    }

    fn service(&self, service: &str) -> String {
        format!("{}_{service}", self.name)
    }

    fn network(&self, network: &str) -> Value {
        let name = if network == "lan" { network.to_owned() } else { self.service(network) };
        self.swarm.hosts[0].get(&format!("/networks/{name}")).unwrap()
    }

    fn running(&self, service: &str) -> Vec<Task> {
        let count = SERVICES.iter().find(|(name, _)| *name == service).unwrap().1;
        self.swarm.running(0, &self.service(service), count)
    }

    /// A service's virtual addresses on a network.
    fn vip(&self, service: &str, network: &str) -> Addresses {
        let service = self.swarm.hosts[0].get(&format!("/services/{}", self.service(service))).unwrap();
        let all = service["Endpoint"]["VirtualIPs"].as_array().cloned().unwrap_or_default();
        let id = &self.network(network)["Id"];
        all.iter().filter(|vip| vip["NetworkID"] == *id).map(|vip| address(&vip["Addr"])).collect()
    }

    fn of_task(&self, task: &Task, network: &str) -> Addresses {
        let task = self.swarm.hosts[0].get(&format!("/tasks/{}", task.id)).unwrap();
        let id = &self.network(network)["Id"];
        let all = task["NetworksAttachments"].as_array().unwrap().iter();
        let here = all.filter(|attachment| attachment["Network"]["ID"] == *id);
        here.flat_map(|attachment| attachment["Addresses"].as_array().unwrap()).map(address).collect()
    }

    fn of_tasks(&self, service: &str, network: &str) -> Addresses {
        self.running(service).iter().flat_map(|task| self.of_task(task, network)).collect()
    }
}

fn address(text: &Value) -> IpAddr {
    text.as_str().unwrap().split('/').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn networks_and_names_of_a_stack_are_as_its_file_says_for_flok_and_for_docker() {
    let swarm = Swarm::of(2);
    ["whoami", "busybox"].iter().for_each(|image| swarm.load(image));
    let server = NameServer::beside(&swarm);
    (0..2).for_each(|host| server.is_of(&swarm, host));
    let deploy = |tool: &str, name: &str, number: u8| -> Output {
        let mut text = STACK.replace("NN", &number.to_string());
        if tool == "docker" {
            DOCKER_HAS_NO.iter().for_each(|part| text = text.replacen(part, "", 1));
        }
        let file = swarm.stack_file(name, &text);
        let command = ["stack", "deploy", "--detach", "-c", &file, name];
        if tool == "docker" { docker::docker(&swarm.hosts[1], &command) } else { swarm.hosts[1].flok(&command) }
    };
    let tools = [("flok", "s", 71), ("docker", "d", 72)];
    for (tool, name, number) in tools {
        let output = deploy(tool, name, number);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("lan"), "{tool}: {errors}");
        assert_eq!(swarm.hosts[0].ok(&["service", "ls", "-q"]), "", "{tool}: nothing half done");
        let of_swarm = swarm.hosts[0].ok(&["network", "ls", "-q", "--filter", "scope=swarm"]);
        assert_eq!(of_swarm.lines().count(), 1, "{tool}: nothing half done");
    }
    swarm.hosts[0].ok(&["network", "create", "--driver", "overlay", "lan"]);
    for (tool, name, number) in tools {
        let output = deploy(tool, name, number);
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for (tool, name, number) in tools {
        let stack = Stack { swarm: &swarm, name, by_docker: tool == "docker" };
        SERVICES.iter().for_each(|(service, _)| drop(stack.running(service)));
        networks_are_as_the_file_says(&stack, number);
        names_lead_to_what_they_mean(&stack);
        an_internal_network_has_no_way_out(&stack, &server);
        names_outside_are_asked_for_as_the_host_or_the_service_says(&stack, &server);
    }
    an_unhealthy_task_is_no_longer_found(&swarm, &Stack { swarm: &swarm, name: "s", by_docker: false });
}

fn networks_are_as_the_file_says(stack: &Stack, number: u8) {
    let front = stack.network("front");
    let subnets: BTreeSet<&str> =
        front["IPAM"]["Config"].as_array().unwrap().iter().filter_map(|config| config["Subnet"].as_str()).collect();
    let (four, six) = (format!("10.{number}.0.0/24"), format!("fd{number}::/64"));
    let given = [four.as_str(), six.as_str()].into_iter().take(stack.families());
    assert_eq!(subnets, given.collect());
    assert_eq!(front["Labels"], json!({ "com.docker.stack.namespace": stack.name, "tier": "front" }));
    for (network, internal, attachable) in [("front", false, false), ("back", false, true), ("closed", true, false)] {
        let found = stack.network(network);
        assert_eq!((&found["Internal"], &found["Attachable"]), (&json!(internal), &json!(attachable)), "{network}");
    }
    assert_eq!(stack.network("back")["Options"]["com.docker.network.driver.mtu"], "1400");
    // One address of each family of each network, and a way to each by all of them.
    let client = stack.running("client").remove(0);
    for (service, network, families) in
        [("web", "front", stack.families()), ("web", "back", 1), ("vault", "closed", 1), ("common", "lan", 1)]
    {
        let tasks = stack.of_tasks(service, network);
        assert_eq!(tasks.len(), families * stack.running(service).len(), "{service} on {network}: {tasks:?}");
        assert_eq!(stack.of_task(&client, network).len(), families, "{network}");
        let vips = stack.vip(service, network);
        assert_eq!(vips.len(), families, "{service} on {network}: {vips:?}");
        for to in tasks.into_iter().chain(vips) {
            let what = format!("{service} on {network}: {to}");
            let answer = works(&what, || in_task(stack.swarm, &client, move || get((to, 80).into(), "/")));
            let seen: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
            assert!(stack.of_task(&client, network).contains(&seen.ip()), "{what} sees {seen}");
        }
    }
}

fn names_lead_to_what_they_mean(stack: &Stack) {
    let name = stack.name;
    let (four, six) = (IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6 as fn(&IpAddr) -> bool);
    let only = |addresses: Addresses, family: fn(&IpAddr) -> bool| addresses.into_iter().filter(family).collect();
    let vip = |service, network, family| -> Addresses { only(stack.vip(service, network), family) };
    let tasks = |service, network, family| -> Addresses { only(stack.of_tasks(service, network), family) };
    let (web, rotated) = (stack.running("web"), tasks("rotated", "front", four));
    let first = web.iter().find(|task| task.slot == 1).unwrap();
    let on = |network: &str| format!(".{}", stack.service(network));
    let table: Vec<(String, u16, Vec<Addresses>)> = vec![
        // A name, and the sets of addresses one of which it may have: a service on two networks has one on either.
        ("web".into(), A, vec![vip("web", "front", four), vip("web", "back", four)]),
        ("WEB".into(), A, vec![vip("web", "front", four), vip("web", "back", four)]),
        (format!("web.{name}"), A, vec![vip("web", "front", four), vip("web", "back", four)]),
        (stack.service("web"), A, vec![vip("web", "front", four), vip("web", "back", four)]),
        ("web".to_owned() + &on("front"), A, vec![vip("web", "front", four)]),
        ("web".to_owned() + &on("back"), A, vec![vip("web", "back", four)]),
        ("web".into(), AAAA, vec![vip("web", "front", six)]),
        ("tasks.web".into(), A, vec![tasks("web", "front", four), tasks("web", "back", four)]),
        (format!("tasks.web.{name}"), A, vec![tasks("web", "front", four), tasks("web", "back", four)]),
        ("tasks.web".to_owned() + &on("back"), A, vec![tasks("web", "back", four)]),
        ("tasks.web".into(), AAAA, vec![tasks("web", "front", six)]),
        ("shop".to_owned() + &on("front"), A, vec![vip("web", "front", four)]),
        ("api".to_owned() + &on("back"), A, vec![vip("web", "back", four)]),
        ("web-1".to_owned() + &on("front"), A, vec![only(stack.of_task(first, "front"), four)]),
        ("rotated".into(), A, vec![rotated.clone()]),
        ("rotated".into(), AAAA, vec![tasks("rotated", "front", six)]),
        ("tasks.rotated".into(), A, vec![rotated]),
        ("vault".into(), A, vec![vip("vault", "closed", four)]),
        ("vault".into(), AAAA, vec![Addresses::new()]),
        ("common".into(), A, vec![vip("common", "lan", four)]),
        ("nobody".into(), A, vec![Addresses::new()]),
        ("tasks.nobody".into(), A, vec![Addresses::new()]),
    ];
    for client in stack.running("client") {
        for (name, kind, meant) in &table {
            for over in [Over::Udp, Over::Tcp] {
                eventually(&format!("{name}, type {kind}, {over:?}"), PATIENCE, || {
                    let reply = ask(stack.swarm, &client, over, name, *kind)?;
                    let found: Addresses = reply.addresses.iter().copied().collect();
                    if reply.code == FOUND && meant.contains(&found) {
                        Ok(())
                    } else {
                        Err(format!("{reply:?}: {meant:?}"))
                    }
                });
            }
        }
        // Aliases are a network's own: two stacks that call something so are on others.
        for (alias, network) in [("shop", "front"), ("shop.example", "front"), ("api", "back")] {
            let reply = ask(stack.swarm, &client, Over::Udp, alias, A).unwrap();
            let found: Addresses = reply.addresses.into_iter().collect();
            assert_eq!(found, vip("web", network, four), "{alias}");
        }
        let ptr = |address: IpAddr| ask(stack.swarm, &client, Over::Udp, &reversed(address), PTR).unwrap();
        for address in stack.vip("web", "front") {
            assert_eq!(ptr(address).names, [stack.service("web") + &on("front")], "{address}");
        }
        for address in stack.of_task(first, "front") {
            let named = format!("{}.1.{}{}", stack.service("web"), first.id, on("front"));
            assert_eq!(ptr(address).names, [named], "{address}");
        }
        let nobodys = ptr(last_of(stack));
        assert_eq!((nobodys.code, nobodys.names.len()), (NO_SUCH_NAME, 0));
        // All of its tasks, each at the head sometimes.
        let firsts: BTreeSet<IpAddr> =
            (0..40).map(|_| ask(stack.swarm, &client, Over::Udp, "rotated", A).unwrap().addresses[0]).collect();
        assert_eq!(firsts.len(), 2, "{firsts:?}");
    }
}

/// An address of `front` that nobody has yet.
fn last_of(stack: &Stack) -> IpAddr {
    let subnets = stack.network("front")["IPAM"]["Config"].as_array().cloned().unwrap();
    let mut four = subnets.iter().filter_map(|config| config["Subnet"].as_str()?.strip_suffix(".0/24"));
    format!("{}.254", four.next().unwrap()).parse().unwrap()
}

fn ask(swarm: &Swarm, task: &Task, over: Over, name: &str, kind: u16) -> Result<Reply, String> {
    let name = name.to_owned();
    in_task(swarm, task, move || ask_resolver(over, &name, kind)).map_err(|error| error.to_string())
}

fn an_internal_network_has_no_way_out(stack: &Stack, server: &NameServer) {
    let swarm = stack.swarm;
    let (vault, client) = (stack.running("vault").remove(0), stack.running("client").remove(0));
    let outside: SocketAddr = (NameServer::ADDRESS.parse::<IpAddr>().unwrap(), 7080).into();
    let listener = from_beside(swarm, move || std::net::TcpListener::bind(outside).unwrap());
    let reaches = |task: &Task| {
        in_task(swarm, task, move || std::net::TcpStream::connect_timeout(&outside, super::client::WITHIN))
    };
    assert!(reaches(&client).is_ok());
    assert!(reaches(&vault).is_err());
    drop(listener);
    let known = format!("vault.{}", NameServer::KNOWN.0);
    for name in ["web", NameServer::KNOWN.0, &known] {
        let reply = ask(swarm, &vault, Over::Udp, name, A).unwrap();
        assert_eq!((reply.code, reply.addresses.len()), (NO_SUCH_NAME, 0), "{name}");
    }
    assert!(!server.asked().contains(&known));
}

fn names_outside_are_asked_for_as_the_host_or_the_service_says(stack: &Stack, server: &NameServer) {
    let swarm = stack.swarm;
    let (client, own) = (stack.running("client").remove(0), stack.running("own").remove(0));
    let told = |task: &Task, program: &str, argument: &str| {
        let output =
            swarm.hosts[home(swarm, task)].in_container(&task.container, program).arg(argument).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let lines = |task: &Task| told(task, "cat", "/etc/resolv.conf").lines().map(str::to_owned).collect::<BTreeSet<_>>();
    for (task, expected) in [
        (&client, ["nameserver 127.0.0.11", "search lan.example", "options timeout:3"]),
        (
            &own,
            [
                "nameserver 127.0.0.11",
                "search own.example",
                if stack.by_docker { "options timeout:3" } else { "options timeout:7" },
            ],
        ),
    ] {
        let found = lines(task);
        assert!(expected.iter().all(|line| found.contains(*line)), "{found:?}");
        for over in [Over::Udp, Over::Tcp] {
            let reply = ask(swarm, task, over, NameServer::KNOWN.0, A).unwrap();
            assert_eq!(reply.addresses, [IpAddr::from(NameServer::KNOWN.1)], "{over:?}");
        }
        let reply = ask(swarm, task, Over::Udp, "nowhere.example", A).unwrap();
        assert_eq!((reply.code, reply.addresses.len()), (NO_SUCH_NAME, 0));
    }
    assert!(server.asked().contains(&"nowhere.example".to_owned()));
    // A short name is looked for in the domains: by the one in the host's, by the other in its own.
    let known = NameServer::KNOWN.1.to_string();
    assert!(told(&client, "nslookup", "printer").contains(&known));
    assert!(!told(&own, "nslookup", "printer").contains(&known));
    assert!(server.asked().contains(&"printer.own.example".to_owned()), "{:?}", server.asked());
}

/// It is healthy while a file of its host's name is in `STATE`.
const WELL: &str = "
services:
  well:
    image: flok/busybox:latest
    hostname: '{{.Node.Hostname}}'
    command: [sh, -c, 'mkdir /w; echo \"Hostname: $$(hostname)\" > /w/index.html; exec httpd -f -p 80 -h /w']
    volumes: ['STATE:/state']
    healthcheck: { test: 'test -f /state/$$(hostname)', interval: 300ms, retries: 1 }
    stop_signal: SIGKILL
    networks: [lan]
    deploy: { mode: global, restart_policy: { delay: 0s } }
networks: { lan: { external: true } }
";

fn an_unhealthy_task_is_no_longer_found(swarm: &Swarm, clients: &Stack) {
    let state = swarm.dir().join("state");
    fs::create_dir_all(&state).unwrap();
    let healthy = |name: &str| fs::write(state.join(name), []).unwrap();
    ["n1", "n2"].iter().for_each(|name| healthy(name));
    swarm.deploy(0, "h", &WELL.replace("STATE", &state.display().to_string()));
    let well = swarm.running(0, "h_well", 2);
    let vip = Stack { swarm, name: "h", by_docker: false }.vip("well", "lan").pop_first().unwrap();
    let is_found = |tasks: &[Task], names: &[&str]| {
        let addresses: Addresses = tasks.iter().flat_map(|task| swarm.addresses(0, &task.id)).collect();
        for client in clients.running("client") {
            eventually(&format!("{names:?} to be found, and nobody else"), PATIENCE, || {
                let reply = ask(swarm, &client, Over::Udp, "tasks.well", A)?;
                let found: Addresses = reply.addresses.iter().copied().collect();
                if reply.code != FOUND || found != addresses {
                    return Err(format!("{reply:?}, not {addresses:?}"));
                }
                // Whoever is in the balance of two would be missed once in a billion.
                let answering = within(&super::client::netns_of(swarm, &client), move || {
                    let name = || get((vip, 80).into(), "/").map(|answer| said(&answer, "Hostname"));
                    (0..30).map(|_| name()).collect::<std::io::Result<BTreeSet<_>>>()
                });
                let answering = answering.join().unwrap().map_err(|error| error.to_string())?;
                if answering.iter().eq(names) { Ok(()) } else { Err(format!("{answering:?} answer")) }
            });
        }
    };
    is_found(&well, &["n1", "n2"]);
    fs::remove_file(state.join("n1")).unwrap();
    let ill = swarm.task_that(0, "h_well", "that was unhealthy", |task| task.state == "failed");
    let rest: Vec<Task> = well.into_iter().filter(|task| task.id != ill.id).collect();
    is_found(&rest, &["n2"]);
    healthy("n1");
    is_found(&swarm.running(0, "h_well", 2), &["n1", "n2"]);
}
