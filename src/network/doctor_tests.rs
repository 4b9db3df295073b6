//! Tests of the report: a node as the plan wants it, and then with one thing wrong.

use super::*;
use crate::network::names::mac_of;
use crate::network::plan::tests::{ALFA, OWN, example};
use crate::network::skeleton::Overlay;
use crate::spec::{NetworkId, NodeId};

/// Task 10 is here, 11 of the same network on ALFA.
fn seen() -> Examined {
    let world = example();
    let wanted = world.plan();
    let links = world.tasks.values().map(|task| (task.interface, true)).chain([(overlay(), true)]).collect();
    let overlay = Some(Overlay { node: OWN, address: "192.168.1.1".parse().unwrap(), port: 4789 });
    Examined {
        swarm: SwarmView { overlay, members: world.members, networks: world.networks },
        has_own_address: true,
        found: wanted.clone(),
        wanted,
        chains: true,
        links,
        tasks: world.tasks,
        published: [(Protocol::Tcp, 8080)].into(),
        taken: BTreeSet::new(),
        refused: Vec::new(),
    }
}

fn to(other: u128, node: NodeId, address: &str) -> Way {
    let pairs = vec![("10.0.1.10".parse().unwrap(), address.parse().unwrap())];
    Way { network: NetworkId(1), own: TaskId(10), other: TaskId(other), other_node: node, pairs }
}

fn broken(findings: &[Finding]) -> Vec<String> {
    let broken = findings.iter().filter(|finding| !finding.ok);
    broken.map(|finding| format!("{}: {}", finding.what, finding.detail)).collect()
}

#[test]
fn what_is_as_planned_is_well() {
    assert_eq!(broken(&node(&seen(), &[])), Vec::<String>::new());
    let way = way(&seen(), &to(11, ALFA, "10.0.1.11"));
    assert_eq!(broken(&way), Vec::<String>::new());
    let looked_at: Vec<&str> = way.iter().map(|finding| finding.what.as_str()).collect();
    let hops = ["interface", "overlay device", "member", "source", "route", "neighbour", "network", "endpoint"];
    assert_eq!(looked_at[..8], hops);
    assert_eq!(looked_at[8..], ["route", "neighbour", "forwarding"]);
}

#[test]
fn each_hop_that_is_gone_is_named() {
    type Damage = fn(&mut Examined);
    let cases: [(&str, &str, Damage); 9] = [
        ("interface", "fk5 is gone", |seen| {
            seen.links.remove(&Interface::new("fk5")).unwrap();
        }),
        ("overlay device", "UDP port 4789", |seen| {
            seen.links.insert(overlay(), false).unwrap();
        }),
        ("overlay device", "flok0 is missing", |seen| {
            seen.links.remove(&overlay());
            seen.found.vxlan = None;
        }),
        ("member", "members4 192.168.1.2", |seen| lose(seen, Set::Members4, "192.168.1.2")),
        ("endpoint", "endpoints4 10.0.1.11", |seen| lose(seen, Set::Endpoints4, "10.0.1.11")),
        ("source", "sources4 fk5 . 10.0.1.10", |seen| {
            let key = Key::Source(Interface::new("fk5"), "10.0.1.10".parse().unwrap());
            seen.found.elements.remove(&(Set::Sources4, key)).unwrap();
        }),
        ("network", "same_network4 10.0.1.0/24 . 10.0.1.0/24", |seen| {
            let subnet = "10.0.1.0/24".parse().unwrap();
            seen.found.elements.remove(&(Set::SameNetwork4, Key::Networks(subnet, subnet))).unwrap();
        }),
        ("route", "10.0.1.11 via 169.254.128", |seen| {
            seen.found.routes.remove(&(MAIN_TABLE, "10.0.1.11/32".parse().unwrap())).unwrap();
        }),
        ("forwarding", "is behind 192.168.1.2: the kernel has another", |seen| {
            seen.found.remotes.insert(mac_of(ALFA), "192.168.1.9".parse().unwrap()).unwrap();
        }),
    ];
    for (what, detail, damage) in cases {
        let mut seen = seen();
        damage(&mut seen);
        let found = broken(&way(&seen, &to(11, ALFA, "10.0.1.11")));
        assert_eq!(found.len(), 1, "{what}: {found:?}");
        assert!(found[0].starts_with(what) && found[0].contains(detail), "{detail}: {found:?}");
        assert!(!broken(&node(&seen, &[])).is_empty(), "{detail} is seen on the node as a whole");
    }
}

fn lose(seen: &mut Examined, set: Set, address: &str) {
    seen.found.elements.remove(&(set, Key::Address(address.parse().unwrap()))).unwrap();
}

#[test]
fn what_a_node_was_not_told_is_told() {
    let unknown = broken(&way(&seen(), &to(99, ALFA, "10.0.1.99")));
    assert!(unknown.iter().any(|text| text.contains("was not told that 10.0.1.99 is a task's")), "{unknown:?}");
    let elsewhere = broken(&way(&seen(), &to(11, ALFA, "10.0.1.12")));
    assert!(elsewhere.iter().any(|text| text.contains("elsewhere than at 10.0.1.12")), "{elsewhere:?}");
    let nobody = broken(&way(&seen(), &to(11, NodeId(9), "10.0.1.11")));
    assert!(nobody.iter().any(|text| text.starts_with("member: this node does not know")), "{nobody:?}");
    let mut none = seen();
    none.tasks.clear();
    assert_eq!(broken(&way(&none, &to(11, ALFA, "10.0.1.11"))).len(), 1);
}

#[test]
fn what_a_node_lacks_or_has_too_much_is_counted() {
    let mut seen = seen();
    for last in 1..=5 {
        let to = Subnet::new(IpAddr::from([10, 9, 9, last]), 32).unwrap();
        seen.found.routes.insert((MAIN_TABLE, to), Route::Unreachable);
    }
    seen.found.routes.remove(&(MAIN_TABLE, "10.0.1.11/32".parse().unwrap())).unwrap();
    seen.taken.insert((Protocol::Tcp, 443));
    seen.chains = false;
    seen.has_own_address = false;
    seen.refused.push("route 10.0.1.14/32: no such device".into());
    let conditions = [Condition::new(Concern::Port { protocol: Protocol::Tcp, port: 443 }, "nginx has 443/tcp")];
    let found = broken(&node(&seen, &conditions));
    let routes = "routes: the kernel lacks 10.0.1.11/32 in table 254; has too much 10.9.9.1/32 in table 254, 10.9.9.2/32 \
                  in table 254, 10.9.9.3/32 in table 254 and 2 more";
    assert!(found.iter().any(|text| text == routes), "{found:?}");
    for part in ["nginx has 443/tcp", "inet flok", "192.168.1.1", "no such device"] {
        assert!(found.iter().any(|text| text.contains(part)), "{part}: {found:?}");
    }
    assert_eq!(found.len(), 5);
}
