//! Rulesets as others make them, and what is said of them.

use std::net::IpAddr;

use super::*;

fn traffic() -> Traffic {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    Traffic {
        address: Some(ip("192.168.1.1")),
        uplink: Some("eth0".into()),
        data_path_port: Some(4789),
        members: vec![ip("192.168.1.2"), ip("192.168.1.3")],
        tasks: vec![ip("10.0.1.1"), ip("10.0.0.1")],
    }
}

fn saved(text: &str) -> Vec<Foreign> {
    let table = save::parse(text).unwrap();
    vec![Foreign { family: Family::Ip, name: "filter".into(), legacy: false, table }]
}

fn of_nft(name: &str, family: Family, objects: &str) -> Vec<Foreign> {
    let table = nft::parse(format!("{{\"nftables\": [{objects}]}}").as_bytes()).unwrap();
    vec![Foreign { family, name: name.into(), legacy: false, table }]
}

fn chain(name: &str, hook: &str, policy: &str) -> String {
    format!(r#"{{"chain": {{"name": "{name}", "type": "filter", "hook": "{hook}", "prio": 0, "policy": "{policy}"}}}}"#)
}

fn rules(chain: &str, rules: &[&str]) -> String {
    let rules = rules.iter().map(|rule| format!(r#"{{"rule": {{"chain": "{chain}", "expr": [{rule}]}}}}"#));
    rules.collect::<Vec<_>>().join(",")
}

const DOCKER: &str = r#"
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"#;

#[test]
fn dockers_policy_is_told_with_dockers_own_chain_until_that_lets_the_swarm_pass() {
    let told = judge(&saved(DOCKER), &traffic());
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = "the firewall's chain ip filter FORWARD seems to drop what comes by published ports and what other nodes \
                    send to tasks and what tasks send to other nodes and what tasks send to the outside. To let it pass: \
                    for i in fk+ flok0; do iptables -I DOCKER-USER -i $i -j ACCEPT; iptables -I DOCKER-USER -o $i -j \
                    ACCEPT; done";
    assert_eq!(told[0], expected);
    let allowed = "-A DOCKER-USER -i fk+ -j ACCEPT\n-A DOCKER-USER -o fk+ -j ACCEPT\n-A DOCKER-USER -j RETURN\n";
    assert_eq!(judge(&saved(&DOCKER.replace("-A DOCKER-USER -j RETURN\n", allowed)), &traffic()), [""; 0]);
    // One that forwards nothing but accepts everything has nothing to do with us.
    assert_eq!(judge(&saved(&DOCKER.replace(":FORWARD DROP", ":FORWARD ACCEPT")), &traffic()), [""; 0]);
}

const UFW: &str = r#"
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] -j ACCEPT "
-A ufw-not-local -j DROP
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
"#;

#[test]
fn a_host_firewall_that_lets_in_what_it_knows_drops_the_datagrams_until_their_port_is_open() {
    let told = judge(&saved(UFW), &traffic());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("FORWARD") && told[0].contains("ufw route allow in on $i"), "{told:?}");
    assert!(told[1].contains("INPUT seems to drop the datagrams of other nodes. To let it pass: ufw allow 4789/udp"));
    for open in ["-p udp -m udp --dport 4789 -j ACCEPT", "-p udp -m multiport --dports 53,4000:5000 -j ACCEPT"] {
        let open = format!("-A ufw-user-input {open}\nCOMMIT");
        assert_eq!(judge(&saved(&UFW.replace("COMMIT", &open)), &traffic()).len(), 1, "{open}");
    }
    // Where the way to the members is not known, nothing is said of it.
    let nowhere = Traffic { uplink: None, ..traffic() };
    assert!(judge(&saved(UFW), &nowhere).iter().all(|told| !told.contains("INPUT")));
    // Of one member alone: perhaps that is meant.
    let one = "-A ufw-user-input -s 192.168.1.2/32 -j ACCEPT\nCOMMIT";
    assert_eq!(judge(&saved(&UFW.replace("COMMIT", one)), &traffic()).len(), 1);
}

/// As firewalld 1.3 makes it, with its default zone.
fn firewalld(trusted: &str) -> Vec<Foreign> {
    let accept = |name: &str| {
        format!(r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "{name}"}}}}, "right": "eth0"}}}}"#)
    };
    let forward = [
        r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}"#,
        r#"{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}"#,
        r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}"#,
        r#"{"jump": {"target": "zones"}}"#,
        r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": null}"#,
        r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#,
    ];
    let zones = format!(r#"{}, {}, {{"accept": null}}"#, accept("iifname"), accept("oifname"));
    let mut zones = vec![zones.as_str()];
    zones.extend(Some(trusted).filter(|rule| !rule.is_empty()));
    let objects = [
        chain("filter_FORWARD", "forward", "accept"),
        r#"{"chain": {"name": "zones"}}"#.to_owned(),
        rules("filter_FORWARD", &forward),
        rules("zones", &zones),
    ];
    of_nft("firewalld", Family::Inet, &objects.join(","))
}

