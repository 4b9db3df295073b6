//! Networks and what is around the nodes: LANs of their own, which no network may take from them.

use super::client::in_task;
use super::lab::{Host, Lab, eventually};
use super::refusals::refused_start;
use super::swarm::{PATIENCE, Swarm};

fn sh(host: &Host, script: &str) -> String {
    let output = host.command("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The first of a network's subnets, once it has one.
fn subnet(swarm: &Swarm, network: &str) -> String {
    eventually("the network to have a subnet", PATIENCE, || {
        let shown = swarm.hosts[0].get(&format!("/networks/{network}"))?;
        shown["IPAM"]["Config"][0]["Subnet"].as_str().map(str::to_owned).ok_or_else(|| shown.to_string())
    })
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn no_network_takes_a_nodes_own_lan_from_it() {
    let mut lab = Lab::new(2);
    // Of the default pool. The first /24, which the ingress network has before the second host comes, is not in it.
    sh(&lab.hosts[1], "ip link add lan0 type bridge; ip addr add 10.0.1.1/24 dev lan0; ip link set lan0 up");
    lab.hosts.iter_mut().for_each(|host| host.start_daemon(&[]));
    let mut swarm = Swarm::begin(lab);
    swarm.hosts[0].ok(&["network", "create", "back"]);
    assert_eq!(subnet(&swarm, "back"), "10.0.2.0/24");

    let refused = swarm.hosts[0].refused(&["network", "create", "--subnet", "10.0.1.128/25", "lan"]);
    let node = swarm.hosts[1].name();
    assert!(refused.contains(&format!("10.0.1.0/24, which node {node} reaches outside of the swarm")), "{refused}");
    let stack = "networks: { lan: { ipam: { config: [{ subnet: 10.0.1.0/25 }] } } }
services: { web: { image: flok/whoami:latest, networks: [lan] } }";
    let file = swarm.stack_file("lan", stack);
    let refused = swarm.hosts[1].refused(&["stack", "deploy", "--detach", "-c", &file, "lan"]);
    assert!(refused.contains("10.0.1.0/24") && refused.contains("lan_lan"), "{refused}");
    assert!(swarm.hosts[0].get("/networks/lan_lan").unwrap()["Id"].is_null(), "nothing half done");

    // What comes later is known within moments.
    sh(&swarm.hosts[1], "ip route add 10.0.5.0/24 via 10.0.1.9");
    eventually("the new route to be known", PATIENCE, || {
        let output = swarm.hosts[0].flok(&["network", "create", "--subnet", "10.0.5.0/24", "later"]);
        if !output.status.success() {
            return Ok(());
        }
        swarm.hosts[0].ok(&["network", "rm", "later"]);
        Err("it is not refused".to_owned())
    });
    // Nor does a node come back that would have a network's addresses for its own tasks alone.
    let known = swarm.hosts[1].data_dir().join("network/networks");
    eventually("the networks to be noted", PATIENCE, || match std::fs::read_to_string(&known).unwrap_or_default() {
        noted if noted.contains("10.0.2.0") => Ok(()),
        noted => Err(noted),
    });
    swarm.host(1).stop_daemon();
    let host = &swarm.hosts[1];
    let (data, socket, listen) = (host.data_dir(), host.socket(), host.underlay());
    let own = ["--data-dir", data.to_str().unwrap(), "--socket", socket.to_str().unwrap(), "--listen-addr", &listen];
    let refused = refused_start(host, None, &[own.as_slice(), &["--local-subnet", "10.0.2.0/24"]].concat());
    assert!(
        refused.contains("10.0.2.0/24 of this node overlaps with 10.0.2.0/24 of the swarm's network back"),
        "{refused}"
    );
    swarm.host(1).start_daemon(&[]);
    swarm.nodes_are(1, 2, "ready");
    // Nor does a machine come that would be cut off by a network that is there.
    swarm.hosts[1].ok(&["swarm", "leave", "--force"]);
    sh(&swarm.hosts[1], "ip route add 10.0.0.0/20 via 10.0.1.9");
    let token = swarm.token("worker");
    let refused = swarm.hosts[1].refused(&["swarm", "join", "--token", &token, &swarm.hosts[0].addr()]);
    assert!(refused.contains("reaches 10.0.0.0/20 outside of the swarm"), "{refused}");
    let route = sh(&swarm.hosts[1], "ip route get 10.0.1.9");
    assert!(route.contains("dev lan0"), "{route}");
}

/// The message of a refused request to the Engine API.
fn post(host: &Host, path: &str, body: &serde_json::Value) -> String {
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "10", "-X", "POST", "-H", "Content-Type: application/json", "--unix-socket"])
        .arg(host.socket())
        .args(["--data", &body.to_string(), &format!("http://flok{path}")])
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["message"].as_str().unwrap_or_else(|| panic!("{body} was taken: {answer}")).to_owned()
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn bad_networks_are_refused_from_everywhere_and_nothing_is_stored() {
    const MTU: &str = "com.docker.network.driver.mtu";
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    let host = &swarm.hosts[0];
    host.ok(&["network", "create", "--subnet", "10.77.0.0/24", "--opt", &format!("{MTU}=1400"), "lan"]);
    // Subnet, gateway, range, and what is said of them.
    let subnets: [(&str, &str, &str, &str); 12] = [
        ("10.78.0.0", "", "", "write an address and a prefix"),
        ("10.78.0.300/24", "", "", "no IP address"),
        ("10.78.0.0/33", "", "", "longer than the address"),
        ("10.78.0.1/24", "", "", "bits set below the prefix"),
        ("10.78.0.0/31", "", "", "has no room"),
        ("10.77.0.0/16", "", "", "overlaps with 10.77.0.0/24 of network lan"),
        ("10.99.0.0/16", "", "", "overlaps with 10.99.0.0/24, which node"),
        ("198.19.0.0/24", "", "", "gives its tasks their local addresses"),
        ("127.0.0.0/24", "", "", "loopback"),
        ("fd00:78::/64", "", "", "enable IPv6"),
        ("10.78.0.0/24", "10.79.0.1", "", "gateway"),
        ("10.78.0.0/24", "", "10.79.0.0/25", "range"),
    ];
    for (subnet, gateway, range, part) in subnets {
        let given = |flag, value: &'static str| if value.is_empty() { vec![] } else { vec![flag, value] };
        let flags =
            [vec!["network", "create", "--subnet", subnet], given("--gateway", gateway), given("--ip-range", range)];
        let said = host.refused(&[flags.concat(), vec!["bad"]].concat());
        assert!(said.contains(part), "{subnet}: {said}");
        let config = serde_json::json!({"Subnet": subnet, "Gateway": gateway, "IPRange": range});
        let body = serde_json::json!({"Name": "bad", "Driver": "overlay", "IPAM": {"Config": [config]}});
        let said = post(host, "/networks/create", &body);
        assert!(said.contains(part), "{subnet}: {said}");
        let written = |key, value: &str| if value.is_empty() { String::new() } else { format!(", {key}: '{value}'") };
        let ipam = format!("{{ subnet: '{subnet}'{}{} }}", written("gateway", gateway), written("ip_range", range));
        let stack = format!(
            "services: {{ web: {{ image: flok/whoami:latest, networks: [bad] }} }}\nnetworks: {{ bad: {{ ipam: {{ config: [{ipam}] }} }} }}"
        );
        let said = host.refused(&["stack", "deploy", "--detach", "-c", &swarm.stack_file("s", &stack), "s"]);
        assert!(said.contains(part), "{subnet}: {said}");
    }
    eventually("the nodes' paths to be known", PATIENCE, || {
        let output = host.flok(&["network", "create", "--opt", &format!("{MTU}=9000"), "bad"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            host.ok(&["network", "rm", "bad"]);
        }
        if said.contains("is 9000, and the path between the nodes takes 1450") { Ok(()) } else { Err(said) }
    });
    for (option, part) in [
        (format!("{MTU}=100"), "give a number from 576 to 65535"),
        (format!("{MTU}=big"), "give a number from 576 to 65535"),
        (
            "com.example.speed=fast".to_owned(),
            "knows no option \"com.example.speed\", only \"com.docker.network.driver.mtu\"",
        ),
    ] {
        let said = host.refused(&["network", "create", "--opt", &option, "bad"]);
        assert!(said.contains(part), "{option}: {said}");
        let (key, value) = option.split_once('=').unwrap();
        let said = post(
            host,
            "/networks/create",
            &serde_json::json!({"Name": "bad", "Driver": "overlay", "Options": {key: value}}),
        );
        assert!(said.contains(part), "{option}: {said}");
        let stack = format!(
            "services: {{ web: {{ image: flok/whoami:latest, networks: [bad] }} }}\nnetworks: {{ bad: {{ driver_opts: {{ {key}: '{value}' }} }} }}"
        );
        let said = host.refused(&["stack", "deploy", "--detach", "-c", &swarm.stack_file("s", &stack), "s"]);
        assert!(said.contains(part), "{option}: {said}");
    }
    let driver = host.refused(&["network", "create", "--driver", "macvlan", "bad"]);
    assert!(driver.contains("\"macvlan\" cannot span a swarm: use overlay"), "{driver}");
    let alias =
        host.refused(&["service", "create", "--name", "bad", "--network", "name=lan,alias=d b", "flok/whoami:latest"]);
    assert!(alias.contains("is no DNS name"), "{alias}");
    let missing =
        "services: { web: { image: flok/whoami:latest, networks: [out] } }\nnetworks: { out: { external: true } }";
    let said = host.refused(&["stack", "deploy", "--detach", "-c", &swarm.stack_file("s", missing), "s"]);
    assert!(said.contains("\"out\" is declared as external, but could not be found"), "{said}");
    let names = |args: &[&str]| host.ok(&[args, &["--format", "{{.Name}}"]].concat());
    let networks = names(&["network", "ls", "--filter", "scope=swarm"]);
    assert_eq!(networks.lines().filter(|name| *name != "ingress").collect::<Vec<_>>(), ["lan"]);
    assert_eq!(names(&["service", "ls"]), "", "nothing half done");

    // What is on a network is named, and what was asked of its packets is heeded.
    for name in ["api", "web"] {
        host.ok(&["service", "create", "--detach", "--name", name, "--network", "lan", "flok/whoami:latest"]);
    }
    let in_use = host.refused(&["network", "rm", "lan"]);
    assert!(in_use.contains("network lan is in use by services api, web"), "{in_use}");
    let task = swarm.running(0, "web", 1).remove(0);
    let routes = in_task(&swarm, &task, || std::process::Command::new("ip").arg("route").output().unwrap());
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    assert!(routes.lines().any(|route| route.starts_with("10.77.0.0/24") && route.contains("mtu 1400")), "{routes}");
}
