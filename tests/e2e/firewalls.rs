//! Firewalls of others beside the swarm: told where they drop what is the swarm's, mended by what is told, and left alone.

use std::path::Path;

use super::client::{at, from_beside, get, in_task, works};
use super::conditions::{all_is_well, conditions, told};
use super::lab::Host;
use super::swarm::{Swarm, Task};

const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80']
    networks: [a]
    deploy: { mode: global }
networks: { a: {} }
";

fn sh(host: &Host, script: &str) -> String {
    let output = host.command("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// From a task of the first host to the one on the second, and by the published port of the second.
fn passes(swarm: &Swarm, web: &[Task]) -> [bool; 2] {
    let (here, there) = ends(swarm, web);
    let (to, published) = (swarm.addresses(0, &there.id)[0], at(swarm, 1, 8080));
    let between = in_task(swarm, here, move || get((to, 80).into(), "/")).is_ok();
    [between, from_beside(swarm, move || get(published, "/")).is_ok()]
}

fn ends<'a>(swarm: &Swarm, web: &'a [Task]) -> (&'a Task, &'a Task) {
    let on = |host: usize| {
        let node = swarm.node_id(0, host);
        web.iter().find(|task| task.node == node).unwrap()
    };
    (on(0), on(1))
}

/// What is told to be done.
fn remedy(told: &str) -> &str {
    told.split_once("To let it pass: ").unwrap_or_else(|| panic!("{told}")).1
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_firewall_that_drops_what_is_the_swarms_is_told_until_what_is_told_was_done() {
    const RULES: &str = "nft -f - <<'END'
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
        ct state invalid drop
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 2377 accept
        udp dport 2377 accept
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname eth1 accept
    }
}
END";
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "s", WEB);
    let web = swarm.running(0, "s_web", 2);
    works("the ways", || if passes(&swarm, &web) == [true; 2] { Ok(()) } else { Err(std::io::Error::other("no")) });
    assert!(conditions(&swarm, 0).is_empty() && conditions(&swarm, 1).is_empty(), "nobody is in the way");
    sh(&swarm.hosts[1], RULES);
    assert_eq!(passes(&swarm, &web), [false; 2]);
    let forward = told(&swarm, 1, "chain inet filter forward seems to drop");
    let input = told(&swarm, 1, "chain inet filter input seems to drop");
    assert!(forward.contains("what other nodes send to tasks") && forward.contains("what comes by published ports"));
    assert!(input.contains("the datagrams of other nodes"), "{input}");
    assert!(conditions(&swarm, 0).is_empty(), "it is the other node's");
    let report = String::from_utf8(swarm.hosts[1].flok(&["network", "doctor"]).stdout).unwrap();
    assert!(report.contains(remedy(&forward)) && report.contains(remedy(&input)), "{report}");
    for line in [&forward, &input] {
        sh(&swarm.hosts[1], remedy(line));
    }
    let mended = sh(&swarm.hosts[1], "nft list table inet filter");
    works("the ways", || if passes(&swarm, &web) == [true; 2] { Ok(()) } else { Err(std::io::Error::other("no")) });
    all_is_well(&swarm, 1);
    assert_eq!(sh(&swarm.hosts[1], "nft list table inet filter"), mended, "it is theirs");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn dockers_policy_is_told_with_dockers_own_chain_in_both_kinds_of_iptables() {
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "s", WEB);
    let web = swarm.running(0, "s_web", 2);
    works("the ways", || if passes(&swarm, &web) == [true; 2] { Ok(()) } else { Err(std::io::Error::other("no")) });
    for (iptables, clear) in [("iptables", "nft delete table ip filter"), ("iptables-legacy", "true")] {
        let docker = format!(
            "{iptables} -P FORWARD DROP; {iptables} -N DOCKER-USER; {iptables} -A FORWARD -j DOCKER-USER
            {iptables} -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            {iptables} -A FORWARD -i docker0 ! -o docker0 -j ACCEPT; {iptables} -A DOCKER-USER -j RETURN"
        );
        sh(&swarm.hosts[1], &docker);
        assert_eq!(passes(&swarm, &web), [false; 2], "{iptables}");
        let line = told(&swarm, 1, "chain ip filter FORWARD");
        assert!(remedy(&line).contains(&format!("{iptables} -I DOCKER-USER -i $i -j ACCEPT")), "{line}");
        sh(&swarm.hosts[1], remedy(&line));
        works("the ways", || if passes(&swarm, &web) == [true; 2] { Ok(()) } else { Err(std::io::Error::other("no")) });
        all_is_well(&swarm, 1);
        sh(&swarm.hosts[1], clear);
    }
}

/// Each with settings of its own: what is under `/etc` is the machine's.
const WITH_OWN_SETTINGS: &str = "for dir in /etc/ufw /etc/firewalld; do
    mkdir -p /run/own$dir; cp -a $dir/. /run/own$dir; mount --bind /run/own$dir $dir
done";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn ufw_and_firewalld_are_told_by_their_own_commands_which_let_the_swarm_pass() {
    for (program, package) in
        [("/usr/sbin/ufw", "ufw"), ("/usr/sbin/firewalld", "firewalld"), ("/usr/bin/dbus-daemon", "dbus")]
    {
        assert!(Path::new(program).exists(), "{program} is missing: install Debian's {package}");
    }
    let swarm = Swarm::of(2);
    swarm.load("whoami");
    swarm.deploy(0, "s", WEB);
    let web = swarm.running(0, "s_web", 2);
    let host = &swarm.hosts[1];
    let ways = || {
        works("the ways", || if passes(&swarm, &web) == [true; 2] { Ok(()) } else { Err(std::io::Error::other("no")) })
    };
    ways();
    sh(host, WITH_OWN_SETTINGS);

    sh(host, "ufw allow 2377; ufw --force enable");
    mended_by_what_is_told(&swarm, &web, ["chain ip filter FORWARD", "chain ip filter INPUT"], "ufw ");
    sh(host, "ufw disable");
    ways();

    sh(host, "firewall-offline-cmd --add-port=2377/tcp --add-port=2377/udp");
    sh(
        host,
        "mkdir -p /run/dbus; { dbus-daemon --system --fork; firewalld --log-file /run/firewalld.log; } >/dev/null 2>&1",
    );
    works("firewalld", || match host.command("firewall-cmd").arg("--state").output()?.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other("it does not run")),
    });
    mended_by_what_is_told(
        &swarm,
        &web,
        ["chain inet firewalld filter_FORWARD", "chain inet firewalld filter_INPUT"],
        "firewall-cmd ",
    );
}

/// The second host's firewall lets nothing pass between tasks until what is told of these two chains was done.
fn mended_by_what_is_told(swarm: &Swarm, web: &[Task], chains: [&str; 2], command: &str) {
    // A published port that a task of its own node serves may pass.
    assert!(!passes(swarm, web)[0], "{command}");
    for chain in chains {
        let line = told(swarm, 1, &format!("{chain} seems to drop"));
        assert!(remedy(&line).contains(command), "{line}");
        sh(&swarm.hosts[1], remedy(&line));
    }
    works(command, || if passes(swarm, web) == [true; 2] { Ok(()) } else { Err(std::io::Error::other("no")) });
    all_is_well(swarm, 1);
}
