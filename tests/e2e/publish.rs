//! Published ports by the command line: ranges, ports that the swarm chooses, and what becomes of them in updates.

use super::client::{at, from_beside, get, said, works};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};

/// Published and target, as the service has them.
fn ports(host: &Host, service: &str) -> Vec<(u16, u16)> {
    let shown = host.get(&format!("/services/{service}")).unwrap();
    let number =
        |port: &serde_json::Value, key: &str| port[key].as_u64().and_then(|port| port.try_into().ok()).unwrap_or(0);
    let ports = shown["Endpoint"]["Ports"].as_array().cloned().unwrap_or_default();
    ports.iter().map(|port| (number(port, "PublishedPort"), number(port, "TargetPort"))).collect()
}

/// The same, once the swarm has chosen those left to it.
fn chosen(host: &Host, service: &str) -> Vec<(u16, u16)> {
    eventually("ports to be chosen", PATIENCE, || match ports(host, service) {
        ports if ports.iter().all(|(published, _)| *published != 0) => Ok(ports),
        ports => Err(format!("{ports:?}")),
    })
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn ranges_and_chosen_ports_are_published_and_kept_over_updates() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    let host = &swarm.hosts[0];
    host.ok(&[
        "service",
        "create",
        "--name",
        "web",
        "--publish",
        "80",
        "--publish",
        "8080-8082:80",
        "flok/whoami:latest",
    ]);
    let first = chosen(host, "web");
    assert!((30_000..=32_767).contains(&first[0].0), "{first:?}");
    assert_eq!(first[1..], [(8080, 80), (8081, 80), (8082, 80)]);
    for (published, _) in &first {
        let to = at(&swarm, 1, *published);
        let answer = works(&format!("port {published}"), || from_beside(&swarm, move || get(to, "/")));
        assert!(said(&answer, "RemoteAddr").contains("10.99.0.254"), "{answer}");
    }
    let listed = host.ok(&["service", "ls"]);
    assert!(listed.contains(&format!("*:{}->80/tcp", first[0].0)), "{listed}");

    host.ok(&["service", "update", "--detach", "--env-add", "A=1", "--publish-add", "53-54:53-54/udp", "web"]);
    let with_udp = chosen(host, "web");
    assert_eq!(with_udp, [&first[..], &[(53, 53), (54, 54)]].concat(), "what was chosen is kept");
    let listed = host.ok(&["service", "ls"]);
    assert!(listed.contains("*:53-54->53-54/udp"), "{listed}");
    host.ok(&["service", "update", "--detach", "--publish-rm", "80", "web"]);
    assert_eq!(chosen(host, "web"), [(53, 53), (54, 54)]);

    let taken =
        host.refused(&["service", "create", "--name", "other", "--publish", "50-60:50-60/udp", "flok/whoami:latest"]);
    assert!(taken.contains("port '53' is already in use by service 'web'"), "{taken}");
    for (port, part) in [
        ("8000-8010:80-81", "different lengths"),
        ("1-65535:80", "more than 1024 ports"),
        ("80/icmp", "none of tcp, udp, sctp"),
        ("9000:80,9000", "9000"),
    ] {
        let refused = host.refused(&["service", "create", "--name", "bad", "--publish", port, "flok/whoami:latest"]);
        assert!(refused.contains(part), "{port}: {refused}");
    }
    assert!(host.get("/services/bad").unwrap()["ID"].is_null() && host.get("/services/other").unwrap()["ID"].is_null());
}
