//! Networks and what is around the nodes: LANs of their own, which no network may take from them.

use super::lab::{Host, Lab, eventually};
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
    let swarm = Swarm::begin(lab);
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
    // Nor does a machine come that would be cut off by a network that is there.
    swarm.hosts[1].ok(&["swarm", "leave", "--force"]);
    sh(&swarm.hosts[1], "ip route add 10.0.0.0/20 via 10.0.1.9");
    let token = swarm.token("worker");
    let refused = swarm.hosts[1].refused(&["swarm", "join", "--token", &token, &swarm.hosts[0].addr()]);
    assert!(refused.contains("reaches 10.0.0.0/20 outside of the swarm"), "{refused}");
    let route = sh(&swarm.hosts[1], "ip route get 10.0.1.9");
    assert!(route.contains("dev lan0"), "{route}");
}