#[test]
fn firewalld_is_told_how_to_trust_the_interfaces_and_its_published_ports_pass() {
    let told = judge(&firewalld(""), &traffic());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(!told[0].contains("published ports"), "what was translated passes: {told:?}");
    assert!(told[0].ends_with(
        "firewall-cmd --permanent --zone=trusted --add-interface=flok0 --add-interface=fk+ && firewall-cmd --reload"
    ));
    let trusted = r#"{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["flok0", {"accept": null}], ["fk*", {"accept": null}]]}}}"#;
    assert_eq!(judge(&firewalld(trusted), &traffic()), [""; 0]);
}

#[test]
fn what_is_not_known_is_not_held_against_a_firewall() {
    let unknown = [
        r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@allowed"}}, {"accept": null}"#,
        r#"{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}, {"accept": null}"#,
        r#"{"xt": {"type": "match", "name": "set"}}, {"accept": null}"#,
        r#"{"limit": {"rate": 3, "per": "minute"}}, {"accept": null}"#,
        r#"{"queue": {"num": 0}}"#,
        r#"{"jump": {"target": "not-listed"}}"#,
        r#"{"something new": null}, {"accept": null}"#,
    ];
    for rule in unknown {
        let objects = format!("{},{}", chain("f", "forward", "drop"), rules("f", &[rule]));
        assert_eq!(judge(&of_nft("x", Family::Inet, &objects), &traffic()), [""; 0], "{rule}");
    }
    let known = [
        r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}, {"accept": null}"#,
        r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.9.9.9"}}, {"accept": null}"#,
        r#"{"match": {"op": "!=", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"accept": null}"#,
        r#"{"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": {"set": ["established", "related"]}}}, {"accept": null}"#,
        r#"{"counter": {"packets": 0, "bytes": 0}}"#,
    ];
    let objects = format!("{},{}", chain("f", "forward", "drop"), rules("f", &known));
    let told = judge(&of_nft("x", Family::Inet, &objects), &traffic());
    assert_eq!(told.len(), 1, "{told:?}");
    let remedy = "for i in 'fk*' flok0; do nft insert rule inet x f iifname $i accept; nft insert rule inet x f oifname $i \
                  accept; done";
    assert!(told[0].ends_with(remedy), "{told:?}");
}

#[test]
fn chains_that_lead_in_circles_or_are_endless_end() {
    let rule = |chain: &str| format!(r#"{{"jump": {{"target": "{chain}"}}}}"#);
    let (a, b) = (rule("a"), rule("b"));
    let many =
        vec![r#"{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}, {"drop": null}"#; 60_000];
    let objects = [chain("f", "forward", "drop"), rules("f", &[&a]), rules("a", &[&b]), rules("b", &[&a])].join(",");
    assert_eq!(judge(&of_nft("x", Family::Inet, &objects), &traffic()), [""; 0]);
    let objects = [chain("f", "forward", "drop"), rules("f", &many)].join(",");
    assert_eq!(judge(&of_nft("x", Family::Inet, &objects), &traffic()), [""; 0]);
}

#[test]
fn one_packet_is_dropped_where_a_rule_is_made_for_it() {
    let drop = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": {"prefix": {"addr": "10.0.1.0", "len": 24}}}}, {"drop": null}"#;
    let objects = format!("{},{}", chain("f", "forward", "accept"), rules("f", &[drop]));
    let foreign = of_nft("x", Family::Ip, &objects);
    let to = |address: &str| Packet { destinations: vec![address.parse().unwrap()], ..Packet::forwarded() };
    assert_eq!(dropping(&foreign, &to("10.0.1.5")), ["the firewall's chain ip x f"]);
    assert_eq!(dropping(&foreign, &to("10.0.2.5")), [""; 0]);
    let six = Packet { ipv6: true, ..to("fd00::1") };
    assert_eq!(dropping(&foreign, &six), [""; 0], "the table sees no IPv6");
}

#[test]
fn listings_that_are_none_are_not_judged() {
    for text in ["", "{}", "[]", r#"{"nftables": 5}"#, r#"{"nftables": [{"rule": {"chain": 5}}]}"#, "\u{0}"] {
        assert_eq!(nft::parse(text.as_bytes()), None, "{text}");
        assert_eq!(save::parse(text), None, "{text}");
    }
    assert_eq!(save::parse("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"), None);
}
