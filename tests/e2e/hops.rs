//! `flok network doctor` for a pair of tasks names the hop that was broken by hand, on the node where it was.

use std::net::IpAddr;
use std::process::Stdio;

use super::lab::{Host, eventually, kill_all_of};
use super::swarm::{PATIENCE, Swarm};

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    networks: [a]
    deploy: { mode: global }
networks: { a: {} }
";

fn sh(host: &Host, script: &str) -> String {
    let output = host.command("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What is broken between two tasks: node, hop, detail.
fn broken(swarm: &Swarm, from: &str, to: &str) -> Result<Vec<(String, String, String)>, String> {
    let report = swarm.hosts[0].get(&format!("/flok/v1/network/doctor?from={from}&to={to}"))?;
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().ok_or("no findings")?;
    let broken = findings.iter().filter(|finding| finding["ok"] == false);
    Ok(broken.map(|one| (text(one, "node"), text(one, "what"), text(one, "detail"))).collect())
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn each_hop_that_is_broken_by_hand_is_named_with_its_node() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "s", WEB);
    let web = swarm.running(0, "s_web", 2);
    let on = |host: usize| web.iter().find(|task| task.node == swarm.node_id(0, host)).unwrap();
    let (here, there) = (on(0), on(1));
    let [own, other]: [IpAddr; 2] = [here, there].map(|task| swarm.addresses(0, &task.id)[0]);
    let whole = || {
        eventually("a whole way", PATIENCE, || {
            let found = broken(&swarm, &here.id, &there.id)?;
            if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };
    whole();
    let gateway = sh(&swarm.hosts[0], &format!("ip route show {other}")).split(' ').nth(2).unwrap().to_owned();
    let veth = sh(&swarm.hosts[0], &format!("ip route get {own}")).split(' ').nth(2).unwrap().to_owned();
    // What is flok's own is made again at once, so it is broken again and again until it was seen.
    for (host, harm, hop, detail) in [
        (0, format!("ip route del {other}/32"), "route", format!("{other} via {gateway} by flok0")),
        (0, format!("ip neigh del {gateway} dev flok0"), "neighbour", format!("{gateway} on flok0")),
        (0, format!("nft delete element inet flok endpoints4 '{{ {other} }}'"), "endpoint", "endpoints4".to_owned()),
        (1, "ip link set flok0 down".to_owned(), "overlay device", "flok0".to_owned()),
        (0, format!("ip link set {veth} down"), "interface", veth.clone()),
        (1, "nft delete element inet flok members4 '{ 10.99.0.1 }'".to_owned(), "member", "members4".to_owned()),
    ] {
        let script = format!("while :; do {harm} 2>/dev/null; done");
        let mut command = swarm.hosts[host].command("sh");
        let harming = command.args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
        let node = swarm.hosts[host].name();
        eventually(&format!("{harm}: to be seen"), PATIENCE, || {
            let found = broken(&swarm, &here.id, &there.id)?;
            let named = found.iter().any(|(n, what, said)| *n == node && what == hop && said.contains(&detail));
            if named { Ok(()) } else { Err(format!("{found:?}")) }
        });
        kill_all_of(harming);
        whole();
    }
    // What is another's stays.
    for (host, hook, rule, said) in [
        (0, "forward", format!("ip daddr {other} tcp dport 1-65535 drop"), format!("what goes from {own} to {other}")),
        (1, "forward", format!("ip daddr {other} drop"), format!("what goes from {own} to {other}")),
        (1, "input", "udp dport 4789 drop".to_owned(), "the overlay's datagrams of 10.99.0.1".to_owned()),
        (1, "output", "ip daddr 10.99.0.1 udp dport 4789 drop".to_owned(), "datagrams to 10.99.0.1".to_owned()),
    ] {
        let table = format!("table ip other {{ chain c {{ type filter hook {hook} priority 5; {rule}; }}; }}");
        sh(&swarm.hosts[host], &format!("nft '{table}'"));
        let node = swarm.hosts[host].name();
        let found = broken(&swarm, &here.id, &there.id).unwrap();
        let named = found.iter().find(|(n, what, detail)| *n == node && what == "firewall" && detail.contains(&said));
        let named = named.unwrap_or_else(|| panic!("{rule}: {found:?}"));
        assert!(named.2.starts_with("the firewall's chain ip other c drops"), "{named:?}");
        sh(&swarm.hosts[host], "nft delete table ip other");
        whole();
    }
}
